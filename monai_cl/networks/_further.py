"""Parts of the networks that published weights are for, beside the usual ones."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.networks.nets import UNETR, AttentionUnet, FlexibleUNet, SegResNetDS
from torch import Tensor, nn

from monai_cl.networks._parts import Block, EncoderParts, Tap, product_of, run_all
from monai_cl.networks.anatomix import AnatomixUNet
from monai_cl.networks.stu_net import STUNet

_NNUNET = "dynamic_network_architectures.architectures.unet"
_UNUSED = ("_conv_head", "_bn1", "_fc", "fc")  # of classifiers that are the encoder of FlexibleUNet


# SegResNetDS, and SegResNetDS2, of which the first of two decoders is meant
def _deep_features(net: SegResNetDS, x: Tensor) -> list[Tensor]:
    maps: list[Tensor] = net.encoder(x if net.preprocess is None else net.preprocess(x))
    return maps


def _deep_blocks(net: SegResNetDS) -> list[Block]:
    def block(level: Any) -> Block:
        return Block([level["upsample"], level["blocks"]], lambda x, skip: level["blocks"](level["upsample"](x) + skip))

    return [block(level) for level in net.up_layers]


_DEEP = EncoderParts(
    lambda net: [net.encoder],
    _deep_features,
    lambda net: [int(factor) for factor in net.shape_factor()],
    lambda net: [level["blocks"] for level in net.encoder.layers],
    lambda net: net.up_layers[-1]["head"],
)


# UNETR, whose coarsest map are the tokens of its transformer
def _unetr_features(net: UNETR, x: Tensor) -> list[Tensor]:
    tokens, hidden = net.vit(x)
    skips = [stage(net.proj_feat(hidden[n])) for stage, n in ((net.encoder2, 3), (net.encoder3, 6), (net.encoder4, 9))]
    return [net.encoder1(x), *skips, net.proj_feat(tokens)]


def _tokens(net: UNETR) -> list[nn.Module]:
    """Parts of the transformer that are used: its blocks come with an attention between two images as well."""
    inside = [part for block in net.vit.blocks for name, part in block.named_children() if "cross" not in name]
    return [net.vit.patch_embedding, *inside, net.vit.norm]


_UNETR = EncoderParts(
    lambda net: [*_tokens(net), net.encoder1, net.encoder2, net.encoder3, net.encoder4],
    _unetr_features,
    lambda net: list(net.patch_size),
    lambda net: [
        *(net.encoder1, net.encoder2, net.encoder3, net.encoder4),
        Tap(net.vit, lambda output: net.proj_feat(output[0])),
    ],
    lambda net: net.out,
    trunk=_tokens,
    deepest=lambda net, x: net.proj_feat(net.vit(x)[0]),
    size=lambda net: [n * p for n, p in zip(net.feat_size, net.patch_size, strict=True)],
)


# AttentionUnet: Sequential(head, layer, output), a layer holding Sequential(down, layer) or the bottom
def _attention_layers(net: AttentionUnet) -> list[Any]:
    layers, layer = [], net.model[1]
    while True:
        layers.append(layer)
        if not isinstance(layer.submodule, nn.Sequential):
            return layers
        layer = layer.submodule[1]


def _attention_modules(net: AttentionUnet) -> list[nn.Module]:
    inner = [layer.submodule for layer in _attention_layers(net)]
    return [net.model[0], *(part[0] if isinstance(part, nn.Sequential) else part for part in inner)]


def _attention_blocks(net: AttentionUnet) -> list[Block]:
    def block(layer: Any) -> Block:
        def run(x: Tensor, skip: Tensor) -> Tensor:
            below = layer.upconv(x)
            result: Tensor = layer.merge(torch.cat((layer.attention(g=below, x=skip), below), dim=1))
            return result

        return Block([layer.upconv, layer.attention, layer.merge], run)

    return [block(layer) for layer in reversed(_attention_layers(net))]


_ATTENTION = EncoderParts(
    _attention_modules,
    lambda net, x: run_all(_attention_modules(net), x),
    lambda net: product_of(net.strides),
    _attention_modules,
    lambda net: net.model[-1],
)


# FlexibleUNet, whose encoder is that of a classifier
def _flexible_modules(net: FlexibleUNet) -> list[nn.Module]:
    return [module for name, module in net.encoder.named_children() if name not in _UNUSED]


_FLEXIBLE = EncoderParts(
    _flexible_modules,
    lambda net, x: list(net.encoder(x)),
    lambda net: [2 ** (net.skip_connect + 1)],
    lambda net: [Tap(net.encoder, _item(level)) for level in range(net.skip_connect + 1)],
    lambda net: net.segmentation_head[0],
)


# networks of nnU-Net
def _nnunet_blocks(net: Any) -> list[Block]:
    def block(up: nn.Module, stage: nn.Module) -> Block:
        return Block([up, stage], lambda x, skip: stage(torch.cat((up(x), skip), dim=1)))

    return [block(up, stage) for up, stage in zip(net.decoder.transpconvs, net.decoder.stages, strict=True)]


_NNUNET_PARTS = EncoderParts(
    lambda net: [net.encoder],
    lambda net, x: list(net.encoder(x)),
    lambda net: product_of(net.encoder.strides),
    lambda net: list(net.encoder.stages),
    lambda net: net.decoder.seg_layers[-1],
)
_ANATOMIX = EncoderParts(
    lambda net: net.encoder_layers(),
    lambda net, x: net.encode(x),
    lambda net: [2**net.levels],
    lambda net: net.encoder_taps(),
    lambda net: net.head,
)
_STU_NET = EncoderParts(
    lambda net: list(net.conv_blocks_context),
    lambda net, x: net.encode(x),
    lambda net: product_of(net.strides),
    lambda net: list(net.conv_blocks_context),
    lambda net: net.seg_outputs[-1],
)


def _numbered(net: Any, layers: Callable[[int], list[nn.Module]], count: int) -> list[Block]:
    def block(number: int) -> Block:
        return Block(layers(number), lambda x, skip: net.decoder_block(number, x, skip))

    return [block(number) for number in range(count)]


def further_encoders() -> Iterator[tuple[type[nn.Module], EncoderParts]]:
    """Classes of networks and the parts of their encoders; those of nnU-Net where its package has been imported."""
    yield SegResNetDS, _DEEP
    yield UNETR, _UNETR
    yield AttentionUnet, _ATTENTION
    yield FlexibleUNet, _FLEXIBLE
    yield AnatomixUNet, _ANATOMIX
    yield STUNet, _STU_NET
    for kind in _nnunet_classes():
        yield kind, _NNUNET_PARTS


def further_decoders() -> Iterator[tuple[type[nn.Module], Callable[[Any], list[Block]]]]:
    """Classes of networks and the blocks of their decoders."""
    yield SegResNetDS, _deep_blocks
    yield UNETR, lambda net: [Block([up], up) for up in (net.decoder5, net.decoder4, net.decoder3, net.decoder2)]
    yield AttentionUnet, _attention_blocks
    yield FlexibleUNet, lambda net: [Block([up], up) for up in net.decoder.blocks]
    yield AnatomixUNet, lambda net: _numbered(net, net.decoder_layers, net.levels)
    yield (
        STUNet,
        lambda net: _numbered(
            net, lambda n: [net.upsample_layers[n], net.conv_blocks_localization[n]], len(net.strides)
        ),
    )
    for kind in _nnunet_classes():
        yield kind, _nnunet_blocks


def _nnunet_classes() -> Sequence[type[nn.Module]]:
    module = sys.modules.get(_NNUNET)  # without its package imported a network cannot be one of it
    return () if module is None else (module.ResidualEncoderUNet, module.PlainConvUNet)


def _item(level: int) -> Callable[[Any], Tensor]:
    return lambda output: output[level]
