"""Scanning many headers: files a second of processor time, and memory against their number: ``pytest -m benchmark -s``.

How time and memory grow from 10 000 to 100 000 files, 2 minutes and 1 GB of disk for each way they lie in folders:
``pytest -m "benchmark and slow" tests/benchmarks/test_scan_speed.py -s``; with ``SCAN_FILES=1000000`` to a million.
"""

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dicom_series import slice_dataset
from pydicom import dcmread
from pydicom.dataset import Dataset

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="peak memory is read from /proc, as Linux has it"
    ),
]

SLICES = 100  # a series
PLACE, NUMBER = "-00000.0000000", "100000000000"
SCAN = """
import sys, time
from monai_cl.data import scan
from monai_cl.privacy.pseudonyms import new_key
def peak():  # KB; getrusage would tell that of the process which started this one
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
key = new_key()
scan(sys.argv[1] + "/warm", sys.argv[2] + "/warm.json", key=key)
before, started, wall = peak(), time.process_time(), time.perf_counter()
result = scan(sys.argv[1] + "/tree", sys.argv[2] + "/study.json", key=key)
cpu, wall = time.process_time() - started, time.perf_counter() - wall
grown = peak() - before
def size(found):
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    return sys.getsizeof(found) + sum(map(size, inner))
needed = size(result.sections) + sum(size(vars(one)) for one in result.left_out)
print(cpu, wall, grown, needed // 1024, result.counts["unlabelled"])
"""
LAYOUTS = ("a folder for each series", "one folder for all")


class Cost(NamedTuple):
    """What a scan in a process of its own takes: seconds of processor and clock, MB that it adds, MB of its result."""

    cpu: float
    wall: float
    grown: float
    needed: float


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


def write_tree(folder: Path, files: int, layout: str = LAYOUTS[0]) -> Path:
    """Series of 100 slices; names and places of the files are patched into one header."""
    raw = template()
    for number in range(files):
        series, index = divmod(number, SLICES)
        place, name = folder / f"p{series // 8}" / f"s{series}", f"{(37 * index) % SLICES:03d}"
        if layout == LAYOUTS[1]:  # slices of all series mixed, as an archive numbers them
            place, name = folder, f"IM{number * 7919 % files:07d}"
        place.mkdir(parents=True, exist_ok=True)
        own = raw.replace(f"1.2.826.0.1.{NUMBER}".encode(), f"1.2.826.0.1.{10**11 + series}".encode())
        own = own.replace(f"1.2.826.0.2.{NUMBER}".encode(), f"1.2.826.0.2.{10**11 + number}".encode())
        (place / name).write_bytes(own.replace(PLACE.encode(), f"{2.5 * index:014.7f}".encode()))
    return folder


def scanned(base: Path, files: int, layout: str = LAYOUTS[0]) -> Cost:
    """Scan a tree of so many files, written where it is not there yet, from the page cache."""
    folder = base / f"{files} in {layout}"
    if not folder.exists():
        write_tree(folder / "tree", files, layout)
        write_tree(folder / "warm", SLICES)
    for path in (folder / "tree").rglob("*"):  # into the page cache
        path.is_file() and path.read_bytes()
    command = [sys.executable, "-c", SCAN, str(folder), str(base)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu, wall, grown, needed, kept = map(float, text.split()[-5:])
    assert kept == files / SLICES
    return Cost(cpu, wall, grown / 1024, needed / 1024)


def test_ten_thousand_headers(benchmark: Any, tmp_path: Path) -> None:
    cpu, wall, grown, _ = benchmark.pedantic(scanned, (tmp_path, 10_000), rounds=1)
    benchmark.extra_info.update(
        files_per_cpu_second=round(10_000 / cpu), files_per_second=round(10_000 / wall), mb=grown
    )
    assert 10_000 / cpu > 1000


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_growth_of_time_and_memory(benchmark: Any, tmp_path: Path, layout: str) -> None:
    most = int(os.environ.get("SCAN_FILES", "100000"))
    fewest = most // 10

    def measure() -> tuple[Cost, Cost]:
        many = scanned(tmp_path, most, layout)
        again = [scanned(tmp_path, fewest, layout) for _ in range(2)]  # short, so that other work weighs more
        return min(again), many

    few, many = benchmark.pedantic(measure, rounds=1)
    ratio = many.cpu / few.cpu * fewest / most
    more = 1024 * ((many.grown - many.needed) - (few.grown - few.needed)) / (most - fewest)  # KB a file
    found = {
        "files": (fewest, most),
        "files_per_second": (round(fewest / few.wall), round(most / many.wall)),
        "files_per_cpu_second": (round(fewest / few.cpu), round(most / many.cpu)),
        "mb": (round(few.grown, 1), round(many.grown, 1)),
        "mb_of_the_result": (round(few.needed, 1), round(many.needed, 1)),
        "time_a_file_ratio": round(ratio, 2),
        "kb_a_file_beyond_the_result": round(more, 3),
    }
    benchmark.extra_info.update(found)
    sys.stderr.write(f"\n{layout}: {found}\n")
    assert ratio < 2
    assert more < 1


def test_the_quick_reading_of_tags_against_pydicom(benchmark: Any, tmp_path: Path) -> None:
    from monai_cl.io.dicom import read_slice_header

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
    assert times[1] < times[0]
