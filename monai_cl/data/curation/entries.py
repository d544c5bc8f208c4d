"""The volumes of a study while it is curated."""

import os
from base64 import b64encode
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from monai_cl._cores import threads as allowed_threads
from monai_cl.data.curation.volume_marks import VolumeMarks, mark
from monai_cl.datalist import first_image, items_of, load_datalist, section_names


@dataclass
class Entry:
    """A volume of the study and what became of it.

    Args:
        section: Its section.
        item: Its item.
        marks: Fingerprints that identify it; ``None`` where it could not be read.
        group: Number of the patient or, through duplicates, patients it belongs to.
        reason: Why it was dropped; empty where it is kept.
        like: The volume it repeats.
        slices: Indices of the kept slices along the last axis; ``None`` for all.
    """

    section: str
    item: dict[str, Any]
    marks: VolumeMarks | None
    group: int = -1
    reason: str = ""
    like: str = ""
    slices: NDArray[np.intp] | None = None

    @property
    def name(self) -> str:
        """Path of the image, the first of several."""
        return str(first_image(self.item["image"]))


def read_entries(
    source: Path,
    content: Mapping[str, Any],
    dataset_dir: str | os.PathLike[str] | None,
    method: str,
    workers: int | None,
    console: Console | None,
) -> list[Entry]:
    """Mark every volume of the study."""
    names = section_names(content)
    listed = [(name, dict(item)) for name in names for item in items_of(content, name)]
    result = {
        (name, _key(raw)): item["image"]
        for name in names
        for raw, item in zip(
            _distinct(items_of(content, name)), load_datalist(source, name, dataset_dir=dataset_dir), strict=True
        )
    }
    keep_slices = method in ("ssim", "mi", "embedding", "every-n")
    with ThreadPoolExecutor(workers or allowed_threads()) as pool:
        work = pool.map(lambda one: _marks(result[one[0], _key(one[1])], keep_slices), listed)
        seen = track(
            work, "reading volumes", total=len(listed), console=console, transient=True, disable=console is None
        )
        entries = [Entry(name, item, marks) for (name, item), marks in zip(listed, seen, strict=True)]
    for entry in entries:
        if entry.marks is None:
            entry.reason = "unreadable"
    return entries


def _marks(image: Any, keep_slices: bool) -> VolumeMarks | None:
    from monai_cl.transforms.load import LoadVolume

    try:
        volume = LoadVolume()(image)
        return mark(volume[0].numpy(), np.asarray(volume.affine), keep_slices=keep_slices)  # type: ignore[attr-defined]
    except (ValueError, OSError):
        return None


def _distinct(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({os.path.normpath(_key(item)): item for item in reversed(list(items))}.values())[::-1]


def _key(item: Mapping[str, Any]) -> str:
    image = item["image"]
    return "|".join(image) if isinstance(image, list) else str(image)


def marked(entry: Entry) -> dict[str, Any]:
    """The item with what it is recognised by."""
    if entry.marks is None:
        return entry.item
    marks = {"content": entry.marks.content, "fingerprint": entry.marks.fingerprint.tobytes().hex()}
    marks["coarse"] = b64encode(entry.marks.coarse.tobytes()).decode("ascii")
    return {**entry.item, **marks, "group": entry.group}
