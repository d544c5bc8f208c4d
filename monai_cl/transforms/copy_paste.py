"""Copy-paste between two batches: what lies inside of a box comes from the one, all else from the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Box(NamedTuple):
    """A box of voxels.

    Attributes:
        start: First voxel along each axis.
        edges: Voxels along each axis.
    """

    start: tuple[int, ...]
    edges: tuple[int, ...]


def draw_box(size: Sequence[int], ratio: float, random: np.random.Generator) -> Box:
    """Draw where a box of ``ratio`` of each side lies; each place in which it fits is as likely, the last one too.

    Args:
        size: Size of the patch, of any dimension.
        ratio: Edge of the box as a share of the patch's, rounded to whole voxels, at least one.
        random: Source of the draw.

    Raises:
        ValueError: If ``ratio`` is not above 0 and at most 1.

    Example:
        >>> draw_box((6, 9), 2 / 3, np.random.default_rng(0)).edges
        (4, 6)
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, got {ratio!r}")
    edges = tuple(max(1, round(side * ratio)) for side in size)
    start = tuple(int(random.integers(0, side - edge, endpoint=True)) for side, edge in zip(size, edges, strict=True))
    return Box(start, edges)


def outside_of(box: Box, size: Sequence[int], device: torch.device | None = None) -> Tensor:
    r"""Mask (\*S) of a patch, true outside of the box.

    Example:
        >>> outside_of(Box((1,), (2,)), (4,)).tolist()
        [True, False, False, True]
    """
    mask = torch.ones(tuple(size), dtype=torch.bool, device=device)
    mask[tuple(slice(first, first + edge) for first, edge in zip(*box, strict=True))] = False
    return mask


def copy_paste(outer: Tensor, inner: Tensor, outside: Tensor) -> Tensor:
    r"""Take ``outer`` where ``outside`` is true and ``inner`` elsewhere, bit by bit.

    Args:
        outer: Images or labels (B, C, \*S).
        inner: The same of others.
        outside: Mask (\*S).
    """
    return torch.where(outside, outer, inner)
