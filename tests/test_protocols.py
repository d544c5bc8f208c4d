"""Published splits are listed from folders laid out as the public data, and their presets run on such folders."""

import io
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from conftest import ROOT
from rich.console import Console
from typer.testing import CliRunner

from monai_cl import cli
from monai_cl.datalist import few_labels, load_datalist
from monai_cl.evaluation import run_curve
from monai_cl.intake.protocols import names, published_split, write_split

PRESETS = ROOT / "tutorials/presets"
TINY: dict[str, dict[str, Any]] = {
    "acdc": {"roi_size": [16, 16], "image_size": [16, 16], "filters": [4, 8, 8, 8]},
    "la": {"roi_size": [16, 16, 8], "image_size": [16, 16, 8], "slab": 8, "filters": [4, 8, 8]},
}
SHORT = {"finetune_epochs": 1, "finetune_epoch_length": 2, "finetune_batch_size": 2, "max_epochs": 1, "epoch_length": 2}
QUICK = {"batch_size": 2, "num_workers": 0, "probe_volumes": 0, "on_collapse": "warn", "on_drift": "warn"}


def scan_and_mask(seed: int, shape: tuple[int, ...], classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for number, value in enumerate(classes):
        mask[3 + 4 * number : 7 + 4 * number, 4:12, 1:-1] = value
    return (100 + mask + rng.normal(0, 3, shape)).astype(np.float32), mask


def acdc(root: Path, cases: list[str]) -> None:
    for number, case in enumerate(cases):
        folder = root / "database/training" / case
        folder.mkdir(parents=True)
        (folder / "Info.cfg").touch()
        for frame in ("01", f"{8 + number % 5:02d}"):
            for ending, data in zip(("", "_gt"), scan_and_mask(number, (18, 18, 4), [1, 2, 3]), strict=True):
                image = nib.Nifti1Image(data, np.diag([1.5, 1.5, 10.0, 1.0]))
                nib.save(image, folder / f"{case}_frame{frame}{ending}.nii.gz")


def la(root: Path, cases: list[str]) -> None:
    for number, case in enumerate(cases):
        folder = root / "Training Set" / case
        folder.mkdir(parents=True)
        for name, data in zip(("lgemri", "laendo"), scan_and_mask(number, (18, 18, 10), [255]), strict=True):
            image = sitk.GetImageFromArray(data.astype(np.uint8).T)
            image.SetSpacing((0.625, 0.625, 0.625))
            sitk.WriteImage(image, folder / f"{name}.nrrd")


MAKERS = {"acdc": acdc, "la": la}


@pytest.fixture(scope="session")
def public(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of phantoms laid out as the public data."""
    folders = {name: tmp_path_factory.mktemp(name) for name in MAKERS}
    for name, folder in folders.items():
        MAKERS[name](folder, [case for cases in published_split(name).values() for case in cases])
    return folders


def preset(name: str, public: dict[str, Path], folder: Path) -> Path:
    """The preset at reduced size: fewest labels, one seed, a tiny network, two steps."""
    write_split(name, public[name], folder / "list.json")
    content = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
    own = {"dataset_dir": str(public[name]), "datalist": str(folder / "list.json")}
    if "recipe" in content["settings"] and content["settings"]["recipe"].endswith(".yaml"):
        own["recipe"] = str(ROOT / content["settings"]["recipe"])
    content["settings"] |= own | TINY[name] | SHORT | QUICK
    for arm in content["arms"].values():
        if isinstance(arm["pretrained"], dict) and "seeds" in arm["pretrained"]:
            arm["pretrained"] |= {"seeds": [0]}
    content |= {"budgets": content["budgets"][:1], "seeds": [0], "output": str(folder / "out")}
    content["evaluation"] |= {"resamples": 100}
    path = folder / "curve.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(("name", "numbers"), [("acdc", [70, 10, 20]), ("la", [80, 20])])
def test_a_published_split_has_every_case_once(name: str, numbers: list[int]) -> None:
    cases = published_split(name)
    assert [len(found) for found in cases.values()] == numbers
    assert len({case for found in cases.values() for case in found}) == 100


@pytest.mark.parametrize(("name", "number"), [("acdc", 2), ("la", 1)])
def test_few_labels_are_the_published_ones_whatever_the_seed(
    public: dict[str, Path], tmp_path: Path, name: str, number: int
) -> None:
    counts = write_split(name, public[name], tmp_path / "list.json")
    assert counts == {section: number * len(cases) for section, cases in published_split(name).items()}
    for seed in (0, 1):
        items = load_datalist(
            tmp_path / "list.json", dataset_dir=public[name], labelled=True, limit=3 * number, seed=seed
        )
        first = [case for case in published_split(name)["training"][:3] for _ in range(number)]
        assert [item["subject"] for item in items] == first


def test_labels_of_the_decathlon_layout_are_found_too(tmp_path: Path) -> None:
    for case in [case for cases in published_split("acdc").values() for case in cases]:
        for kind in ("imagesTr", "labelsTr"):
            (tmp_path / kind).mkdir(exist_ok=True)
            for frame in ("01", "12"):
                (tmp_path / kind / f"{case}_frame{frame}.nii.gz").touch()
    assert write_split("acdc", tmp_path, tmp_path / "list.json")["training"] == 140
    item = json.loads((tmp_path / "list.json").read_text())["training"][1]
    assert item == {
        "image": "imagesTr/patient099_frame12.nii.gz",
        "label": "labelsTr/patient099_frame12.nii.gz",
        "subject": "patient099",
        "order": 0,
    }


def test_a_folder_that_is_not_complete_is_refused_by_name(tmp_path: Path) -> None:
    la(tmp_path / "la", published_split("la")["training"])
    with pytest.raises(ValueError, match=r"lgemri\.nrrd and laendo\.nrrd .* 20 have .* UPT6DX9IQY9JAZ7HJKA7 \(0\)"):
        write_split("la", tmp_path / "la", tmp_path / "list.json")
    assert not (tmp_path / "list.json").exists()
    with pytest.raises(FileNotFoundError, match="must be a folder"):
        write_split("la", tmp_path / "none", tmp_path / "list.json")
    with pytest.raises(ValueError, match="unknown split 'acdcs', did you mean 'acdc'"):
        write_split("acdcs", tmp_path, tmp_path / "list.json")


@pytest.mark.parametrize("order", ["first", True, float("nan")])
def test_an_order_that_is_no_number_is_refused(order: Any) -> None:
    with pytest.raises(ValueError, match="order of an item must be a number, got"):
        few_labels([{"image": "a", "order": order}, {"image": "b"}], 1, seed=0)


def test_items_without_an_order_come_after_those_with_one() -> None:
    items = [{"image": str(i)} for i in range(20)] + [{"image": "z", "order": 1}, {"image": "y", "order": 2}]
    assert [item["image"] for item in few_labels(items, 2, seed=0)] == ["z", "y"]


def test_the_command_writes_the_list(public: dict[str, Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["split", "la", str(public["la"]), "--out", str(tmp_path / "la.json")])
    assert done.exit_code == 0, done.output
    assert "80 in training, 20 in validation" in " ".join(done.output.split())


def test_each_split_has_a_preset() -> None:
    curves = {path.stem for path in PRESETS.glob("*.yaml") if "arms" in yaml.safe_load(path.read_text())}
    assert curves == set(names())


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_preset_is_one_that_would_run(public: dict[str, Path], tmp_path: Path, name: str) -> None:
    path = preset(name, public, tmp_path)
    said = Console(file=io.StringIO(), width=200)
    run_curve(path, dry_run=True, console=said)
    assert "selftrain.yaml" in said.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TINY))
def test_a_preset_runs_at_reduced_size(public: dict[str, Path], tmp_path: Path, name: str) -> None:
    result = run_curve(preset(name, public, tmp_path), console=Console(file=io.StringIO()))
    assert result.failed == {}, result.complaint()
    assert result.curve is not None
    assert {estimate.arm for estimate in result.curve.estimates} == {"scratch", "selftrain", "dense", "dense_selftrain"}
    assert {estimate.cases for estimate in result.curve.estimates} == {40 if name == "acdc" else 20}
