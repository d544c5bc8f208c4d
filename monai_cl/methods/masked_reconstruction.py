"""Masked reconstruction: fill in what was hidden. The control that contrastive methods are compared with."""

from typing import Any

import torch
from torch import Tensor, nn

from monai_cl.methods.base import Method
from monai_cl.networks import input_channels, segmenter


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

    def __init__(self, network: nn.Module, *, key: str = "image", mask_ratio: float = 0.6, block_size: int = 4) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be between 0 and 1, got {mask_ratio!r}")
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1 voxel, got {block_size!r}")
        self.network = segmenter(network)
        self.key = key
        self.mask_ratio = mask_ratio
        self.block_size = block_size
        channels, spatial_dims = _output(network)
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
        self.head = convolution(channels, input_channels(network), kernel_size=1)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of crops.

        Returns:
            ``loss``, the mean squared error over hidden voxels, and ``visible``, the same over the others (not
            optimised), both 0-dim float32.
        """
        image: Tensor = batch[self.key]
        hidden = block_mask(image, ratio=self.mask_ratio, block_size=self.block_size)
        restored = self.head(self._main_map(image * ~hidden))
        error = (restored.float() - image.float()).square()
        mask = hidden.expand_as(error)
        return {"loss": error[mask].mean(), "visible": error[~mask].mean().detach()}

    def _main_map(self, image: Tensor) -> Tensor:
        output = self.network(image)
        maps = output if isinstance(output, list) else [output]
        fits = [isinstance(one, Tensor) and one.ndim == image.ndim for one in maps]
        if not all(fits) or maps[0].shape[2:] != image.shape[2:] or maps[0].shape[1] != self.head.in_channels:
            raise ValueError(
                f"network must return maps of {self.head.in_channels} channels, the main one of the size of its image, "
                f"{type(self.network).__name__} returns something else; take another network, such as SegResNet"
            )
        main: Tensor = maps[0]
        return main


def block_mask(image: Tensor, *, ratio: float, block_size: int) -> Tensor:
    r"""Random blocks to hide: (B, 1, \*S) for images (B, C, \*S), the same number of blocks in each.

    Example:
        >>> mask = block_mask(torch.zeros(2, 1, 8, 8), ratio=0.5, block_size=4)
        >>> mask.sum(dim=(1, 2, 3)).tolist()
        [32, 32]
    """
    size = image.shape[2:]
    grid = [-(-s // block_size) for s in size]
    blocks = int(torch.tensor(grid).prod())
    hidden = round(ratio * blocks)
    order = torch.rand(len(image), blocks, device=image.device).argsort(1).argsort(1)  # rank of each block
    mask = (order < hidden).reshape(len(image), 1, *grid)
    for axis in range(len(grid)):
        mask = mask.repeat_interleave(block_size, dim=axis + 2)
    window = (slice(None), slice(None), *(slice(0, s) for s in size))
    return mask[window]


def _output(network: nn.Module) -> tuple[int, int]:
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    weights = [m for m in network.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d, *transposed))]
    if not weights:
        raise ValueError(f"{type(network).__name__} has no convolution; its output channels cannot be told")
    return weights[-1].out_channels, weights[-1].weight.ndim - 2
