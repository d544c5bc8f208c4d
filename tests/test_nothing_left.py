"""Scans of which a recipe leaves nothing: counted and named, in memory, in a stream and in a cache."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_cl import recipes
from monai_cl.data import PreparedDataset, PreparedStream, load_datalist, write_cache

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
