"""The ICBM152 tissue maps on the grid of a phantom: shares of grey matter, white matter and fluid, distance to them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

# Field of view inside the 197 x 233 x 189 mm template: 168 x 216 x 168 mm, a multiple of 8 voxels at 3 mm.
FIRST_VOXEL = (14, 9, 0)
FIELD_OF_VIEW = (168, 216, 168)
HEAD_MARGIN = 12  # mm on every side; then 192 x 240 x 192 mm, of the same centre
_SUBARACHNOID_MM = 2
_DISTANCE_GRID = 2.0  # mm


@dataclass(frozen=True)
class Grid:
    """Voxels of a phantom: isotropic, over the brain or over the whole head.

    Attributes:
        spacing: Voxel size in millimetres, 1 to 12.
        margin: Millimetres added to the field of view of the brain on every side.

    Raises:
        ValueError: If the spacing is outside 1 to 12 mm.
    """

    spacing: float
    margin: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.spacing <= 12:
            raise ValueError(f"spacing must be between 1 and 12 mm (the template has 1 mm), got {self.spacing!r}")
        object.__setattr__(self, "spacing", float(self.spacing))

    @property
    def extent(self) -> tuple[int, ...]:
        """Field of view in millimetres."""
        return tuple(length + 2 * self.margin for length in FIELD_OF_VIEW)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return tuple(math.ceil(length / self.spacing - 1e-6) for length in self.extent)

    @property
    def affine(self) -> Tensor:
        """World of the template: the first voxel spans [start - 1/2, start - 1/2 + spacing] in template voxels."""
        affine = torch.diag(torch.tensor([self.spacing, self.spacing, self.spacing, 1.0], dtype=torch.float64))
        first = torch.tensor(FIRST_VOXEL, dtype=torch.float64) - self.margin
        affine[:3, 3] = full_template()[1] + first - 0.5 + 0.5 * self.spacing
        return affine


@lru_cache(maxsize=4)
def template_fractions(grid: Grid) -> Tensor:
    """Fractions of the template on a grid, (3, X, Y, Z): the mean of the 1 mm maps over each voxel, exactly."""
    reduced = full_template()[0]
    for axis in range(3):
        weights = averaging_matrix(FIELD_OF_VIEW[axis], grid.spacing, grid.margin)
        reduced = torch.movedim(torch.tensordot(weights, reduced, dims=([1], [axis + 1])), 0, axis + 1)
    return reduced.contiguous()


def averaging_matrix(size: int, spacing: float, margin: int = 0) -> Tensor:
    """Matrix (coarse, fine) of the share that each 1 mm cell has in the volume of a coarse cell."""
    coarse = math.ceil((size + 2 * margin) / spacing - 1e-6)
    left = torch.arange(coarse, dtype=torch.float64)[:, None] * spacing - margin
    fine = torch.arange(size, dtype=torch.float64)[None, :]
    overlap = torch.minimum(left + spacing, fine + 1) - torch.maximum(left, fine)
    return (overlap.clamp(min=0) / spacing).float()


@lru_cache(maxsize=1)
def distance_outside() -> tuple[Tensor, Grid]:
    """Distance in mm from the space inside the skull, (1, X, Y, Z), 0 within, and the grid it lives on."""
    grid = Grid(_DISTANCE_GRID, HEAD_MARGIN)
    outside = template_fractions(grid).sum(0) < 0.5
    distance = ndimage.distance_transform_edt(outside.numpy(), sampling=grid.spacing)
    return torch.from_numpy(distance.astype(np.float32))[None], grid


@lru_cache(maxsize=1)
def full_template() -> tuple[Tensor, Tensor]:
    """Fractions of grey matter, white matter and fluid at 1 mm (3, 168, 216, 168), and the origin of the template."""
    datasets = _nilearn_datasets()
    grey_image = datasets.load_mni152_gm_template(resolution=1)
    grey = np.asarray(grey_image.dataobj, dtype=np.float32)
    white = np.asarray(datasets.load_mni152_wm_template(resolution=1).dataobj, dtype=np.float32)
    inside = np.asarray(datasets.load_mni152_brain_mask(resolution=1).dataobj) > 0
    # The six neighbours; the mask does not reach the faces of the template except the lower one.
    inside = ndimage.binary_dilation(inside | (grey + white > 0.1), iterations=_SUBARACHNOID_MM)
    fluid = np.clip(1 - grey - white, 0, 1) * inside
    window = tuple(slice(a, a + n) for a, n in zip(FIRST_VOXEL, FIELD_OF_VIEW, strict=True))
    fractions = torch.stack([torch.from_numpy(np.ascontiguousarray(m[window])) for m in (grey, white, fluid)])
    return fractions, torch.from_numpy(np.asarray(grey_image.affine, dtype=np.float64)[:3, 3])


def to_grid(millimetres: Tensor, spacing: float) -> Tensor:
    """Voxel coordinates, 0 at the centre of the first voxel, of points in mm from the first corner of a grid."""
    return millimetres / spacing - 0.5


def lattice(extent: Sequence[int], step: float) -> list[int]:
    """Shape of a lattice of cells of ``step`` mm over a field of view."""
    return [round(length / step) for length in extent]


def _nilearn_datasets() -> Any:
    try:
        from nilearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the brain phantom needs the ICBM152 maps in nilearn: pip install 'monai_cl[demo]'"
        ) from error
    return datasets
