"""What is of this bundle alone: its stages, its other forms, slabs, mixup, and slices along another axis."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from test_bundle_runs import run

from monai_cl import bundles, weights
from monai_cl.data import probe_patches
from monai_cl.engine import read_history
from monai_cl.losses import DenseContrastiveLoss

VOLUMES: dict[str, Any] = {
    "image_size": [16, 16, 8],
    "roi_size": "@image_size",
    "filters": [4, 8, 8],
}  # roi_size: not that of slices


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.copy("global_local_contrast", tmp_path / "bundle")


def state(bundle: Path, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(bundle / "models" / name, weights_only=True)
    return found


def test_two_stages_hand_over_an_encoder_that_the_second_leaves_bit_for_bit(bundle: Path, study: Path) -> None:
    run(bundle, "pretrain", study, epoch_length=2)
    run(bundle, "pretrain", study, ("local.yaml",), epoch_length=2, decoder_blocks=2)
    first, second = state(bundle, "pretrained.pt"), state(bundle, "pretrained_local.pt")
    encoder = [name for name in first if name.startswith(("input_block", "downsamples", "bottleneck"))]
    assert any("running_var" in name for name in encoder)
    assert all(torch.equal(first[name], second[name]) for name in encoder)
    decoder = [name for name in first if name.startswith("upsamples")]
    changed = {name.split(".")[1] for name in decoder if not torch.equal(first[name], second[name])}
    assert changed == {"0", "1"}  # of three blocks
    touched = set(weights.read_contract(bundle / "models/pretrained_local.pt")["touched"])
    assert {name.split(".")[0] for name in touched} >= {"input_block", "downsamples", "bottleneck", "upsamples"}
    assert "local" in read_history(bundle / "runs/pretrain_local/history.csv")[0]
    run(bundle, "train", study, pretrained=str(bundle / "models/pretrained_local.pt"))
    run(bundle, "evaluate", study)
    assert "val_mean_dice" in (bundle / "runs/evaluate/metrics.csv").read_text()


def test_a_second_stage_without_the_first_is_refused(bundle: Path, study: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^Failed to evaluate ") as caught:  # MONAI's words
        run(bundle, "pretrain", study, ("local.yaml",))
    assert "no file of weights at" in bundles._reason(caught.value)


@pytest.mark.parametrize(
    ("overlay", "changes", "terms"),
    [
        ("joint", {}, {"global", "dense"}),
        ("dense", {}, {"dense"}),
        ("dense_masked", {"block_size": 4}, {"dense", "masked"}),
        (None, {"contrast": "nt_xent"}, {"global"}),
        (None, {"contrast": "gd-", "num_views": 3, "flip": 0.5}, {"global"}),
        (None, {"contrast": "position"}, {"global"}),
    ],
)
def test_other_forms_pretrain(
    overlay: str | None, changes: dict[str, Any], terms: set[str], bundle: Path, study: Path
) -> None:
    run(bundle, "pretrain", study, (f"{overlay}.yaml",) if overlay else (), **changes)
    name = f"_{overlay}" if overlay else ""
    (row,) = read_history(bundle / f"runs/pretrain{name}/history.csv")
    assert terms <= set(row)
    assert not ({"global", "local", "across", "dense", "masked"} - terms) & set(row)
    assert (bundle / f"models/pretrained{name}.pt").is_file()


def test_slabs_pretrain_a_network_for_volumes(bundle: Path, study: Path) -> None:
    run(bundle, "pretrain", study, ("joint.yaml", "volumes.yaml"), **VOLUMES)
    run(bundle, "train", study, ("volumes.yaml",), pretrained=str(bundle / "models/pretrained_joint.pt"), **VOLUMES)
    run(bundle, "inference", study, ("volumes.yaml",), **VOLUMES)
    assert len(list((bundle / "runs/inference").rglob("*.nii.gz"))) == 8
    assert state(bundle, "model.pt")["input_block.conv1.conv.weight"].ndim == 5


@pytest.mark.parametrize(("step", "name"), [("pretrain", "slab"), ("train", "roi_size"), ("inference", "roi_size")])
def test_one_size_serves_every_step_of_volumes(step: str, name: str) -> None:
    configs = bundles.path("global_local_contrast") / "configs"
    parser = ConfigParser()
    parser.read_config([str(configs / f"{file}.yaml") for file in (step, "small", "volumes")])
    expected = {"slab": 32, "roi_size": [64, 64, 32]}
    assert parser.get_parsed_content(name) == expected[name]
    parser = ConfigParser()
    parser.read_config([str(configs / f"{file}.yaml") for file in (step, "small", "volumes")])
    parser.set([24, 48, 32], "image_size")
    parser.set(0, "slice_axis")
    expected = {"slab": 24, "roi_size": [24, 48, 32]}
    assert parser.get_parsed_content(name) == expected[name]


def test_volumes_of_two_sides_are_refused_by_name(bundle: Path, study: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^Failed to evaluate ") as caught:  # MONAI's words
        run(bundle, "pretrain", study, ("dense.yaml", "volumes.yaml"), **{**VOLUMES, "image_size": [16, 16]})
    reason = "image_size must have 3 sides with slab 2 (slices, slab 1, have 2, and thicker slabs 3), got [16, 16]"
    assert bundles._reason(caught.value).startswith(reason)


def test_fine_tuning_mixes_slices_along_another_axis(bundle: Path, study: Path) -> None:
    where = {"slice_axis": 0, "filters": [4, 8, 8]}
    run(bundle, "pretrain", study, **where)
    run(bundle, "train", study, mixup=0.2, flip=0.5, finetune_epoch_length=2, **where)
    run(bundle, "inference", study, **where)
    assert len(list((bundle / "runs/inference").rglob("*.nii.gz"))) == 8


def test_patches_of_slices_lie_in_their_volume(study: Path) -> None:
    from monai_cl import recipes

    found = probe_patches(
        study / "datalist.json", "validation", recipes.load("small_mr"), (12, 12), dataset_dir=study, slice_axis=1
    )
    assert [tuple(patch[key].shape) for patch in found for key in ("image", "label")] == [(1, 12, 12)] * 4
    assert all(bool((patch["label"] > 0).any()) for patch in found)


@pytest.mark.parametrize(("name", "overlay"), [("global_local_contrast", "dense"), ("volume_contrast", "volume_dense")])
def test_anchors_of_the_dense_term_are_a_setting(name: str, overlay: str) -> None:
    configs = bundles.path(name) / "configs"
    parser = ConfigParser()
    parser.read_config([str(configs / f"{file}.yaml") for file in ("pretrain", overlay, "small")])
    parser.set(7, "dense_anchors")
    found = [m for m in parser.get_parsed_content("method").modules() if isinstance(m, DenseContrastiveLoss)]
    assert [loss.num_anchors for loss in found] == [7]
    assert "dense_anchors=@dense_anchors" in str(parser["settings"]) + str(parser.get("own_settings", ""))
