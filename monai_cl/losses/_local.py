"""Base of the two losses of regions: options, the regions of a map, rows of a map."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from monai_cl.losses._anchored import AnchoredLoss, require_choice
from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.losses._rows import unit_rows

# Published by hand for 13 regions: negatives of each, as row and column in quarters of the map.
_ANCHORS = "00 02 04 20 22 24 40 42 44 11 13 31 33"
_TABLES = {
    3: "02 11 12 20 21|00 04 11 13 22|02 12 13 23 24|00 11 22 40 31|11 13 31 33 20|04 22 44 13 33|20 21 42 31 32|"
    "22 40 44 31 33|23 24 42 33 32|00 02 20 22 13|02 04 11 22 24|20 22 40 42 33|22 24 42 44 31",
    1: "02 20 22 11 13|00 04 22 11 13|02 22 24 31 13|00 22 40 11 31|11 13 31 33 20|04 22 44 13 33|20 22 42 31 11|"
    "22 40 44 31 33|22 24 42 33 31|00 02 20 22 13|02 04 22 24 33|20 22 40 02 11|22 24 42 44 13",
}


class Regions(NamedTuple):
    """Windows of a map and the negatives of each.

    Attributes:
        corners: First voxel of each window, (M, nd); the first R are anchors, the others negatives only.
        negatives: Which windows are negatives of which anchor, (R, M).
    """

    corners: Tensor
    negatives: Tensor


def grid_corners(size: Sequence[int], window: Sequence[int]) -> Tensor:
    """Corners at {0, 1/2, 1} and {1/4, 3/4} of the room in each axis: 13 in two dimensions, 35 in three."""
    room = [s - k for s, k in zip(size, window, strict=True)]
    shares = [*product((0.0, 0.5, 1.0), repeat=len(size)), *product((0.25, 0.75), repeat=len(size))]
    return torch.tensor([[int(f * r) for f, r in zip(share, room, strict=True)] for share in shares])


def nearest_regions(corners: Tensor, window: Sequence[int], number: int, *, allow_overlap: bool) -> Regions:
    """The ``number`` nearest other windows of each, ties by index; none that shares voxels unless allowed."""
    step = (corners[:, None] - corners).abs()
    usable = ~torch.eye(len(corners), dtype=torch.bool)
    if not allow_overlap:
        usable &= (step >= torch.tensor(window)).any(-1)
    far = step.square().sum(-1).masked_fill(~usable, torch.iinfo(torch.long).max)
    chosen = far.argsort(dim=1, stable=True)[:, :number]
    negatives = torch.zeros_like(usable).scatter_(1, chosen, True) & usable
    return Regions(corners, negatives)


def published_regions(size: Sequence[int], window: Sequence[int], number: int) -> Regions:
    """The published 13 regions and their first ``number`` negatives, some of which are no anchors."""
    room = [s - 4 if window[0] == 3 else s - 1 for s in size]
    rows = [row.split() for row in _TABLES[window[0]].split("|")]
    names = list(dict.fromkeys([*_ANCHORS.split(), *(name for row in rows for name in row)]))
    corners = torch.tensor([[int(int(q) / 4 * r) for q, r in zip(name, room, strict=True)] for name in names])
    negatives = torch.zeros(len(rows), len(names), dtype=torch.bool)
    for i, row in enumerate(rows):
        negatives[i, [names.index(name) for name in row[:number]]] = True
    return Regions(corners, negatives)


def take_windows(maps: Tensor, corners: Tensor, window: Sequence[int]) -> Tensor:
    """Windows of (B, C, *S) as rows (B, M, voxels * C), position before channel."""
    size = maps.shape[2:]
    offsets = torch.cartesian_prod(*(torch.arange(k) for k in window)).reshape(-1, len(window))
    at = corners.cpu()[:, None] + offsets  # (M, voxels, nd)
    stride = torch.tensor([int(torch.tensor(size[i + 1 :]).prod()) for i in range(len(size))])
    flat = (at * stride).sum(-1).flatten().to(maps.device)
    taken = maps.flatten(2).index_select(2, flat)
    windows: Tensor = taken.reshape(*taken.shape[:2], *at.shape[:2])
    return windows.permute(0, 2, 3, 1).flatten(2)


class RegionLoss(AnchoredLoss):
    """A loss of windows of feature maps (B, C, *S)."""

    def __init__(
        self,
        spatial_dims: int,
        region_size: int | Sequence[int],
        num_negatives: int,
        temperature: float,
        *,
        layout: str,
        corners: Sequence[Sequence[int]] | Tensor | None,
        allow_overlap: bool,
        projector: nn.Module | None,
        gather: bool,
        reduction: str,
    ) -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
        sizes = (region_size,) * spatial_dims if isinstance(region_size, int) else tuple(region_size)
        if len(sizes) != spatial_dims or min(sizes) < 1:
            raise ValueError(f"region_size must be a positive size or {spatial_dims} of them, got {region_size!r}")
        if num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, got {num_negatives!r}")
        require_choice("layout", layout, ("grid", "tf13"))
        if layout == "tf13" and (spatial_dims != 2 or sizes not in ((1, 1), (3, 3)) or num_negatives > 5):
            raise ValueError(
                "layout='tf13' is a table of 5 negatives for 2-D maps and region_size 1 or 3, "
                f"got spatial_dims={spatial_dims}, region_size={region_size!r}, num_negatives={num_negatives}"
            )
        self.spatial_dims = spatial_dims
        self.region_size = sizes
        self.num_negatives = num_negatives
        self.layout = layout
        self.corners = None if corners is None else torch.as_tensor(corners, dtype=torch.long)
        self.allow_overlap = allow_overlap
        self.projector = projector

    def regions(self, size: Sequence[int]) -> Regions:
        """Windows of maps of spatial size ``size``, and the negatives of each.

        Raises:
            ValueError: If a window does not fit.
        """
        corners, window = self.corners, self.region_size
        if self.layout == "tf13" and corners is None:
            result = published_regions(size, window, self.num_negatives)
        else:
            corners = grid_corners(size, window) if corners is None else corners
            result = nearest_regions(corners, window, self.num_negatives, allow_overlap=self.allow_overlap)
        last = result.corners + torch.tensor(window)
        if bool((result.corners < 0).any()) or bool((last > torch.tensor(tuple(size))).any()):
            raise ValueError(f"regions of size {window} must lie inside the map, got a map of size {tuple(size)}")
        return result

    def check(self, f1: Tensor, f2: Tensor) -> None:
        """Raise ``ValueError`` unless both are finite maps of one shape."""
        if f1.ndim != self.spatial_dims + 2 or not f1.is_floating_point():
            raise ValueError(
                f"f1 must be feature maps (B, C, *S) with {self.spatial_dims} spatial axes, got {tuple(f1.shape)}"
            )
        require_shape("f2", f2, tuple(f1.shape))
        require_finite(f1=f1, f2=f2)

    def rows(self, maps: Tensor, regions: Regions) -> Tensor:
        """Windows as rows of unit length, (B, M, D)."""
        taken = take_windows(maps, regions.corners, self.region_size)
        taken = taken if taken.dtype == torch.float64 else taken.float()
        return unit_rows(taken if self.projector is None else self.projector(taken))
