"""Synthetic studies of several sequences: what they hold, and whether the bundles read them as their datalist says."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from conftest import ROOT
from test_phantom import needs_nilearn

from monai_cl.data import labelled_studies, load_datalist, split_studies, weak_labels
from monai_cl.data.curation.leaks import check_pretraining
from monai_cl.evaluation import run_curve
from monai_cl.evaluation._config import read_config
from monai_cl.evaluation._plan import make_plan
from monai_cl.phantoms import write_sequence_study
from monai_cl.phantoms.maps import brain_maps
from monai_cl.phantoms.sequence_study import OTHERS, image_of

NAMES = ("T1w", "T2w", "FLAIR")
SMALL: dict[str, Any] = {"spacing": 12.0, "lesions": 300, "missing": 0.5, "labelled": 2, "test": 2, "unlabelled": 4}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequence_study(tmp_path_factory.mktemp("studies") / "data", sequences=NAMES, seed=3, **SMALL)


def listed(datalist: Path) -> dict[str, list[dict[str, str]]]:
    content = json.loads(datalist.read_text())
    return {name: content[name] for name in ("training", "validation", "unlabelled", OTHERS)}


@needs_nilearn
def test_a_study_has_half_patients_and_lacks_sequences_except_of_test_subjects(study: Path) -> None:
    sections = listed(study)
    cohort = {entry["subject"]: entry["cohort"] for entries in sections.values() for entry in entries}
    assert [cohort[f"brain_{n:03d}"] for n in range(1, 9)] == ["healthy", "patient"] * 4
    has: dict[str, list[str]] = {}
    for entry in (entry for entries in sections.values() for entry in entries):
        has.setdefault(entry["subject"], []).append(entry["sequence"])
    assert all(sorted(has[entry["subject"]]) == sorted(NAMES) for entry in sections["validation"])
    others = [len(found) for name, found in has.items() if name not in ("brain_003", "brain_004")]
    assert min(others) >= 1
    assert min(others) < len(NAMES)


@needs_nilearn
def test_masks_lie_on_the_first_sequence_and_only_patients_have_lesions(study: Path) -> None:
    for section in ("training", "validation"):
        for item in load_datalist(study, section, labelled=True):
            image, mask = nibabel.load(item["image"]), nibabel.load(item["label"])
            np.testing.assert_array_equal(image.affine, mask.affine)
            labels = set(np.unique(np.asarray(mask.dataobj)).tolist())
            assert labels == {0, 1, 2, 3} | ({4} if item["cohort"] == "patient" else set())


@needs_nilearn
def test_the_series_of_a_test_subject_are_a_study_that_pretraining_never_reads(study: Path) -> None:
    studies = labelled_studies(study, "validation")
    assert [one["sequences"] for one in studies] == [list(NAMES)] * 2
    check_pretraining(study, "training+unlabelled")
    pretrained = split_studies(study, "training+unlabelled", "validation", count=2)["train"]
    assert {one["subject"] for one in pretrained} == {f"brain_{n:03d}" for n in (1, 2, 5, 6, 7, 8)}


@needs_nilearn
def test_weak_labels_are_those_of_the_subject(study: Path) -> None:
    items = weak_labels(load_datalist(study, "training+unlabelled", labelled=False))
    assert {one["patient"] for one in items} == {0, 1}
    assert all(one["patient"] == int(one["cohort"] == "patient") for one in items)


@needs_nilearn
def test_other_numbers_and_sequences_leave_an_image_as_it_was(study: Path, tmp_path: Path) -> None:
    other = write_sequence_study(
        tmp_path / "d", sequences=["FLAIR"], seed=3, **{**SMALL, "unlabelled": 1, "missing": 0.0}
    )
    for entry in json.loads(other.read_text())["validation"]:
        ours, theirs = (folder.parent / entry["image"] for folder in (study, other))
        assert ours.read_bytes() == theirs.read_bytes()


@needs_nilearn
def test_air_is_zero_and_fluid_dark_in_flair() -> None:
    maps = brain_maps((0, 1), spacing=12.0)
    image = image_of(maps, "FLAIR", (0, 1), 12.0)
    assert not image[maps.fractions.sum(0) == 0].any()
    grey, fluid = (image[maps.label[0] == label].mean() for label in (1, 3))
    assert torch.isfinite(image).all()
    assert fluid < grey


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"sequences": ["T1"]}, r"sequences must be among .* got 'T1'; did you mean 'T1w'\?"),
        ({"sequences": ["T1w", "T1w"]}, r"each once, got \['T1w', 'T1w'\]"),
        ({"sequences": []}, r"one or several, each once, got \[\]"),
        ({"missing": 1.0}, "missing must be a probability from 0 to below 1, got 1.0"),
        ({"patients": 1.5}, "patients must be a share from 0 to 1, got 1.5"),
        ({"labelled": 0, "test": 0, "unlabelled": 0}, "must not be negative and not all 0"),
    ],
)
def test_what_cannot_be_written_is_refused(changes: dict[str, Any], answer: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=answer):
        write_sequence_study(tmp_path / "d", **changes)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="absent or empty folder"):
        write_sequence_study(tmp_path, unlabelled=1)


@needs_nilearn
def test_the_curve_of_the_three_methods_passes_its_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its head says, on fewer brains."""
    monkeypatch.chdir(tmp_path)
    counts = {"labelled": 4, "test": 2, "unlabelled": 2, "spacing": 12.0, "lesions": 80}
    write_sequence_study("runs/phantom_studies", sequences=NAMES, **counts)
    result = run_curve(ROOT / "tutorials" / "curve_studies.yaml", dry_run=True)
    assert result.curve is None
    config = read_config(ROOT / "tutorials" / "curve_studies.yaml")
    step, arm = make_plan(config).pretrain["missing_sequences"], config.arm("missing_sequences")
    cell = f"{config.output}/pretraining/missing_sequences/seed_0"
    written = step.value("templates", {**step.pick(config.settings), "pretrained": f"{cell}/pretrained.pt"})
    assert written == arm.settings["templates"]  # fine-tuning reads them where pretraining writes them
    assert not Path("runs/curve_studies/pretraining").exists()
