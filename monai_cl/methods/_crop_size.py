"""Whether crops of a size can pass through a network, and how wide the pooled features of its encoder are."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from monai_cl.networks import encoder_features, encoder_stride, input_channels, pool_pyramid


def pooled_width(network: nn.Module, crop_size: int | Sequence[int], *, pool_size: int, levels: str = "all") -> int:
    """Width of the pooled features of crops of a size.

    Raises:
        ValueError: If the network is unknown, or cannot take crops of this size.
    """
    size = _sides(crop_size, _spatial_dims(network), network)
    maps = _tried(network, size, levels)
    pooled: Tensor = pool_pyramid(maps, pool_size)
    return pooled.shape[1]


class FittingImages:
    """Refuses images that an encoder cannot take, once for each shape.

    Args:
        network: The network.
        size: A size that is known to pass.
    """

    def __init__(self, network: nn.Module, size: int | Sequence[int]) -> None:
        self.channels = input_channels(network)
        self._known = {_sides(size, _spatial_dims(network), network)}

    def __call__(self, network: nn.Module, images: Tensor, what: str) -> None:
        """Raise ``ValueError`` unless ``images`` (..., C, *S) have the network's channels and a size it can take.

        Args:
            network: The network that was given to the constructor.
            images: The images.
            what: What their size is called in a configuration.
        """
        dims = len(next(iter(self._known)))
        channels, size = images.shape[-dims - 1], tuple(images.shape[-dims:])
        if channels != self.channels:
            raise ValueError(
                f"images must have the {self.channels} input channels of {type(network).__name__}, got {channels}; "
                f"build the network with in_channels={channels}"
            )
        if size not in self._known:
            _tried(network, size, "all", what, decoder=False)
            self._known.add(size)


def _tried(
    network: nn.Module, size: tuple[int, ...], levels: str, what: str = "crop_size", *, decoder: bool = True
) -> list[Tensor]:
    """Maps of the encoder, without values.

    Tried on a copy that lets go of its values, so that nothing is computed, and in training mode: some networks take
    a size in evaluation that their normalisation refuses in training, with one voxel left. The decoder is tried too,
    since fine-tuning will give the network crops of the same kind.
    """
    trial = deepcopy(network).to("meta").train()
    if hasattr(trial, "use_vae"):  # the branch of SegResNetVAE takes one size alone, and is no part of the features
        setattr(trial, "use_vae", False)  # noqa: B010 - to mypy an attribute of a module is a module
    image = torch.zeros(2, input_channels(trial), *size, device="meta")
    try:
        with torch.no_grad():
            maps: list[Tensor] = encoder_features(trial, image, levels=levels)
            if decoder:
                trial(image)
    except (RuntimeError, ValueError) as error:
        raise ValueError(_advice(network, size, str(error).rstrip("."), what)) from error
    return maps


def _spatial_dims(network: nn.Module) -> int:
    encoder_stride(network, 1)  # an unknown network is named before anything is tried
    return next(p.ndim for p in network.parameters() if p.ndim > 2) - 2


def _sides(crop_size: int | Sequence[int], spatial_dims: int, network: nn.Module) -> tuple[int, ...]:
    sides = (crop_size,) * spatial_dims if isinstance(crop_size, int) else tuple(crop_size)
    if len(sides) != spatial_dims or min(sides) < 1:
        raise ValueError(
            f"crop_size must be one positive number or {spatial_dims} of them for this {type(network).__name__} of "
            f"{spatial_dims} spatial dimensions, got {crop_size}; give one for each axis"
        )
    return sides


def _advice(network: nn.Module, size: tuple[int, ...], error: str, what: str) -> str:
    stride = encoder_stride(network, len(size))
    fitting = tuple(-(-side // s) * s for side, s in zip(size, stride, strict=True))
    if fitting == stride:  # one voxel would be left at the coarsest map, which no normalisation can do anything with
        fitting = tuple(2 * s for s in stride)
    return (
        f"{what} {size} cannot pass through {type(network).__name__}: {error}. Its encoder reduces the axes by "
        f"{stride}: sides must be multiples of these, and more than one voxel must be left in training, as with "
        f"{fitting}, got {size}; choose a larger crop or a network with fewer levels"
    )
