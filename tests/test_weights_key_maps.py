"""Published checkpoints into MONAI's SwinUNETR, with state dicts of their names."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import SegResNet, SwinUNETR
from torch import Tensor, nn

from monai_cl.networks import encoder_features
from monai_cl.weights import PUBLISHED, WeightsMismatchError, load_network, save_network, start_from, transfer
from monai_cl.weights.published import detect

State = dict[str, Tensor]
ENCODER = ("swinViT.", "encoder")
INPUTS = [
    "swinViT.patch_embed.proj.weight",
    "encoder1.layer.conv1.conv.weight",
    "encoder1.layer.conv3.conv.weight",
]


def swin(seed: int = 0, *, use_v2: bool = True, channels: int = 1, feature_size: int = 12) -> SwinUNETR:
    torch.manual_seed(seed)
    return SwinUNETR(in_channels=channels, out_channels=3, feature_size=feature_size, use_v2=use_v2)


def encoder_of(network: nn.Module, *parts: str) -> State:
    return {k: v.clone() for k, v in network.state_dict().items() if k.startswith(parts or ENCODER)}


def projector(prefix: str, width: int) -> State:
    return {f"{prefix}.layer{n}.0.{kind}": torch.zeros(width) for n in (1, 2, 3) for kind in ("weight", "bias")}


def v2_file(network: nn.Module, wrapper: str = "module.") -> dict[str, Any]:
    state = {f"backbone.{k}": v for k, v in encoder_of(network).items()}
    state |= projector("student", 1024) | projector("teacher", 1024)
    return {wrapper + k: v for k, v in state.items()}


def tenk_file(network: nn.Module, student: nn.Module | None = None) -> dict[str, Any]:
    state: State = {}
    for name, source in (("student", student or swin(9)), ("teacher", network)):
        state |= {f"module.{name}.{k}": v for k, v in encoder_of(source).items()}
        state |= projector(f"module.{name}.proj_head", 2048)
    return {"state_dict": state, "epoch": 10, "optimizer": {"lr": 0.1}}


def cvpr_file(network: nn.Module) -> dict[str, Any]:
    return {f"module.{k}": v for k, v in (encoder_of(network, "swinViT.") | projector("p", 2048)).items()}


def early_monai_file(network: nn.Module) -> dict[str, Any]:
    """All of a network, whose transformer had another name."""
    return {re.sub("^swinViT", "swin_vit", k): v for k, v in network.state_dict().items()}


def self_supervised_monai_file(network: nn.Module) -> dict[str, Any]:
    """The transformer alone, with the older names of its perceptrons, and heads."""
    inside = {k.removeprefix("swinViT."): v for k, v in encoder_of(network, "swinViT.").items()}
    renamed = {"module." + k.replace("mlp.linear", "mlp.fc"): v for k, v in inside.items()}
    beside = {f"module.{name}": torch.zeros(4) for name in ("norm.weight", "norm.bias", "rotation_head.weight")}
    return {"state_dict": {**renamed, **beside}}


FILES = {  # writer, key map, use_v2, tensors of the encoder
    "v2": (v2_file, "voco_v2", True, 145),
    "v2 without wrapper": (lambda n: v2_file(n, ""), "voco_v2", True, 145),
    "v2 encoder alone": (encoder_of, "voco_v2", True, 145),
    "10k": (tenk_file, "voco_10k", True, 145),
    "cvpr": (cvpr_file, "voco_cvpr", False, 126),
    "early monai": (early_monai_file, "monai_swin_vit", False, 137),
    "self-supervised monai": (self_supervised_monai_file, "monai_swin_vit", False, 126),
}


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_every_encoder_tensor_of_a_published_file_arrives(name: str, explicit: bool) -> None:
    write, key_map, use_v2, tensors = FILES[name]
    source, target = swin(1, use_v2=use_v2), swin(2, use_v2=use_v2)
    untouched = {k: v.clone() for k, v in target.state_dict().items()}
    receipt = transfer(target, write(source), key_map=key_map if explicit else "auto")
    assert receipt.key_map == key_map
    assert (receipt.encoder_matched, receipt.encoder_total) == (tensors, tensors)
    assert receipt.encoder_share == 1.0
    assert not receipt.wrong_shape
    arrived, wanted = target.state_dict(), source.state_dict()
    assert all(torch.equal(arrived[k], wanted[k]) for k in receipt.matched)
    assert all(torch.equal(arrived[k], untouched[k]) for k in receipt.missing)
    assert len(receipt.matched) + len(receipt.missing) == len(arrived)
    if name != "early monai":
        assert len(receipt.matched) == tensors
        decoder = {k for k in arrived if k.startswith(("decoder", "out."))}
        assert decoder <= set(receipt.missing)


def test_a_network_of_full_size_finds_all_145(tmp_path: Path) -> None:
    source, target = swin(1, feature_size=48), swin(2, feature_size=48)
    torch.save(tenk_file(source, source), tmp_path / "10k.pt")
    receipt = transfer(target, tmp_path / "10k.pt")
    assert len(target.state_dict()) == 167
    assert len(receipt.matched) == receipt.encoder_matched == 145
    assert {name.split(".")[0] for name in receipt.missing} == {f"decoder{n}" for n in range(1, 6)} | {"out"}


def test_transferred_encoders_give_the_same_features() -> None:
    source, target = swin(1).eval(), swin(2).eval()
    transfer(target, v2_file(source))
    x = torch.rand(1, 1, 64, 32, 32)
    with torch.no_grad():
        for mine, theirs in zip(encoder_features(target, x), encoder_features(source, x), strict=True):
            assert torch.equal(mine, theirs)


def test_the_10k_file_gives_its_teacher_or_when_asked_its_student() -> None:
    teacher, student, target = swin(1), swin(3), swin(2)
    transfer(target, tenk_file(teacher, student))
    assert torch.equal(target.swinViT.patch_embed.proj.weight, teacher.swinViT.patch_embed.proj.weight)
    receipt = transfer(target, tenk_file(teacher, student), key_map="voco_10k_student")
    assert torch.equal(target.swinViT.patch_embed.proj.weight, student.swinViT.patch_embed.proj.weight)
    assert len(receipt.dropped) == 145 + 6 + 6
    alone = {"state_dict": {k: v for k, v in tenk_file(teacher, student)["state_dict"].items() if "teacher" not in k}}
    assert transfer(target, alone).key_map == "voco_10k_student"


def test_the_receipt_says_what_was_left_out_and_what_is_missing() -> None:
    receipt = transfer(swin(2), v2_file(swin(1)))
    text = str(receipt)
    assert text.startswith("key map      voco_v2: 145 of 145 encoder tensors")
    assert "missing      22: " in text
    assert "left out     12: module.student.layer1.0.weight" in text
    assert "unexpected   none" in text


RENAMED = {
    "a stage": lambda k: k.replace("layers3.", "stage3."),
    "a block": lambda k: k.replace("encoder10.", "encoder_10."),
    "one tensor": lambda k: k.replace("encoder2.layer.conv1.conv.weight", "encoder2.layer.conv1.weight"),
    "all": lambda k: k.replace("swinViT", "transformer").replace("encoder", "enc"),
}


@pytest.mark.parametrize("what", RENAMED)
@pytest.mark.parametrize("key_map", ["auto", "voco_v2"])
def test_renamed_tensors_raise_and_leave_the_network(what: str, key_map: str) -> None:
    target = swin(2)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    state = {RENAMED[what](k): v for k, v in v2_file(swin(1)).items()}
    with pytest.raises(WeightsMismatchError, match=r"at least \d+ % of the .* of SwinUNETR must match, got") as error:
        transfer(target, state, key_map=key_map)
    assert error.value.receipt.missing
    assert error.value.receipt.unexpected
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())


def test_the_floor_counts_encoder_tensors() -> None:
    state = v2_file(swin(1))
    lost = [k for k in state if ".encoder3." in k]
    for name in lost:
        del state[name]
    share = (145 - len(lost)) / 145
    told = r"100 % of the 145 encoder tensors of SwinUNETR must match, got 98\.6"
    with pytest.raises(WeightsMismatchError, match=told):
        transfer(swin(2), state)
    receipt = transfer(swin(2), state, min_matched=share)
    assert receipt.encoder_share == share
    assert sum(name.startswith("encoder3.") for name in receipt.missing) == len(lost) == 2
    with pytest.raises(WeightsMismatchError, match="must match"):
        transfer(swin(2), state, min_matched=share + 1e-6)


def test_a_network_without_residual_blocks_leaves_theirs_unexpected_and_is_refused() -> None:
    target = swin(2, use_v2=False)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    told = r"100 % of the 145 encoder tensors of SwinUNETR must match, got 94\.5.*see `use_v2`"
    with pytest.raises(WeightsMismatchError, match=told):  # other features than were pretrained
        transfer(target, v2_file(swin(1)))
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())
    receipt = transfer(target, v2_file(swin(1)), min_matched=0.9)
    assert (receipt.encoder_matched, receipt.encoder_total) == (137, 145)
    assert {name.split(".")[1] for name in receipt.unexpected} == {f"layers{n}c" for n in range(1, 5)}


def test_the_first_files_do_not_fill_the_second_transformer() -> None:
    with pytest.raises(WeightsMismatchError, match=r"134 encoder tensors.*read as voco_cvpr: see `use_v2`"):
        transfer(swin(2), cvpr_file(swin(1, use_v2=False)))


def test_another_feature_size_is_named() -> None:
    with pytest.raises(WeightsMismatchError, match=r"see `use_v2` and `feature_size`") as error:
        transfer(swin(2, feature_size=24), v2_file(swin(1)))
    assert len(error.value.receipt.wrong_shape) > 100


@pytest.mark.parametrize("name", ["v2", "10k", "early monai"])
@pytest.mark.parametrize("channels", [2, 4])
def test_other_input_channels_stop_with_the_option_that_helps(name: str, channels: int) -> None:
    write, _, use_v2, _ = FILES[name]
    target = swin(2, use_v2=use_v2, channels=channels)
    with pytest.raises(WeightsMismatchError, match=r"input channels of SwinUNETR.*inflate_channels=True") as error:
        transfer(target, write(swin(1, use_v2=use_v2)))
    assert [entry[0] for entry in error.value.receipt.wrong_shape] == INPUTS


def test_all_but_the_first_convolutions_arrive_where_a_floor_allows_it() -> None:
    target = swin(2, channels=4)
    receipt = transfer(target, v2_file(swin(1)), min_matched=0.9)
    assert [entry[0] for entry in receipt.wrong_shape] == INPUTS
    assert receipt.encoder_matched == 142
    with pytest.raises(WeightsMismatchError, match=r"inflate_channels=True"):
        transfer(target, v2_file(swin(1)), min_matched=0.99)


@pytest.mark.parametrize(("old", "new"), [(1, 4), (3, 1), (2, 3)])
def test_inflated_channels_see_a_repeated_image_as_before(old: int, new: int) -> None:
    source, target = swin(1, channels=old).eval(), swin(2, channels=new).eval()
    receipt = transfer(target, v2_file(source), inflate_channels=True)
    assert list(receipt.inflated) == INPUTS
    assert receipt.encoder_share == 1.0
    assert "inflated     3: swinViT.patch_embed.proj.weight" in str(receipt)
    for name in INPUTS:
        mine, theirs = target.state_dict()[name], source.state_dict()[name]
        torch.testing.assert_close(mine, theirs.mean(1, keepdim=True).expand_as(mine) * old / new)
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        mine, theirs = (net.swinViT(image.expand(-1, c, -1, -1, -1))[0] for net, c in ((target, new), (source, old)))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_inflating_changes_nothing_where_channels_agree() -> None:
    source, target = swin(1), swin(2)
    assert transfer(target, v2_file(source), inflate_channels=True).inflated == ()
    assert torch.equal(target.swinViT.patch_embed.proj.weight, source.swinViT.patch_embed.proj.weight)


def test_other_input_channels_of_ones_own_network_stop_too(tmp_path: Path) -> None:
    save_network(SegResNet(in_channels=1), tmp_path / "m.pt")
    told = r"got other ones in convInit\.conv\.weight; use inflate_channels=True"
    with pytest.raises(WeightsMismatchError, match=told):
        start_from(SegResNet(in_channels=2), tmp_path / "m.pt")
    receipt = start_from(SegResNet(in_channels=2), tmp_path / "m.pt", inflate_channels=True)
    assert receipt is not None
    assert receipt.inflated == ("convInit.conv.weight",)
    assert receipt.share == 1.0
    told = r"does not fill the network:\nmatched(.|\n)*wrong shape +1: convInit"
    with pytest.raises(WeightsMismatchError, match=told):
        load_network(SegResNet(in_channels=2), tmp_path / "m.pt")


def test_an_output_convolution_is_never_inflated() -> None:
    state = SegResNet(in_channels=2, out_channels=3, init_filters=16).state_dict()
    target = SegResNet(in_channels=3, out_channels=3, init_filters=8)
    receipt = transfer(target, state, min_matched=0.0, inflate_channels=True)
    assert receipt.inflated == ()


@pytest.mark.parametrize("prefix", ["", "module.", "network.", "backbone."])
def test_a_whole_network_of_ones_own_needs_no_map(prefix: str) -> None:
    source, target = swin(1), swin(2)
    receipt = transfer(target, {prefix + k: v for k, v in source.state_dict().items()})
    assert receipt.share == 1.0
    assert not receipt.missing
    assert not receipt.unexpected


def test_a_runs_own_checkpoint_is_not_taken_for_a_published_one(tmp_path: Path) -> None:
    source, target = swin(1), swin(2)
    names = [f"{who}{k}" for who in ("student.network.", "teacher.module.network.") for k in source.state_dict()]
    assert detect(names) is None
    method = dict(zip(names, 2 * list(source.state_dict().values()), strict=True))
    torch.save({"method": method, "step": 3}, tmp_path / "checkpoint.pt")
    receipt = transfer(target, tmp_path / "checkpoint.pt")
    assert receipt.key_map is None
    assert receipt.share == 1.0
    save_network(source, tmp_path / "m.pt")
    load_network(target, tmp_path / "m.pt")


def test_a_published_file_for_another_network_is_recognised_in_the_error() -> None:
    with pytest.raises(WeightsMismatchError, match=r"of SegResNet must match.*names are those of VoCo of 2024"):
        transfer(SegResNet(), v2_file(swin(1)))
    with pytest.raises(ValueError, match="key_map 'voco_v2' leads to MONAI's SwinUNETR, got SegResNet"):
        transfer(SegResNet(), v2_file(swin(1)), key_map="voco_v2")


def test_the_wrong_map_finds_too_little() -> None:
    with pytest.raises(WeightsMismatchError, match=r"read as voco_10k"):
        transfer(swin(2), v2_file(swin(1)), key_map="voco_10k")
    with pytest.raises(WeightsMismatchError, match=r"90 % of the parameters of SwinUNETR must match"):
        transfer(swin(2), v2_file(swin(1)), key_map=None)


def test_an_unknown_map_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match=r"key_map must be 'auto', None or one of \('voco_v2', .*got 'voco', did you mean 'voco"
    ):
        transfer(swin(2), {}, key_map="voco")


def test_two_tensors_of_one_name_are_refused() -> None:
    tensor = torch.zeros(1)
    with pytest.raises(ValueError, match=r"gives two tensors the name 'swinViT\.x'"):
        PUBLISHED["voco_v2"].apply({"backbone.swinViT.x": tensor, "swinViT.x": tensor})


def test_published_files_are_read_restricted_and_the_receipt_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(tenk_file(swin(1)), tmp_path / "10k.pt")
    with caplog.at_level("INFO", logger="monai_cl.weights"):
        receipt = start_from(swin(2), tmp_path / "10k.pt", min_matched=0.9)
    assert receipt is not None
    assert receipt.encoder_matched == 145
    assert "voco_10k: 145 of 145 encoder tensors" in caplog.text
