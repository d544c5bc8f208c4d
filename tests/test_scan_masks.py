"""Masks among images: left out with the way to list each as a label, and images of few values are kept."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_cl.intake.scan import ScanResult, scan

SHAPE = (20, 22, 18)
AFFINE = np.diag([-1.0, 1.0, 1.2, 1.0])
RNG = np.random.default_rng(0)
BALL = np.linalg.norm(np.indices(SHAPE).T - np.array(SHAPE) / 2, axis=-1).T
REGIONS = (BALL < 7).astype(np.uint8) + (BALL < 4)
IMAGE = (RNG.normal(0, 20, SHAPE) + 100 * REGIONS).astype(np.int16)


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def scanned(folder: Path) -> tuple[ScanResult, list[str], dict[str, str]]:
    """The scan, the images that it offers, and what it says of the masks."""
    result = scan(folder, folder.parent / "out/study.json", hide_names=False)
    images = [item["image"] for items in result.sections.values() for item in items]
    return result, images, {e.paths[0]: e.detail for e in result.left_out if e.reason == "mask among images"}


NAMES = ["-label", "_roi", "_segmentation", ".seg", "-mask", "_manualSegmentation", "_gt", "_tumour", "_liver", "_x"]


@pytest.mark.parametrize("end", NAMES)
@pytest.mark.parametrize("values", [REGIONS, REGIONS.astype(np.float32), (1.01 * REGIONS).astype(np.float32)])
def test_a_mask_in_a_flat_folder_is_no_image_and_may_become_a_label(tmp_path, end, values):
    save(tmp_path / "data/case_7.nii.gz", IMAGE)
    save(tmp_path / f"data/case_7{end}.nii.gz", values)
    _, images, masks = scanned(tmp_path / "data")
    assert images == ["case_7.nii.gz"]
    (detail,) = masks.values()
    assert "on the voxels of case_7.nii.gz; to train on it, name it as that image with _seg behind" in detail
    (tmp_path / f"data/case_7{end}.nii.gz").rename(tmp_path / "data/case_7_seg.nii.gz")
    assert scanned(tmp_path / "data")[0].counts["training"] == 1


@pytest.mark.parametrize("name", ["c_001_seg", "seg_c_001", "c_001_Mask", "c_001_lesion"])
def test_a_mask_in_imagestr_is_named_with_its_place_among_the_labels(tmp_path, name):
    save(tmp_path / "data/imagesTr/c_001_0000.nii.gz", IMAGE)
    save(tmp_path / f"data/imagesTr/{name}.nii.gz", REGIONS)
    _, images, masks = scanned(tmp_path / "data")
    assert images == ["imagesTr/c_001_0000.nii.gz"]
    assert "under the name of the image without channel" in masks[f"imagesTr/{name}.nii.gz"]


def test_no_part_of_a_name_is_in_the_advice(tmp_path):
    save(tmp_path / "data/imagesTr/mueller_hans_0000.nii.gz", IMAGE)
    save(tmp_path / "data/imagesTr/mueller_hans_seg.nii.gz", REGIONS)
    result = scan(tmp_path / "data", tmp_path / "out/study.json")
    assert result.reasons == {"mask among images": 1}
    assert "mueller" not in result.exclusions.read_text() + result.datalist.read_text()


def test_the_mask_of_a_labelled_image_is_named_too(tmp_path):
    save(tmp_path / "data/a.nii.gz", IMAGE)
    for name in ("a_seg", "a_roi"):
        save(tmp_path / f"data/{name}.nii.gz", REGIONS)
    result, images, masks = scanned(tmp_path / "data")
    assert (images, result.counts["training"]) == (["a.nii.gz"], 1)
    assert "which has another label" in masks["a_roi.nii.gz"]


def test_masks_in_a_folder_of_masks_are_no_images(tmp_path):
    for name in ("liver", "spleen"):
        save(tmp_path / f"data/s01/segmentations/{name}.nii.gz", REGIONS)
    save(tmp_path / "data/s01/segmentations/empty.nii.gz", np.zeros(SHAPE, np.uint8))
    save(tmp_path / "data/s01/ct.nii.gz", IMAGE)
    _, images, masks = scanned(tmp_path / "data")
    assert images == ["s01/ct.nii.gz"]
    assert len(masks) == 3


def test_a_mask_without_image_is_told_so(tmp_path):
    save(tmp_path / "data/a.nii.gz", IMAGE)
    save(tmp_path / "data/b_roi.nii.gz", REGIONS[:-1])
    _, images, masks = scanned(tmp_path / "data")
    assert images == ["a.nii.gz"]
    assert "no image of its name on its grid" in masks["b_roi.nii.gz"]


FEW = RNG.integers(0, 5, SHAPE).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "values", "affine"),
    [
        ("other", FEW, AFFINE),  # few values, without regions
        ("case_7_x", FEW, AFFINE),
        ("other", REGIONS, AFFINE),  # regions, but no name and no image that it extends: kept, with the usual note
        ("case_7_T1", REGIONS, AFFINE),  # another sequence
        ("case_7_x", REGIONS, np.diag([-1.0, 1.0, 2.0, 1.0])),  # another grid
        ("case_7_mask", IMAGE, AFFINE),
        ("unmasked", IMAGE, AFFINE),
        ("case_7_roi", IMAGE / 1000, AFFINE),
        ("lesions_of_case_8", IMAGE, AFFINE),
    ],
)
def test_images_are_not_taken_for_masks(tmp_path, name, values, affine):
    save(tmp_path / "data/imagesTr/case_7.nii.gz", IMAGE)
    save(tmp_path / f"data/imagesTr/{name}.nii.gz", values, affine)
    _, images, masks = scanned(tmp_path / "data")
    assert not masks
    assert len(images) == 2


def test_images_that_all_have_few_values_are_kept(tmp_path):
    for name in ("phantom", "phantom_2", "phantom_3"):
        save(tmp_path / f"data/{name}.nii.gz", REGIONS)
    assert len(scanned(tmp_path / "data")[1]) == 3


def test_a_name_of_a_mask_with_values_of_an_image_is_noted(tmp_path):
    save(tmp_path / "data/imagesTr/case_7_roi.nii.gz", IMAGE)
    result, images, _ = scanned(tmp_path / "data")
    assert result.notes == {"named as a mask, but with the values of an image": images}
