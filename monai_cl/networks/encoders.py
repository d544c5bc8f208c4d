"""The encoder half of MONAI's encoder-decoder networks: its feature pyramid and the modules it is made of."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SegResNetVAE, SwinUNETR, UNet
from torch import Tensor, nn

LEVELS = ("all", "deepest")


class _Encoder(NamedTuple):
    """Parts of the encoder of one class of network, and the end of its decoder."""

    modules: Callable[[Any], list[nn.Module]]
    features: Callable[[Any, Tensor], list[Tensor]]
    stride: Callable[[Any], list[int]]  # of the whole encoder: one for all axes, or one an axis
    taps: Callable[[Any], list[nn.Module]]  # modules whose outputs are the features, while the whole network runs
    output: Callable[[Any], nn.Module]  # what turns the features of the decoder into classes
    trunk: Callable[[Any], list[nn.Module]] | None = None  # what the deepest map needs, if not all modules
    deepest: Callable[[Any, Tensor], Tensor] | None = None


def encoder_features(network: nn.Module, x: Tensor, *, levels: str = "all") -> list[Tensor]:
    """Feature maps of the encoder, fine to coarse; the decoder is not run.

    Args:
        network: A MONAI ``SegResNet``, ``UNet``, ``BasicUNet``, ``DynUNet`` or ``SwinUNETR``, or a subclass.
        x: Images (B, C, *S).
        levels: ``"all"``, or ``"deepest"`` for the coarsest alone (of ``SwinUNETR`` the last stage of its
            transformer, before the convolutions that belong to the skip connections).

    Returns:
        One (B, C_l, *S_l) map a level.

    Raises:
        ValueError: If the encoder of this class of network is not known, or ``levels`` is neither.
    """
    encoder = _lookup(network, levels)
    if levels == "deepest":
        return [encoder.features(network, x)[-1] if encoder.deepest is None else encoder.deepest(network, x)]
    return encoder.features(network, x)


def encoder_modules(network: nn.Module, *, levels: str = "all") -> list[nn.Module]:
    """The modules whose parameters :func:`encoder_features` uses."""
    encoder = _lookup(network, levels)
    if levels == "deepest" and encoder.trunk is not None:
        return encoder.trunk(network)
    return encoder.modules(network)


def encoder_taps(network: nn.Module) -> list[nn.Module]:
    """The modules that give the feature maps of :func:`encoder_features`, fine to coarse, while the network runs."""
    return _lookup(network).taps(network)


def output_module(network: nn.Module) -> nn.Module:
    """The module that turns what the decoder has found into the channels of the output: a convolution of size one.

    MONAI's ``UNet`` has none: there it is the last upsampling, whose input has half of the image's size.

    Raises:
        ValueError: If the network is not known, or does more with its features than that, as ``SegResNetVAE``.
    """
    if isinstance(network, SegResNetVAE):
        raise ValueError(
            f"network must give one map where its decoder is pretrained, {type(network).__name__} gives a loss of its "
            "own as well; take SegResNet"
        )
    return _lookup(network).output(network)


def encoder_stride(network: nn.Module, spatial_dims: int) -> tuple[int, ...]:
    """By how much the encoder reduces each axis of an image, from its input to its coarsest map.

    Example:
        >>> encoder_stride(SegResNet(blocks_down=(1, 2, 2, 4)), 3)
        (8, 8, 8)
    """
    stride = _lookup(network).stride(network)
    return tuple(stride) if len(stride) > 1 else (stride[0],) * spatial_dims


def input_channels(network: nn.Module) -> int:
    """Number of channels the network's first convolution takes."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return module.in_channels
    raise ValueError(f"{type(network).__name__} has no convolution; its number of input channels cannot be told")


def _lookup(network: nn.Module, levels: str = "all") -> _Encoder:
    if levels not in LEVELS:
        raise ValueError(f"levels must be one of {LEVELS}, got {levels!r}")
    for kind, encoder in _ENCODERS.items():
        if isinstance(network, kind):
            return encoder
    known = ", ".join(sorted(kind.__name__ for kind in _ENCODERS))
    raise ValueError(f"network must be one of MONAI's {known} or a subclass, got {type(network).__name__}")


def _run(stages: list[nn.Module], x: Tensor) -> list[Tensor]:
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps


def _product(strides: Sequence[int | Sequence[int]]) -> list[int]:
    # strides of the levels, each one for all axes or one an axis
    rows = [tuple(s) if isinstance(s, Sequence) else (s,) for s in strides]
    width = max(map(len, rows))
    return [math.prod(row[axis % len(row)] for row in rows) for axis in range(width)]


def _segresnet_modules(net: SegResNet) -> list[nn.Module]:
    return [net.convInit, net.down_layers]


def _segresnet_features(net: SegResNet, x: Tensor) -> list[Tensor]:
    # the maps are residual sums, not normalised: their averages carry information
    maps: list[Tensor] = net.encode(x)[1]
    return maps


def _basic_unet_modules(net: BasicUNet) -> list[nn.Module]:
    return [net.conv_0, net.down_1, net.down_2, net.down_3, net.down_4]


def _dynunet_modules(net: DynUNet) -> list[nn.Module]:
    return [net.input_block, *net.downsamples, net.bottleneck]


def _unet_modules(net: UNet) -> list[nn.Module]:
    # Sequential(down, SkipConnection(Sequential(down, ...)), up), the innermost block being the bottom layer
    modules, block = [], net.model
    while isinstance(block, nn.Sequential) and len(block) == 3 and isinstance(block[1], SkipConnection):
        modules.append(block[0])
        block = block[1].submodule
    return [*modules, block]


def _swin_modules(net: SwinUNETR) -> list[nn.Module]:
    return [net.swinViT, net.encoder1, net.encoder2, net.encoder3, net.encoder4, net.encoder10]


def _swin_taps(net: SwinUNETR) -> list[nn.Module]:
    return [net.encoder1, net.encoder2, net.encoder3, net.encoder4, net.encoder10]


def _swin_features(net: SwinUNETR, x: Tensor) -> list[Tensor]:
    hidden = net.swinViT(x, net.normalize)
    encoders = (net.encoder2, net.encoder3, net.encoder4, net.encoder10)
    return [net.encoder1(x), *(e(hidden[i]) for e, i in zip(encoders, (0, 1, 2, 4), strict=True))]


_ENCODERS: dict[type[nn.Module], _Encoder] = {
    SegResNet: _Encoder(
        _segresnet_modules,
        _segresnet_features,
        lambda net: [2 ** (len(net.blocks_down) - 1)],
        lambda net: list(net.down_layers),
        lambda net: net.conv_final[-1],
    ),
    BasicUNet: _Encoder(
        _basic_unet_modules,
        lambda net, x: _run(_basic_unet_modules(net), x),
        lambda net: [16],
        _basic_unet_modules,
        lambda net: net.final_conv,
    ),
    DynUNet: _Encoder(
        _dynunet_modules,
        lambda net, x: _run(_dynunet_modules(net), x),
        lambda net: _product(net.strides),
        _dynunet_modules,
        lambda net: net.output_block,
    ),
    UNet: _Encoder(
        _unet_modules,
        lambda net, x: _run(_unet_modules(net), x),
        lambda net: _product(net.strides),
        _unet_modules,
        lambda net: net.model[-1],
    ),
    SwinUNETR: _Encoder(
        _swin_modules,
        _swin_features,
        lambda net: [net.patch_size * 16],
        _swin_taps,
        lambda net: net.out,
        trunk=lambda net: [net.swinViT],
        deepest=lambda net, x: net.swinViT(x, net.normalize)[-1],
    ),
}
