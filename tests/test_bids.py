"""BIDS: masks among derivatives are paired with their images, and masks are written as derivatives."""

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import write_volume
from monai.data import MetaTensor

from monai_cl.intake.scan import scan
from monai_cl.io.bids_names import bids_name
from monai_cl.transforms import BidsMasks, MaskFiles, SaveMask, mask_writer

SUBJECTS = ("sub-01/ses-1", "sub-01/ses-2", "sub-02/ses-1")


def image_path(folder: str, suffix: str = "T1w") -> str:
    return f"{folder}/anat/{folder.replace('/', '_')}_{suffix}.nii.gz"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two subjects, two sessions of the first, a T1w each and masks of two of them among derivatives."""
    root = tmp_path / "bids"
    for number, folder in enumerate(SUBJECTS):
        write_volume(root / image_path(folder), number)
    for number, folder in enumerate(SUBJECTS[:2]):
        write_volume(root / "derivatives/manual" / image_path(folder, "desc-manual_dseg"), number, label=True)
    write_volume(root / "derivatives/manual" / image_path(SUBJECTS[2], "label-GM_probseg"), 3)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "t", "BIDSVersion": "1.10.0"}))
    return root


def listed(root: Path, out: Path) -> dict[str, Any]:
    scan(root, out, pictures=False, hide_names=False)
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def reasons(out: Path) -> dict[str, str]:
    with open(out.with_name(f"{out.stem}.left_out.csv"), newline="") as stream:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(stream)}


def test_masks_among_derivatives_are_labels_of_their_images(tree: Path, tmp_path: Path) -> None:
    content = listed(tree, tmp_path / "study.json")
    pairs = {item["image"]: item["label"] for item in content["training"]}
    derived = "derivatives/manual"
    assert pairs == {image_path(one): f"{derived}/{image_path(one, 'desc-manual_dseg')}" for one in SUBJECTS[:2]}
    (rest,) = content["unlabelled"]
    assert rest["image"] == image_path(SUBJECTS[2])
    items = [*content["training"], rest]
    assert [(item["subject"], item["session"]) for item in items] == [
        ("sub-01", "ses-1"),
        ("sub-01", "ses-2"),
        ("sub-02", "ses-1"),
    ]
    assert "share of a tissue, no image" in reasons(tmp_path / "study.json").values()


def test_a_mask_of_several_images_asks_for_its_source(tree: Path, tmp_path: Path) -> None:
    write_volume(tree / image_path(SUBJECTS[0], "T2w"), 0)
    out = tmp_path / "study.json"
    assert len(listed(tree, out)["training"]) == 1
    name = Path(image_path(SUBJECTS[0], "desc-manual_dseg")).name
    assert reasons(out)[name] == "label of several images"
    sidecar = tree / "derivatives/manual" / image_path(SUBJECTS[0], "desc-manual_dseg").replace(".nii.gz", ".json")
    sidecar.write_text(json.dumps({"Sources": [f"bids:raw:{image_path(SUBJECTS[0], 'T2w')}"]}))
    pairs = {item["image"] for item in listed(tree, out)["training"]}
    assert pairs == {image_path(SUBJECTS[0], "T2w"), image_path(SUBJECTS[1])}


def test_a_second_mask_of_an_image_is_left_out_by_name(tree: Path, tmp_path: Path) -> None:
    write_volume(tree / "derivatives/other" / image_path(SUBJECTS[0], "desc-auto_dseg"), 0, label=True)
    out = tmp_path / "study.json"
    assert len(listed(tree, out)["training"]) == 2
    assert reasons(out)[Path(image_path(SUBJECTS[0], "desc-auto_dseg")).name] == "second mask of an image"


@pytest.mark.parametrize(
    ("path", "entities"),
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", {"sub": "01"}),
        ("a/sub-01/ses-2/anat/sub-01_ses-2_acq-x_run-1_T1w.nii.gz", {"sub": "01", "ses": "2", "acq": "x", "run": "1"}),
        ("sub-01/anat/sub-02_T1w.nii.gz", None),
        ("sub-01/anat/sub-01_T1w_dseg.nii.gz", None),
        ("sub-01/anat/ses-1_sub-01_T1w.nii.gz", None),
        ("scans/case_7.nii.gz", None),
    ],
)
def test_names_are_read_or_are_none(path: str, entities: dict[str, str] | None) -> None:
    found = bids_name(path)
    assert (found and dict(found.entities)) == entities


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("bids/sub-01/ses-2/anat/sub-01_ses-2_T1w", "sub-01/ses-2/anat/sub-01_ses-2_acq-T1w"),
        ("sub-01/anat/sub-01_acq-fast_run-2_T2w", "sub-01/anat/sub-01_acq-fastT2w_run-2"),
        ("sub-0123456789ab/mr-0123456789abcdef", "sub-0123456789ab/anat/sub-0123456789ab_acq-mr0123456789abcdef"),
        ("imagesTs/hippocampus_001", "sub-imagesTshippocampus001/anat/sub-imagesTshippocampus001"),
        ("case_7", "sub-case7/anat/sub-case7"),
    ],
)
def test_a_mask_has_the_entities_of_its_scan(place: str, expected: str) -> None:
    assert BidsMasks({1: "liver"}, name="Volume contrast", version="1").place(place) == expected


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A data set of derivatives with two masks, one of a scan that is named otherwise."""
    items = []
    for place in ("sub-01/ses-2/anat/sub-01_ses-2_T1w", "case_7"):
        write_volume(tmp_path / f"in/{place}.nii.gz", 0)
        items.append({"image": str(tmp_path / f"in/{place}.nii.gz"), "place": place})
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps({"name": "Volume contrast", "version": "0.2.0"}))
    writer = mask_writer("bids", metadata=metadata, classes=["liver", "tumour"], out_channels=3)
    save = SaveMask(MaskFiles(items, tmp_path / "out", hide_names=False, writer=writer), writer=writer)
    for item in items:
        meta = {"filename_or_obj": item["image"]}
        save(MetaTensor(torch.ones(1, 4, 5, 6), affine=torch.diag(torch.tensor([2.0, 2, 3, 1])), meta=meta))
    return tmp_path / "out"


def test_masks_lie_in_a_data_set_of_derivatives(written: Path) -> None:
    names = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    first, other = "sub-01/ses-2/anat/sub-01_ses-2_acq-T1w", "sub-case7/anat/sub-case7"
    endings = [f"_desc-Volumecontrast_dseg{suffix}" for suffix in (".nii.gz", ".json", ".tsv")]
    assert names == {
        "dataset_description.json",
        "README.md",
        *(base + end for base in (first, other) for end in endings),
    }
    description = json.loads((written / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "monai_cl"
    table = (written / f"{first}{endings[2]}").read_text()
    assert table == "index\tname\n0\tbackground\n1\tliver\n2\ttumour\n"
    image = nib.load(written / f"{first}{endings[0]}")
    np.testing.assert_allclose(np.abs(np.diag(image.affine)), [2, 2, 3, 1])


@pytest.mark.skipif(shutil.which("bids-validator-deno") is None, reason="needs bids-validator-deno")
def test_the_validator_accepts_the_data_set(written: Path) -> None:
    said = subprocess.run(["bids-validator-deno", "--json", str(written)], capture_output=True, text=True)
    issues = json.loads(said.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue.get("severity") == "error"] == []
