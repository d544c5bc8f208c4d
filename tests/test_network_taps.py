"""Taps in encoders and decoders of the networks that published weights are for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.networks.nets import UNETR, AttentionUnet, DynUNet, FlexibleUNet, SegResNetDS, SegResNetDS2, SwinUNETR
from torch import nn

from monai_cl.methods import DenseTerm, Method
from monai_cl.networks import (
    AnatomixUNet,
    STUNet,
    decoder_blocks,
    decoder_features,
    decoder_modules,
    encoder_features,
    encoder_modules,
    encoder_stride,
    network_features,
    trial_size,
)


def resenc() -> Any:
    pytest.importorskip("dynamic_network_architectures", reason="needs the extra `nnunet`")
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    return ResidualEncoderUNet(
        1, 3, [4, 8, 8], nn.Conv2d, 3, [1, 2, (2, 1)], [1, 2, 1], 2, 1, True, nn.InstanceNorm2d,
        {"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip


def swin() -> SwinUNETR:
    small: dict[str, Any] = {"depths": (1,) * 4, "num_heads": (1,) * 4, "window_size": 4}
    return SwinUNETR(1, 2, feature_size=12, spatial_dims=2, **small)


# network, size of images, blocks of the decoder
NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, ...], int]] = {
    "segresnet_ds": (lambda: SegResNetDS(2, 4, blocks_down=(1, 1, 1), dsdepth=2), (16, 16), 2),
    "segresnet_ds2": (lambda: SegResNetDS2(2, 4, blocks_down=(1, 1, 1)), (16, 16), 2),
    "dynunet_deep": (
        lambda: DynUNet(2, 1, 2, [3] * 3, [1, 2, 2], [2] * 2, filters=[4, 8, 8], deep_supervision=True),
        (16, 16),
        2,
    ),
    "swin_unetr": (swin, (64, 64), 5),
    "unetr": (
        lambda: UNETR(1, 2, (32, 32), feature_size=4, hidden_size=12, mlp_dim=12, num_heads=2, spatial_dims=2),
        (32, 32),
        4,
    ),
    "attention_unet": (lambda: AttentionUnet(2, 1, 2, channels=(4, 8, 8), strides=(2, 2)), (16, 16), 2),
    "flexible_unet": (lambda: FlexibleUNet(1, 2, "resnet10", spatial_dims=2), (64, 64), 5),
    "resenc": (resenc, (16, 16), 2),
    "anatomix": (lambda: AnatomixUNet(2, width=4, levels=2), (16, 16), 2),
    "stu_net": (lambda: STUNet(depth=[1, 2], dims=[4, 8], strides=[2]), (8, 8, 8), 1),
}


@pytest.fixture(params=NETWORKS)
def known(request: pytest.FixtureRequest) -> tuple[Any, torch.Tensor, int]:
    make, size, blocks = NETWORKS[request.param]
    torch.manual_seed(0)
    return make().eval(), torch.rand(2, 1, *size), blocks


def test_features_are_those_of_the_whole_network(known: tuple[Any, torch.Tensor, int]) -> None:
    network, images, blocks = known
    with torch.no_grad():
        alone = encoder_features(network, images)
        found = network_features(network, images, blocks=True)
        ups = decoder_features(network, alone)
    assert decoder_blocks(network) == len(found.blocks) == len(ups) == blocks
    for mine, theirs in zip([*alone, *ups], [*found.encoder, *found.blocks], strict=True):
        torch.testing.assert_close(mine, theirs)
    assert found.decoder.shape[2:] == images.shape[2:]
    coarse = alone[-1].shape[2:]
    assert encoder_stride(network, len(coarse)) == tuple(a // b for a, b in zip(images.shape[2:], coarse, strict=True))
    deepest = encoder_features(network, images, levels="deepest")
    assert len(deepest) == 1


def test_gradients_of_features_reach_their_modules_alone(known: tuple[Any, torch.Tensor, int]) -> None:
    network, images, _ = known

    def reached(maps: list[torch.Tensor]) -> set[int]:
        network.zero_grad()
        torch.stack([one.square().mean() for one in maps]).sum().backward()
        return {id(p) for p in network.parameters() if p.grad is not None}

    encoder = {id(p) for module in encoder_modules(network) for p in module.parameters()}
    maps = encoder_features(network.train(), images)
    found = reached(maps)
    assert encoder - unused(network) <= found <= encoder
    maps = encoder_features(network, images)
    decoder = {id(p) for module in decoder_modules(network, blocks=1) for p in module.parameters()}
    found = reached(decoder_features(network, maps, blocks=1))
    assert decoder <= found <= decoder | encoder


def unused(network: Any) -> set[int]:
    """Parameters of the last norm of a transformer, which the outputs of its stages do not pass."""
    return {id(p) for n, p in network.named_parameters() if "swinViT.layers4" in n or n.startswith("swinViT.norm")}


@pytest.mark.parametrize("on", ["decoder", "blocks"])
@pytest.mark.parametrize("name", ["segresnet_ds", "unetr", "attention_unet", "resenc", "anatomix", "swin_unetr"])
def test_a_method_pretrains_encoder_and_decoder(name: str, on: str) -> None:
    make, size, _ = NETWORKS[name]
    network = make()
    where: dict[str, Any] = {"on": on} if on == "decoder" else {"on": "block", "blocks": 1}
    method = Method(network, {"dense": DenseTerm(**where)}, image_size=size)
    assert method.touched()
    assert len(method.touched()) < len(list(network.named_parameters()))


def test_a_network_of_one_size_is_tried_with_that() -> None:
    network = NETWORKS["unetr"][0]()
    assert trial_size(network, 2) == (32, 32)
    assert trial_size(NETWORKS["attention_unet"][0](), 2) == (8, 8)
    with pytest.raises(ValueError, match=r"(?s)cannot pass through UNETR.*as with \(32, 32\)"):
        Method(network, {"dense": DenseTerm()}, image_size=48)
