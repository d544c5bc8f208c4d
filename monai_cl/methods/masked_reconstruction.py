"""Masked reconstruction: fill in what was hidden. The control that contrastive methods are compared with."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from monai_cl.methods._fitting import Size, spatial_dims
from monai_cl.methods.base import Method
from monai_cl.methods.mask_curriculum import MaskCurriculum
from monai_cl.methods.restoration_terms import MaskedReconstructionTerm, block_mask

__all__ = ["MaskedReconstruction", "block_mask"]


class MaskedReconstruction(Method):
    r"""Hide blocks of a crop and let the whole network, decoder included, restore them.

    .. math:: L = \frac{1}{|M|} \sum_{v \in M} (r(f(x \odot (1 - m)))_v - x_v)^2

    with ``M`` the hidden voxels, :math:`f` the segmentation network and :math:`r` a convolution of size one from its
    output channels to the image's. Exactly the same number of blocks is hidden in every crop.

    Args:
        network: Any network whose output has the size of its input; of several maps the main one is learned from.
        key: Key of the crops (B, C, \*S) in a batch.
        mask_ratio: Share of the blocks that is hidden.
        block_size: Edge length of a block in voxels; the last block of an axis may be cut.
        curriculum: ``"none"``, blocks are hidden by chance; or what points at blocks that are to be hidden, more of
            them as training goes on: ``"error"``, where restoration has gone wrong so far, ``"attention"``, where the
            encoder looks, or ``"both"`` (:class:`monai_cl.methods.MaskCurriculum`).
        image_size: Edge lengths of the crops, for a curriculum.
        **options: Further options of the curriculum.

    Raises:
        ValueError: If the ratio is not between 0 and 1, the block is smaller than a voxel or an option is out of range;
            while running, if the network returns something else than maps of its image's size.

    References:
        Masked autoencoders, arXiv 2111.06377; SimMIM, arXiv 2111.09886; curriculum: OpenUS.
    """

    tells_terms = False
    renamed: ClassVar[Mapping[str, tuple[str, ...]]] = {"head.": ("terms.reconstruction.head.",)}

    def __init__(
        self,
        network: nn.Module,
        *,
        key: str = "image",
        mask_ratio: float = 0.6,
        block_size: int = 4,
        curriculum: str | None = "none",
        image_size: Size | None = None,
        **options: Any,
    ) -> None:
        chosen = None
        if curriculum not in (None, "none"):
            if image_size is None:
                raise ValueError("a curriculum needs image_size, the size of the crops, got None")
            chosen = MaskCurriculum(
                image_size,
                block_size,
                driven_by=curriculum,
                mask_ratio=mask_ratio,
                spatial_dims=spatial_dims(network),
                **options,
            )
        elif options:
            raise ValueError(f"options of a curriculum need one, got {sorted(options)} and curriculum='none'")
        term = MaskedReconstructionTerm(mask_ratio=mask_ratio, block_size=block_size, key=key, curriculum=chosen)
        super().__init__(network, {"reconstruction": term})
