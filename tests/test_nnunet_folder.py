"""A datalist as a data set of nnU-Net."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_cl.data.nnunet_folder import write_nnunet_folder

AFFINE = np.diag([-2.0, 1.0, 3.0, 1.0])


def study(folder: Path, *, ignored: bool = False, **more: Any) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    sections: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    for number, section in enumerate(("training", "training", "validation", "test")):
        image = nibabel.Nifti1Image(rng.integers(-1000, 1000, (6, 5, 4)).astype(np.int16), AFFINE)
        image.header["descrip"] = b"Doe^Jane 1970"
        label = rng.integers(0, 3, (6, 5, 4)).astype(np.uint8)
        label[0, 0, 0] = 255 if ignored else 0
        for kind, one in (("image", image), ("label", nibabel.Nifti1Image(label, AFFINE))):
            nibabel.save(one, folder / f"{kind}_{number:03d}.nii.gz")
        sections[section].append({"image": f"image_{number:03d}.nii.gz", "label": f"label_{number:03d}.nii.gz"})
    labels = {"0": "background", "1": "liver", "2": "tumor"}
    content = {"name": "a study", "labels": labels, "modality": {"0": "CT"}, **sections, **more}
    (folder / "list.json").write_text(json.dumps(content))
    return folder / "list.json"


def test_images_labels_splits_and_description_are_as_nnunet_wants_them(tmp_path: Path) -> None:
    folder = write_nnunet_folder(study(tmp_path / "in"), tmp_path / "raw", number=7, name="liver")
    assert folder.name == "Dataset007_liver"
    description = json.loads((folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"}
    assert description["labels"] == {"background": 0, "liver": 1, "tumor": 2}
    assert (description["numTraining"], description["file_ending"]) == (3, ".nii.gz")
    splits = json.loads((folder / "splits_final.json").read_text())
    assert [len(splits[0][part]) for part in ("train", "val")] == [2, 1]
    names = {*splits[0]["train"], *splits[0]["val"]}
    assert {path.name for path in (folder / "imagesTr").iterdir()} == {f"{name}_0000.nii.gz" for name in names}
    assert {path.name for path in (folder / "labelsTr").iterdir()} == {f"{name}.nii.gz" for name in names}
    assert len(list((folder / "imagesTs").iterdir())) == 1
    assert not (folder / "labelsTs").exists()


def test_values_and_geometry_stay_and_no_text_comes_along(tmp_path: Path) -> None:
    folder = write_nnunet_folder(study(tmp_path / "in"), tmp_path / "raw", number=7, name="liver")
    for path in sorted(folder.rglob("*.nii.gz")):
        written = nibabel.load(path)
        assert nibabel.aff2axcodes(written.affine) == ("R", "A", "S")
        assert bytes(written.header["descrip"]).strip(b"\0") == b""
        np.testing.assert_allclose(written.header.get_zooms(), (2, 1, 3))
    source = nibabel.load(tmp_path / "in" / "image_000.nii.gz")
    name = json.loads((folder / "splits_final.json").read_text())[0]["train"][0]
    written = nibabel.load(folder / "imagesTr" / f"{name}_0000.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(source.dataobj)[::-1])
    assert written.get_data_dtype() == np.int16


def test_a_label_to_ignore_is_the_last(tmp_path: Path) -> None:
    datalist = study(tmp_path / "in", ignored=True)
    with pytest.raises(ValueError, match=r"labels must be 0, 1, 2 and so on for nnU-Net, got \[0, 1, 2, 255\]"):
        write_nnunet_folder(datalist, tmp_path / "raw", number=7, name="liver")
    folder = write_nnunet_folder(datalist, tmp_path / "raw", number=8, name="liver", ignore_index=255)
    assert json.loads((folder / "dataset.json").read_text())["labels"]["ignore"] == 3
    values = {int(v) for path in (folder / "labelsTr").iterdir() for v in np.unique(nibabel.load(path).dataobj)}
    assert values == {0, 1, 2, 3}


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    datalist = study(tmp_path / "in")
    with pytest.raises(ValueError, match="number must be 1 to 999 and name letters"):
        write_nnunet_folder(datalist, tmp_path / "raw", number=0, name="a b")
    write_nnunet_folder(datalist, tmp_path / "raw", number=7, name="liver")
    with pytest.raises(FileExistsError, match="holds something already"):
        write_nnunet_folder(datalist, tmp_path / "raw", number=7, name="liver")


def test_a_case_that_cannot_be_read_is_named_by_what_the_list_says(tmp_path: Path) -> None:
    listing = study(tmp_path / "in")
    (tmp_path / "in/image_000.nii.gz").write_bytes(b"")
    (tmp_path / "in/image_000.nii.gz").rename(tmp_path / "in/Mueller.nii.gz")
    listing.write_text(listing.read_text().replace("image_000", "Mueller"))
    with pytest.raises(ValueError, match=r"^file_[0-9a-f]{16} cannot be read: .*the file is empty") as error:
        write_nnunet_folder(listing, tmp_path / "raw", number=7, name="liver")
    assert "Mueller" not in str(error.value)
