"""A real server of MONAI Label on loopback segments scans and trains on labels over HTTP.

MONAI Label 0.8.5 needs NumPy below 2 and so an environment of its own: ``MONAI_LABEL_PYTHON`` names a Python with
``monailabel`` and what this package needs. Two things that such an environment may lack, and no bundle uses, get a
stand-in on the path of the server: two functions of torchvision, and a module that pydicom 3 no longer has and
pydicom-seg 0.4.1 still imports.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
import torch
from bundle_gate import network
from conftest import ROOT, write_volume

from monai_cl import bundles, weights

PYTHON = os.environ.get("MONAI_LABEL_PYTHON")
NAME = "volume_contrast"
SMALL = "small"  # the same bundle, its configs edited for a small network
IN_BOTH = {"recipe": "small_mr", "roi_size": "[16, 16, 16]", "init_filters": "8"}
IN_TRAINING = {
    "finetune_epoch_length": "20", "finetune_learning_rate": "0.003", "num_workers": "0", "pretrained": "none",
}  # fmt: skip
SCANS = ("scan", "second", "third", "unlabelled")
SECONDS = 900  # a start on a busy machine

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="needs MONAI_LABEL_PYTHON, a Python with monailabel 0.8.5 and numpy < 2"),
    pytest.mark.timeout(2 * SECONDS),
]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


STAND_INS = {
    "torchvision/__init__.py": "",
    "torchvision/utils.py": "make_grid = save_image = None\n",
    "sitecustomize.py": (
        "import sys\nimport pydicom.uid\nsys.modules.setdefault('pydicom._storage_sopclass_uids', pydicom.uid)\n"
    ),
}


def environment(folder: Path) -> dict[str, str]:
    """Environment of the server: this checkout, and the stand-ins that it needs."""
    absent = "import importlib.util as u, sys; sys.exit(u.find_spec('torchvision') is not None)"
    names = [name for name in STAND_INS if not name.startswith("torchvision")]
    if subprocess.run([str(PYTHON), "-c", absent]).returncode == 0:
        names = list(STAND_INS)
    for name in names:
        (folder / "stand_ins" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "stand_ins" / name).write_text(STAND_INS[name], encoding="utf-8")
    path = os.pathsep.join([str(ROOT), str(folder / "stand_ins")])
    return os.environ | {"PYTHONPATH": path, "MONAI_ZOO_SOURCE": "ngc", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with a bundle as it comes and an edited one, both with random networks, and four scans."""
    folder = tmp_path_factory.mktemp("label")
    for name in (NAME, SMALL):
        root = bundles.copy(NAME, folder / "app" / "model" / name)
        if name == SMALL:
            edit(root / "configs" / "inference.yaml", IN_BOTH)
            edit(root / "configs" / "train.yaml", IN_BOTH | IN_TRAINING)
        torch.manual_seed(0)
        weights.save_network(network(root), root / "models" / "model.pt")
    sample = subprocess.run(
        [str(PYTHON), "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    app = Path(sample.stdout.strip()) / "monailabel" / "sample-apps" / "monaibundle"
    shutil.copytree(app, folder / "app", dirs_exist_ok=True)
    for number, scan in enumerate(SCANS):
        write_volume(folder / "studies" / f"{scan}.nii.gz", number)
    port, log = free_port(), folder / "log.txt"
    command = [
        str(PYTHON), "-m", "monailabel.main", "start_server", "--app", str(folder / "app"), "--studies",
        str(folder / "studies"), "--host", "127.0.0.1", "--port", str(port), "--conf", "models", f"{NAME},{SMALL}",
        "--conf", "sam2", "false",
    ]  # fmt: skip
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment(folder), cwd=folder
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/info/", process, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def edit(config: Path, values: dict[str, str]) -> None:
    """Give settings of a config other values, as a user would in an editor."""
    text = config.read_text(encoding="utf-8")
    for key, value in values.items():
        text, times = re.subn(rf"(?m)^{key}: .*$", f"{key}: {value}", text)
        assert times == 1, f"{key} must be set once in {config.name}"
    config.write_text(text, encoding="utf-8")


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=60):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(1)
    pytest.fail(f"the server did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")


def test_it_offers_the_bundle_with_its_classes_and_options(server: str) -> None:
    with urllib.request.urlopen(f"{server}/info/", timeout=SECONDS) as answer:
        info = json.load(answer)
    model = info["models"][NAME]
    assert model["labels"] == {"class 1": 1, "class 2": 2}
    assert {"overlap", "sw_batch_size", "largest_alone"} <= set(model["config"])
    assert NAME in info["trainers"]


def segmented(server: str, name: str, scan: str, folder: Path) -> nib.Nifti1Image:
    """A mask, asked for over HTTP."""
    answer = requests.post(
        f"{server}/infer/{name}",
        params={"image": scan, "output": "image"},
        data={"params": json.dumps({"device": "cpu"})},
        timeout=SECONDS,
    )
    answer.raise_for_status()
    path = folder / f"{scan}_mask.nii.gz"
    path.write_bytes(answer.content)
    mask: nib.Nifti1Image = nib.load(path)
    return mask


def test_a_segmentation_over_http_lies_on_the_grid_of_the_scan(server: str, tmp_path: Path) -> None:
    mask = segmented(server, NAME, "scan", tmp_path)
    write_volume(tmp_path / "scan.nii.gz", 0)  # the one that the server has
    scan = nib.load(tmp_path / "scan.nii.gz")
    assert mask.shape == scan.shape
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
    labels = set(np.unique(np.asarray(mask.dataobj)))
    assert labels <= {0, 1, 2}
    assert len(labels) > 1  # random weights give more than one class


def give_label(server: str, scan: str, folder: Path) -> None:
    """Send the mask of a scan, as a client does when an annotator has finished."""
    path = folder / f"{scan}.nii.gz"
    write_volume(path, SCANS.index(scan), label=True)
    with path.open("rb") as stream:
        answer = requests.put(
            f"{server}/datastore/label",
            params={"image": scan, "tag": "final"},
            files={"label": stream},
            timeout=SECONDS,
        )
    answer.raise_for_status()


def trained(server: str, **request: Any) -> dict[str, Any]:
    """Ask for training over HTTP and wait for its end; gives the server's account of it."""
    requests.post(f"{server}/train/{SMALL}", json={"device": "cpu", **request}, timeout=SECONDS).raise_for_status()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        task: dict[str, Any] = requests.get(f"{server}/train/", timeout=SECONDS).json()
        if task["status"] not in ("SUBMITTED", "RUNNING"):
            return task
        time.sleep(1)
    pytest.fail("the training did not end")


def overlap(mask: nib.Nifti1Image, number: int, folder: Path) -> float:
    """Dice of foreground with the true mask of a phantom."""
    write_volume(folder / "truth.nii.gz", number, label=True)
    truth, got = (np.asarray(one.dataobj) > 0 for one in (nib.load(folder / "truth.nii.gz"), mask))
    return float(2 * (truth & got).sum() / (truth.sum() + got.sum()))


@pytest.mark.slow
def test_training_over_http_on_two_labels_then_three_finds_the_blob(server: str, tmp_path: Path) -> None:
    before = overlap(segmented(server, SMALL, "unlabelled", tmp_path), SCANS.index("unlabelled"), tmp_path)
    for scan in ("scan", "second"):
        give_label(server, scan, tmp_path)
    first = trained(server, max_epochs=3, val_split=0)
    assert first["status"] == "DONE", "\n".join(first["details"])
    after = overlap(segmented(server, SMALL, "unlabelled", tmp_path), SCANS.index("unlabelled"), tmp_path)
    assert after > max(before, 0.6)
    give_label(server, "third", tmp_path)
    second = trained(server, max_epochs=1, val_split=0.34)  # a third of three: one to validate on
    assert second["status"] == "DONE", "\n".join(second["details"])
    again = overlap(segmented(server, SMALL, "unlabelled", tmp_path), SCANS.index("unlabelled"), tmp_path)
    assert again > 0.6  # it went on from what it had learned
