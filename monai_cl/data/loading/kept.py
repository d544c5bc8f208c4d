"""Slices kept by curation, located in prepared volumes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from monai_cl.data.curation.slices import kept_slices
from monai_cl.transforms.stored import StoredVolume

_REMEDY = "use a recipe that leaves slices as they are, as with `spacing: [1.4, 1.4, 0]`, or set kept_slices to false"


def kept_starts(volume: Mapping[str, Any], *, axis: int, slab: int = 1, case: str = "") -> Sequence[int]:
    """First slices of the slabs that may be drawn: those that ``monai-cl curate`` kept, or all where it has not been.

    A datalist counts slices along the last axis of the file. Where these run the other way in the prepared volume, as
    after a change of orientation, they are counted from the other end. A kept slice so near the end that no slab
    begins there stands for the last slab.

    Args:
        volume: A prepared item, with ``image`` (C, *S) and the fields of the datalist.
        axis: Spatial axis of the slices.
        slab: Slices of a slab.
        case: Name of the volume for errors.

    Returns:
        Indices along the axis, rising.

    Raises:
        ValueError: If the prepared volume has another number of slices than the file, or its axis is none of the
            file's slices, or the datalist does not hold enough to decide.
    """
    depth = int(volume["image"].shape[1 + axis])
    if "slices" not in volume:
        return range(depth - slab + 1)
    count, step = _count(volume), _step(volume)
    if count is None or step is None:
        raise ValueError(
            f"the datalist names kept slices of {case}, but not of how many or which way they run; curate it again "
            "with `monai-cl curate`, or set kept_slices to false"
        )
    if count != depth:
        raise ValueError(
            f"{case} must have {count} slices along axis {axis}, of which the datalist names those to keep, the "
            f"prepared volume has {depth}: the recipe resamples, crops or pads it along its slices; {_REMEDY}"
        )
    index = np.asarray(kept_slices(volume), dtype=np.intp)
    if not index.size or index[-1] >= depth:
        raise ValueError(f"slices of {case} must be below {depth}, got {volume['slices']!r}; curate the study again")
    along = _along(volume["image"], axis, step, case)
    index = index if along > 0 else depth - 1 - index
    return [int(start) for start in np.unique(np.minimum(index, depth - slab))]


def _count(volume: Mapping[str, Any]) -> int | None:
    """Slices of the file."""
    if "slices_of" in volume:
        return int(volume["slices_of"])
    if "shape" in volume:  # as scanned
        return int(volume["shape"][2])
    weight = float(volume.get("weight", 0))  # the share that was kept
    return round(len(kept_slices(volume)) / weight) if weight > 0 else None


def _step(volume: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Step between neighbouring slices of the file, in mm."""
    if "slice_step" in volume:
        return np.asarray(volume["slice_step"], dtype=np.float64)
    original = volume["image"].meta.get("original_affine") if isinstance(volume["image"], MetaTensor) else None
    return None if original is None else np.asarray(original, dtype=np.float64)[:3, 2]


def _along(image: Any, axis: int, step: NDArray[np.float64], case: str) -> float:
    """Length of a step from slice to slice of the file along the prepared axis: below 0 where it turns."""
    if not isinstance(image, (MetaTensor, StoredVolume)):
        return 1.0
    columns = np.asarray(image.affine, dtype=np.float64)[:3, :3]
    shares = (columns / np.linalg.norm(columns, axis=0)).T @ step
    if int(np.abs(shares).argmax()) != axis:
        raise ValueError(
            f"slices of {case} must lie along axis {axis} of the prepared volume, where the datalist names those to "
            f"keep, got axis {int(np.abs(shares).argmax())}; set slice_axis to that, or kept_slices to false"
        )
    return float(shares[axis])
