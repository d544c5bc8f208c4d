"""Kept slices of each volume, and their record in a datalist."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.data.curation.entries import Entry
from monai_cl.data.curation.reduction import THRESHOLDS, Criterion, Embed
from monai_cl.data.curation.slice_hash import hamming
from monai_cl.data.curation.volume_marks import VolumeMarks


def kept_slices(item: Mapping[str, Any]) -> list[int]:
    """Indices of the kept slices of a curated item, along the last axis of the file.

    Example:
        >>> kept_slices({"slices": "0-2,5,7-8"})
        [0, 1, 2, 5, 7, 8]
    """
    runs = (part.split("-") for part in str(item["slices"]).split(",") if part)
    return [index for run in runs for index in range(int(run[0]), int(run[-1]) + 1)]


def runs_of(indices: NDArray[np.intp]) -> str:
    """Indices as runs, ``0-2,5``: text, so that batches of items stay batches."""
    parts = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts if len(part))


def criteria_of(entries: Sequence[Entry], method: str, scope: str, embed: Embed | None) -> list[Criterion]:
    """Criteria of a volume, or one for all."""
    stacks = [_features(entry.marks, method, embed) for entry in entries if entry.marks]
    if scope == "dataset" and stacks:
        stacks = [np.concatenate(stacks)]
    return [Criterion(method, stack) for stack in stacks]


def _features(marks: VolumeMarks, method: str, embed: Embed | None) -> NDArray[Any]:
    if method == "hash":
        return marks.hashes
    if marks.small is None:
        raise RuntimeError(f"method {method!r} needs the slices, which were not kept")
    return Criterion.of(method, marks.small, embed).features


def reduce_slices(entries: Sequence[Entry], criteria: Sequence[Criterion], threshold: float) -> None:
    """Note the slices that stay, and drop volumes of which none does."""
    stands_for = [criterion.reduce(threshold) for criterion in criteria]
    kept = np.concatenate([one == np.arange(len(one)) for one in stands_for]) if stands_for else np.zeros(0, bool)
    start = 0
    for entry in entries:
        count = len(entry.marks.hashes) if entry.marks else 0
        entry.slices = np.flatnonzero(kept[start : start + count])
        start += count
        if not entry.slices.size:
            entry.reason = "every slice is like one kept before"


def median_distance(stacks: Sequence[NDArray[np.uint64]]) -> float | None:
    """Median distance of neighbouring slices in bits."""
    steps = [hamming(one[1:], one[:-1]) for one in stacks if len(one) > 1]
    return float(np.median(np.concatenate(steps))) if steps else None


def counts_by_threshold(criteria: Sequence[Criterion], method: str, threshold: float) -> dict[float, int]:
    """Number of slices that each threshold would keep, the one in use among them."""
    tried = sorted({*THRESHOLDS[method], threshold}, reverse=method not in ("hash", "every-n"))
    return {one: sum(int((c.reduce(one) == np.arange(len(c.features))).sum()) for c in criteria) for one in tried}
