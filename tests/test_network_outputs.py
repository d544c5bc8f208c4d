"""Networks of MONAI in fine-tuning: one map or several, or refused by name before a step is run."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks import nets
from monai.utils import set_determinism
from torch import nn

from monai_cl import bundles
from monai_cl.engine import VoxelLoss, pretraining, random_state
from monai_cl.methods import GlobalLocalContrast, MaskedReconstruction, SequenceContrast, VolumeContrast, VoxelPosition
from monai_cl.networks import check_segmenter, segmenter

SIZE = (32, 32, 32)
PLAIN = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
DYN = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3, "filters": [4, 8, 8, 8]}
PLUS = {"features": (4, 4, 8, 8, 8, 4)}
TRAINED = {
    "UNet": {**PLAIN, "channels": (4, 8), "strides": (2,)},
    "BasicUNet": {**PLAIN, **PLUS},
    "BasicUNetPlusPlus": {**PLAIN, **PLUS},
    "BasicUNetPlusPlus deep": {**PLAIN, **PLUS, "deep_supervision": True},
    "DynUNet": {**PLAIN, **DYN, "norm_name": "instance"},
    "DynUNet deep": {**PLAIN, **DYN, "norm_name": "instance", "deep_supervision": True, "deep_supr_num": 2},
    "SegResNet": {**PLAIN, "init_filters": 8},
    "SegResNetDS": {**PLAIN, "init_filters": 8},
    "SegResNetDS deep": {**PLAIN, "init_filters": 8, "dsdepth": 3},
    "UNETR": {**PLAIN, "img_size": SIZE, "feature_size": 4, "hidden_size": 48, "mlp_dim": 64, "num_heads": 4},
    "VNet": {**PLAIN},
    "AttentionUnet": {**PLAIN, "channels": (4, 8), "strides": (2,)},
    "FlexibleUNet": {**PLAIN, "backbone": "resnet10", "decoder_channels": (8, 8, 4, 4, 4)},
    "HighResNet": {**PLAIN},
    "RegUNet": {**PLAIN, "num_channel_initial": 4, "depth": 2},
    "MedNeXt": {**PLAIN, "init_filters": 4},
    "MedNeXt deep": {**PLAIN, "init_filters": 4, "deep_supervision": True},
}
MAPS = {"BasicUNetPlusPlus deep": 4, "DynUNet deep": 3, "SegResNetDS deep": 3, "MedNeXt deep": 5}
REFUSED = {
    "SegResNetVAE": ({**PLAIN, "init_filters": 8, "input_image_size": SIZE}, r"SegResNetVAE returns a tensor of shape"),
    "VarAutoEncoder": (
        {"spatial_dims": 3, "in_shape": (1, *SIZE), "out_channels": 3, "latent_size": 4, "channels": (4, 8),
         "strides": (2, 2)},
        r"VarAutoEncoder returns a tensor of shape \(2, 4\) for two images; take a network that returns one map",
    ),
    "ViTAutoEnc": (
        {"in_channels": 1, "img_size": SIZE, "patch_size": (16,) * 3, "out_channels": 3, "hidden_size": 48,
         "mlp_dim": 64, "num_heads": 4, "num_layers": 1},
        "ViTAutoEnc returns a list as well",
    ),
    "DenseNet121": (PLAIN, r"DenseNet121 returns a tensor of shape \(2, 3\) for two images"),
    "SwinUNETR": (
        {"in_channels": 1, "out_channels": 3, "feature_size": 12},
        r"roi_size \(32, 32, 32\), SwinUNETR does not: Expected more than 1 spatial element",
    ),
    "SegResNet": ({**PLAIN, "out_channels": 4}, "must give 3 channels, one for each class, SegResNet gives 4; set its"),
    "BasicUNet": (
        {**PLAIN, "in_channels": 2},
        "must take images of in_channels 1 .*, BasicUNet does not: .*to have 2 channels, but got 1",
    ),
    "UNet": ({**PLAIN, "spatial_dims": 2, "channels": (4, 8), "strides": (2,)}, "UNet does not"),
}  # fmt: skip


def build(name: str, arguments: dict[str, object]) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = getattr(nets, name.split()[0])(**arguments)
    return segmenter(network)


def check(network: nn.Module) -> None:
    check_segmenter(network, in_channels=1, out_channels=3, roi_size=SIZE)


def quick(names: Iterable[str], slow: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in names]


@pytest.mark.parametrize("name", quick(TRAINED, ["HighResNet", "VNet"]))
def test_a_network_trains_and_gives_one_map_otherwise(name: str) -> None:
    network = build(name, TRAINED[name])
    names = set(network.state_dict())
    assert names == set(getattr(nets, name.split()[0])(**TRAINED[name]).state_dict())
    before = random_state.capture()
    check(network)
    assert torch.equal(before["torch"], random_state.capture()["torch"])
    image, label = torch.rand(2, 1, *SIZE), torch.randint(0, 3, (2, 1, *SIZE))
    maps = network.train()(image)
    assert (len(maps) if isinstance(maps, list) else 1) == MAPS.get(name, 1)
    loss = VoxelLoss(DiceCELoss(to_onehot_y=True, softmax=True))(maps, label)
    loss.backward()
    assert bool(torch.isfinite(loss.detach()))
    assert any(bool(p.grad.any()) for p in network.parameters() if p.grad is not None)
    with torch.no_grad():
        assert network.eval()(image).shape == (2, 3, *SIZE)


@pytest.mark.parametrize("name", REFUSED)
def test_another_network_is_refused_by_name(name: str) -> None:
    arguments, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        check(build(name, arguments))


@pytest.mark.parametrize("name", MAPS)
def test_the_main_map_comes_first_and_weighs_most(name: str) -> None:
    network = build(name, TRAINED[name]).train()
    image, label = torch.rand(2, 1, *SIZE), torch.randint(0, 3, (2, 1, *SIZE))
    for module in network.modules():  # nothing that differs between training and evaluation
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.Dropout):
            module.eval()
    with torch.no_grad():
        maps = network(image)
        torch.testing.assert_close(maps[0], network.eval()(image))
        plain = DiceCELoss(to_onehot_y=True, softmax=True)
        sizes = [torch.nn.functional.interpolate(label.float(), m.shape[2:], mode="nearest-exact") for m in maps]
        expected = sum(max(0.5**i, 0.0625) * plain(m, y) for i, (m, y) in enumerate(zip(maps, sizes, strict=True)))
        torch.testing.assert_close(VoxelLoss(plain)(maps, label), expected)


def test_maps_that_dynunet_stacks_are_those_it_stacks() -> None:
    network = build("DynUNet deep", TRAINED["DynUNet deep"]).train()
    plain = getattr(nets, "DynUNet")(**TRAINED["DynUNet deep"]).train()  # noqa: B009
    plain.load_state_dict(network.state_dict())
    image = torch.rand(1, 1, *SIZE)
    with torch.no_grad():
        assert torch.equal(torch.stack(network(image), 1), plain(image))


def test_dints_trains() -> None:
    space = nets.TopologyInstance(
        num_blocks=2,
        num_depths=2,
        use_downsample=True,
        arch_code=[np.ones((2, 4)), np.zeros((2, 4))],
        device="cpu",
        channel_mul=0.25,
    )
    network = segmenter(nets.DiNTS(space, in_channels=1, num_classes=3))
    check(network)
    assert network.train()(torch.rand(1, 1, *SIZE)).shape == (1, 3, *SIZE)


def test_a_network_that_wants_values_is_asked_with_values() -> None:
    asked_on: list[str] = []

    class Wants(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            asked_on.append(image.device.type)
            return image.repeat(1, 3, 1, 1, 1) if float(image.sum()) == 0 else image

    check(segmenter(Wants()))
    assert asked_on[-1] == "cpu"  # and not on a device that holds shapes alone


def test_asked_twice_the_maps_are_arranged_once() -> None:
    network = segmenter(build("BasicUNetPlusPlus deep", TRAINED["BasicUNetPlusPlus deep"]))
    assert len(network._forward_hooks) == 1


@pytest.mark.parametrize("method", [VolumeContrast, SequenceContrast, GlobalLocalContrast])
@pytest.mark.parametrize("name", ["VNet", "BasicUNetPlusPlus"])
def test_pretraining_refuses_a_network_without_taps_by_name(name: str, method: Any) -> None:
    with pytest.raises(ValueError, match=rf"network must be one of MONAI's .* or a subclass, got {name}"):
        method(getattr(nets, name)(**TRAINED[name]), SIZE)


@pytest.mark.parametrize("method", [lambda network: SequenceContrast(network, SIZE), VoxelPosition])
def test_pretraining_a_decoder_refuses_a_network_with_a_loss_of_its_own(method: Any) -> None:
    with pytest.raises(ValueError, match="SegResNetVAE gives a loss of its own as well; take SegResNet"):
        method(nets.SegResNetVAE(**REFUSED["SegResNetVAE"][0]))


@pytest.mark.parametrize("name", [*MAPS, "UNETR", "AttentionUnet"])
def test_what_is_hidden_is_restored_from_the_main_map(name: str) -> None:
    method = MaskedReconstruction(getattr(nets, name.split()[0])(**TRAINED[name]))
    method({"image": torch.rand(2, 1, *SIZE)})["loss"].backward()
    assert all(bool(parameter.grad.any()) for parameter in method.terms.parameters())


@pytest.mark.parametrize("name", ["SegResNetVAE", "DenseNet121"])
def test_what_is_hidden_needs_a_map_to_be_restored_from(name: str) -> None:
    method = MaskedReconstruction(getattr(nets, name)(**REFUSED[name][0]))
    with pytest.raises(ValueError, match=f"size of its image, {name} returns something else"):
        method({"image": torch.rand(2, 1, *SIZE)})


@pytest.mark.parametrize("name", quick(MAPS, ["BasicUNetPlusPlus deep", "SegResNetDS deep", "MedNeXt deep"]))
def test_a_bundle_takes_it_by_override(name: str, study: Path, tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    definition = {
        "_target_": name.split()[0],
        **{k: list(v) if isinstance(v, tuple) else v for k, v in TRAINED[name].items()},
    }
    given = {
        "bundle_root": str(root), "dataset_dir": str(study), "recipe": "small_mr", "roi_size": list(SIZE),
        "network_def": definition, "logging_file": False, "output_dir": str(tmp_path / "out"),
    }  # fmt: skip
    training = {"pretrained": "none", "finetune_epochs": 1, "finetune_epoch_length": 2, "num_workers": 0}
    configs = root / "configs"
    before = random_state.capture()
    try:
        monai.bundle.run(config_file=str(configs / "train.yaml"), **given, **training)
        monai.bundle.run(config_file=[str(configs / f"{step}.yaml") for step in ("train", "evaluate")], **given)
        monai.bundle.run(config_file=str(configs / "inference.yaml"), **{**given, "dataset_dir": str(study / "images")})
    finally:
        set_determinism(seed=None)
        random_state.restore(before)
    assert "val_mean_dice" in (tmp_path / "out" / "metrics.csv").read_text()
    assert len(list((tmp_path / "out").rglob("*_seg.nii.gz"))) == 8


def test_a_bundle_refuses_by_name_before_a_step(study: Path, tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    definition = {"_target_": "SegResNetVAE", **PLAIN, "init_filters": 8, "input_image_size": list(SIZE)}
    before = random_state.capture()
    try:
        with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:  # MONAI's words
            monai.bundle.run(
                config_file=str(root / "configs" / "train.yaml"), bundle_root=str(root), dataset_dir=str(study),
                recipe="small_mr", roi_size=list(SIZE), network_def=definition, pretrained="none", logging_file=False,
            )  # fmt: skip
    finally:
        set_determinism(seed=None)
        random_state.restore(before)
    assert re.match("network_def must give maps to learn from, SegResNetVAE returns", str(caught.value.__cause__))
    assert not (root / "models" / "model.pt").exists()


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_last_changes_the_layout_and_no_value(dims: int) -> None:
    torch.manual_seed(0)
    network = nets.UNet(dims, 1, 2, (4, 8), (2,))
    image = torch.randn(1, 1, *[16] * dims)
    before, state = network(image), {name: t.clone() for name, t in network.state_dict().items()}
    network = segmenter(network, channels_last=True)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    kernels = [p for p in network.parameters() if p.ndim == dims + 2]
    assert all(kernel.is_contiguous(memory_format=layout) for kernel in kernels)
    assert all(torch.equal(t, state[name]) for name, t in network.state_dict().items())
    torch.testing.assert_close(network(image), before)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_pretraining_lays_out_kernels_and_learns_the_same(dims: int) -> None:
    methods = []
    for last in (False, True):
        set_determinism(seed=0)
        method = MaskedReconstruction(nets.UNet(dims, 1, 1, (4, 8), (2,)), block_size=2)
        batch = {"image": torch.rand(2, 1, *[8] * dims)}
        sgd = torch.optim.SGD(method.parameters(), 0.1)  # not Adam, which makes much of rounding
        pretraining(method, [batch] * 2, max_epochs=1, epoch_length=2, optimizer=sgd, channels_last=last).run()
        methods.append(method)
    set_determinism(seed=None)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    kernels = [p for p in methods[1].parameters() if p.ndim == dims + 2]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=layout) for kernel in kernels)
    for one, other in zip(methods[0].parameters(), methods[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
