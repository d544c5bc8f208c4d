"""Steps of a bundle: which config files, which ids they know, which command runs them."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from monai_cl import bundles
from monai_cl._overrides import is_known, lay
from monai_cl._words import quoted

if TYPE_CHECKING:
    from monai.bundle import ConfigParser
    from torch import nn

TIMING = Path(__file__).with_name("timing.yaml")
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
PROGRAM = "monai/bundle/__main__.py"  # what a command line looks like to bundles.check_command_line


@dataclass(frozen=True)
class Step:
    """Step of a curve: a ``python -m monai.bundle run`` without its overrides.

    Attributes:
        bundle: Bundle root.
        files: Config files, the later laid on the earlier.
        base: Number of files that are the step's own; those after them are overlays, which may be meant for all steps.
        timed: Whether the overlay that measures the steps' time is laid on top.
    """

    bundle: Path
    files: tuple[Path, ...]
    base: int
    timed: bool = False

    @classmethod
    def of(cls, bundle: Path, configs: Sequence[str], overlays: Sequence[str], *, timed: bool = False) -> Step:
        """The step of these configs and overlays, given by name or path."""
        return cls(bundle, tuple(_config_file(bundle, name) for name in (*configs, *overlays)), len(configs), timed)

    def knows(self, key: str) -> bool:
        """Return whether an override of ``key`` has an effect: its id exists, or may be a component's argument."""
        return _knows(self.files, key)

    def pick(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that are of this step: its own config files know them, whatever an overlay holds."""
        return {key: value for key, value in settings.items() if _knows(self.files[: self.base], key)}

    def check(self, overrides: Mapping[str, Any]) -> None:
        """Refuse overrides of unknown ids.

        Raises:
            ValueError: With the closest ids.
        """
        bundles.check_command_line([PROGRAM, *self.arguments(overrides)[2:]])

    def arguments(self, overrides: Mapping[str, Any]) -> list[str]:
        """Arguments of the interpreter that runs this step."""
        files = [str(file) for file in (*self.files, *([TIMING] if self.timed else []))]
        given = {"config_file": files, **overrides}
        return ["-m", "monai.bundle", "run", *(f"--{key}={_text(value)}" for key, value in given.items())]

    def value(self, key: str, overrides: Mapping[str, Any]) -> Any:
        """The resolved value of an id."""
        return _value(self.files, key, json.dumps(dict(overrides), sort_keys=True))

    def network(self, overrides: Mapping[str, Any]) -> nn.Module:
        """The network, newly initialised."""
        network: nn.Module = _overridden(self.files, overrides).get_parsed_content("network_def")
        return network

    def digest(self) -> dict[str, str]:
        """SHA-256 of the content of each config file without comments, shortened."""
        return dict(_digest(self.files))


def command(arguments: Sequence[str]) -> list[str]:
    """The whole command."""
    return [sys.executable, *arguments]


def in_words(arguments: Sequence[str]) -> str:
    """The command as one gives it in a shell."""
    return " ".join(["python", *(quoted(argument) for argument in arguments)])


def _text(value: Any) -> str:
    """Text that the command line of MONAI reads back as this very value."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value not in ("None", "True", "False"):
        return value
    return repr(value)


@functools.cache
def _knows(files: tuple[Path, ...], key: str) -> bool:
    return is_known(key, _parser(files))


def _config_file(bundle: Path, name: str) -> Path:
    inside = bundle / "configs" / f"{name.removesuffix('.yaml')}.yaml"
    if inside.is_file():
        return inside
    if Path(name).is_file():
        return Path(name)
    available = ", ".join(sorted(file.stem for file in (bundle / "configs").glob("*.yaml")))
    raise ValueError(f"a config or overlay must be a file or one of {bundle.name}'s ({available}), got {name!r}")


def _read(files: tuple[Path, ...]) -> ConfigParser:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    return parser


def _overridden(files: tuple[Path, ...], overrides: Mapping[str, Any]) -> ConfigParser:
    parser = _read(files)
    lay(overrides, parser)
    return parser


# a curve asks for the same few things once for each of its cells


@functools.lru_cache(maxsize=64)
def _parser(files: tuple[Path, ...]) -> ConfigParser:
    return _read(files)


@functools.lru_cache(maxsize=256)
def _value(files: tuple[Path, ...], key: str, overrides: str) -> Any:
    return _overridden(files, json.loads(overrides)).get_parsed_content(key)


@functools.lru_cache(maxsize=64)
def _digest(files: tuple[Path, ...]) -> tuple[tuple[str, str], ...]:
    contents = [(file.name, yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files]
    return tuple(
        (name, hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16])
        for name, content in contents
    )
