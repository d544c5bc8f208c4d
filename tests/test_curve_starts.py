"""Arms of a curve that start from weights by name: those that are shipped, and published ones with their twin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import SegResNet
from test_curve import NETWORK, Pretend, config, curve_of, measure
from test_curve_overlays import Slower

from monai_cl import bundles, weights
from monai_cl.evaluation._checks import OtherSettingsError
from monai_cl.evaluation._config import read_config
from monai_cl.evaluation._plan import make_plan
from monai_cl.evaluation.records import TWIN
from monai_cl.report._headline import headline
from monai_cl.report._label_curve import curve_tables
from monai_cl.weights._preparation import differences, preparation_of

__all__ = ["config"]  # a fixture
ARMS = {"scratch": {"pretrained": "none"}, "box": {"pretrained": "shipped"}}


@pytest.fixture
def boxed(config: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A curve on a bundle that ships weights of the network in use."""
    root = bundles.copy("volume_contrast", tmp_path / "bundle")

    def write(**changes: Any) -> Path:
        return config(**{"bundle": str(root), "arms": ARMS, **changes})

    ship(root, write())
    return write


def ship(root: Path, curve: Path, step: int = 1) -> None:
    net = make_plan(read_config(curve)).train.network(NETWORK)
    touched = [name for name, _ in net.named_parameters() if not name.startswith("conv_final")]
    weights.save_shipped(net, root / "models/shipped/tiny.safetensors", touched=touched, contract={"steps": step})


def test_an_arm_starts_from_what_is_shipped_and_its_record_says_which(
    boxed: Callable[..., Path], tmp_path: Path
) -> None:
    launch = Pretend()
    curve = curve_of(measure(boxed(), launch))
    starts = {given["pretrained"] for given in launch.given if "labels" in given}
    assert starts == {"none", "shipped"}
    assert (curve.arm("box").role, curve.arm("box").runs) == ("pretrained", ("shipped",))
    assert [round(d.estimate, 6) for d in curve.differences("box")] == [0.1, 0.1, 0.1]
    expected = "box: the comparison at equal compute is that at equal steps, for the weights came with the package"
    assert expected in curve.notes

    ship(tmp_path / "bundle", boxed(), step=2)  # another file of that name
    with pytest.raises(OtherSettingsError, match=r"fine-tuning with other settings \(pretrained: "):
        measure(boxed(seeds=[0, 1, 2]))


def test_longer_steps_from_shipped_weights_are_given_to_scratch(boxed: Callable[..., Path]) -> None:
    """The weights cost nothing, self-training from them does."""
    arms = {**ARMS, "own": {"pretrained": "shipped", "overlays": ["selftrain"]}}
    curve = curve_of(measure(boxed(arms=arms, budgets=[1], convergence=False), Slower()))
    given = curve.record["equal_compute"]
    assert set(given) == {"own"}
    assert given["own"]["pretraining_seconds"] == 0
    assert given["own"]["finetuning_seconds"] == pytest.approx(4)  # 20 steps of 0.3 s in place of 0.1 s
    assert given["own"]["extra_steps"] == 40
    longer = "4 s that its fine-tuning takes longer are 40 more steps of fine-tuning"
    assert curve.arm("scratch_plus_own").note.startswith(longer)
    assert [each.budget for each in curve.differences("own", comparison="equal compute")] == [1]
    assert not any(note.startswith("own: the comparison at equal compute") for note in curve.notes)
    note = "box: the comparison at equal compute is that at equal steps, for the weights came with the package"
    assert note in curve.notes

    curve = curve_of(measure(boxed(arms=arms, budgets=[1], convergence=False, equal_compute=False), Slower()))
    assert "own: the comparison at equal compute was switched off or failed" in curve.notes


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"pretrained": "auto"}, r"pretrained of arm 'box' must name what networks start from: none, shipped, paths"),
        (
            {"pretrained": "shipped", "settings": {"init_filters": 16}},
            r"arm 'box' cannot start: shipped weights must be of the network in use, none fit this SegResNet; known",
        ),
    ],
)
def test_an_arm_must_have_a_start_that_is_there(boxed: Callable[..., Path], arm: dict[str, Any], said: str) -> None:
    launch = Pretend()
    with pytest.raises(ValueError, match=said):
        measure(boxed(arms={**ARMS, "box": arm}), launch)
    assert not launch.given


# --- published weights: theirs, and their network from scratch


def theirs(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "scratch": {"pretrained": "none"},
        "suprem": {
            "pretrained": {"published": "suprem_segresnet", "file": str(tmp_path / "suprem.pth"), **more},
            "settings": {"finetune_learning_rate": 0.001},
        },
    }


@pytest.fixture
def suprem(tmp_path: Path) -> Path:
    """A file with the names and shapes of SuPreM's SegResNet."""
    net = SegResNet(init_filters=16, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), out_channels=32)
    torch.save({"net": {f"module.{name}": t for name, t in net.state_dict().items()}}, tmp_path / "suprem.pth")
    return tmp_path


def test_published_weights_bring_their_network_and_recipe_and_a_twin_from_scratch(
    config: Callable[..., Path], suprem: Path
) -> None:
    launch = Pretend()
    curve = curve_of(measure(config(arms=theirs(suprem), seeds=[0], budgets=[1]), launch))
    assert [(arm.name, arm.role, arm.twin) for arm in curve.arms if arm.role != "twice the steps"] == [
        ("scratch", "reference", ""), ("suprem", "pretrained", "suprem_scratch"), ("suprem_scratch", "scratch", ""),
    ]  # fmt: skip
    assert [round(each.estimate, 6) for each in curve.differences("suprem", comparison=TWIN)] == [0.1]
    assert "over suprem: its network from scratch" in headline(curve)
    assert "suprem less suprem_scratch" in [
        column for table in curve_tables(curve) if TWIN in table.caption for column in table.columns
    ]
    tuned = [given for given in launch.given if "labels" in given]
    own, twin, ours = (
        next(given for given in tuned if f"/{name}/" in given["output_dir"])
        for name in ("suprem", "suprem_scratch", "scratch")
    )
    assert (own["pretrained"], twin["pretrained"]) == (str(suprem / "suprem.pth"), "none")
    alike = [key for key in own if key not in ("pretrained", "model", "output_dir")]
    assert {key: own[key] for key in alike} == {key: twin[key] for key in alike}
    assert (own["recipe"], ours["recipe"]) == ("ct_abdomen", "small_mr")
    assert own["network_def"]["_target_"] == "SegResNet"
    assert "network_def" not in ours
    evaluated = [given for given in launch.given if "evaluation_section" in given]
    assert {given["recipe"] for given in evaluated if "suprem" in given["output_dir"]} == {"ct_abdomen"}


def test_other_images_than_the_weights_expect_are_told(config: Callable[..., Path], suprem: Path) -> None:
    arms = theirs(suprem, recipe="small_mr", scratch=False)
    curve = curve_of(measure(config(arms=arms, seeds=[0], budgets=[1])))
    assert "suprem_scratch" not in [arm.name for arm in curve.arms]
    assert [note for note in curve.notes if "images of suprem are not as its weights expect: " in note]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"published": "suprem"}, r"published of pretrained of arm 'suprem' must be one of voco_v2, .*got 'suprem'"),
        ({"fil": "x"}, r"pretrained of arm 'suprem' must hold the keys published, file, .*got 'fil', did you mean"),
        (
            {"published": "monai_swin_ssl"},
            r"arm 'suprem' cannot start from .*suprem\.pth must be of MONAI's SwinUNETR.*those of SuPreM \(.*SegResNet",
        ),
    ],
)  # fmt: skip
def test_published_weights_that_are_others_are_refused(
    config: Callable[..., Path], suprem: Path, more: dict[str, Any], said: str
) -> None:
    launch = Pretend()
    with pytest.raises(ValueError, match=said):
        measure(config(arms=theirs(suprem, **more)), launch)
    assert not launch.given


def test_a_twin_takes_no_name_of_another_arm(config: Callable[..., Path], suprem: Path) -> None:
    arms = {**theirs(suprem), "suprem_scratch": {"pretrained": "none"}}
    with pytest.raises(ValueError, match=r"arm 'suprem' adds 'suprem_scratch', .* is an arm already"):
        measure(config(arms=arms))


@pytest.mark.parametrize("name", weights.PUBLISHED)
def test_every_source_names_a_network_that_can_be_made_and_a_recipe_that_meets_its_contract(name: str) -> None:
    key_map = weights.PUBLISHED[name]
    # sizes of a plain U-Net of nnU-Net are those of its file
    definition = weights.network_definition(name, plain_unet() if name == "nnunet_plain" else None)
    if not definition["_target_"].startswith("dynamic_network_architectures"):
        small = {"feature_size": 12} if definition["_target_"] == "SwinUNETR" else {}  # which cannot be made on meta
        ids = {"n": {**definition, **small}, "in_channels": 1, "out_channels": 3}
        with torch.device("cpu" if small else "meta"):
            network = ConfigParser(ids).get_parsed_content("n")
        assert key_map.fits(network.state_dict())
    if key_map.recipe and key_map.preparation:
        assert differences(key_map.preparation, preparation_of(key_map.recipe, key_map.recipe_options)) == ()


def plain_unet() -> dict[str, torch.Tensor]:
    """Names and shapes of a plain U-Net of nnU-Net of three stages."""
    state = {}
    for stage, (old, new) in enumerate([(1, 4), (4, 8), (8, 16)]):
        for conv, channels in enumerate((old, new)):
            state[f"encoder.stages.{stage}.0.convs.{conv}.conv.weight"] = torch.zeros(new, channels, 3, 3, 3)
    for stage, width in enumerate((8, 4)):
        for conv, channels in enumerate((2 * width, width)):
            state[f"decoder.stages.{stage}.convs.{conv}.conv.weight"] = torch.zeros(width, channels, 3, 3, 3)
        state[f"decoder.transpconvs.{stage}.weight"] = torch.zeros(2 * width, width, 2, 2, 2)
        state[f"decoder.seg_layers.{stage}.weight"] = torch.zeros(3, width, 1, 1, 1)
    return state
