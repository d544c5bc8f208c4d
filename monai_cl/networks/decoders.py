"""The decoder half of MONAI's encoder-decoder networks: its feature maps and the modules they need."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet
from torch import Tensor, nn

from monai_cl.networks._further import further_decoders
from monai_cl.networks._parts import Block, EncoderMaps, names_of


def decoder_blocks(network: nn.Module) -> int:
    """Number of blocks of the decoder, each of which doubles the size of the map (or follows the encoder's strides).

    MONAI's ``UNet`` has one fewer than it has levels below the first, since its last gives the output itself.

    Example:
        >>> decoder_blocks(SegResNet(blocks_down=(1, 2, 2, 4)))
        3
    """
    return len(_blocks(network))


def decoder_features(network: nn.Module, maps: Sequence[Tensor], *, blocks: int | None = None) -> list[Tensor]:
    """Feature maps of the decoder, coarse to fine.

    Args:
        network: A network that :func:`monai_cl.networks.encoder_features` knows.
        maps: Maps of its encoder, from :func:`monai_cl.networks.encoder_features`.
        blocks: Blocks to run, counted from the bottom; all when left out.

    Returns:
        One (B, C_l, *S_l) map a block.

    Raises:
        ValueError: If the decoder of this class of network is not known, or has not so many blocks.
    """
    result: list[Tensor] = []
    x, skips = maps[-1], list(maps[-2::-1])
    if isinstance(maps, EncoderMaps):
        skips.insert(0, maps.inner)
    chosen = _chosen(network, blocks)
    # the last block of FlexibleUNet has no map of the encoder to go with
    for block, skip in zip(chosen, [*skips, *[None] * len(chosen)], strict=False):
        x = block.run(x, skip)
        result.append(x)
    return result


def decoder_modules(network: nn.Module, *, blocks: int | None = None) -> list[nn.Module]:
    """The modules whose parameters :func:`decoder_features` uses; the output layer is none of them."""
    return [module for block in _chosen(network, blocks) for module in block.modules]


def _chosen(network: nn.Module, blocks: int | None) -> list[Block]:
    result = _blocks(network)
    if blocks is not None and not 1 <= blocks <= len(result):
        raise ValueError(f"blocks must be between 1 and {len(result)} for this {type(network).__name__}, got {blocks}")
    return result[:blocks]


def _blocks(network: nn.Module) -> list[Block]:
    kinds = {**_DECODERS, **dict(further_decoders())}
    for kind, blocks in kinds.items():
        if isinstance(network, kind):
            return blocks(network)
    raise ValueError(
        f"the decoder of {type(network).__name__} is not known; contrast in the decoder needs one of "
        f"{names_of(kinds)} or a subclass"
    )


def _dynunet(net: DynUNet) -> list[Block]:
    return [Block([up], up) for up in net.upsamples]


def _basic_unet(net: BasicUNet) -> list[Block]:
    return [Block([up], up) for up in (net.upcat_4, net.upcat_3, net.upcat_2, net.upcat_1)]


def _swin(net: SwinUNETR) -> list[Block]:
    ups = (net.decoder5, net.decoder4, net.decoder3, net.decoder2, net.decoder1)
    return [Block([up], up) for up in ups]


def _segresnet(net: SegResNet) -> list[Block]:
    def block(up: nn.Module, layers: nn.Module) -> Block:
        return Block([up, layers], lambda x, skip: layers(up(x) + skip))

    return [block(up, layers) for up, layers in zip(net.up_samples, net.up_layers, strict=True)]


def _unet(net: UNet) -> list[Block]:
    # Sequential(down, SkipConnection(Sequential(down, ..., up)), up): the outermost `up` gives the output
    ups: list[nn.Module] = []
    block = net.model
    while isinstance(block, nn.Sequential) and len(block) == 3 and isinstance(block[1], SkipConnection):
        ups.append(block[2])
        block = block[1].submodule

    def made(up: nn.Module) -> Block:
        return Block([up], lambda x, skip: up(torch.cat([skip, x], dim=1)))

    return [made(up) for up in ups[:0:-1]]


_DECODERS: dict[type[nn.Module], Callable[[Any], list[Block]]] = {
    SegResNet: _segresnet,
    BasicUNet: _basic_unet,
    DynUNet: _dynunet,
    UNet: _unet,
    SwinUNETR: _swin,
}
