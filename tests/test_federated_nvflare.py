"""The job of the tutorial in the simulator of NVFlare: two sites, two rounds, fine-tuning and pretraining."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, write_study
from monai.networks.nets import SegResNet

from monai_cl import weights
from monai_cl.engine.run_record import read_run_record

pytest.importorskip("nvflare", reason="needs the extra federated")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
QUICK: dict[str, dict[str, Any]] = {
    "train": {"finetune_epoch_length": 1, "roi_size": [16] * 3},
    "pretrain": {"epoch_length": 1, "grid": [2, 2, 2], "crop_size": [8] * 3, "num_crops": 2, "probe_volumes": 0},
}


@pytest.mark.parametrize("step", QUICK)
def test_two_sites_train_two_rounds_and_the_server_keeps_their_average(step: str, tmp_path: Path) -> None:
    for number in (1, 2):
        write_study(tmp_path / "data" / f"site-{number}")
    settings = {
        "dataset_dir": str(tmp_path / "data/{site}"), "datalist": str(tmp_path / "data/{site}/datalist.json"),
        "bundle_root": str(tmp_path / "runs/{site}"), "recipe": "small_mr", "init_filters": 8, "num_workers": 0,
        "device": "cpu", **QUICK[step],
    }  # fmt: skip
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "tutorials" / "federated" / "job.py"), "volume_contrast", step, "--sites", "2",
            "--rounds", "2", "--settings", json.dumps(settings), "--workspace", str(tmp_path / "work"),
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=2700, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    (kept,) = (tmp_path / "work").rglob("FL_global_model.pt")
    receipt = weights.transfer(SegResNet(out_channels=3, init_filters=8, blocks_down=(1, 2, 2, 4)), kept)
    assert receipt.share == 1.0
    for number in (1, 2):
        record = read_run_record(tmp_path / "runs" / f"site-{number}" / "runs" / step)
        assert record["parts"][-1]["to_step"] == 2  # both rounds
    shared = torch.load(kept, map_location="cpu", weights_only=False)["model"]  # a file that this test had made
    assert all(torch.is_tensor(torch.as_tensor(value)) for value in shared.values())
