"""Faces of packages that load a part when it is first asked for."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any


def face(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make ``__getattr__``, ``__dir__`` and ``__all__`` of a package from its imports under ``if TYPE_CHECKING:``.

    The imports stand once, in the form that type checkers and readers know (``import X as X`` gives a name on), and
    none of them is carried out before one of its names is used: listing a folder of scans then needs neither torch nor
    MONAI. Modules of the package are attributes of it as well, as if they had been imported.

    Args:
        package: ``__name__`` of the package.

    Returns:
        The two functions of PEP 562, and the names.

    Example:
        >>> import monai_cl.losses
        >>> from monai_cl.losses import NTXentLoss
        >>> "NTXentLoss" in dir(monai_cl.losses)
        True
    """
    origins = stated_imports(package)

    def __getattr__(name: str) -> Any:
        if name in origins:
            value = getattr(importlib.import_module(origins[name]), name)
        elif not name.startswith("__") and importlib.util.find_spec(f"{package}.{name}") is not None:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        setattr(sys.modules[package], name, value)  # asked for once
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *origins})

    return __getattr__, __dir__, sorted(origins)


def stated_imports(package: str) -> dict[str, str]:
    """Module of each name that a package imports under ``if TYPE_CHECKING:``, none of which is imported for it."""
    spec = importlib.util.find_spec(package)
    source = getattr(spec.loader, "get_source", lambda _: "")(package) if spec else ""
    blocks = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    stated = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in stated for alias in node.names}
