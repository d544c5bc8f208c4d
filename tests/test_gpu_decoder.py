"""nvImageCodec is spoken of once, and only where it would be of use."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydicom.uid import JPEG2000Lossless, RLELossless

from monai_cl.io.dicom import decoding
from monai_cl.io.dicom.decoding import warn_of_gpu_decoder


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with a GPU and without nvImageCodec, which has said nothing yet."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(decoding, "_warned", set())


def test_making_a_loader_says_nothing() -> None:
    code = (
        "import logging; logging.basicConfig(format='%(message)s')\n"
        "from monai_cl.transforms import LoadVolume; LoadVolume()\n"
        "logging.getLogger('monai.data.nvimgcodec_pydicom_plugin').warning('news of its own')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "news of its own\n"


def test_a_command_says_nothing(study: Path, tmp_path: Path) -> None:
    code = "from monai_cl.cli import main; main()"
    command = [sys.executable, "-c", code, "curate", str(study / "datalist.json"), "--out", str(tmp_path / "c.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nvImageCodec" not in done.stdout + done.stderr


@pytest.mark.usefixtures("gpu")
def test_compressed_files_beside_a_gpu_are_worth_a_word_once(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_gpu_decoder(RLELossless)
    assert caplog.records == []
    for _ in range(3):
        warn_of_gpu_decoder(JPEG2000Lossless)
    (record,) = caplog.records
    assert "pip install 'monai[nvimgcodec]'" in record.message


def test_without_a_gpu_there_is_nothing_to_gain(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(decoding, "_warned", set())
    warn_of_gpu_decoder(JPEG2000Lossless)
    assert caplog.records == []
