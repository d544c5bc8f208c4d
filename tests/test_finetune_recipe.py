"""Recipes of fine-tuning: learning rates by layer, and a first phase with the pretrained part frozen."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet
from test_bundle_runs import run, tiny_network, undisturbed
from test_selftrain_bundle import power_cut
from torch import nn

from monai_cl import bundles, weights
from monai_cl.engine import FinetuneHandlers, FrozenFirst, RunSettings, adamw, fine_tuning, warmup_cosine
from monai_cl.engine.optimisation import _RATES

__all__ = ["undisturbed"]  # a fixture
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "SegResNet": lambda: SegResNet(init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1)),
    "UNet": lambda: UNet(3, 1, 2, channels=(4, 8, 8), strides=(2, 2), num_res_units=1),
    "BasicUNet": lambda: BasicUNet(features=(4, 4, 4, 4, 4, 4)),
    "DynUNet": lambda: DynUNet(
        3, 1, 2, kernel_size=[3] * 3, strides=[1, 2, 2], upsample_kernel_size=[2] * 2, filters=[4, 8, 8]
    ),
    "SwinUNETR": lambda: SwinUNETR(in_channels=1, out_channels=2, feature_size=12, depths=(1,) * 4, spatial_dims=2),
}
SIZE = {"SwinUNETR": [64] * 2, "BasicUNet": [32] * 3}
ENDS = {
    "SegResNet": ("convInit.conv.weight", "conv_final.2.conv.weight"),
    "UNet": ("model.0.residual.weight", "model.2.1.conv.unit0.conv.weight"),
    "BasicUNet": ("conv_0.conv_0.conv.weight", "final_conv.weight"),
    "DynUNet": ("input_block.conv1.conv.weight", "output_block.conv.conv.weight"),
    "SwinUNETR": ("swinViT.patch_embed.proj.weight", "out.conv.conv.weight"),
}


def rates(network: nn.Module, decay: float, size: Sequence[int]) -> dict[str, float]:
    optimizer = adamw(network, 0.1, decay=decay, roi_size=size)
    by_parameter = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: by_parameter[id(p)] for name, p in network.named_parameters()}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_layer_learns_at_a_share_of_the_rate_of_the_last(name: str) -> None:
    network = NETWORKS[name]()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = rates(network, 0.25, SIZE.get(name, [16] * 3))
    first, last = ENDS[name]
    assert found[first] == pytest.approx(0.025)
    assert found[last] == pytest.approx(0.1)
    assert all(0.025 - 1e-9 <= rate <= 0.1 for rate in found.values())
    steps = {round(_RATES * math.log(rate / 0.1) / math.log(0.25), 6) for rate in found.values()}
    assert steps <= {float(step) for step in range(_RATES + 1)}
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_layers_are_ordered_as_they_are_used() -> None:
    found = rates(SegResNet(init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1)), 0.01, [16] * 3)
    order = ["convInit.conv", "down_layers.1.0.conv", "down_layers.2.0.conv", "up_samples.0.0.conv"]
    order += ["up_layers.0.0.conv2.conv", "up_layers.1.0.conv2.conv", "conv_final.2.conv"]
    values = [found[next(key for key in found if key.startswith(name) and key.endswith("weight"))] for name in order]
    assert values == sorted(values)
    # registered after all of up_layers, though used before them
    assert found["up_samples.0.0.conv.weight"] < found["up_layers.1.0.conv1.conv.weight"]


def test_one_rate_for_all_is_what_it_was() -> None:
    network = SegResNet(init_filters=8)
    groups = adamw(network, 0.1, decay=1.0, roi_size=[16] * 3).param_groups
    assert [(group["weight_decay"], group["lr"]) for group in groups] == [(0.01, 0.1), (0.0, 0.1)]
    schedule = warmup_cosine(adamw(network, 0.1, decay=0.5, roi_size=[16] * 3), 10, warmup=0.1)
    schedule.optimizer.step()
    schedule.step()
    assert {round(each, 9) for each in schedule.get_last_lr()} == {
        round(0.1 * 0.5 ** (step / _RATES), 9) for step in range(_RATES + 1)
    }


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"decay": 0.0}, r"decay must be above 0 and at most 1, which leaves all layers alike, got 0\.0"),
        ({"decay": 1.5}, r"decay must be above 0 and at most 1"),
        ({"decay": 0.5}, r"roi_size must be given where decay is below 1"),
    ],
)
def test_a_wrong_decay_is_refused(options: dict[str, Any], answer: str) -> None:
    with pytest.raises(ValueError, match=answer):
        adamw(SegResNet(init_filters=8), 0.1, **options)


# --- a first phase with the pretrained part frozen


def network() -> SegResNet:
    torch.manual_seed(0)
    return SegResNet(spatial_dims=2, init_filters=8, blocks_down=(1, 1), blocks_up=(1,))


def started(folder: Path, *, touched: list[str] | None = None) -> SegResNet:
    """A network that begins with a file of weights."""
    file = folder / "pretrained.pt"
    weights.save_network(network(), file, contract={} if touched is None else {"touched": touched})
    begun = network()
    weights.start_from(begun, file)
    return begun


def moved_at(net: SegResNet, folder: Path, share: float, *, steps: int = 4) -> list[set[str]]:
    """Names of the parameters that each step moves."""
    items = [{"image": torch.rand(1, 8, 8), "label": torch.randint(0, 2, (1, 8, 8))} for _ in range(4)]
    optimizer = torch.optim.AdamW(net.parameters(), 0.1)
    handlers = FinetuneHandlers(
        folder, folder / "model.pt", RunSettings("small_mr"), network=net, scheduler=warmup_cosine(optimizer, 100),
        frozen=share,
    )  # fmt: skip
    trainer = fine_tuning(
        net, DataLoader(items, batch_size=2), max_epochs=steps // 2, epoch_length=2,
        loss=DiceCELoss(softmax=True, to_onehot_y=True), optimizer=optimizer,
    )  # fmt: skip
    for handler in handlers.everywhere:
        handler.attach(trainer)
    found: list[set[str]] = []
    before = {name: p.detach().clone() for name, p in net.named_parameters()}

    @trainer.on(Events.ITERATION_COMPLETED)
    def _() -> None:
        found.append({name for name, p in net.named_parameters() if not torch.equal(before[name], p)})
        before.update({name: p.detach().clone() for name, p in net.named_parameters()})

    trainer.run()
    return found


OUTPUT = {"conv_final.2.conv.weight", "conv_final.2.conv.bias"}


def test_what_came_from_the_file_is_frozen_at_first_and_the_output_layer_learns(tmp_path: Path) -> None:
    everything = {name for name, _ in network().named_parameters()}
    found = moved_at(started(tmp_path), tmp_path, 0.5)
    assert found[1] == OUTPUT
    assert found[0] <= OUTPUT  # the learning rate rises from 0
    assert found[2] == found[3] == everything
    assert moved_at(started(tmp_path), tmp_path, 0.0)[1] == everything


def test_what_pretraining_has_not_moved_learns_from_the_start(tmp_path: Path) -> None:
    touched = [name for name in network().state_dict() if name.startswith(("convInit", "down_layers"))]
    found = moved_at(started(tmp_path, touched=touched), tmp_path, 0.5)
    assert found[1] == {name for name, _ in network().named_parameters()} - set(touched)


def test_from_scratch_nothing_is_frozen(tmp_path: Path) -> None:
    assert moved_at(network(), tmp_path, 0.9)[1] == {name for name, _ in network().named_parameters()}


def test_something_must_be_left_to_train(tmp_path: Path) -> None:
    class Own(nn.Sequential):
        """A network whose output layer is not known."""

    net = Own(nn.Conv2d(1, 2, 1))
    weights.save_network(net, tmp_path / "pretrained.pt", contract={})
    weights.start_from(net, tmp_path / "pretrained.pt")
    with pytest.raises(ValueError, match="finetune_frozen must leave something to train, all 2 parameters came from"):
        moved_at(net, tmp_path, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the frozen share must be at least 0 and below 1, got 1\.0"):
        FrozenFirst(net, 1.0)


# --- in the bundles

RECIPE: dict[str, Any] = {"finetune_epochs": 3, "finetune_epoch_length": 2, "labels": 2}
RECIPE |= {"finetune_decay": 0.3, "finetune_frozen": 0.7}


@pytest.mark.parametrize("name", [n for n in bundles.names() if (bundles.path(n) / "configs/selftrain.yaml").is_file()])
def test_a_self_training_interrupted_while_frozen_ends_as_one_that_was_not(
    name: str, study: Path, tmp_path: Path
) -> None:
    begin = tmp_path / "begin.pt"
    whole, broken = (bundles.copy(name, tmp_path / folder) for folder in ("whole", "broken"))
    weights.save_network(tiny_network(whole, study), begin, contract={})
    run(whole, "train", study, ("selftrain.yaml",), **RECIPE, pretrained=str(begin))
    with power_cut():
        run(broken, "train", study, ("selftrain.yaml",), **RECIPE, pretrained=str(begin))
    run(broken, "train", study, ("selftrain.yaml",), **RECIPE, pretrained=str(begin))
    ends = [torch.load(root / "models/model.pt", weights_only=True) for root in (whole, broken)]
    assert all(torch.equal(ends[0][key], value) for key, value in ends[1].items())
    checkpoint = torch.load(whole / "runs/selftrain/checkpoint.pt", weights_only=True)
    assert len({group["initial_lr"] for group in checkpoint["optimizer"]["param_groups"]}) > 2


def test_the_recipe_of_a_fine_tuning_stands_in_its_record(study: Path, tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    run(root, "train", study, **RECIPE, pretrained="none")
    settings = json.loads((root / "runs/train/run.json").read_text())["settings"]
    assert (settings["finetune_decay"], settings["finetune_frozen"]) == (0.3, 0.7)
