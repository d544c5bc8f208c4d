"""Questions that a run asks about its data before it starts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from monai_cl.data.datalist import is_cache, read_datalist, shared_subjects


def digest(datalist: str | Path) -> str:
    """SHA-256 of a datalist or of a cache's manifest, to tell whether a run goes on with the data it began with."""
    if not is_cache(datalist):
        return hashlib.sha256(Path(datalist).read_bytes()).hexdigest()
    content = read_datalist(datalist)
    del content["cache"]["monai_cl"]  # which version looked at it last says nothing of the data
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_study(datalist: str | Path, *, out_channels: int) -> None:
    """Refuse a study that cannot give an honest result.

    Raises:
        ValueError: If the datalist's ``labels`` need another number of output channels, or a patient is in both
            ``training`` and ``validation`` (or ``test``).
    """
    content = read_datalist(datalist)
    labels = content.get("labels") or {}
    needed = max((int(label) for label in labels), default=out_channels - 1) + 1
    if needed != out_channels:
        raise ValueError(
            f"out_channels must be {needed} for the labels of {datalist} ({', '.join(map(str, labels.values()))}), "
            f"got {out_channels}; add `--out_channels {needed}`"
        )
    for held_out in ("validation", "test"):
        both = shared_subjects(_items(content, "training"), _items(content, held_out))
        if both:
            raise ValueError(
                f"no patient may be in both training and {held_out}, got {len(both)} ({', '.join(map(str, both[:5]))})"
                f" in {datalist}; move all volumes of a patient to one side"
            )


def check_labels(volumes: Dataset[Mapping[str, Any]], *, out_channels: int) -> None:
    """Refuse prepared volumes with labels that the network has no channel for, whatever the datalist says of them.

    Raises:
        ValueError: If a label is below 0 or not below ``out_channels``; names the volumes.
    """
    wrong: dict[str, list[int]] = {}
    for index in range(len(volumes)):  # type: ignore[arg-type]
        volume = volumes[index]
        values = [int(value) for value in torch.unique(torch.as_tensor(volume["label"])).tolist()]
        if not all(0 <= value < out_channels for value in values):
            wrong[str(volume.get("case", index))] = values
    if wrong:
        listed = "; ".join(
            f"{case} has {', '.join(map(str, values[:9]))}" for case, values in sorted(wrong.items())[:5]
        )
        most = max(value for values in wrong.values() for value in values)
        raise ValueError(
            f"labels must be 0 to {out_channels - 1} for {out_channels} output channels, {len(wrong)} of "
            f"{len(volumes)} volumes have others ({listed}); "  # type: ignore[arg-type]
            + (f"add `--out_channels {most + 1}` or mend" if most >= out_channels else "mend")
            + " the masks"
        )


def check_axes(volumes: Dataset[Mapping[str, Any]], crop_size: Sequence[int]) -> None:
    """Refuse crops of another number of axes than the prepared volumes have.

    Raises:
        ValueError: If they differ.
    """
    axes = torch.as_tensor(volumes[0]["image"]).ndim - 1
    if len(crop_size) != axes:
        raise ValueError(f"crop_size must have the {axes} axes of the volumes, got {tuple(crop_size)}")


def class_names(datalist: str | Path) -> dict[int, str]:
    """Names of the classes above background that a datalist gives."""
    labels = read_datalist(datalist).get("labels") or {}
    return {int(label): str(name) for label, name in labels.items() if int(label) > 0}


def _items(content: Mapping[str, Any], section: str) -> list[Mapping[str, Any]]:
    # Decathlon lists test images as bare strings
    return [{"image": item} if isinstance(item, str) else item for item in content.get(section, [])]
