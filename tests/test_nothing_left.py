"""Scans of which a recipe leaves nothing, or nothing finite: counted and named, in memory, in a stream, in a cache."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_cl import recipes
from monai_cl.data import PreparedDataset, PreparedStream, TooManyFaultsError, load_datalist, write_cache

TOLD = r"image must have a voxel after preparation, got shape \(1, 0, 0, 0\): the recipe found nothing in it"


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """Two scans with a body, and one of air alone."""
    names = ("body_1", "empty_1", "body_2")
    for name in names:
        volume = np.full((20, 20, 20), -1000, np.int16)
        if name != "empty_1":
            volume[4:16, 5:15, 6:14] = 40
        nib.save(nib.Nifti1Image(volume, np.diag([1.5, 1.5, 1.5, 1.0])), tmp_path / f"{name}.nii.gz")
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"training": [{"image": f"{name}.nii.gz", "case": name} for name in names]}))
    return path


@pytest.mark.filterwarnings("ignore:the foreground of:UserWarning")
@pytest.mark.filterwarnings("ignore:negative dims:UserWarning")
def test_a_scan_without_a_body_is_left_out_by_name(datalist: Path) -> None:
    items = load_datalist(datalist, "training")
    prepared = PreparedDataset(items, recipes.load("ct_abdomen"), max_faults=0.5)
    assert [item["case"] for item in prepared] == ["body_1", "body_2"]
    ((name, reason),) = prepared.faults
    assert name == "empty_1"
    assert re.search(TOLD, reason)
    streamed = PreparedStream(items, recipes.load("ct_abdomen"), max_faults=0.5)
    assert [item["case"] for item in streamed] == ["body_1", "body_2"]
    cache = write_cache(datalist, recipe="ct_abdomen", processes=0, max_faults=0.5)
    ((name, reason),) = cache.left_out
    assert name == "empty_1"
    assert re.search(TOLD, reason)


def test_other_arrays_of_an_item_may_be_empty() -> None:
    item = {"image": np.zeros((1, 4, 4, 4)), "boxes": np.zeros((0, 6)), "case": "no lesions"}
    assert len(PreparedDataset([item], lambda one: one)) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_scan_with_values_that_are_not_finite_is_left_out_by_name(tmp_path: Path, bad: float) -> None:
    items = []
    for name in ("good_1", "bad", "good_2"):
        volume = np.random.default_rng(0).normal(100, 10, (12, 12, 6)).astype(np.float32)
        if name == "bad":
            volume[3, 4, 2] = bad
        nib.save(nib.Nifti1Image(volume, np.diag([1.5, 1.5, 8.0, 1.0])), tmp_path / f"{name}.nii.gz")
        items.append({"image": str(tmp_path / f"{name}.nii.gz"), "case": name})
    recipe = recipes.load("cardiac_mr", spacing=None)
    prepared = PreparedDataset(items, recipe, max_faults=0.5)
    assert [item["case"] for item in prepared] == ["good_1", "good_2"]
    ((name, reason),) = prepared.faults
    assert name == "bad"
    assert re.search(r"image must hold finite values, \d+ of 864 prepared values are not finite: set them to", reason)
    assert [item["case"] for item in PreparedStream(items, recipe, max_faults=0.5)] == ["good_1", "good_2"]
    with pytest.raises(TooManyFaultsError, match="bad: ValueError: image must hold finite values"):
        PreparedDataset(items, recipe, max_faults=0.0)


def test_whole_numbers_and_a_sum_that_overflows_are_finite() -> None:
    item = {"image": np.full((1, 4, 4, 4), 3e38, np.float32), "label": np.ones((1, 4, 4, 4), np.uint8), "case": "a"}
    assert len(PreparedDataset([item], lambda one: one)) == 1
