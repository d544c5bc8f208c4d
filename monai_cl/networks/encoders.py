"""The encoder half of MONAI's encoder-decoder networks: its feature pyramid and the modules it is made of."""

from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SegResNetVAE, SwinUNETR, UNet
from torch import Tensor, nn

from monai_cl.networks._further import further_encoders
from monai_cl.networks._parts import EncoderMaps, EncoderParts, Tap, names_of, product_of, run_all

LEVELS = ("all", "deepest")


def encoder_features(network: nn.Module, x: Tensor, *, levels: str = "all") -> list[Tensor]:
    """Feature maps of the encoder, fine to coarse; the decoder is not run.

    Args:
        network: A MONAI ``SegResNet``, ``SegResNetDS``, ``SegResNetDS2``, ``UNet``, ``BasicUNet``, ``DynUNet``,
            ``AttentionUnet``, ``FlexibleUNet``, ``SwinUNETR`` or ``UNETR``, an ``AnatomixUNet`` or ``STUNet``, a
            ``ResidualEncoderUNet`` or ``PlainConvUNet`` of nnU-Net, or a subclass.
        x: Images (B, C, *S).
        levels: ``"all"``, or ``"deepest"`` for the coarsest alone (of ``SwinUNETR`` the last stage of its
            transformer, before the convolutions that belong to the skip connections; of ``UNETR`` its tokens).

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


def encoder_taps(network: nn.Module) -> list[Tap]:
    """Taps of the maps of :func:`encoder_features`, fine to coarse, for a run of the whole network."""
    taps = _lookup(network).taps(network)
    return [tap if isinstance(tap, Tap) else Tap(tap) for tap in taps]


def output_module(network: nn.Module) -> nn.Module:
    """Module from the last features of the decoder to the output channels: a convolution of size one.

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
    """Reduction of each axis of an image by the encoder, from its input to its coarsest map.

    Example:
        >>> encoder_stride(SegResNet(blocks_down=(1, 2, 2, 4)), 3)
        (8, 8, 8)
    """
    stride = _lookup(network).stride(network)
    return tuple(stride) if len(stride) > 1 else (stride[0],) * spatial_dims


def trial_size(network: nn.Module, spatial_dims: int) -> tuple[int, ...]:
    """Size of images to try a network with: twice its stride, or the one size that it takes."""
    return fixed_size(network) or tuple(2 * edge for edge in encoder_stride(network, spatial_dims))


def fixed_size(network: nn.Module) -> tuple[int, ...] | None:
    """The one size of images that a network takes, as ``UNETR``; ``None`` where it takes several."""
    size = _lookup(network).size
    return None if size is None else tuple(size(network))


def input_channels(network: nn.Module) -> int:
    """Number of channels the network's first convolution takes."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return module.in_channels
    raise ValueError(f"{type(network).__name__} has no convolution; its number of input channels cannot be determined")


def _lookup(network: nn.Module, levels: str = "all") -> EncoderParts:
    if levels not in LEVELS:
        raise ValueError(f"levels must be one of {LEVELS}, got {levels!r}")
    kinds = {**_ENCODERS, **dict(further_encoders())}
    for kind, encoder in kinds.items():
        if isinstance(network, kind):
            return encoder
    raise ValueError(f"network must be one of {names_of(kinds)} or a subclass, got {type(network).__name__}")


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
    maps = [net.encoder1(x), *(e(hidden[i]) for e, i in zip(encoders, (0, 1, 2, 4), strict=True))]
    return EncoderMaps(maps, inner=hidden[3])  # which enters the decoder as it is


_ENCODERS: dict[type[nn.Module], EncoderParts] = {
    SegResNet: EncoderParts(
        _segresnet_modules,
        _segresnet_features,
        lambda net: [2 ** (len(net.blocks_down) - 1)],
        lambda net: list(net.down_layers),
        lambda net: net.conv_final[-1],
    ),
    BasicUNet: EncoderParts(
        _basic_unet_modules,
        lambda net, x: run_all(_basic_unet_modules(net), x),
        lambda net: [16],
        _basic_unet_modules,
        lambda net: net.final_conv,
    ),
    DynUNet: EncoderParts(
        _dynunet_modules,
        lambda net, x: run_all(_dynunet_modules(net), x),
        lambda net: product_of(net.strides),
        _dynunet_modules,
        lambda net: net.output_block,
    ),
    UNet: EncoderParts(
        _unet_modules,
        lambda net, x: run_all(_unet_modules(net), x),
        lambda net: product_of(net.strides),
        _unet_modules,
        lambda net: net.model[-1],
    ),
    SwinUNETR: EncoderParts(
        _swin_modules,
        _swin_features,
        lambda net: [net.patch_size * 16],
        _swin_taps,
        lambda net: net.out,
        trunk=lambda net: [net.swinViT],
        deepest=lambda net, x: net.swinViT(x, net.normalize)[-1],
    ),
}
