"""Scanning many headers: files a second of processor time, and memory against their number: ``pytest -m benchmark -s``.

A size of the tree: ``SCAN_FILES=1000000 pytest -m benchmark -k growth -s`` takes a while and a few GB of disk.
"""

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dicom_series import slice_dataset
from pydicom import dcmread
from pydicom.dataset import Dataset

pytestmark = pytest.mark.benchmark

SLICES = 100  # a series
PLACE, NUMBER = "-00000.0000000", "100000000000"
SCAN = """
import resource, sys, time
from monai_cl.data import scan
from monai_cl.data.intake.pseudonyms import new_key
key = new_key()
scan(sys.argv[1] + "/warm", sys.argv[2] + "/warm.json", key=key)
before, started, wall = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), time.perf_counter()
result = scan(sys.argv[1] + "/tree", sys.argv[2] + "/study.json", key=key)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(time.process_time() - started, time.perf_counter() - wall, grown, result.counts["unlabelled"])
"""


def template() -> bytes:
    """A header as long as those of scanners, some 150 elements with sequences, and a picture of 6 x 5 pixels."""
    dataset = slice_dataset(0, f"1.2.826.0.1.{NUMBER}", orientation=(1, 0, 0, 0, 1, 0))
    dataset.SOPInstanceUID = f"1.2.826.0.2.{NUMBER}"
    dataset.ImagePositionPatient = ["0", "0", PLACE]
    dataset.SeriesDescription, dataset.BodyPartExamined = "ax t2_flair", "BRAIN"
    for number in range(110):
        dataset.add_new(
            0x00191000 + number if number else 0x00190010, "LO", "PRIVATE CREATOR" if not number else "x" * 24
        )
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4"
    dataset.ReferencedImageSequence, dataset.ReferencedStudySequence = [item] * 3, [item]
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def write_tree(folder: Path, files: int) -> Path:
    """Series of 100 slices; names and places of the files are patched into one header."""
    raw = template()
    for number in range(files):
        series, index = divmod(number, SLICES)
        place = folder / f"p{series // 8}" / f"s{series}"
        if index == 0:
            place.mkdir(parents=True)
        own = raw.replace(f"1.2.826.0.1.{NUMBER}".encode(), f"1.2.826.0.1.{10**11 + series}".encode())
        own = own.replace(f"1.2.826.0.2.{NUMBER}".encode(), f"1.2.826.0.2.{10**11 + number}".encode())
        (place / f"{(37 * index) % SLICES:03d}").write_bytes(
            own.replace(PLACE.encode(), f"{2.5 * index:014.7f}".encode())
        )
    return folder


def scanned(base: Path, files: int) -> tuple[float, float, float]:
    """Processor seconds, wall seconds, and MB of memory that a scan in a process of its own adds."""
    folder = base / str(files)
    write_tree(folder / "tree", files)
    write_tree(folder / "warm", SLICES)
    for path in (folder / "tree").rglob("*"):  # into the page cache
        path.is_file() and path.read_bytes()
    command = [sys.executable, "-c", SCAN, str(folder), str(base)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu, wall, grown, kept = map(float, text.split()[-4:])
    assert kept == files / SLICES
    return cpu, wall, grown / 1024


def test_ten_thousand_headers(benchmark: Any, tmp_path: Path) -> None:
    cpu, wall, grown = benchmark.pedantic(scanned, (tmp_path, 10_000), rounds=1)
    benchmark.extra_info.update(
        files_per_cpu_second=round(10_000 / cpu), files_per_second=round(10_000 / wall), mb=grown
    )
    assert 10_000 / cpu > 1000


def test_growth_of_time_and_memory(benchmark: Any, tmp_path: Path) -> None:
    most = int(os.environ.get("SCAN_FILES", "10000"))
    (few, _, few_mb), (many, _, many_mb) = benchmark.pedantic(
        lambda: (scanned(tmp_path, most // 5), scanned(tmp_path, most)), rounds=1
    )
    benchmark.extra_info.update(cpu_ratio=round(many / few, 2), mb=(round(few_mb, 1), round(many_mb, 1)))
    assert many / few < 8  # five times the files
    assert many_mb - few_mb < 24


def test_the_quick_reading_of_tags_against_pydicom(benchmark: Any, tmp_path: Path) -> None:
    from monai_cl.transforms._dicom import read_slice_header

    path = tmp_path / "one"
    path.write_bytes(template())
    times = []
    for read in (lambda: dcmread(path, stop_before_pixels=True), lambda: read_slice_header(path)):
        started = time.process_time()
        for _ in range(200):
            read()
        times.append(time.process_time() - started)
    benchmark.extra_info["times as fast"] = round(times[0] / times[1], 1)
    benchmark(read_slice_header, path)
