"""Published checkpoints, by state dicts of their names and shapes, into the networks they fit."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import DynUNet, SegResNet, SegResNetDS, SegResNetDS2, SwinUNETR
from torch import Tensor, nn

from monai_cl.networks import AnatomixUNet, STUNet, encoder_features
from monai_cl.weights import PUBLISHED, WeightsMismatchError, dynunet_arguments, transfer
from monai_cl.weights._choice import choose
from monai_cl.weights.published import detect

State = dict[str, Tensor]
BLOCKS = [1, 2, 2, 4, 4]


def seeded(make: Callable[..., nn.Module], seed: int, *args: Any, **options: Any) -> Any:
    torch.manual_seed(seed)
    network = make(*args, **options)
    for name, value in network.state_dict().items():  # a norm that was never trained has ones and zeros
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape) + (0.5 if "var" in name or "weight" in name else 0.0))
    return network


def renamed(state: State, *pairs: tuple[str, str]) -> State:
    out = dict(state)
    for old, new in pairs:
        out = {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in out.items()}
    return out


def deep(seed: int, width: int = 4, **options: Any) -> Any:
    return seeded(SegResNetDS, seed, init_filters=width, blocks_down=BLOCKS, **options)


def whole(network: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def encoder_equals(one: nn.Module, other: nn.Module, size: int = 32) -> bool:
    image = torch.rand(1, 1, size, size, size)
    with torch.no_grad():
        maps = [encoder_features(network.eval(), image) for network in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*maps, strict=True))


def same_values(one: nn.Module, other: nn.Module, names: Sequence[str]) -> bool:
    return all(torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in names)


# --- CT-FM


def ct_fm_files(source: nn.Module) -> dict[str, Any]:
    state = whole(source)
    encoder = {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
    lightning = {f"model.backbone.{name}": t for name, t in encoder.items()}
    lightning["model.projection_head.layers.0.weight"] = torch.zeros(2, 2)
    return {
        "whole": state,
        "feature extractor": encoder,
        "lightning": {"state_dict": lightning, "epoch": 499, "global_step": 1, "pytorch-lightning_version": "2.3.0"},
    }


@pytest.mark.parametrize("kind", ["whole", "feature extractor", "lightning"])
def test_ct_fm_fills_the_encoder_and_counts_no_decoder_as_pretrained(kind: str) -> None:
    source, target = deep(1, dsdepth=4), deep(2, dsdepth=4)
    receipt = transfer(target, ct_fm_files(source)[kind], key_map="ct_fm")
    assert (receipt.encoder_matched, receipt.encoder_total) == (receipt.encoder_total, 161)
    assert all(name.startswith("encoder.") for name in receipt.touched)
    assert len(receipt.touched) == 161
    assert bool(receipt.missing) == (kind != "whole")
    assert "untrained by its card" in str(receipt)
    assert "licence Apache-2.0; cite arXiv 2501.09001" in str(receipt)
    assert encoder_equals(source, target)


def on_meta(definition: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = ConfigParser({"n": definition, "imports": ["$import torch"]}).get_parsed_content("n")
    return network


@pytest.mark.parametrize("kind", ["whole", "feature extractor", "lightning"])
def test_ct_fm_is_told_by_names_and_sizes(kind: str) -> None:
    with torch.device("meta"):
        source = SegResNetDS(init_filters=32, blocks_down=BLOCKS, dsdepth=4)
    assert len(source.state_dict()) == 221
    assert sum(p.numel() for p in source.parameters()) == pytest.approx(87.2e6, rel=0.01)
    assert sum(p.numel() for p in source.encoder.parameters()) == pytest.approx(77.8e6, rel=0.01)
    found = detect(choose(ct_fm_files(source)[kind]).tensors)
    assert found is PUBLISHED["ct_fm"]


def test_a_network_of_the_same_names_and_other_sizes_is_no_ct_fm() -> None:
    state = whole(deep(1, dsdepth=4))
    assert detect(state) is None
    assert transfer(deep(2, dsdepth=4), state).key_map is None


# --- VISTA3D


def vista_file(seed: int, width: int = 4) -> tuple[Any, State]:
    source = seeded(
        SegResNetDS2, seed, in_channels=1, blocks_down=BLOCKS, norm="instance", out_channels=width, init_filters=width
    )
    for name, value in source.up_layers_auto.state_dict().items():
        if value.ndim > 1 or "head" in name:
            value.add_(1.0)
    state = {f"image_encoder.{name}": tensor for name, tensor in whole(source).items()}
    heads = {"class_head.class_embeddings.weight": torch.zeros(512, width), "point_head.w.weight": torch.zeros(3)}
    return source, state | heads


def test_the_encoder_of_vista3d_gives_the_same_features() -> None:
    source, state = vista_file(1)
    target = deep(2, norm="instance", dsdepth=1)
    receipt = transfer(target, state)
    assert receipt.key_map == "vista3d"
    assert {entry[0] for entry in receipt.wrong_shape} == {"up_layers.3.head.weight", "up_layers.3.head.bias"}
    assert len(receipt.matched) == 111
    assert len(target.state_dict()) == 113
    reference = deep(3, norm="instance", dsdepth=1)
    reference.encoder.load_state_dict(source.encoder.state_dict())
    assert encoder_equals(reference, target)


def test_either_branch_of_vista3d_can_be_taken_or_both() -> None:
    source, state = vista_file(1)
    target = deep(2, norm="instance", dsdepth=1)
    transfer(target, state, key_map="vista3d")
    assert torch.equal(target.up_layers[0]["blocks"][0].conv1.weight, source.up_layers[0]["blocks"][0].conv1.weight)
    transfer(target, state, key_map="vista3d_auto")
    auto = source.up_layers_auto[0]["blocks"][0].conv1.weight
    assert torch.equal(target.up_layers[0]["blocks"][0].conv1.weight, auto)
    both = seeded(SegResNetDS2, 3, init_filters=4, blocks_down=BLOCKS, norm="instance")
    receipt = transfer(both, state)
    assert torch.equal(both.up_layers_auto[0]["blocks"][0].conv1.weight, auto)
    assert len(receipt.wrong_shape) == 4


def test_vista3d_at_its_size_is_told() -> None:
    with torch.device("meta"):
        state = meta_vista()
    assert detect(state) is PUBLISHED["vista3d"]
    network = on_meta({**PUBLISHED["vista3d"].network, "out_channels": 3})
    renamed_state, _ = PUBLISHED["vista3d"].apply(state)
    own = network.state_dict()
    same = [name for name, t in own.items() if name in renamed_state and renamed_state[name].shape == t.shape]
    assert (len(same), len(own)) == (111, 113)


def meta_vista() -> State:
    source = SegResNetDS2(blocks_down=BLOCKS, norm="instance", out_channels=48, init_filters=48, dsdepth=1)
    state = {f"image_encoder.{name}": tensor for name, tensor in source.state_dict().items()}
    return state | {"class_head.class_embeddings.weight": torch.zeros(512, 48)}


# --- SwinUNETR: self-supervised on 50 000 CT, and SuPreM


def swin(seed: int) -> Any:
    return seeded(SwinUNETR, seed, in_channels=1, out_channels=3, feature_size=12)


def swin_ssl_file(source: nn.Module) -> dict[str, Any]:
    state = {re.sub(r"^swinViT\.(layers\d)\.0\.", r"encoder.\1.0.0.", name): t for name, t in whole(source).items()}
    state = renamed(state, ("swinViT.patch_embed.", "encoder.patch_embed."))
    extra = {"encoder.mask_token": torch.zeros(1, 1, 12), "encoder.norm.weight": torch.zeros(4)}
    return {"model": state | extra | {"encoder.norm.bias": torch.zeros(4)}, "optimizer": {"state": {}}}


def test_the_self_supervised_swin_of_50k_fills_encoder_and_decoder() -> None:
    source, target = swin(1), swin(2)
    head = target.out.conv.conv.weight.clone()
    receipt = transfer(target, swin_ssl_file(source))
    assert receipt.key_map == "monai_swin_ssl"
    assert (receipt.encoder_matched, receipt.encoder_total) == (137, 137)
    assert set(receipt.missing) == {"out.conv.conv.weight", "out.conv.conv.bias"}
    assert len(receipt.dropped) == 5
    assert torch.equal(head, target.out.conv.conv.weight)
    assert same_values(source, target, receipt.matched)
    assert set(receipt.touched) == set(receipt.matched)


def suprem_swin_file(source: nn.Module) -> dict[str, Any]:
    state = {f"module.backbone.{name}": t for name, t in whole(source).items() if not name.startswith("out.")}
    prompts = {
        "organ_embedding": torch.zeros(32, 512),
        "GAP.0.weight": torch.zeros(4),
        "controller.bias": torch.ones(2),
    }
    return {"net": state | {f"module.{name}": t for name, t in prompts.items()}, "epoch": 2100}


def test_suprem_is_called_by_its_name_and_not_voco() -> None:
    source, target = swin(1), swin(2)
    receipt = transfer(target, suprem_swin_file(source))
    assert receipt.key_map == "suprem_swin"
    assert "SuPreM" in str(receipt)
    assert not receipt.origins[0].free
    assert len(receipt.dropped) == 3
    assert same_values(source, target, receipt.matched)


def test_suprems_segresnet_is_told_by_entry_wrapper_and_size() -> None:
    source, target = seeded(SegResNet, 1, init_filters=16, out_channels=32), seeded(SegResNet, 2, init_filters=16)
    file = {"net": {f"module.{name}": t for name, t in whole(source).items()}, "epoch": 2100}
    receipt = transfer(target, file)
    assert receipt.key_map == "suprem_segresnet"
    assert receipt.encoder_share == 1.0
    assert len(receipt.wrong_shape) == 2
    assert "CC BY-NC-ND" in str(receipt)
    for own in (whole(source), {"state_dict": whole(source)}, {"net": whole(source)}):
        assert transfer(target, own).origins == ()


# --- nnU-Net and nnssl


def resenc(seed: int, width: int = 2, classes: int = 2, **options: Any) -> Any:
    pytest.importorskip("dynamic_network_architectures", reason="needs the extra `nnunet`")
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    widths = [width * wide for wide in (1, 2, 4, 8, 10, 10)]
    return seeded(
        ResidualEncoderUNet, seed, input_channels=1, n_stages=6, features_per_stage=widths, conv_op=nn.Conv3d,
        kernel_sizes=3, strides=[1, 2, 2, 2, 2, 2], n_blocks_per_stage=[1, 3, 4, 6, 6, 6], num_classes=classes,
        n_conv_per_stage_decoder=1, conv_bias=True, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin_kwargs={"inplace": True}, **options,
    )  # fmt: skip


def nnssl_file(source: nn.Module) -> dict[str, Any]:
    plan = {
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None, "arch_kwargs_requiring_import": None},
        "pretrain_plan": {"configurations": {"onemmiso": {"spacing": [1, 1, 1], "patch_size": [160, 160, 160]}}},
        "pretrain_num_input_channels": 1, "recommended_downstream_patchsize": [160, 160, 160], "key_to_lpe": None,
        "key_to_encoder": "encoder.stages", "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
    }  # fmt: skip
    citations = [
        {"type": "Method", "name": "MAE", "apa_citations": ["A paper\n  of 2025"], "bibtex_citations": ["@a"]},
        {"type": "Data", "name": "unpublished", "apa_citations": []},
        {"Method": "Another, 2024"},
    ]
    return {"network_weights": whole(source), "nnssl_adaptation_plan": plan, "citations": citations}


def test_nnssl_fills_resenc_counting_each_tensor_once_and_cites_what_the_file_says() -> None:
    source, target = resenc(1, classes=1), resenc(2)
    file = nnssl_file(source)
    assert len(file["network_weights"]) == 956
    receipt = transfer(target, file)
    assert receipt.key_map == "nnssl_resenc"
    assert receipt.encoder_share == 1.0
    assert (receipt.missing, receipt.unexpected) == ((), ())
    assert {entry[0] for entry in receipt.wrong_shape} == {
        f"decoder.seg_layers.{i}.{kind}" for i in range(5) for kind in ("weight", "bias")
    }
    assert receipt.origins[0].citation == ("arXiv 2412.17041", "arXiv 2410.23132", "A paper of 2025", "Another, 2024")
    assert not any("seg_layers" in name for name in receipt.touched)
    assert same_values(source, target, receipt.matched)


# names beside the encoder in the architectures of nnssl's methods, which have no decoder
NNSSL_HEADS = {
    "voco and simclr": ("projector.layer1.0.weight", "projector.layer3.0.bias"),
    "swin_unetr": ("rotation_proj_head.weight", "contrast_proj_head.bias", "recon_proj_head.0.weight"),
    "pcrl": ("network.encoder.stem.convs.0.conv.weight", "pixel_restore_heads.0.weight", "batch_norms.0.running_mean"),
}


@pytest.mark.parametrize("method", NNSSL_HEADS)
def test_encoders_of_nnssl_arrive_without_the_heads_beside_them(method: str) -> None:
    source, target = resenc(1), resenc(2)
    file = nnssl_file(source)
    heads = NNSSL_HEADS[method]
    encoder = {name: tensor for name, tensor in file["network_weights"].items() if name.startswith("encoder.")}
    receipt = transfer(target, {**file, "network_weights": {**encoder, **dict.fromkeys(heads, torch.ones(3))}})
    assert (receipt.key_map, receipt.encoder_share, receipt.dropped) == ("nnssl_resenc", 1.0, heads)
    assert all(name.startswith("encoder.") for name in receipt.touched)
    assert detect({**encoder, "unknown.weight": torch.ones(3)}, entries=file) is None


def test_resenc_l_has_the_published_size() -> None:
    pytest.importorskip("dynamic_network_architectures", reason="needs the extra `nnunet`")
    network = on_meta({**PUBLISHED["nnssl_resenc"].network, "input_channels": 1, "num_classes": 1})
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(102.3e6, rel=0.01)
    assert len(network.state_dict()) == 956
    assert detect(network.state_dict(), entries=["network_weights", "nnssl_adaptation_plan"]).name == "nnssl_resenc"
    assert detect(network.state_dict(), entries=["network_weights"]).name == "nnunet_resenc"


def plain_names(network: DynUNet) -> State:
    """State dict of nnU-Net's plain U-Net with the values of a ``DynUNet``; biases are as they come."""
    stages = [network.input_block, *network.downsamples, network.bottleneck]
    state: State = {}

    def block(name: str, convolutions: Any) -> None:
        for conv in (0, 1):
            weight = getattr(convolutions, f"conv{conv + 1}").conv.weight
            norm = getattr(convolutions, f"norm{conv + 1}")
            for copy in ("conv", "all_modules.0"):
                state[f"{name}.convs.{conv}.{copy}.weight"] = weight
                state[f"{name}.convs.{conv}.{copy}.bias"] = torch.randn(weight.shape[0])
            for copy in ("norm", "all_modules.1"):
                state[f"{name}.convs.{conv}.{copy}.weight"] = norm.weight
                state[f"{name}.convs.{conv}.{copy}.bias"] = norm.bias

    for number, stage in enumerate(stages):
        block(f"encoder.stages.{number}.0", stage)
        block(f"decoder.encoder.stages.{number}.0", stage)
    for number, up in enumerate(network.upsamples):
        block(f"decoder.stages.{number}", up.conv_block)
        state[f"decoder.transpconvs.{number}.weight"] = up.transp_conv.conv.weight
        state[f"decoder.transpconvs.{number}.bias"] = up.transp_conv.conv.bias
        head = nn.Conv3d(up.conv_block.conv2.conv.weight.shape[0], 3, 1)
        state[f"decoder.seg_layers.{number}.weight"] = head.weight
        state[f"decoder.seg_layers.{number}.bias"] = head.bias
    last = len(network.upsamples) - 1
    state[f"decoder.seg_layers.{last}.weight"] = network.output_block.conv.conv.weight
    state[f"decoder.seg_layers.{last}.bias"] = network.output_block.conv.conv.bias
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def dynunet(seed: int, **options: Any) -> Any:
    return seeded(
        DynUNet, seed, 3, 1, 3, kernel_size=[[1, 3, 3], 3, 3, 3], strides=[1, [1, 2, 2], 2, 2],
        upsample_kernel_size=[[1, 2, 2], 2, 2], filters=[4, 8, 12, 12], trans_bias=True, **options,
    )  # fmt: skip


def test_nnunets_plain_unet_fills_dynunet_and_names_what_is_left_out() -> None:
    source, target = dynunet(1), dynunet(2)
    receipt = transfer(target, {"network_weights": plain_names(source), "trainer_name": "nnUNetTrainer"})
    assert receipt.key_map == "nnunet_plain"
    assert (receipt.missing, receipt.wrong_shape) == ((), ())
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))
    assert receipt.unexpected == tuple(
        f"deep_supervision_heads.{i}.conv.conv.{kind}" for i in (1, 0) for kind in ("weight", "bias")
    )
    supervised = dynunet(3, deep_supervision=True, deep_supr_num=2)
    assert transfer(supervised, plain_names(source)).unexpected == ()


def test_nnunets_plain_unet_and_the_dynunet_of_its_file_give_equal_outputs() -> None:
    pytest.importorskip("dynamic_network_architectures", reason="needs the extra `nnunet`")
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    source = seeded(
        PlainConvUNet, 1, input_channels=2, n_stages=4, features_per_stage=[4, 8, 12, 12], conv_op=nn.Conv3d,
        kernel_sizes=3, strides=[1, [1, 2, 2], 2, 2], n_conv_per_stage=2, num_classes=3, n_conv_per_stage_decoder=2,
        conv_bias=True, norm_op=nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip
    file = {"network_weights": whole(source)}
    target = DynUNet(**dynunet_arguments(file))
    receipt = transfer(target, file)
    assert (receipt.share, receipt.missing, receipt.wrong_shape) == (1.0, (), ())
    source.decoder.deep_supervision = False
    image = torch.rand(1, 2, 16, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(target.eval()(image), source.eval()(image), rtol=1e-4, atol=1e-5)


def test_arguments_of_a_dynunet_need_a_plain_unet() -> None:
    with pytest.raises(ValueError, match=r"must be of a plain U-Net of nnU-Net.*got 0 stages"):
        dynunet_arguments(whole(swin(1)))


# --- networks that MONAI lacks


def test_anatomix_has_the_published_layers() -> None:
    with torch.device("meta"):
        state = AnatomixUNet(3, out_channels=None).state_dict()
    convolutions = {name: tuple(t.shape[:2]) for name, t in state.items() if t.ndim == 5}
    assert len(convolutions) == 20
    assert convolutions["model.0.weight"] == (16, 1)
    assert convolutions["model.38.weight"] == (128, 384)
    assert convolutions["model.65.weight"] == (16, 16)
    assert detect(state) is PUBLISHED["anatomix"]


@pytest.mark.parametrize("wrapper", ["", "_orig_mod."])
def test_anatomix_fills_all_but_the_head(wrapper: str) -> None:
    source, target = seeded(AnatomixUNet, 1, out_channels=None), seeded(AnatomixUNet, 2, out_channels=3)
    receipt = transfer(target, {wrapper + name: t for name, t in whole(source).items()})
    assert receipt.key_map == "anatomix"
    assert receipt.missing == ("head.weight", "head.bias")
    assert "licence MIT" in str(receipt)
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(target.eval()(image), target.head(source.eval()(image)))


def test_stu_net_fills_its_network() -> None:
    dims = {"depth": [1, 2, 1], "dims": [4, 8, 8], "strides": [2, [1, 2, 2]]}
    source, target = seeded(STUNet, 1, 1, 105, **dims), seeded(STUNet, 2, 1, 3, **dims)
    receipt = transfer(target, {"state_dict": whole(source), "epoch": 4000})
    assert receipt.key_map == "stu_net"
    assert len(receipt.wrong_shape) == 4
    assert encoder_equals(source, target, 16)
    deep_ = seeded(STUNet, 3, 1, 3, **dims, deep_supervision=True)
    assert [tuple(m.shape[2:]) for m in deep_.train()(torch.rand(1, 1, 8, 8, 8))] == [(8, 8, 8), (4, 4, 4)]


# --- all of them


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_source_says_whose_it_is_and_what_may_be_done_with_it(name: str) -> None:
    one = PUBLISHED[name]
    assert one.source
    assert one.licence
    assert one.trained
    assert one.citation
    assert one.remedy
    assert one.network["_target_"]


def test_a_file_for_another_network_is_named_and_loads_nothing() -> None:
    target = seeded(SegResNet, 2)
    before = whole(target)
    with pytest.raises(WeightsMismatchError, match=r"names are those of SuPreM.*which fits MONAI's SwinUNETR"):
        transfer(target, suprem_swin_file(swin(1)))
    with pytest.raises(WeightsMismatchError, match=r"names are nearest to those of VISTA3D.*fits MONAI's SegResNetDS"):
        transfer(target, {**vista_file(1)[1], "one_more.weight": torch.zeros(2)})
    assert all(torch.equal(before[name], t) for name, t in target.state_dict().items())


def test_sizes_that_differ_name_the_settings_to_look_at() -> None:
    with pytest.raises(WeightsMismatchError, match=r"read as ct_fm: see `init_filters`, `blocks_down`"):
        transfer(deep(2, width=8, dsdepth=4), whole(deep(1, dsdepth=4)), key_map="ct_fm")
    other = DynUNet(3, 1, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 8, 8, 8], trans_bias=True)
    with pytest.raises(WeightsMismatchError, match=r"monai_cl\.weights\.dynunet_arguments\(file\)"):
        transfer(other, plain_names(dynunet(1)))


def test_a_first_convolution_of_other_channels_is_made_when_asked() -> None:
    source, target = deep(1, dsdepth=4), deep(2, dsdepth=4, in_channels=3)
    with pytest.raises(WeightsMismatchError, match=r"other ones in encoder\.conv_init\.weight; use inflate_channels"):
        transfer(target, whole(source), key_map="ct_fm")
    receipt = transfer(target, whole(source), key_map="ct_fm", inflate_channels=True)
    assert receipt.inflated == ("encoder.conv_init.weight",)
