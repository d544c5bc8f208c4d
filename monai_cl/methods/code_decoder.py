"""Decoder from a code to an image, in two or three dimensions."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn


class CodeDecoder(nn.Module):
    """Linear layer to a coarse map, then doubled in size step by step, with a convolution each.

    Args:
        code: Width of the code.
        size: Edge lengths of the image.
        channels: Channels of the image.
        width: Channels of the finest map; each coarser one has twice as many, at most eight times.
        doublings: Times the map is doubled; what goes beyond ``size`` at the end is cut off.
    """

    def __init__(self, code: int, size: Sequence[int], channels: int, *, width: int = 8, doublings: int = 3) -> None:
        super().__init__()
        dims = len(size)
        self.size = tuple(size)
        self.start = tuple(math.ceil(n / 2**doublings) for n in size)
        widths = [width * 2 ** min(level, 3) for level in range(doublings, -1, -1)]
        self.first = nn.Linear(code, widths[0] * math.prod(self.start))
        blocks: list[nn.Module] = []
        for coarse, fine in pairwise(widths):
            blocks += [
                nn.Upsample(scale_factor=2), Conv[Conv.CONV, dims](coarse, fine, 3, padding=1),
                Norm[Norm.INSTANCE, dims](fine, affine=True), nn.LeakyReLU(0.1),
            ]  # fmt: skip
        self.blocks = nn.Sequential(*blocks)
        self.last = Conv[Conv.CONV, dims](widths[-1], channels, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        """Images (N, channels, *size) of codes (N, D)."""
        coarse = self.first(code).unflatten(1, (-1, *self.start))
        image: Tensor = self.last(self.blocks(coarse))
        cut: list[Any] = [..., *(slice(0, n) for n in self.size)]
        return image[tuple(cut)]
