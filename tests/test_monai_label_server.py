"""A real server of MONAI Label on loopback segments a scan over HTTP.

MONAI Label 0.8.5 needs NumPy below 2 and so an environment of its own: ``MONAI_LABEL_PYTHON`` names a Python with
``monailabel`` and what this package needs. Two things that such an environment may lack, and no bundle uses, get a
stand-in on the path of the server: two functions of torchvision, and a module that pydicom 3 no longer has and
pydicom-seg 0.4.1 still imports.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_gate import network
from conftest import ROOT, write_volume

from monai_cl import bundles, weights

PYTHON = os.environ.get("MONAI_LABEL_PYTHON")
NAME = "volume_contrast"
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
    """Address of a server with one bundle, whose network is random, and one scan."""
    folder = tmp_path_factory.mktemp("label")
    root = bundles.copy(NAME, folder / "app" / "model" / NAME)
    torch.manual_seed(0)
    weights.save_network(network(root), root / "models" / "model.pt")
    sample = subprocess.run(
        [str(PYTHON), "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    app = Path(sample.stdout.strip()) / "monailabel" / "sample-apps" / "monaibundle"
    shutil.copytree(app, folder / "app", dirs_exist_ok=True)
    write_volume(folder / "studies" / "scan.nii.gz", 0)
    port, log = free_port(), folder / "log.txt"
    command = [
        str(PYTHON), "-m", "monailabel.main", "start_server", "--app", str(folder / "app"), "--studies",
        str(folder / "studies"), "--host", "127.0.0.1", "--port", str(port), "--conf", "models", NAME, "--conf", "sam2",
        "false",
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


def test_a_segmentation_over_http_lies_on_the_grid_of_the_scan(server: str, tmp_path: Path) -> None:
    request = urllib.request.Request(
        f"{server}/infer/{NAME}?image=scan&output=image",
        data=b"params=%7B%22device%22%3A%20%22cpu%22%7D",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        (tmp_path / "mask.nii.gz").write_bytes(answer.read())
    write_volume(tmp_path / "scan.nii.gz", 0)  # the one that the server has
    mask, scan = nib.load(tmp_path / "mask.nii.gz"), nib.load(tmp_path / "scan.nii.gz")
    assert mask.shape == scan.shape
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
    labels = set(np.unique(np.asarray(mask.dataobj)))
    assert labels <= {0, 1, 2}
    assert len(labels) > 1  # random weights give more than one class
