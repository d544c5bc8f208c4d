"""The job of the tutorial in the simulator of NVFlare: two sites, two rounds, fine-tuning and pretraining."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, write_study, write_volume
from monai.networks.nets import SegResNet

from monai_cl import weights
from monai_cl.engine.run_record import read_run_record

pytest.importorskip("nvflare", reason="needs the extra federated")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
FEDERATED = ROOT / "tutorials" / "federated"
QUICK: dict[str, dict[str, Any]] = {
    "train": {"finetune_epoch_length": 1, "roi_size": [16] * 3},
    "pretrain": {"epoch_length": 1, "grid": [2, 2, 2], "crop_size": [8] * 3, "num_crops": 2, "probe_volumes": 0},
}


def settings_of(step: str, folder: Path) -> dict[str, Any]:
    """Settings of sites whose scans differ; ``{site}`` stands for the name of a site."""
    for number in (1, 2):
        root = write_study(folder / "data" / f"site-{number}")
        if number == 2:  # other scans than those of the first site
            for index, path in enumerate(sorted((root / "images").iterdir())):
                write_volume(path, 100 + index)
    return {
        "dataset_dir": str(folder / "data/{site}"), "datalist": str(folder / "data/{site}/datalist.json"),
        "bundle_root": str(folder / "runs/{site}"), "recipe": "small_mr", "init_filters": 8, "num_workers": 0,
        "device": "cpu", **QUICK[step],
    }  # fmt: skip


def run(*command: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=cwd, timeout=2700,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(FEDERATED)])},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def check_rounds(step: str, folder: Path) -> Path:
    """Weights of the server after two rounds at two sites: whole, of tensors alone, and what fine-tuning takes."""
    (kept,) = (folder / "work").rglob("FL_global_model.pt")
    receipt = weights.transfer(SegResNet(out_channels=3, init_filters=8, blocks_down=(1, 2, 2, 4)), kept)
    assert receipt.share == 1.0
    for number in (1, 2):
        record = read_run_record(folder / "runs" / f"site-{number}" / "runs" / step)
        assert record["parts"][-1]["to_step"] == 2  # both rounds
    shared = torch.load(kept, map_location="cpu", weights_only=False)["model"]  # a file that this test had made
    assert all(torch.is_tensor(torch.as_tensor(value)) for value in shared.values())
    return kept


def of_the_server(folder: Path) -> list[Path]:
    """All that the server has written, its log among it."""
    found = [path for path in (folder / "work" / "server").rglob("*") if path.is_file()]
    assert any("log" in path.name for path in found)
    return found


@pytest.mark.parametrize("step", QUICK)
def test_two_sites_train_two_rounds_and_the_server_keeps_their_average(step: str, tmp_path: Path) -> None:
    settings = json.dumps(settings_of(step, tmp_path))
    run(
        str(FEDERATED / "job.py"), "volume_contrast", step, "--sites", "2", "--rounds", "2",
        "--settings", settings, "--workspace", str(tmp_path / "work"), cwd=tmp_path,
    )  # fmt: skip
    check_rounds(step, tmp_path)


def test_a_job_that_is_written_fine_tunes_in_the_simulator_and_nothing_but_weights_leaves_a_site(
    tmp_path: Path,
) -> None:
    job = tmp_path / "jobs" / "volume_contrast_train"
    run(
        str(FEDERATED / "job.py"), "volume_contrast", "train", "--sites", "2", "--rounds", "2",
        "--settings", json.dumps(settings_of("train", tmp_path)), "--job", str(tmp_path / "jobs"), cwd=tmp_path,
    )  # fmt: skip
    assert not [path for path in job.rglob("*") if path.is_file() and str(ROOT).encode() in path.read_bytes()]
    simulate = "import sys, pathlib, job; job.simulate(pathlib.Path(sys.argv[1]), 2, pathlib.Path(sys.argv[2]))"
    run("-c", simulate, str(job), str(tmp_path / "work"), cwd=tmp_path)
    shared = torch.load(check_rounds("train", tmp_path), map_location="cpu", weights_only=False)["model"]
    models = [tmp_path / "runs" / f"site-{number}" / "models" / "model.pt" for number in (1, 2)]
    first, second = (torch.load(path, map_location="cpu", weights_only=True) for path in models)
    names = [name for name, value in first.items() if value.is_floating_point()]
    assert set(first) == set(shared)
    for name in names:  # the second round is over, and its average stays at the server
        torch.testing.assert_close(torch.as_tensor(shared[name]), (first[name] + second[name]) / 2)
    moved = [name for name in names if not torch.equal(first[name], second[name])]
    assert len(moved) > len(names) / 2  # sites learn from scans of their own
    secrets = [b"case_", b"datalist.json", b"images/", b"labels/", b'"left"', str(tmp_path / "data/site-").encode()]
    told = {
        (path.name, secret) for path in of_the_server(tmp_path) for secret in secrets if secret in path.read_bytes()
    }
    assert told <= {("site.json", b"datalist.json")}  # the template, which the server had given
