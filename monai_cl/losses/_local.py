"""Base of the two losses of regions: options, the regions of a map, rows of a map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_cl.losses._anchored import AnchoredLoss, require_choice
from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.losses._regions import Regions, grid_corners, nearest_regions, published_regions, take_windows
from monai_cl.losses._rows import unit_rows


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
            found = published_regions(size, window, self.num_negatives)
        else:
            corners = grid_corners(size, window) if corners is None else corners
            found = nearest_regions(corners, window, self.num_negatives, allow_overlap=self.allow_overlap)
        last = found.corners + torch.tensor(window)
        if bool((found.corners < 0).any()) or bool((last > torch.tensor(tuple(size))).any()):
            raise ValueError(f"regions of size {window} must lie inside the map, got a map of size {tuple(size)}")
        return found

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
