"""Resampling that leaves other keys alone: the guard against MONAI's ``image_*`` keys."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_volume
from monai.transforms import Spacingd

from monai_cl import recipes
from monai_cl.transforms import KeyedSpacingd, LoadVolumed

OTHERS = {"image_path": "a.nii.gz", "image_id": 7, "image_meta_dict": {"kept": True}, "case": "a"}


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    write_volume(tmp_path / "scan.nii.gz", 0)
    loaded: dict[str, Any] = LoadVolumed("image")({"image": tmp_path / "scan.nii.gz"})
    return loaded


def test_the_voxels_are_those_of_monai(item: dict[str, Any]) -> None:
    ours, theirs = (kind("image", pixdim=[2.0] * 3)(dict(item))["image"] for kind in (KeyedSpacingd, Spacingd))
    assert torch.equal(ours, theirs)
    assert torch.equal(ours.affine, theirs.affine)


def test_other_keys_of_an_item_go_on_as_they_are(item: dict[str, Any]) -> None:
    found = KeyedSpacingd("image", pixdim=[2.0] * 3)({**item, **OTHERS})
    assert {key: found[key] for key in OTHERS} == OTHERS
    assert OTHERS["image_meta_dict"] == {"kept": True}


def test_it_turns_back_onto_the_grid_of_the_scan(item: dict[str, Any]) -> None:
    step = KeyedSpacingd("image", pixdim=[2.0] * 3)
    back = step.inverse(step({**item, **OTHERS}))["image"]
    assert back.shape == item["image"].shape
    torch.testing.assert_close(back.affine, item["image"].affine)


def test_a_missing_key_is_an_error_unless_it_is_allowed(item: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match="label"):
        KeyedSpacingd(["image", "label"], pixdim=[2.0] * 3)(item)
    assert set(KeyedSpacingd(["image", "label"], pixdim=[2.0] * 3, allow_missing_keys=True)(item)) == {"image"}


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_resamples_with_it(name: str) -> None:
    options = {"spacing": 4.0} if "spacing" in recipes.parameters(name) else {}
    steps = recipes.load(name, **options).transforms
    assert [type(step) for step in steps if isinstance(step, Spacingd)] == [KeyedSpacingd]


@pytest.mark.parametrize("target", ["Spacingd", "SpacingDict", "monai.transforms.Spacingd"])
def test_a_recipe_of_ones_own_is_guarded_and_keeps_its_digest(target: str, tmp_path: Path) -> None:
    text = recipes.path("ct_abdomen").read_text(encoding="utf-8").replace("_target_: Spacingd", f"_target_: {target}")
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    steps = recipes.load(tmp_path / "own.yaml").transforms
    assert sum(isinstance(step, KeyedSpacingd) for step in steps) == 1
    if target == "Spacingd":
        assert recipes.digest(tmp_path / "own.yaml") == recipes.digest("ct_abdomen")
