"""Weights that come with a bundle: which network they fit, which start ``auto`` takes, and how a run becomes them."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from monai.networks.nets import DynUNet
from test_bundle_runs import command, finish, fork
from test_random_anatomy_bundle import pretrain
from typer.testing import CliRunner

from monai_cl import bundles, weights
from monai_cl.cli import app
from monai_cl.engine import read_run_record
from monai_cl.engine.shipping import ship_run

# all that the run below sets: sizes of its form, and what `test_bundle_runs` makes tiny
RUN: dict[str, Any] = {
    "image_size": [16, 16], "filters": [4, 8, 8], "max_epochs": 2, "epoch_length": 1, "batch_size": 2,
    "probe_volumes": 2, "exclusion_radius": 1.0, "n_parts": 3, "out_channels": 3,
}  # fmt: skip


def unet(**changes: Any) -> DynUNet:
    given = {
        "spatial_dims": 2, "in_channels": 1, "out_channels": 3, "filters": [3, 5, 7], "kernel_size": [3] * 3,
        "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "norm_name": ("INSTANCE", {"affine": True}),
    }  # fmt: skip
    return DynUNet(**{**given, **changes})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle that ships weights of one network."""
    net = unet()
    touched = [name for name, _ in net.named_parameters() if not name.startswith("output_block")]
    contract = {"data": "random anatomies: no patient", "intensities": [0, 1], "filters": [3, 5, 7], "steps": 7}
    weights.save_shipped(net, tmp_path / "models/shipped/tiny.safetensors", touched=touched, contract=contract)
    return tmp_path


# --- which network they fit


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"out_channels": 5}, True),  # the output layer is drawn anew
        ({"deep_supervision": True, "deep_supr_num": 1}, True),  # its heads too
        ({"filters": [3, 5, 8]}, False),
        ({"filters": [3, 5, 7, 7], "kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3},
         False),
        ({"spatial_dims": 3}, False),
        ({"norm_name": "batch"}, False),  # whose statistics the file lacks
        ({"norm_name": ("GROUP", {"num_groups": 1, "affine": True})}, False),  # the same names and shapes
        ({"res_block": True}, False),
        ({"in_channels": 4}, False),
    ],
)  # fmt: skip
def test_weights_fit_their_network_alone(root: Path, changes: dict[str, Any], fits: bool) -> None:
    found = weights.shipped_for(unet(**changes), root)
    assert (found is not None and found.name == "tiny") == fits


def test_other_input_channels_fit_where_they_are_inflated(root: Path) -> None:
    net = unet(in_channels=4)
    assert weights.shipped_for(net, root, inflate_channels=True) is not None
    receipt = weights.start_from(net, "shipped", bundle_root=root, inflate_channels=True)
    assert receipt is not None
    assert receipt.inflated


def test_a_file_holds_what_pretraining_changed_and_is_the_same_each_time(root: Path) -> None:
    (found,) = (one for one in weights.shipped_weights(root) if one.name == "tiny")
    assert not any(name.startswith("output_block") for name in found.shapes)
    assert str(found) == "tiny (DynUNet, 2-D, filters [3, 5, 7])"
    net = unet()
    weights.start_from(net, "shipped", bundle_root=root)
    again = root / "again.safetensors"
    weights.save_shipped(net, again, touched=found.contract["touched"], contract=found.contract)
    assert again.read_bytes() == found.path.read_bytes()


def test_nothing_that_was_not_pretrained_is_shipped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must list the tensors that pretraining has changed, got none"):
        weights.save_shipped(unet(), tmp_path / "x.safetensors", touched=[], contract={})


# --- which start is taken


def test_auto_takes_own_pretraining_then_what_is_shipped_then_nothing(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    net, other = unet(), unet(filters=[3, 5, 9])
    receipt = weights.start_from(net, "auto", bundle_root=root)
    assert receipt is not None
    assert "start        shipped (tiny), chosen by auto" in str(receipt)
    assert "data         random anatomies: no patient" in str(receipt)
    start = weights.start_of(net)
    assert start is not None
    assert start.to_record().items() >= {"asked": "auto", "taken": "shipped", "name": "tiny"}.items()
    assert weights.start_digest(net, "auto", bundle_root=root) == start.sha256

    assert weights.start_from(other, "auto", bundle_root=root) is None
    assert re.search(r"from scratch, chosen by auto.*none fit this DynUNet; known are: .*tiny \(DynUNet", caplog.text)
    assert weights.start_digest(other, "auto", bundle_root=root) is None

    weights.save_network(unet(), root / "models/pretrained.pt", contract={"touched": []})
    assert weights.start_from(net, "auto", bundle_root=root) is not None
    taken = weights.start_of(net)
    assert (taken and taken.taken, taken and taken.name) == ("own pretraining", "pretrained.pt")
    with pytest.raises(weights.WeightsMismatchError, match="must match"):  # no silent substitute for it
        weights.start_from(other, "auto", bundle_root=root)


def test_auto_takes_what_the_only_overlay_wrote_and_asks_among_several(root: Path) -> None:
    net = unet()
    weights.save_network(unet(), root / "models/pretrained_dense.pt", contract={"touched": []})
    assert weights.choose_start(net, "auto", bundle_root=root).name == "pretrained_dense.pt"
    weights.save_network(unet(), root / "models/pretrained_joint.pt", contract={"touched": []})
    with pytest.raises(ValueError, match=r"must name one of pretrained_dense\.pt, pretrained_joint\.pt in .*got auto"):
        weights.choose_start(net, "auto", bundle_root=root)
    assert weights.choose_start(net, "none", bundle_root=root).taken == "scratch"
    weights.save_network(unet(), root / "models/pretrained.pt", contract={"touched": []})
    assert weights.choose_start(net, "auto", bundle_root=root).name == "pretrained.pt"


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variable_of_a_shell_does_not_mean_scratch(root: Path, empty: str) -> None:
    with pytest.raises(ValueError, match=r"must be none, shipped or a file, got an empty text; name one"):
        weights.choose_start(unet(), empty, bundle_root=root)


def test_what_was_named_is_taken_or_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"none fit this DynUNet; known are: .*tiny \(DynUNet, 2-D"):
        weights.start_from(unet(filters=[3, 5, 9]), "shipped", bundle_root=root)
    with pytest.raises(ValueError, match=r"tiny fits but for its input channels: inflate_channels: true takes it$"):
        weights.start_from(unet(in_channels=4), "shipped", bundle_root=root)
    with pytest.raises(ValueError, match=r"or none for scratch$"):
        weights.start_from(unet(spatial_dims=3), "shipped", bundle_root=root)
    with pytest.raises(FileNotFoundError, match="no file of weights at"):
        weights.start_from(unet(), root / "models/pretrained.pt", bundle_root=root)
    with pytest.raises(ValueError, match="begins with none, shipped or a file of weights, got 'auto'"):
        weights.start_from(unet(), "auto", bundle_root=root, auto=False)
    net = unet()
    assert weights.start_from(net, "none", bundle_root=root) is None
    start = weights.start_of(net)
    assert start is not None
    assert start.to_record() == {"asked": "none", "taken": "scratch", "name": "", "sha256": ""}


def test_other_intensities_than_those_of_made_images_are_told(root: Path) -> None:
    receipt = weights.start_from(unet(), "shipped", bundle_root=root, recipe="small_mr")
    assert receipt is not None
    assert (receipt.prepared, receipt.differences) == ("0..1", ())
    with pytest.raises(weights.ContractMismatchError, match=r"intensities by z-score, pretrained with 0\.\.1"):
        weights.start_from(unet(), "shipped", bundle_root=root, recipe="brain_mr", contract="strict")


# --- from a run to a file, and from the file to fine-tuning


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shipped") / "bundle"
    pretrain(root, "planes")
    bundles.release()
    return root


def export(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    files = [root / "configs" / name for name in ("pretrain.yaml", "random_anatomy.yaml")]
    run = root / "runs/pretrain_random_anatomy"
    return ship_run(files, root / "models/pretrained_random_anatomy.pt", run, out, **{**RUN, **changes})


def test_a_run_becomes_a_file_that_the_next_training_takes_by_itself(trained: Path, study: Path) -> None:
    out = trained / "models/shipped/dynunet_2d_tiny.safetensors"
    said = CliRunner().invoke(
        app,
        [
            "export", *(str(trained / "configs" / name) for name in ("pretrain.yaml", "random_anatomy.yaml")),
            *(part for key, value in RUN.items() for part in (f"--{key}", json.dumps(value))),
            "--weights", str(trained / "models/pretrained_random_anatomy.pt"),
            "--run", str(trained / "runs/pretrain_random_anatomy"), "--out", str(out),
        ],
    )  # fmt: skip
    assert said.exit_code == 0, said.output + str(said.exception)
    contract = weights.read_contract(out)
    assert contract["command"].startswith(
        "cd bundles/global_local_contrast && python -m monai.bundle run --bundle_root . --config_file "
        "'['\"'\"'configs/pretrain.yaml'\"'\"','\"'\"'configs/random_anatomy.yaml'\"'\"']'"
    )
    assert contract.keys() >= {"seed", "steps", "settings", "configs", "versions", "hardware", "seconds", "parts"}
    assert (contract["licence"], contract["steps"], contract["intensities"]) == ("Apache-2.0", 2, [0, 1])
    assert str(trained) not in out.read_bytes().decode("latin-1")  # no path of the machine

    (trained / "models/pretrained_random_anatomy.pt").rename(trained / "models/elsewhere.pt")  # auto would take it
    given = command(trained, "train", study, filters=[4, 8, 8], roi_size=[16, 16])
    log = finish(fork(given, trained / "log"), trained / "log")
    assert "shipped (dynunet_2d_tiny), chosen by auto" in log
    record = read_run_record(trained / "runs/train")
    assert record["start"].items() >= {"asked": "auto", "taken": "shipped", "name": "dynunet_2d_tiny"}.items()
    assert record["settings"]["start"] == record["start"]["sha256"]
    assert record["receipt"]["data"] == "random anatomies: no patient"
    assert all(name.startswith("output_block") for name in record["receipt"]["missing"])
    (trained / "models/elsewhere.pt").rename(trained / "models/pretrained_random_anatomy.pt")


def test_a_configuration_that_was_not_the_runs_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be those of the run.*anatomy_learning_rate: 0\.002 -> 0\.003"):
        export(trained, tmp_path / "x.safetensors", anatomy_learning_rate=0.003)
    with pytest.raises(ValueError, match=r"must be finished, with the steps of the configuration \(3\), got step 2"):
        export(trained, tmp_path / "x.safetensors", max_epochs=3)
    with pytest.raises(ValueError, match=r"end in \.safetensors, got 'x\.pt'"):
        export(trained, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: r["data"].update(datalist="study.json"), "got a run on study.json"),
        (lambda r: r["settings"].update(start="0123"), "must be trained from scratch"),
    ],
)
def test_runs_on_data_or_from_weights_are_not_shipped(trained: Path, tmp_path: Path, spoil: Any, said: str) -> None:
    root = tmp_path / "b"
    run = root / "runs/pretrain_random_anatomy"
    run.mkdir(parents=True)
    record = read_run_record(trained / "runs/pretrain_random_anatomy")
    spoil(record)
    (run / "run.json").write_text(json.dumps(record))
    for part in ("configs", "models"):
        (root / part).symlink_to(trained / part)
    with pytest.raises(ValueError, match=said):
        export(root, tmp_path / "x.safetensors")


# --- what is in the box


@pytest.mark.parametrize("one", weights.shipped_weights(), ids=lambda one: one.name)
def test_every_file_in_the_box_is_small_of_no_patient_and_says_how_it_was_made(one: weights.Shipped) -> None:
    assert one.path.stat().st_size <= 25_000_000
    contract = one.contract
    assert (contract["data"], contract["licence"]) == ("random anatomies: no patient", "Apache-2.0")
    assert contract["intensities"] == [0, 1]
    assert contract.keys() >= {"seed", "steps", "settings", "configs", "command", "versions", "layers"}
    assert set(contract["touched"]) == set(one.shapes)


def test_the_listing_of_bundles_names_shipped_weights() -> None:
    said = CliRunner().invoke(app, ["bundles"])
    assert said.exit_code == 0
    assert "shipped weights" in said.output


def test_a_copied_bundle_brings_them_along(tmp_path: Path) -> None:
    for name in bundles.names():
        copied = bundles.copy(name, tmp_path / name) / "models/shipped"
        assert {path.name for path in copied.iterdir()} == {
            path.name for path in (bundles.path(name) / "models/shipped").iterdir()
        }
