"""Local contrast across volumes: the same region in slices of the same partition is a positive as well."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_cl.losses._anchored import require_choice
from monai_cl.losses._checks import require_shape, require_whole
from monai_cl.losses._directed import Costs, added, log_sum
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._local import RegionLoss
from monai_cl.losses._rows import fixed_precision


class CrossVolumeLocalContrastiveLoss(RegionLoss):
    r"""A region's positives are the same region in the other view, and in images of its partition of other volumes.

    Anchors are regions of the first view. With :math:`M(b)` the maps that hold positives of image b (its second view,
    and the first view of images with the same partition of other volumes),

    .. math::
        L = \operatorname{mean}_{b, r, m \in M(b)} \left[-\log \frac{e^{s(f_b[r], m[r])}}{e^{s(f_b[r], m[r])} +
            \sum_{n \in N(r)} (e^{s(f_b[r], f_b[n])} + e^{s(f_b[r], m[n])})}\right]

    Regions and their negatives are those of :class:`LocalRegionContrastiveLoss`; volumes are not registered.

    Args:
        spatial_dims: 2 or 3.
        region_size: Size of a window, one for all axes or one each.
        num_negatives: Negatives of a region in each of the two maps.
        temperature: Divisor of the cosine similarities.
        gather: Look for positives in the volumes of all processes, with gradients.
        layout: ``"grid"`` or ``"tf13"``.
        corners: First voxels of the windows, (R, nd), in place of the grid.
        allow_overlap: Let negatives share voxels with their region.
        projector: Applied to the windows before they are compared.
        scale: ``"mean"``, or ``"tf1"``, 1.5 times that, as the published code divides.
        reduction: ``"mean"``; ``"sum"`` over terms; or ``"none"``, the mean over positives, (B, R).

    Shapes:
        ``f1``, ``f2`` (B, C, *S); ``partition``, ``volume_id`` (B,) integers.

    Raises:
        ValueError: If shapes disagree, a window does not fit, or an option is out of range.
        NonFiniteError: If a feature is NaN or infinite.

    References:
        Contrastive learning of global and local features, arXiv 2006.10511.

    Example:
        >>> f, loss = torch.ones(2, 4, 9, 9), CrossVolumeLocalContrastiveLoss(2, region_size=1)
        >>> loss(f, f, torch.tensor([0, 0]), torch.tensor([0, 1]))  # log(1 + 8)
        tensor(2.1972)
    """

    def __init__(
        self,
        spatial_dims: int,
        region_size: int | Sequence[int] = 3,
        num_negatives: int = 4,
        temperature: float = 0.1,
        gather: bool = False,
        *,
        layout: str = "grid",
        corners: Sequence[Sequence[int]] | Tensor | None = None,
        allow_overlap: bool = False,
        projector: nn.Module | None = None,
        scale: str = "mean",
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            spatial_dims, region_size, num_negatives, temperature, layout=layout, corners=corners,
            allow_overlap=allow_overlap, projector=projector, gather=gather, reduction=reduction,
        )  # fmt: skip
        require_choice("scale", scale, ("mean", "tf1"))
        self.scale = scale

    def forward(self, f1: Tensor, f2: Tensor, partition: Tensor, volume_id: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            f1: Maps of the first view, (B, C, *S).
            f2: Maps of the second view.
            partition: Partition of each image, (B,).
            volume_id: The volume of each image, (B,).
        """
        self.check(f1, f2)
        for name, tensor in (("partition", partition), ("volume_id", volume_id)):
            require_shape(name, tensor, (len(f1),))
            require_whole(**{name: tensor})
        regions = self.regions(f1.shape[2:])
        with fixed_precision(f1):
            ranks = find_ranks(f1, gather=self.gather)
            first, second = self.rows(f1, regions), self.rows(f2, regions)
            mine = torch.stack([partition.long(), volume_id.long()], 1).to(f1.device)
            theirs, others = gather_rows(mine, ranks), gather_rows(first, ranks)
            same = (mine[:, None, 0] == theirs[:, 0]) & (mine[:, None, 1] != theirs[:, 1])
            image, other = same.nonzero(as_tuple=True)
            image = torch.cat([torch.arange(len(f1), device=f1.device), image])
            maps = torch.cat([second, others[other]])
            return self.reduce(self._costs(first, image, maps, regions.negatives), ranks) * (
                1.5 if self.scale == "tf1" else 1.0
            )

    def _costs(self, first: Tensor, image: Tensor, maps: Tensor, negatives: Tensor) -> Costs:
        anchors, negatives = first[:, : len(negatives)], negatives.to(first.device)
        own = log_sum(anchors @ first.mT / self.temperature, negatives)[image]
        s = anchors[image] @ maps.mT / self.temperature
        terms = added(torch.logaddexp(own, log_sum(s, negatives)) - s.diagonal(dim1=1, dim2=2))
        usable = negatives.any(1).to(s.dtype).expand(len(image), -1)
        zero = s.new_zeros(anchors.shape[:2])
        return Costs(zero.index_add(0, image, terms * usable), zero.index_add(0, image, usable))
