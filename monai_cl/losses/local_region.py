"""Local contrast: each region of a view against other regions, with the same region of the other view as positive."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_cl.losses._directed import Costs, added, log_sum
from monai_cl.losses._gather import find_ranks
from monai_cl.losses._local import RegionLoss
from monai_cl.losses._rows import fixed_precision


class LocalRegionContrastiveLoss(RegionLoss):
    r"""Contrast of a region against other regions of its image, with the same region of the other view as positive.

    With :math:`f_v[r]` the voxels and channels of window r in view v, :math:`N(r)` the negatives of r and
    :math:`s` the cosine over the temperature,

    .. math::
        L = \operatorname{mean}_{b, r, v} \left[-\log \frac{e^{s(f_v[r], f_w[r])}}{e^{s(f_v[r], f_w[r])} +
            \sum_{n \in N(r)} (e^{s(f_v[r], f_1[n])} + e^{s(f_v[r], f_2[n])})}\right], \quad w \ne v

    The windows lie at {0, 1/2, 1} and at {1/4, 3/4} of the room in each axis: 13 in two dimensions, 35 in three.
    Negatives are the nearest others that share no voxel; below a map size of 5 windows fewer of them may exist. A
    region without any is skipped as an anchor, counted in ``skipped`` and left out of the mean.
    The two views must show the same place at the same index. No map leaves its process: the loss is one of each image.

    Args:
        spatial_dims: 2 or 3.
        region_size: Size of a window, one for all axes or one each.
        num_negatives: Negatives of a region.
        temperature: Divisor of the cosine similarities.
        layout: ``"grid"``, or ``"tf13"``, the published table of 13 regions, which never reaches the last row.
        corners: First voxels of the windows, (R, nd), in place of the grid.
        allow_overlap: Let negatives share voxels with their region.
        projector: Applied to the windows (voxels * C values, position before channel) before they are compared.
        symmetric: Both views as anchors; else the first.
        gather: Count anchors over all processes, so that the mean is theirs where batches differ in size.
        reduction: ``"mean"``; ``"sum"`` over anchors; or ``"none"``, (B, anchors), first view first.

    Shapes:
        ``f1``, ``f2`` (B, C, *S).

    Raises:
        ValueError: If shapes disagree, a window does not fit, or an option is out of range.
        NonFiniteError: If a feature is NaN or infinite.

    References:
        Contrastive learning of global and local features, arXiv 2006.10511.

    Example:
        >>> LocalRegionContrastiveLoss(2, region_size=1)(torch.ones(1, 4, 9, 9), torch.ones(1, 4, 9, 9))  # log(1 + 10)
        tensor(2.3979)
    """

    def __init__(
        self,
        spatial_dims: int,
        region_size: int | Sequence[int] = 3,
        num_negatives: int = 5,
        temperature: float = 0.1,
        *,
        layout: str = "grid",
        corners: Sequence[Sequence[int]] | Tensor | None = None,
        allow_overlap: bool = False,
        projector: nn.Module | None = None,
        symmetric: bool = True,
        gather: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            spatial_dims, region_size, num_negatives, temperature, layout=layout, corners=corners,
            allow_overlap=allow_overlap, projector=projector, gather=gather, reduction=reduction,
        )  # fmt: skip
        self.symmetric = symmetric

    def forward(self, f1: Tensor, f2: Tensor) -> Tensor:
        """Compute the loss of the maps of two views, (B, C, *S) twice."""
        self.check(f1, f2)
        regions = self.regions(f1.shape[2:])
        count, windows = regions.negatives.shape
        with fixed_precision(f1):
            first, second = self.rows(f1, regions), self.rows(f2, regions)
            keys = torch.cat([first, second], dim=1)
            anchors = torch.cat([first[:, :count], second[:, :count]], dim=1) if self.symmetric else first[:, :count]
            s = anchors @ keys.mT / self.temperature
            others = regions.negatives.to(s.device).repeat(2 if self.symmetric else 1, 2)
            same = torch.arange(count, device=s.device)
            positive = torch.cat([same + windows, same]) if self.symmetric else same + windows
            s_positive = s.gather(2, positive.expand(len(s), -1)[..., None])[..., 0]
            weight = others.any(1).to(s.dtype).expand(len(s), -1)
            cost = added(log_sum(s, others) - s_positive) * weight
            return self.reduce(Costs(cost, weight), find_ranks(f1, gather=self.gather))
