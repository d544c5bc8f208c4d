"""Smooth random fields of few numbers: cubic B-splines on a coarse grid, evaluated axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_BEYOND = 3  # coefficients of an axis beyond the number of its cells
_POWER = 151 / 315  # mean of the sum of squared weights of a place, along one axis


def draw_coefficients(rng: np.random.Generator, cells: Sequence[int], *, fields: int = 1) -> np.ndarray:
    """Normal coefficients (F, cells + 3) of fields with variance 1.

    Args:
        rng: Source of the draws.
        cells: Cells along each axis; the field varies over about the length of one.
        fields: Number of fields.
    """
    return rng.standard_normal((fields, *(n + _BEYOND for n in cells)), dtype=np.float32)


def smooth_fields(coefficients: np.ndarray, size: Sequence[int]) -> Tensor:
    r"""Fields of coefficients at the centres of voxels.

    .. math:: f(x) = (315 / 151)^{n/2} \sum_k c_k \prod_i B_3(x_i - k_i)

    with :math:`B_3` the cubic B-spline and :math:`x_i` in cells, so that independent normal coefficients give a
    variance of 1 in the mean over a cell.

    Args:
        coefficients: (F, cells + 3), as of :func:`draw_coefficients`.
        size: Voxels along each axis.

    Returns:
        Fields (F, \*size), float32.
    """
    fields: Tensor = torch.from_numpy(coefficients) * _POWER ** (-len(size) / 2)
    for axis, n in enumerate(size):
        weights = _weights(coefficients.shape[axis + 1] - _BEYOND, n)
        fields = torch.tensordot(fields, weights, dims=([1], [0]))  # the axis that is done goes to the end
    return fields


@lru_cache(maxsize=256)
def _weights(cells: int, size: int) -> Tensor:
    """Weights (cells + 3, size) of the coefficients at the centres of ``size`` voxels."""
    place = (np.arange(size) + 0.5) * cells / size
    first = np.minimum(place.astype(int), cells - 1)
    u = place - first
    basis = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3]) / 6
    weights = np.zeros((cells + _BEYOND, size), dtype=np.float32)
    for offset in range(_BEYOND + 1):
        weights[first + offset, np.arange(size)] = basis[offset]
    return torch.from_numpy(weights)


def draw_cells(rng: np.random.Generator, cells: tuple[int, int], dims: int) -> list[int]:
    """Numbers of cells of the axes, each between two ends."""
    return [int(n) for n in rng.integers(cells[0], cells[1] + 1, dims)]
