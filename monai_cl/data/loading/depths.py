"""Number of slices of a volume, from its header alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_cl.data.loading.faults import MAX_FAULTS, Faults
from monai_cl.datalist import Item
from monai_cl.io.grid import read_grid
from monai_cl.io.suffixes import is_nifti
from monai_cl.transforms.short_axis import slice_axis


def items_with_depth(
    items: Sequence[Mapping[str, Any]],
    *,
    axis: int | None = None,
    orientation: str | None = "RAS",
    max_faults: float = MAX_FAULTS,
) -> list[Item]:
    """Items of NIfTI volumes with their number of slices, of which no voxel is read.

    Args:
        items: Items as from :func:`monai_cl.datalist.load_datalist`.
        axis: Axis of the slices; by default that of :func:`monai_cl.transforms.slice_axis`, of each volume.
        orientation: Axes that a recipe brings the volumes to before slices are counted; None keeps those of the file.
        max_faults: Share of the items that may be unreadable, in [0, 1]; they are named in the log and left out.

    Returns:
        Copies of the items with ``"slice_axis"`` and ``"depth"``. They hold for recipes that leave this axis as it is;
        :func:`monai_cl.data.positioned_items` takes them further.

    Raises:
        TooManyFaultsError: If more than ``max_faults`` of the files, or all of them, are unreadable or not NIfTI.
        ValueError: If no items are given.
    """
    if not items:
        raise ValueError("at least one item is needed, got none; look at the datalist and its sections")
    faults = Faults(len(items), max_faults)
    result = [faults.prepare(dict(item), lambda one: _measured(one, axis, orientation)) for item in items]
    faults.judge()
    return [item for item in result if item is not None]


def _measured(item: Item, axis: int | None, orientation: str | None) -> Item:
    path = item["image"]
    if not isinstance(path, str) or not is_nifti(path):
        raise ValueError("only headers of NIfTI files state the depth; prepare the volumes and let SliceDataset count")
    grid = read_grid(path, to_the_end=False)
    order = _order(grid.affine, orientation)
    shape = [grid.shape[i] for i in order]
    spacing = [float(np.linalg.norm(grid.affine[:3, i])) for i in order]
    chosen = slice_axis(shape, spacing) if axis is None else axis
    return {**item, "slice_axis": chosen, "depth": shape[chosen]}


def _order(affine: np.ndarray, orientation: str | None) -> list[int]:
    """Axis of the file behind each axis of the oriented volume."""
    import nibabel

    if orientation is None:
        return [0, 1, 2]
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(orientation))
    )
    return [int(i) for i in np.argsort(turn[:, 0])]
