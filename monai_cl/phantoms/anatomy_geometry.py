"""Geometry of a view of a random anatomy: turned, scaled, shifted and bent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms._anatomy_checks import require_counts, require_ranges
from monai_cl.phantoms.anatomy_shapes import random_rotation
from monai_cl.phantoms.smooth_fields import draw_cells, draw_coefficients, smooth_fields


@dataclass(frozen=True)
class ViewGeometry:
    """Drawn geometry: a place x of the view shows the place matrix x + shift + bend(x) of the anatomy.

    Attributes:
        matrix: Rotation times scale (nd, nd).
        shift: Shift (nd,).
        bend: Coefficients (nd, cells + 3) of the displacement, amplitude included.
    """

    matrix: np.ndarray
    shift: np.ndarray
    bend: np.ndarray


@dataclass(frozen=True, kw_only=True)
class AnatomyGeometry:
    """Ranges of the geometry of views. Lengths are shares of half the longest edge of a view.

    Attributes:
        rotation: Largest angle in each plane of two axes, radians.
        scale: Logarithm of the factor on lengths: above 0 a view shows more, and all of it smaller.
        shift: Largest shift along an axis.
        elastic: Greatest amplitude of the displacement.
        elastic_cells: Fewest and most cells of the displacement along an axis.

    Raises:
        ValueError: If a range is none.
    """

    rotation: float = 0.35
    scale: tuple[float, float] = (-0.3, 0.25)
    shift: float = 0.15
    elastic: float = 0.06
    elastic_cells: tuple[int, int] = (2, 5)

    def __post_init__(self) -> None:
        require_ranges(self, "scale")
        require_counts(self, "elastic_cells")
        for name in ("rotation", "shift", "elastic"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")

    def draw(self, rng: np.random.Generator, dims: int) -> ViewGeometry:
        """Draw the geometry of one view of a number of axes."""
        matrix = random_rotation(rng, dims, self.rotation) * np.exp(rng.uniform(*self.scale))
        shift = rng.uniform(-self.shift, self.shift, dims)
        bend = draw_coefficients(rng, draw_cells(rng, self.elastic_cells, dims), fields=dims)
        return ViewGeometry(matrix, shift, (bend * rng.uniform(0, self.elastic)).astype(np.float32))


def source_places(geometry: ViewGeometry, size: Sequence[int], box: Sequence[int], unit: float) -> Tensor:
    r"""Places that the voxels of a view show.

    Args:
        geometry: The geometry.
        size: Voxels of the view along each axis.
        box: Voxels of the label map along each axis.
        unit: Voxels of a length of 1, of both alike.

    Returns:
        Indices of voxels in the label map (nd, \*size), float32; 0 is the centre of its first voxel.
    """
    matrix = torch.from_numpy(geometry.matrix).float()
    places = smooth_fields(geometry.bend, size) * unit
    places += torch.from_numpy(geometry.shift * unit + (np.asarray(box) - 1) / 2).float().reshape(-1, *[1] * len(size))
    for axis, n in enumerate(size):  # column by column of the matrix, which needs no grid of all places
        steps = (torch.arange(n) - (n - 1) / 2)[None] * matrix[:, axis, None]  # (nd, n)
        places += steps.reshape(-1, *[n if other == axis else 1 for other in range(len(size))])
    return places
