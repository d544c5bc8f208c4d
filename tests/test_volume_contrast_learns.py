"""Pretraining as users run it, on real scans: minutes long."""

import logging
from pathlib import Path

import monai.bundle
import pytest

from monai_cl import bundles
from monai_cl.engine import read_history

LEFT_ATRIUM = Path(__file__).parents[2] / "shared/data/la"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not LEFT_ATRIUM.is_dir(), reason="needs the left atrium volumes in ../shared/data/la"),
]


def test_two_hundred_steps_teach_positions_on_volumes_not_trained_on(tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    monai.bundle.run(
        config_file=[str(root / f"configs/{name}.yaml") for name in ("pretrain", "small")],
        logging_file=False,
        bundle_root=str(root),
        dataset_dir=str(LEFT_ATRIUM),
        datalist=str(LEFT_ATRIUM / "dataset.json"),
        sections="training",
        recipe="small_mr",
        max_epochs=4,
        epoch_length=50,
        probe_volumes=16,
        probe_budget=1.0,
    )
    looks = read_history(root / "runs/pretrain/health.csv")
    logging.getLogger(__name__).info("%s", looks)
    first, last = looks[0], looks[-1]
    assert last["step"] == 200
    # of eight bases; a crop halfway between some has several right answers
    assert 0.125 <= last["chance_accuracy"] < 0.2
    # measured: 0.33 of 128 crops, whose standard error is 0.04, against 0.15
    assert last["position_accuracy"] > 1.7 * last["chance_accuracy"]
    assert last["position_accuracy"] > first["position_accuracy"]
    assert last["position_error_mm"] < 0.85 * last["chance_error_mm"]
    assert last["positive_cosine_p90"] > last["negative_cosine_p90"]
    assert last["dead_pairs"] == 0
    assert last["effective_rank"] > 4
