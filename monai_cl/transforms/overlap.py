"""Overlap of crops with the cells of a grid."""

from collections.abc import Sequence

import torch
from torch import Tensor


def overlap_fractions(
    centers: Tensor | Sequence[Sequence[float]],
    grid: Sequence[int],
    crop_size: Sequence[float],
    *,
    base_size: Sequence[float] | None = None,
) -> Tensor:
    r"""Share of each crop's volume inside each base cell.

    Cell :math:`g` of axis :math:`a` is :math:`[g b_a, (g+1) b_a)`; a crop with centre :math:`c` covers
    :math:`[c_a - r_a/2, c_a + r_a/2)`. Then

    .. math:: o_a[g] = \max(0, \min(c_a + r_a/2, (g+1) b_a) - \max(c_a - r_a/2, g b_a)) / r_a, \qquad
        y_{(i,j,l)} = o_0[i]\, o_1[j]\, o_2[l]

    so rows sum to one for crops inside the grid, and to the share inside for others. With one layer of cells along
    an axis that the crop fills, this is the area overlap of the published two-dimensional form.

    Args:
        centers: Centres in voxels from the grid's first corner, (S, nd).
        grid: Number of cells along each axis.
        crop_size: Edge lengths of a crop in voxels.
        base_size: Edge lengths of a cell in voxels; those of a crop when left out.

    Returns:
        Fractions (S, K), K the product of ``grid`` with the last axis running fastest.

    Raises:
        ValueError: If lengths disagree or a size is not positive.

    References:
        VoCo, arXiv 2402.17300 (area overlap in a plane of cells).

    Example:
        >>> overlap_fractions([[8.0, 4.0]], grid=(2, 1), crop_size=(8, 8))   # halfway between two cells
        tensor([[0.5000, 0.5000]])
    """
    c = torch.as_tensor(centers)
    c = c if c.dtype == torch.float64 else c.float()
    base_size = crop_size if base_size is None else base_size
    nd = len(grid)
    if c.ndim != 2 or c.shape[1] != nd or len(crop_size) != nd or len(base_size) != nd:
        raise ValueError(
            f"centers (S, {nd}), crop_size and base_size must match the {nd} axes of grid {tuple(grid)}, got "
            f"centers {tuple(c.shape)}, crop_size {tuple(crop_size)}, base_size {tuple(base_size)}"
        )
    if min(*grid, *crop_size, *base_size) <= 0:
        raise ValueError(
            f"grid, crop_size and base_size must be positive, got {tuple(grid)}, {tuple(crop_size)}, {tuple(base_size)}"
        )
    shares = _axis_shares(c, grid, crop_size, base_size)
    result = shares[0]
    for share in shares[1:]:  # over at most three axes, never over crops or cells
        result = (result[:, :, None] * share[:, None, :]).flatten(1)  # s = crop, k = cell
    return result


def _axis_shares(c: Tensor, grid: Sequence[int], crop: Sequence[float], base: Sequence[float]) -> Sequence[Tensor]:
    """Share of a crop in each cell along each axis, (S, cells): what lies below an edge, less the edge before.

    The edges of all axes are in one row, so that few operations do for all.
    """
    edges = [[cell * float(b) for cell in range(n + 1)] for n, b in zip(grid, base, strict=True)]
    axes = [axis for axis, n in enumerate(grid) for _ in range(n + 1)]
    edge, size = c.new_tensor([e for row in edges for e in row]), c.new_tensor([float(crop[axis]) for axis in axes])
    below = ((edge - c[:, axes]) / size + 0.5).clamp(0, 1)
    within = below[:, 1:] - below[:, :-1]
    starts = [sum(n + 1 for n in grid[:axis]) for axis in range(len(grid))]
    return [within[:, start : start + n] for start, n in zip(starts, grid, strict=True)]
