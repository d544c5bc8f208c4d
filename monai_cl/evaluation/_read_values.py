"""Keys and values of a file of settings, checked, with messages that say what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl import bundles
from monai_cl._files import read_yaml


def suggestion(name: object, valid: Sequence[str]) -> str:
    """What to say after an unknown name: the closest, and all."""
    close = difflib.get_close_matches(str(name), valid, n=1)
    return (f", did you mean {close[0]!r}?" if close else "") + f" (valid: {', '.join(valid)})"


def load(source: Path) -> dict[str, Any]:
    """The content of a YAML file."""
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}; the tutorials hold one to start from, curve_hippocampus.yaml")
    content = read_yaml(source, "the file of a curve")
    if not isinstance(content, dict):
        raise ValueError(f"{source} must hold keys and values, got a {type(content).__name__}")
    return content


def check_keys(content: Mapping[Any, Any], valid: Sequence[str], where: str) -> None:
    """Refuse a key that is not known, and name the closest."""
    for key in content:
        if key not in valid:
            raise ValueError(f"unknown key {key!r} in {where}{suggestion(key, valid)}")


def require(content: Mapping[str, Any], keys: Sequence[str], source: Path) -> None:
    """Refuse a file that lacks a key."""
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"{source} must have the keys {', '.join(keys)}; missing: {', '.join(missing)}")


def read_section(value: Any, keys: Sequence[str], where: str) -> dict[str, Any] | None:
    """A section of the file; ``None`` where it is switched off by ``false``."""
    if value is False:
        return None
    content = {} if value is None or value is True else value
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be false or hold the keys {', '.join(keys)}, got {value!r}")
    check_keys(content, keys, where)
    return content


def read_settings(value: Any, where: str, refused: Sequence[str]) -> dict[str, Any]:
    """Values of ids of a bundle, none of which the curve sets itself."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{where} must hold ids of the bundle's configs and their values, got {value!r}")
    wrong = [str(key) for key in value if key in refused]
    if wrong:
        raise ValueError(
            f"{where} must leave {', '.join(wrong)} to the curve, which sets "
            f"{'it' if len(wrong) == 1 else 'them'} alike for every arm; take {'it' if len(wrong) == 1 else 'them'} out"
        )
    return {str(key): item for key, item in value.items()}


def read_budgets(value: Any, where: str) -> tuple[int | str, ...]:
    """Numbers of labels, or `all`."""
    listed = value if isinstance(value, list | tuple) else [value]
    if not listed:
        raise ValueError(f"{where} must hold at least one number of labels, got {value!r}")
    for each in listed:
        if each != "all" and (not isinstance(each, int) or isinstance(each, bool) or each < 1):
            raise ValueError(f"{where} must be numbers of labels from 1, or all, got {each!r}")
    return tuple(sorted(set(listed), key=lambda budget: float("inf") if budget == "all" else budget))


def read_subset(value: Any, budgets: Sequence[int | str], where: str) -> tuple[int | str, ...]:
    """Budgets that are among those of the curve."""
    chosen = read_budgets(value, f"{where}.budgets")
    unknown = [str(budget) for budget in chosen if budget not in budgets]
    if unknown:
        raise ValueError(
            f"{where}.budgets must be among the budgets {', '.join(map(str, budgets))}, got {', '.join(unknown)}"
        )
    return chosen


def read_integers(value: Any, where: str) -> tuple[int, ...]:
    """Numbers that differ."""
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(isinstance(each, int) and not isinstance(each, bool) for each in listed):
        raise ValueError(f"{where} must be whole numbers, got {value!r}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"{where} must be different numbers, got {value!r}")
    return tuple(listed)


def read_texts(value: Any, where: str) -> tuple[str, ...]:
    """Names."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        raise ValueError(f"{where} must be names or paths, got {value!r}")
    return tuple(listed)


def read_number(value: Any, where: str, *, low: float, high: float = float("inf")) -> float:
    """A number between two bounds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{where} must be a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def read_flag(value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{where} must be true or false, got {value!r}")
    return value


def read_bundle(value: Any) -> Path:
    """Folder of a bundle, by its path or its name."""
    folder = Path(str(value))
    if (folder / "configs").is_dir():
        return folder
    return bundles.path(str(value))
