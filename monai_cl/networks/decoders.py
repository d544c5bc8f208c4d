"""The decoder half of MONAI's encoder-decoder networks: its feature maps and the modules they need."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, UNet
from torch import Tensor, nn


class _Block(NamedTuple):
    """One step of a decoder: what it is made of, and how it goes from the map below and that of the encoder."""

    modules: list[nn.Module]
    run: Callable[[Tensor, Tensor], Tensor]


def decoder_blocks(network: nn.Module) -> int:
    """Number of blocks of the decoder, each of which doubles the size of the map (or as the encoder's strides say).

    MONAI's ``UNet`` has one fewer than it has levels below the first, since its last gives the output itself.

    Example:
        >>> decoder_blocks(SegResNet(blocks_down=(1, 2, 2, 4)))
        3
    """
    return len(_blocks(network))


def decoder_features(network: nn.Module, maps: Sequence[Tensor], *, blocks: int | None = None) -> list[Tensor]:
    """Feature maps of the decoder, coarse to fine.

    Args:
        network: A MONAI ``SegResNet``, ``UNet``, ``BasicUNet`` or ``DynUNet``, or a subclass.
        maps: Maps of its encoder, from :func:`monai_cl.networks.encoder_features`.
        blocks: Blocks to run, counted from the bottom; all when left out.

    Returns:
        One (B, C_l, *S_l) map a block.

    Raises:
        ValueError: If the decoder of this class of network is not known, or has not so many blocks.
    """
    found: list[Tensor] = []
    x = maps[-1]
    for block, skip in zip(_chosen(network, blocks), maps[-2::-1], strict=False):
        x = block.run(x, skip)
        found.append(x)
    return found


def decoder_modules(network: nn.Module, *, blocks: int | None = None) -> list[nn.Module]:
    """The modules whose parameters :func:`decoder_features` uses; the output layer is none of them."""
    return [module for block in _chosen(network, blocks) for module in block.modules]


def _chosen(network: nn.Module, blocks: int | None) -> list[_Block]:
    found = _blocks(network)
    if blocks is not None and not 1 <= blocks <= len(found):
        raise ValueError(f"blocks must be between 1 and {len(found)} for this {type(network).__name__}, got {blocks}")
    return found[:blocks]


def _blocks(network: nn.Module) -> list[_Block]:
    for kind, blocks in _DECODERS.items():
        if isinstance(network, kind):
            return blocks(network)
    known = ", ".join(sorted(kind.__name__ for kind in _DECODERS))
    raise ValueError(
        f"the decoder of {type(network).__name__} is not known; contrast in the decoder needs one of MONAI's {known} "
        "or a subclass"
    )


def _dynunet(net: DynUNet) -> list[_Block]:
    return [_Block([up], up) for up in net.upsamples]


def _basic_unet(net: BasicUNet) -> list[_Block]:
    return [_Block([up], up) for up in (net.upcat_4, net.upcat_3, net.upcat_2, net.upcat_1)]


def _segresnet(net: SegResNet) -> list[_Block]:
    def block(up: nn.Module, layers: nn.Module) -> _Block:
        return _Block([up, layers], lambda x, skip: layers(up(x) + skip))

    return [block(up, layers) for up, layers in zip(net.up_samples, net.up_layers, strict=True)]


def _unet(net: UNet) -> list[_Block]:
    # Sequential(down, SkipConnection(Sequential(down, ..., up)), up): the outermost `up` gives the output
    ups: list[nn.Module] = []
    block = net.model
    while isinstance(block, nn.Sequential) and len(block) == 3 and isinstance(block[1], SkipConnection):
        ups.append(block[2])
        block = block[1].submodule

    def made(up: nn.Module) -> _Block:
        return _Block([up], lambda x, skip: up(torch.cat([skip, x], dim=1)))

    return [made(up) for up in ups[:0:-1]]


_DECODERS: dict[type[nn.Module], Callable[[Any], list[_Block]]] = {
    SegResNet: _segresnet,
    BasicUNet: _basic_unet,
    DynUNet: _dynunet,
    UNet: _unet,
}
