"""A light decoder from the coarsest map of an encoder alone, without skip connections."""

from collections.abc import Sequence

from monai.networks.layers import Conv, Norm
from torch import nn


class PlainDecoder(nn.Sequential):
    r"""Transposed convolutions from the coarsest map to the size of the image, and a linear map in each voxel.

    Without skip connections nothing fine reaches the output past the coarsest map: what is restored must be in it.
    Each stage halves the channels, normalises by instance and cuts negative values down.

    Args:
        spatial_dims: Spatial axes.
        channels: Channels of the map.
        stride: By how much the map is coarser than the image along each axis.
        out_channels: Channels of the image.
        fewest: Fewest channels of a stage.

    Example:
        >>> import torch
        >>> PlainDecoder(3, 32, (8, 8, 4), 1)(torch.rand(1, 32, 2, 2, 2)).shape
        torch.Size([1, 1, 16, 16, 8])
    """

    def __init__(
        self, spatial_dims: int, channels: int, stride: Sequence[int], out_channels: int, *, fewest: int = 8
    ) -> None:
        layers: list[nn.Module] = []
        for factors in _stages(stride):
            following = max(channels // 2, fewest)
            up = Conv[Conv.CONVTRANS, spatial_dims](channels, following, kernel_size=factors, stride=factors)
            layers += [up, Norm[Norm.INSTANCE, spatial_dims](following, affine=True), nn.LeakyReLU(0.01)]
            channels = following
        layers.append(Conv[Conv.CONV, spatial_dims](channels, out_channels, kernel_size=1))
        super().__init__(*layers)


def _stages(stride: Sequence[int]) -> list[tuple[int, ...]]:
    """Factors of each stage along each axis, whose product over the stages is the stride; coarse to fine.

    Example:
        >>> _stages((8, 4, 6))
        [(2, 1, 1), (2, 2, 2), (2, 2, 3)]
    """
    factors = [_primes(side) for side in stride]
    count = max(map(len, factors), default=0)
    padded = [[1] * (count - len(each)) + each for each in factors]
    return list(zip(*padded, strict=True))


def _primes(number: int) -> list[int]:
    result, factor = [], 2
    while number > 1:
        while number % factor == 0:
            result.append(factor)
            number //= factor
        factor += 1
    return result
