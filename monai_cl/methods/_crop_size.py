"""Whether crops of a size can pass through an encoder, and how wide the pooled features are."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from monai_cl.networks import encoder_features, encoder_stride, input_channels, pool_pyramid


def pooled_width(network: nn.Module, crop_size: int | Sequence[int], *, pool_size: int, levels: str = "all") -> int:
    """Width of the pooled features of crops of a size.

    Tried on a copy in training mode: some networks take a size in evaluation that their normalisation refuses in
    training.

    Raises:
        ValueError: If the network is unknown, or cannot take crops of this size.
    """
    encoder_stride(network, 1)  # an unknown network is named before anything is tried
    trial = deepcopy(network).cpu().train()
    size = _sides(crop_size, _spatial_dims(trial), network)
    try:
        with torch.no_grad():
            maps = encoder_features(trial, torch.zeros(2, input_channels(trial), *size), levels=levels)
    except (RuntimeError, ValueError) as error:
        raise ValueError(_advice(network, size, error)) from error
    pooled: Tensor = pool_pyramid(maps, pool_size)
    return pooled.shape[1]


def _spatial_dims(network: nn.Module) -> int:
    return next(p.ndim for p in network.parameters() if p.ndim > 2) - 2


def _sides(crop_size: int | Sequence[int], spatial_dims: int, network: nn.Module) -> tuple[int, ...]:
    sides = (crop_size,) * spatial_dims if isinstance(crop_size, int) else tuple(crop_size)
    if len(sides) != spatial_dims or min(sides) < 1:
        raise ValueError(
            f"crop_size must be one positive number or {spatial_dims} of them for this {type(network).__name__} of "
            f"{spatial_dims} spatial dimensions, got {crop_size}; give one for each axis"
        )
    return sides


def _advice(network: nn.Module, size: tuple[int, ...], error: Exception) -> str:
    stride = encoder_stride(network, len(size))
    fitting = tuple(-(-side // s) * s for side, s in zip(size, stride, strict=True))
    if fitting == stride:  # one voxel would be left at the coarsest map, which no normalisation can do anything with
        fitting = tuple(2 * s for s in stride)
    return (
        f"crop_size {size} cannot pass through {type(network).__name__}: {error} Its encoder reduces the axes by "
        f"{stride}: sides must be multiples of these, and more than one voxel must be left in training, as with "
        f"{fitting}, got {size}; choose a larger crop or a network with fewer levels"
    )
