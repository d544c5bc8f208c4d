"""Decoding processes: one file ends one process, and the next file has a new one."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_series import slice_dataset
from pydicom.uid import JPEGLSLossless

from monai_cl.data import scan
from monai_cl.intake import _decoder_pool
from monai_cl.intake._decoder_pool import DecoderDiedError, DecoderPool
from monai_cl.io.dicom import SliceHeader, decoder_process, read_slice_header

PIXELS = np.arange(1920, dtype="<i2").reshape(40, 48)


def compressed(path: Path, index: int = 0, series: str = "1.2.3") -> SliceHeader:
    dataset = slice_dataset(index, series, Rows=40, Columns=48, SOPInstanceUID=f"{series}.{index}")
    dataset.PixelData = PIXELS.tobytes()
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return read_slice_header(path)


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that ends on files named ``deadly`` and waits on files named ``slow``."""
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys, os, time\nsys.path.insert(0, {os.path.dirname(decoder_process.__file__)!r})\n"
        "import decoder_process\nbefore = decoder_process.answer\n"
        "def answer(request):\n"
        "    if 'deadly' in request['path']: os.abort()\n"
        "    if 'slow' in request['path']: time.sleep(60)\n"
        "    print('a library prints')\n"
        "    return before(request)\n"
        "decoder_process.answer = answer\ndecoder_process.main()\n"
    )
    monkeypatch.setattr(_decoder_pool.decoder_process, "__file__", str(program))


def test_both_ways_give_the_values(tmp_path: Path) -> None:
    header = compressed(tmp_path / "one.dcm")
    with DecoderPool(1) as pool:
        assert np.array_equal(pool.frames(header)[0], PIXELS)
        assert np.array_equal(pool.rescaled(header), PIXELS)
        with pytest.raises(ValueError, match="cannot decode the pixel data of"):
            pool.frames(replace(header, path=tmp_path / "absent.dcm"))
        assert pool.rescaled(replace(header, path=tmp_path / "absent.dcm")) is None


@pytest.mark.usefixtures("deadly")
def test_a_process_that_ends_is_replaced(tmp_path: Path) -> None:
    good, bad = compressed(tmp_path / "good.dcm"), compressed(tmp_path / "deadly.dcm")
    with DecoderPool(2) as pool, ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            with pytest.raises(DecoderDiedError, match=r"the decoder ended on .*deadly\.dcm"):
                pool.frames(bad)
            assert np.array_equal(pool.frames(good)[0], PIXELS)
        assert all(np.array_equal(one[0], PIXELS) for one in threads.map(pool.frames, [good] * 8))


@pytest.mark.usefixtures("deadly")
def test_a_process_that_does_not_come_back_is_ended(tmp_path: Path) -> None:
    with DecoderPool(1, seconds=1.0) as pool, pytest.raises(DecoderDiedError, match="took longer than 1 s"):
        pool.frames(compressed(tmp_path / "slow.dcm"))


@pytest.mark.usefixtures("deadly")
def test_a_scan_goes_on_when_a_decoder_ends(tmp_path: Path) -> None:
    for series, name in (("1.2.3", "good"), ("1.2.4", "deadly")):
        for index in range(4):
            compressed(tmp_path / f"data/{name}/{index}.dcm", index, series)
    result = scan(tmp_path / "data", tmp_path / "out/study.json", pictures=True, hide_names=False)
    assert result.reasons == {"undecodable pixel data": 1}
    assert result.sections["unlabelled"][0]["image"] == "good"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_no_process_stays_behind(tmp_path: Path) -> None:
    pool = DecoderPool(1)
    with pool:
        pool.frames(compressed(tmp_path / "one.dcm"))
        process = pool._idle.queue[0]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert np.array_equal(pool.frames(compressed(tmp_path / "one.dcm"))[0], PIXELS)
        process = pool._idle.queue[0]
    assert process.returncode is not None
