"""What the bundle sequence_contrast has beside the steps of every bundle: arms, another network, denoising."""

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from test_bundle_runs import run

from monai_cl import bundles, weights
from monai_cl.engine import read_history


@pytest.fixture
def study(study_with_maps: Path) -> Path:
    return study_with_maps


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.copy("sequence_contrast", tmp_path / "bundle")


@pytest.mark.parametrize("arm", ["one_contrast", "shared_contrast"])
def test_the_arms_pretrain_encoder_and_decoder(arm: str, bundle: Path, study: Path) -> None:
    run(bundle, "pretrain", study, (f"{arm}.yaml",))
    contract = weights.read_contract(bundle / f"models/pretrained_{arm}.pt")
    assert contract["method"] == arm
    touched = {name.split(".")[0] for name in contract["touched"]}
    assert touched == {"convInit", "down_layers", "up_layers", "up_samples", "conv_final"}
    row = read_history(bundle / f"runs/pretrain_{arm}/history.csv")[0]
    assert {"loss", "global", "dense", "reconstruction", "retrieval", "step"} <= set(row)
    health = read_history(bundle / f"runs/pretrain_{arm}/health.csv")[0]
    assert {"retrieval", "voxel_error_mm", "effective_rank", "alignment"} <= set(health)


def test_partial_volume_is_mixed_where_fractions_lie_beside_the_maps(bundle: Path, study: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(study, tmp_path / "study")
    for file in sorted(folder.rglob("*_PDmap.nii.gz")):
        density = nibabel.load(file)
        share = np.clip(density.get_fdata() / 100, 0, 1).astype(np.float32)
        for label, values in (("CSF", share), ("WM", (1 - share) * (share > 0))):
            image = nibabel.Nifti1Image(values, density.affine)
            nibabel.save(image, file.with_name(file.name.replace("PDmap", f"label-{label}_probseg")))
    run(bundle, "pretrain", folder, fractions="$data.common_fractions(@items)")
    record = json.loads((bundle / "runs/pretrain/run.json").read_text())
    assert "white_matter" in json.dumps(record)
    (row, *_) = read_history(bundle / "runs/pretrain/history.csv")
    assert row["loss"] == row["loss"]


def test_denoising_starts_from_the_pretrained_network_and_scores_itself(bundle: Path, study: Path) -> None:
    run(bundle, "pretrain", study)
    scores = {}
    for start in ("none", str(bundle / "models/pretrained.pt")):
        run(bundle, "train", study, ("denoise.yaml",), pretrained=start, labels=2, out_channels=1)
        folder = bundle / "runs/denoise" / Path(start).stem
        with open(folder / "metrics.csv") as file:
            scores[start] = {name: float(value) for name, value in csv.reader(file)}
        assert "case_4" in (folder / "psnr_raw.csv").read_text()
        state = torch.load(bundle / "models/denoiser.pt", weights_only=True)
        assert state["conv_final.2.conv.weight"].shape[0] == 1
    first, second = scores.values()
    assert first.keys() == {"psnr", "ssim", "psnr_of_noisy_image"}
    assert first["psnr_of_noisy_image"] == second["psnr_of_noisy_image"]  # the same noise in every run
    assert 18 < first["psnr_of_noisy_image"] < 22  # noise of a tenth of the range is 20 dB
