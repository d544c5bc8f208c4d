"""Masked reconstruction: fill in what was hidden. The control that contrastive methods are compared with."""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from monai_cl.methods.base import Method
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

    Raises:
        ValueError: If the ratio is not between 0 and 1 or the block is smaller than a voxel; while running, if the
            network returns something else than maps of its image's size.

    References:
        Masked autoencoders, arXiv 2111.06377; SimMIM, arXiv 2111.09886.
    """

    tells_terms = False
    renamed: ClassVar[Mapping[str, tuple[str, ...]]] = {"head.": ("terms.reconstruction.head.",)}

    def __init__(self, network: nn.Module, *, key: str = "image", mask_ratio: float = 0.6, block_size: int = 4) -> None:
        term = MaskedReconstructionTerm(mask_ratio=mask_ratio, block_size=block_size, key=key)
        super().__init__(network, {"reconstruction": term})
