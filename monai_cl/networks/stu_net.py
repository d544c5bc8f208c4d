"""STU-Net, written from its description: residual blocks in nnU-Net's layout, with nearest-neighbour upsampling."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Residual block: two convolutions with instance norm; a shortcut of another size has a convolution of size one."""

    def __init__(self, old: int, new: int, *, stride: int | Sequence[int] = 1, short: bool = False) -> None:
        super().__init__()
        steps = stride if isinstance(stride, int) else tuple(stride)
        self.conv1 = nn.Conv3d(old, new, 3, stride=steps, padding=1)  # type: ignore[arg-type]
        self.norm1 = nn.InstanceNorm3d(new, affine=True)
        self.conv2 = nn.Conv3d(new, new, 3, padding=1)
        self.norm2 = nn.InstanceNorm3d(new, affine=True)
        self.conv3 = nn.Conv3d(old, new, 1, stride=steps) if short else None  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map of the block."""
        y = functional.leaky_relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.leaky_relu(y + (x if self.conv3 is None else self.conv3(x)))


class Upsampling(nn.Module):
    """Nearest-neighbour upsampling and a convolution of size one."""

    def __init__(self, old: int, new: int, factor: int | Sequence[int]) -> None:
        super().__init__()
        self.factor = float(factor) if isinstance(factor, int) else tuple(map(float, factor))
        self.conv = nn.Conv3d(old, new, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Larger map."""
        result: Tensor = self.conv(functional.interpolate(x, scale_factor=self.factor, mode="nearest"))
        return result


class STUNet(nn.Module):
    r"""U-Net of residual blocks whose depth and width grow together; names of tensors are those of its authors.

    Sizes: S (16 to 256 channels), B (32 to 512, the default), L (64 to 1024, two blocks a level), H (96 to 1536,
    three blocks).

    Args:
        in_channels: Channels of the image.
        out_channels: Classes with the background.
        depth: Blocks of each level.
        dims: Channels of each level.
        strides: Reduction from each level to the next, one for all axes or one an axis.
        deep_supervision: Return maps of all levels of the decoder in training, the main one first.

    References:
        STU-Net, arXiv 2304.06716.

    Example:
        >>> STUNet(1, 2, depth=[1, 1], dims=[4, 8], strides=[2])(torch.zeros(1, 1, 8, 8, 8)).shape
        torch.Size([1, 2, 8, 8, 8])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        depth: Sequence[int] = (1, 1, 1, 1, 1, 1),
        dims: Sequence[int] = (32, 64, 128, 256, 512, 512),
        strides: Sequence[int | Sequence[int]] = (2, 2, 2, 2, 2),
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if not len(dims) == len(depth) == len(strides) + 1:
            raise ValueError(
                f"dims and depth must have one more entry than strides, got {len(dims)} and {len(depth)} for "
                f"{len(strides)}"
            )
        self.strides, self.deep_supervision = list(strides), deep_supervision
        self.conv_blocks_context = nn.ModuleList([_stage(in_channels, dims[0], depth[0])])
        for level, stride in enumerate(strides, start=1):
            self.conv_blocks_context.append(_stage(dims[level - 1], dims[level], depth[level], stride))
        self.upsample_layers = nn.ModuleList()
        self.conv_blocks_localization = nn.ModuleList()
        self.seg_outputs = nn.ModuleList()
        for level in reversed(range(len(strides))):
            self.upsample_layers.append(Upsampling(dims[level + 1], dims[level], strides[level]))
            self.conv_blocks_localization.append(_stage(2 * dims[level], dims[level], depth[level]))
            self.seg_outputs.append(nn.Conv3d(dims[level], out_channels, 1))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        r"""Map (B, out_channels, \*S), or maps with deep supervision in training."""
        maps = self.encode(x)
        found: list[Tensor] = []
        x = maps[-1]
        for number, skip in enumerate(maps[-2::-1]):
            x = self.decoder_block(number, x, skip)
            if self.deep_supervision and self.training:
                found.insert(0, self.seg_outputs[number](x))
        if found:
            return found
        result: Tensor = self.seg_outputs[-1](x)
        return result

    def encode(self, x: Tensor) -> list[Tensor]:
        """Maps of the encoder, fine to coarse."""
        maps = []
        for stage in self.conv_blocks_context:
            x = stage(x)
            maps.append(x)
        return maps

    def decoder_block(self, number: int, x: Tensor, skip: Tensor) -> Tensor:
        """Map of one block of the decoder, counted from the bottom."""
        result: Tensor = self.conv_blocks_localization[number](
            torch.cat([self.upsample_layers[number](x), skip], dim=1)
        )
        return result


def _stage(old: int, new: int, depth: int, stride: int | Sequence[int] = 1) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(old, new, stride=stride, short=True), *(ResidualBlock(new, new) for _ in range(depth - 1))
    )
