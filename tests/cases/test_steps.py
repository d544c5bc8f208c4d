"""Folders, names and weights that steps of a bundle got wrong, through the command that users give."""

import json
import os
import re
import runpy
import sys
from pathlib import Path

import nibabel as nib
import pytest
import torch
from test_bundle_runs import command, run, tiny_network
from typer.testing import CliRunner

from cases import makers
from cases.steps import refusal
from monai_cl import bundles, weights
from monai_cl.cli import app
from monai_cl.data import MaskFiles, find_images


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a network."""
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    torch.manual_seed(0)
    weights.save_network(tiny_network(root, tmp_path), root / "models/model.pt")
    return root


@pytest.fixture
def same_names(tmp_path: Path) -> Path:
    """Scans of three patients that share a base name, and lists of them."""
    root = tmp_path / "scans"
    places = [f"sub-{number:02d}/anat/T2w.nii.gz" for number in (1, 2, 3)]
    for number, place in enumerate(places):
        (root / place).parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(makers.intensities(number), makers.AFFINE), root / place)
    lists = {
        "relative": places,
        "absolute": [str(root / place) for place in places],
        "upwards": [f"../{root.name}/{place}" for place in places],
        "mixed": [places[0], str(root / places[1]), f"sub-01/../{places[2]}"],
    }
    for name, paths in lists.items():
        (root / f"{name}.json").write_text(json.dumps({"test": [{"image": path} for path in paths]}))
    return root


@pytest.mark.parametrize("given", ["relative", "absolute", "upwards", "mixed"])
def test_scans_of_one_base_name_have_masks_of_their_own(given: str, same_names: Path, tmp_path: Path) -> None:
    items = find_images(same_names, datalist=same_names / f"{given}.json")
    files = MaskFiles(items, tmp_path / "masks")
    made = {str(item["image"]): files.filename(item["image"]) for item in items}
    assert len(made) == len(set(made.values())) == 3
    for scan, mask in made.items():
        Path(mask).touch()
        told = CliRunner().invoke(app, ["whose", mask])
        assert told.exit_code == 0, told.output
        assert os.path.normpath(scan) in told.output.replace("\n", "")


@pytest.mark.slow
def test_inference_gives_every_scan_its_mask(bundle: Path, same_names: Path) -> None:
    run(bundle, "inference", same_names, dataset_dir=str(same_names), datalist=str(same_names / "absolute.json"))
    assert len(list((bundle / "runs/inference").rglob("*.nii.gz"))) == 3


def test_two_scans_that_would_share_a_mask_stop_the_run_before_it_starts(tmp_path: Path) -> None:
    items = [{"image": str(tmp_path / name), "place": "same"} for name in ("a.nii", "b.nii")]
    with pytest.raises(ValueError, match="same"):
        MaskFiles(items, tmp_path / "masks")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1987", "007", "1e3", "true", "[3]"])
def test_a_folder_may_have_a_number_for_a_name(
    name: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers.labelled(tmp_path / name, makers.classes())
    monkeypatch.chdir(tmp_path)
    arguments = command(bundle, "inference", tmp_path, dataset_dir=name)
    monkeypatch.setattr(sys, "argv", ["python", *arguments[2:]])
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    assert len(list((bundle / "runs/inference").rglob("*_seg.nii.gz"))) == 2  # the labels are masks


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("step", ["train", "evaluate", "inference"])
def test_weights_that_are_no_numbers_are_refused_by_the_name_of_the_tensor(
    step: str, value: float, bundle: Path, tmp_path: Path
) -> None:
    study = makers.labelled(tmp_path / "study", makers.classes())
    network = tiny_network(bundle, study)
    name, tensor = list(network.named_parameters())[3]
    with torch.no_grad():
        tensor.flatten()[0] = value
    spoilt = bundle / "models/spoilt.pt"
    torch.save(network.state_dict(), spoilt)
    said = refusal(bundle, step, study, **{"pretrained" if step == "train" else "model": str(spoilt)})
    assert name in said, said
    assert re.search(r"NaN|finite|inf", said), said
