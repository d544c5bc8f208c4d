"""Reading a folder that somebody else may have made: as data alone, and nothing outside of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_CODE = ("$", "@", "%")  # expressions, references and macros of MONAI's configs
PNG = b"\x89PNG\r\n\x1a\n"


def inside(folder: Path, path: Path) -> bool:
    """Return whether a path is a regular file in a folder, neither by ``..`` nor by a link outside of it."""
    return below(folder, path) and path.is_file()


def below(folder: Path, path: Path) -> bool:
    """Return whether a path stays in a folder when its links are followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return False


def is_data(value: Any) -> bool:
    """Return whether a value of a config is a number, truth value, text without code, None, or a list of these."""
    if isinstance(value, list | tuple):
        return all(map(is_data, value))
    if isinstance(value, str):
        return not value.lstrip().startswith(_CODE)
    return value is None or isinstance(value, bool | int | float)


def own_picture(folder: Path, name: str) -> bytes | None:
    """PNG of a folder; ``None`` if absent, not a PNG, or outside of the folder."""
    path = folder / name
    if not inside(folder, path):
        return None
    content = path.read_bytes()
    return content if content.startswith(PNG) else None
