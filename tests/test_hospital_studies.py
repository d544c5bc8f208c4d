"""Bad input by the commands of users: sequences missing, twice, on other grids; one kind alone; no match anywhere."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
from conftest import write_volume
from monai.utils import set_determinism
from test_bundle_runs import edit, run, user_sees

from monai_cl import bundles
from monai_cl.engine import read_history
from monai_cl.weights import read_contract

TINY = {
    "recipe": "small_mr", "crop_size": [8, 8, 8], "template_size": [16, 16, 16], "block": 4, "batch_size": 4,
    "max_epochs": 1, "epoch_length": 2, "probe_volumes": 0, "num_workers": 0, "init_filters": 8,
}  # fmt: skip
TUNED = {
    "recipe": "small_mr", "in_channels": 2, "roi_size": [16, 16, 16], "finetune_batch_size": 2, "finetune_epochs": 1,
    "finetune_epoch_length": 1, "num_workers": 0, "init_filters": 8,
}  # fmt: skip


def command(root: Path, steps: tuple[str, ...], study: Path, **options: Any) -> None:
    """``python -m monai.bundle run`` in this process."""
    if steps != ("inference",):
        options["datalist"] = str(study / "datalist.json")
    try:
        monai.bundle.run(
            bundle_root=str(root), config_file=[str(root / "configs" / f"{name}.yaml") for name in steps],
            dataset_dir=str(study), logging_file=False, **options,
        )  # fmt: skip
    finally:
        set_determinism(seed=None)


def listed(root: Path, series: dict[str, list[str]], *, labelled: bool = False) -> None:
    """Write series of subjects as ``sub-a_T1w.nii.gz``, the second of one name as ``sub-a_run-2_T1w.nii.gz``."""
    entries: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "unlabelled": []}
    for number, (subject, names) in enumerate(series.items()):
        for place, name in enumerate(names):
            again = f"run-{place + 1}_" if name in names[:place] else ""
            entry = {"image": f"sub-{subject}_{again}{name}.nii.gz", "subject": subject, "sequence": name}
            write_volume(root / entry["image"], number)
            if labelled and place == 0:
                entry["label"] = f"sub-{subject}_seg.nii.gz"
                write_volume(root / entry["label"], number, label=True)
            section = ("training", "validation")[number % 2] if labelled and place == 0 else "unlabelled"
            entries[section].append(entry)
    (root / "datalist.json").write_text(json.dumps({"hide_names": False, **{k: v for k, v in entries.items() if v}}))


def moved(path: Path, by: float) -> None:
    """Lay an image elsewhere."""
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += by
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


def test_pretraining_counts_and_names_what_studies_lack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "monai_cl")
    both = ["T1w", "FLAIR"]
    listed(
        tmp_path, {"one": ["T1w"], "twice": ["T1w", "T1w", "FLAIR"], "grid": both, "far": both, "odd": ["my scan 7"]}
    )
    write_volume(tmp_path / "sub-grid_FLAIR.nii.gz", 2, shape=(10, 11, 9))
    moved(tmp_path / "sub-far_FLAIR.nii.gz", 500.0)
    root = bundles.copy("missing_sequences", tmp_path / "bundle")
    command(root, ("pretrain",), tmp_path, sections="unlabelled", **TINY)
    assert "5 studies have the sequences FLAIR 3, T1w 4, my scan 7 1; 2 of them have one sequence alone" in caplog.text
    assert ", 1 have one twice or more" in caplog.text
    assert "grid: FLAIR resampled onto the grid of the first series, T1w" in caplog.text
    assert "far: left out FLAIR, which has no voxel in common with the first series, T1w" in caplog.text
    (row,) = read_history(root / "runs/pretrain/history.csv")
    assert 0 < row["with_donor"] < 1
    names = json.loads((root / "models/templates/templates.json").read_text())["templates"]
    assert list(names) == ["FLAIR", "T1w", "my scan 7"]
    assert all((root / "models/templates" / file).is_file() for file in names.values())


def test_studies_of_one_sequence_each_pretrain_on_templates_and_the_log_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed(tmp_path, {name: ["T1w"] for name in "abcd"})
    root = bundles.copy("missing_sequences", tmp_path / "bundle")
    command(root, ("pretrain",), tmp_path, sections="unlabelled", **TINY)
    assert "no study has two sequences: templates alone stand in for hidden blocks" in caplog.text
    assert read_history(root / "runs/pretrain/history.csv")[0]["with_donor"] == 0


def test_masks_come_of_studies_that_lack_a_sequence_and_the_log_counts_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Trained on both sequences, evaluated without one, then given one study whole, one in part and one of neither."""
    caplog.set_level(logging.INFO, "monai_cl")
    both = ["T1w", "FLAIR"]
    study, new = tmp_path / "study", tmp_path / "new"
    listed(study, {"a": both, "b": ["T1w"], "c": ["T1w"]}, labelled=True)
    root = bundles.copy("missing_sequences", tmp_path / "bundle")
    command(root, ("train",), study, pretrained="none", sequences=both, **TUNED)
    assert read_contract(root / "models/model.pt")["sequences"] == both
    command(root, ("train", "evaluate"), study, without=["FLAIR"], **TUNED)
    assert json.loads((root / "runs/evaluate/run.json").read_text())["settings"]["without"] == ["FLAIR"]
    listed(new, {"whole": both, "part": ["FLAIR"], "neither": ["DWI"]})
    (new / "datalist.json").unlink()
    caplog.clear()
    kept = {name: TUNED[name] for name in ("recipe", "in_channels", "roi_size", "init_filters")}
    command(root, ("inference",), new, hide_names=False, **kept)
    masks = sorted(path.name for path in (root / "runs/inference").rglob("*.nii.gz"))
    assert len(masks) == 2
    assert ["part" in masks[0], "whole" in masks[1]] == [True, True]
    assert "of 2 studies the sequences that the network takes are missing so often: T1w in 1" in caplog.text
    assert "it has DWI alone" in caplog.text
    assert "a channel that a study lacks is filled with zeros" in caplog.text


@pytest.fixture
def own_study(study: Path, tmp_path: Path) -> Path:
    """A copy of the study, to spoil."""
    return Path(shutil.copytree(study, tmp_path / "study"))


def test_one_kind_of_volume_alone_stops_the_run_with_both_counts(own_study: Path, tmp_path: Path) -> None:
    root = bundles.copy("cases_and_controls", tmp_path / "bundle")
    said = user_sees(root, "pretrain", own_study, batch_size=8)
    assert "a batch of 8 takes 4 healthy, process 0 has 3; use a smaller batch_size" in said

    def all_patients(content: dict[str, Any]) -> None:
        for section in ("training", "validation", "unlabelled"):
            for item in content[section]:
                item["cohort"] = "patient"

    edit(own_study, all_patients)
    said = user_sees(root, "pretrain", own_study)
    assert "the volumes must include healthy and patients, got 0 healthy and 6 patients" in said


def test_matches_below_the_threshold_everywhere_are_counted_named_and_stop_the_run(
    study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:  # MONAI's words
        run(
            root, "pretrain", study, ("anatomical_pairs.yaml",), patch_size=[16, 16, 16], prototypes=16,
            probe_volumes=0, correspondence="registration", match_threshold=0.999,
            match_options={"grid_mm": 4.0, "iterations": 2},
        )  # fmt: skip
    bundles.release()
    said = bundles._reason(caught.value)
    assert not (root / "models/pretrained_anatomical.pt").exists()
    assert "no further one has any; lower the threshold, take another correspondence" in said
    assert re.search(
        r"case_\d: \d+ matches in \d other volumes were rejected, the best had a likeness of 0\.\d\d", said
    )
    assert re.search(r"left out 16 matches of case_\d in case_\d; `rejected` counts all of them", caplog.text)
