"""A real server of MONAI Label on loopback, for the tests that ask it over HTTP.

MONAI Label 0.8.5 needs NumPy below 2 and so an environment of its own: ``MONAI_LABEL_PYTHON`` names a Python with
``monailabel`` and what this package needs. Two things that such an environment may lack, and no bundle uses, get a
stand-in on the path of the server: two functions of torchvision, and a module that pydicom 3 no longer has and
pydicom-seg 0.4.1 still imports.
"""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import pytest
import requests
import torch
from bundle_gate import network
from conftest import ROOT
from orthanc import free_port

from monai_cl import bundles, weights

PYTHON = os.environ.get("MONAI_LABEL_PYTHON")
BIN = str(Path(PYTHON).parent) if PYTHON else ""
SEG_TOOL = shutil.which("itkimage2segimage", path=BIN + os.pathsep + os.environ["PATH"])  # of dcmqi
WHY_NOT = "needs MONAI_LABEL_PYTHON, a Python with monailabel 0.8.5 and numpy < 2"
NAME = "volume_contrast"
SMALL = "small"  # the same bundle, its configs edited for a small network
IN_BOTH = {"recipe": "small_mr", "roi_size": "[16, 16, 16]", "init_filters": "8"}
IN_TRAINING = {
    "finetune_epoch_length": "20", "finetune_learning_rate": "0.003", "num_workers": "0", "pretrained": "none",
}  # fmt: skip
SECONDS = 900  # a start on a busy machine

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
    found = BIN + os.pathsep + os.environ["PATH"]
    return os.environ | {"PYTHONPATH": path, "PATH": found, "MONAI_ZOO_SOURCE": "ngc", "OMP_NUM_THREADS": "1"}


@contextmanager
def serving(folder: Path, studies: str, names: list[str], **variables: str) -> Iterator[str]:
    """Address of a server whose bundles, one as it comes and one edited, have random networks.

    Args:
        folder: For the app and the log.
        studies: Folder of scans, or address of DICOMweb.
        names: Of the bundles: ``NAME``, ``SMALL``.
        variables: Of the environment, beside those that are there.
    """
    for name in names:
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
    if not SEG_TOOL:  # the server would download it
        (folder / "app" / "bin").mkdir()
        (folder / "app" / "bin" / "itkimage2segimage").touch()
    port, log = free_port(), folder / "log.txt"
    command = [
        str(PYTHON), "-m", "monailabel.main", "start_server", "--app", str(folder / "app"), "--studies", studies,
        "--host", "127.0.0.1", "--port", str(port), "--conf", "models", ",".join(names), "--conf", "sam2", "false",
    ]  # fmt: skip
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment(folder) | variables, cwd=folder
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
