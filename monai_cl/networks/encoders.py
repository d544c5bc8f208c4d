"""The encoder half of MONAI's encoder-decoder networks: its feature pyramid and the modules it is made of."""

from collections.abc import Callable

from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet
from torch import Tensor, nn

_Modules = Callable[[nn.Module], list[nn.Module]]
_Features = Callable[[nn.Module, Tensor], list[Tensor]]


def encoder_features(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Feature maps of the encoder, fine to coarse; the decoder is not run.

    Args:
        network: A MONAI ``SegResNet``, ``UNet``, ``BasicUNet``, ``DynUNet`` or ``SwinUNETR``, or a subclass.
        x: Images (B, C, *S).

    Returns:
        One (B, C_l, *S_l) map a level.

    Raises:
        ValueError: If the encoder of this class of network is not known.
    """
    return _lookup(network)[1](network, x)


def encoder_modules(network: nn.Module) -> list[nn.Module]:
    """The modules whose parameters :func:`encoder_features` uses."""
    return _lookup(network)[0](network)


def input_channels(network: nn.Module) -> int:
    """Number of channels the network's first convolution takes."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return module.in_channels
    raise ValueError(f"{type(network).__name__} has no convolution; its number of input channels cannot be told")


def _lookup(network: nn.Module) -> tuple[_Modules, _Features]:
    for kind, functions in _ENCODERS.items():
        if isinstance(network, kind):
            return functions
    known = ", ".join(sorted(kind.__name__ for kind in _ENCODERS))
    raise ValueError(f"network must be one of MONAI's {known} or a subclass, got {type(network).__name__}")


def _run(stages: list[nn.Module], x: Tensor) -> list[Tensor]:
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps


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


def _swin_features(net: SwinUNETR, x: Tensor) -> list[Tensor]:
    hidden = net.swinViT(x, net.normalize)
    encoders = (net.encoder2, net.encoder3, net.encoder4, net.encoder10)
    return [net.encoder1(x), *(e(hidden[i]) for e, i in zip(encoders, (0, 1, 2, 4), strict=True))]


_ENCODERS: dict[type[nn.Module], tuple[_Modules, _Features]] = {
    SegResNet: (_segresnet_modules, _segresnet_features),
    BasicUNet: (_basic_unet_modules, lambda net, x: _run(_basic_unet_modules(net), x)),
    DynUNet: (_dynunet_modules, lambda net, x: _run(_dynunet_modules(net), x)),
    UNet: (_unet_modules, lambda net, x: _run(_unet_modules(net), x)),
    SwinUNETR: (_swin_modules, _swin_features),
}
