"""Labels that are not whole numbers, not where their image is, or not classes: through fine-tuning as users run it."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from cases import makers
from cases.steps import begin, refusal
from monai_cl import bundles, recipes
from monai_cl.data import PreparedDataset, load_datalist, scan


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "monai_cl")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.copy("volume_contrast", tmp_path / "bundle")


def prepared(study: Path, section: str = "training") -> np.ndarray:
    (item,) = PreparedDataset(load_datalist(study / "datalist.json", section), recipes.load("small_mr"))
    return np.asarray(item["label"])


@pytest.mark.parametrize(("one", "two"), [(0.9701, 2.04), (1.0004, 1.9999)])
def test_values_beside_whole_numbers_are_rounded_and_it_is_said(
    one: float, two: float, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = makers.labelled(tmp_path / "study", makers.float_label(one, two))
    begin(bundle, "train", study, pretrained="none")
    assert "and were rounded" in caplog.text
    assert np.array_equal(prepared(study), prepared(study, "validation"))


@pytest.mark.parametrize(("one", "two", "shown"), [(0.9, 2.0, r"0\.9"), (1.0, 1.52, r"1\.52")])
def test_other_values_are_refused_with_the_values(
    one: float, two: float, shown: str, bundle: Path, tmp_path: Path
) -> None:
    said = refusal(
        bundle, "train", makers.labelled(tmp_path / "study", makers.float_label(one, two)), pretrained="none"
    )
    assert re.search(shown, said), said
    assert "c_0" in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_labels_that_are_no_number_are_refused_and_counted(value: float, bundle: Path, tmp_path: Path) -> None:
    label = np.where(makers.classes() == 2, value, makers.classes()).astype(np.float32)
    said = refusal(bundle, "train", makers.labelled(tmp_path / "study", label), pretrained="none")
    assert re.search(r"NaN|finite|inf", said), said
    assert "c_0" in said


@pytest.mark.parametrize("affine", [makers.mirrored(), makers.moved(0.7), makers.moved(-31.0)])
def test_a_label_beside_its_image_is_refused_in_mm(affine: np.ndarray, bundle: Path, tmp_path: Path) -> None:
    study = makers.labelled(tmp_path / "study", makers.classes(), affine)
    said = refusal(bundle, "train", study, pretrained="none")
    assert re.search(r"\d mm", said), said
    result = scan(study, tmp_path / "scan.json", hide_names=False)
    refused = [item for item in result.sections["unlabelled"] if item["image"].endswith("c_0.nii.gz")]
    assert len(refused) == 1, "the image of a refused label stays, without it"
    assert [entry for entry in result.left_out if "labelsTr/c_0.nii.gz" in entry.paths], "and this is said"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_label_on_the_same_lattice_in_another_order_is_kept(axis: int, bundle: Path, tmp_path: Path) -> None:
    study = makers.labelled(tmp_path / "study", *makers.stored_the_other_way(axis))
    result = scan(study, tmp_path / "scan.json", hide_names=False)
    listed = [item for section in ("training", "validation") for item in result.sections[section]]
    assert sorted(item["label"] for item in listed) == ["labelsTr/c_0.nii.gz", "labelsTr/c_1.nii.gz"]
    assert np.array_equal(prepared(study), prepared(study, "validation"))
    begin(bundle, "train", study, pretrained="none")


@pytest.mark.parametrize(("value", "kind"), [(255, np.uint8), (-1, np.int16), (-100, np.int16)])
def test_values_for_ignore_are_told_as_they_are_and_how_to_ignore_them(
    value: int, kind: type, bundle: Path, tmp_path: Path
) -> None:
    label = np.where(makers.classes() == 0, value, makers.classes().astype(int)).astype(kind)
    said = refusal(bundle, "train", makers.labelled(tmp_path / "study", label), pretrained="none")
    assert re.search(rf"(?<![\d-]){value}(?!\d)", said), said
    assert "out_channels 256" not in said
    if value in (255, -1):
        assert "ignore_index" in said
