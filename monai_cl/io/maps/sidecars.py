"""Unit of a map from the JSON files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_cl._files import read_json
from monai_cl.io.suffixes import stem


def stated_unit(path: Path, suffix: str, told: str) -> str:
    """The unit a sidecar states; an empty text where none does.

    Args:
        path: The map.
        suffix: Its kind.
        told: What is said of it in errors.

    Raises:
        ValueError: If a sidecar cannot be read.
    """
    for sidecar in _sidecars(path, suffix):
        try:
            content = read_json(sidecar)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read the sidecar of {told} ({type(error).__name__}); repair it") from None
        for keys in (("Units",), ("history", "output", "units")):
            value: Any = content
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if isinstance(value, str):
                return value
    return ""


def _sidecars(path: Path, suffix: str) -> list[Path]:
    """The file's own sidecar, then those it inherits: of fewer entities, in its folder and above up to the dataset."""
    own = path.with_name(f"{stem(path)}.json")
    candidates = [own]
    entities = set(stem(path).split("_"))
    for folder in list(path.parents)[:4]:
        shared = [p for p in folder.glob(f"*{suffix}.json") if p != own and set(p.stem.split("_")) <= entities]
        candidates += sorted(shared, key=lambda p: -len(p.stem.split("_")))
        if (folder / "dataset_description.json").exists():
            break
    return [p for p in candidates if p.is_file()]
