"""What the bundle cases_and_controls has beside the steps of every bundle: probes of its spaces, the autoencoder."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from test_bundle_runs import edit, run, user_sees

from monai_cl import bundles, weights
from monai_cl.engine import read_history


@pytest.fixture
def study(study_with_maps: Path) -> Path:
    return study_with_maps


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.copy("cases_and_controls", tmp_path / "bundle")


def test_spaces_of_the_last_checkpoint_are_probed_and_shown(bundle: Path, study: Path) -> None:
    run(bundle, "pretrain", study)
    row = read_history(bundle / "runs/pretrain/history.csv")[0]
    assert {"common", "salient", "information_less", "joint_entropy", "patients", "missing"} <= set(row)
    assert (row["patients"], row["missing"]) == (1, 0)
    touched = {name.split(".")[0] for name in weights.read_contract(bundle / "models/pretrained.pt")["touched"]}
    assert touched == {"convInit", "down_layers"}
    own = Path(shutil.copytree(study, bundle.parent / "study"))
    edit(own, lambda content: [one.update(source="a" if n < 2 else "b") for n, one in enumerate(content["training"])])
    edit(own, lambda content: [one.update(source="ab"[n]) for n, one in enumerate(content["unlabelled"])])
    run(bundle, "pretrain", own, ("spaces.yaml",), spaces_section="training+unlabelled", folds=2, leakage_of="source")
    made = {path.name for path in (bundle / "runs/spaces").iterdir()}
    assert made == {"common", "salient", "probes.csv", "nearest_common.html", "nearest_salient.html"}
    rows = list(csv.DictReader((bundle / "runs/spaces/probes.csv").read_text().splitlines()))
    found = [(row["label"], row["space"], row["volumes"]) for row in rows]
    assert found == [(name, space, "6") for name in ("patient", "source") for space in ("common", "salient")]
    assert rows[0]["leakage"] == ""
    assert float(rows[2]["leakage"]) == pytest.approx((float(rows[2]["accuracy"]) - 0.5) / 0.5)
    assert "<img" in (bundle / "runs/spaces/nearest_salient.html").read_text()


def test_the_autoencoder_pretrains_and_shows_patients(bundle: Path, study: Path) -> None:
    run(bundle, "pretrain", study, ("separate_vae.yaml",))
    row = read_history(bundle / "runs/separate_vae/history.csv")[0]
    assert {"reconstruction", "healthy_salient", "correlation", "discriminator", "classifier"} <= set(row)
    pictures = {path.name for path in (bundle / "runs/separate_vae/separation").iterdir()}
    assert {"separation.png", "patient_1_pathology.nii.gz", "patient_1_swapped.nii.gz"} <= pictures
    state = torch.load(bundle / "models/pretrained_vae.pt", weights_only=True)
    assert not [name for name in state if "decoder" in name or "heads" in name]


def test_volumes_without_a_weak_label_are_refused_by_name(bundle: Path, study: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(study, tmp_path / "study"))
    edit(own, lambda content: content["training"][1].update(cohort="lesion"))
    said = user_sees(bundle, "pretrain", own)
    assert "cohort of each volume must be one of" in said
    assert "got 'lesion' (1, such as case_1)" in said
    assert json.loads((own / "datalist.json").read_text())["training"][1]["cohort"] == "lesion"
