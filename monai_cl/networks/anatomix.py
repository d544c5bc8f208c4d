"""The U-Net of anatomix, written from its description, with a head for classes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class AnatomixUNet(nn.Module):
    r"""U-Net of one flat list of layers: reflected borders, batch norm, max pooling, nearest-neighbour upsampling.

    A stem, two convolutions a level, skip connections by concatenation, and a last convolution to ``features``
    channels, as its authors pretrain it; ``head``, a convolution of size one, makes classes of them. Names of
    tensors are theirs: ``model.<index>.*``.

    Args:
        spatial_dims: Number of spatial axes.
        in_channels: Channels of the image.
        out_channels: Classes with the background; ``None`` leaves the head out.
        features: Channels before the head.
        width: Channels of the stem; they double with every level.
        levels: Number of poolings.

    References:
        Learning General-Purpose Biomedical Volume Representations using Randomized Synthesis, arXiv 2411.02372.

    Example:
        >>> AnatomixUNet(2, width=4, levels=2)(torch.zeros(1, 1, 16, 16)).shape
        torch.Size([1, 2, 16, 16])
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int | None = 2,
        *,
        features: int = 16,
        width: int = 16,
        levels: int = 4,
    ) -> None:
        super().__init__()
        self.spatial_dims, self.levels = spatial_dims, levels
        self._skips: list[int] = []  # index of the last layer of each level of the encoder
        self._ups: list[int] = []  # index of each upsampling
        layers: list[nn.Module] = self._block(in_channels, width)
        channels = width
        for level in range(levels):
            wider = channels if level == 0 else 2 * channels
            layers += self._block(channels, wider) + self._block(wider, wider)
            self._skips.append(len(layers) - 1)
            layers.append(_POOL[spatial_dims](2))
            channels = wider
        layers += self._block(channels, 2 * channels) + self._block(2 * channels, 2 * channels)
        self._bottom = len(layers) - 1
        channels *= 2
        for level in reversed(range(levels)):
            narrower = width * 2**level
            self._ups.append(len(layers))
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            layers += self._block(channels + narrower, narrower) + self._block(narrower, narrower)
            channels = narrower
        layers.append(self._conv(channels, features))
        self.model = nn.Sequential(*layers)
        self.head = nn.Identity() if out_channels is None else _CONV[spatial_dims](features, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        r"""Map (B, out_channels, \*S) of an image (B, in_channels, \*S) whose sides ``2 ** levels`` divides."""
        maps = self.encode(x)
        result: Tensor = self.head(self.model[-1](self.decode(maps)[-1]))
        return result

    def encode(self, x: Tensor) -> list[Tensor]:
        """Maps of the encoder, fine to coarse."""
        maps = []
        for index, layer in enumerate(self.encoder_layers()):
            x = layer(x)
            if index in (*self._skips, self._bottom):
                maps.append(x)
        return maps

    def decode(self, maps: Sequence[Tensor], blocks: int | None = None) -> list[Tensor]:
        """Maps of the decoder's blocks, coarse to fine, from those of the encoder."""
        x, result = maps[-1], []
        for number, skip in zip(range(self.levels)[:blocks], maps[-2::-1], strict=False):
            x = self.decoder_block(number, x, skip)
            result.append(x)
        return result

    def decoder_block(self, number: int, x: Tensor, skip: Tensor) -> Tensor:
        """Map of one block of the decoder, from the map below and that of the encoder."""
        up, *convolutions = self.decoder_layers(number)
        x = torch.cat([skip, up(x)], dim=1)
        for layer in convolutions:
            x = layer(x)
        return x

    def encoder_layers(self) -> list[nn.Module]:
        """Layers of the encoder."""
        return [self.model[index] for index in range(self._bottom + 1)]

    def encoder_taps(self) -> list[nn.Module]:
        """Layers whose outputs are the maps of the encoder."""
        return [self.model[index] for index in (*self._skips, self._bottom)]

    def decoder_layers(self, number: int) -> list[nn.Module]:
        """Layers of a block of the decoder, counted from the bottom."""
        start = self._ups[number]
        end = self._ups[number + 1] if number + 1 < self.levels else len(self.model) - 1
        return [self.model[index] for index in range(start, end)]

    def _conv(self, old: int, new: int) -> nn.Module:
        return _CONV[self.spatial_dims](old, new, 3, padding="same", padding_mode="reflect", bias=False)

    def _block(self, old: int, new: int) -> list[nn.Module]:
        return [self._conv(old, new), _NORM[self.spatial_dims](new), nn.ReLU(inplace=False)]
