"""DICOM series and headers that are unusual or hostile, through ``monai-cl scan`` and the reader of volumes."""

import contextlib
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases import makers
from monai_cl.data import scan
from monai_cl.intake.scan_result import ScanResult
from monai_cl.transforms import LoadVolumed

BOUND = 100e6  # bytes that a scan of these may take at once


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fail where a claim is believed: what is taken at once is measured, and gigabytes are not to be had."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * 2**30, before[1]))
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert peak < BOUND


def kept(result: ScanResult) -> list[dict[str, Any]]:
    return [dict(item) for items in result.sections.values() for item in items]


def reasons(result: ScanResult) -> str:
    return "; ".join(f"{entry.reason}: {entry.detail}" for entry in result.left_out)


def beside_a_good_one(tmp_path: Path) -> Path:
    """A folder whose scan finds something whatever becomes of the rest."""
    makers.series(tmp_path / "scans/good", SeriesInstanceUID="1.2.826.0.1.3680043.2.9")
    return tmp_path / "scans"


def test_a_table_of_values_is_applied_or_the_series_left_out_by_name(tmp_path: Path) -> None:
    root = beside_a_good_one(tmp_path)
    makers.series(root / "table", makers.with_table, SmallestImagePixelValue=0)
    result = scan(root, tmp_path / "s.json", hide_names=False)
    items = [item for item in kept(result) if "table" in str(item["image"])]
    if not items:
        assert "LUT" in reasons(result)
        return
    volume = LoadVolumed("image")({"image": str(root / items[0]["image"])})["image"].numpy()
    first = 3 * (np.arange(6)[:, None] + 10 * np.arange(5)[None, :]) + 7  # column, row of the first slice
    assert volume.min() == 7
    assert any(np.array_equal(np.sort(first, None), np.sort(volume[0, ..., k], None)) for k in (0, -1))


def test_roundings_of_one_spacing_are_one_series(tmp_path: Path) -> None:
    def change(dataset: Any, index: int) -> None:
        dataset.PixelSpacing = [0.859375, 0.859375] if index % 3 else [0.8594, 0.8594]

    result = scan(makers.series(tmp_path / "rounded", change), tmp_path / "s.json")
    assert len(kept(result)) == 1, reasons(result)
    assert result.left_out == []


def test_two_spacings_are_not_one_series(tmp_path: Path) -> None:
    root = beside_a_good_one(tmp_path)
    makers.series(
        root / "mixed", lambda dataset, index: setattr(dataset, "PixelSpacing", [0.8 + 0.1 * (index % 2)] * 2)
    )
    result = scan(root, tmp_path / "s.json")
    assert len(kept(result)) == 1
    assert "spacing" in reasons(result)


def test_a_series_number_a_slice_is_one_line_that_says_they_stack(tmp_path: Path) -> None:
    root = beside_a_good_one(tmp_path)

    def change(dataset: Any, index: int) -> None:
        dataset.SeriesInstanceUID = f"1.2.826.0.1.3680043.2.5.{index}"

    makers.series(root / "careless", change)
    result = scan(root, tmp_path / "s.json")
    if len(kept(result)) == 1:
        (entry,) = result.left_out
        assert "stack" in f"{entry.reason} {entry.detail}"
    else:
        assert len(kept(result)) == 2
        assert any("stack" in note for note in result.notes)


def test_a_secondary_capture_with_geometry_is_judged_by_it(tmp_path: Path) -> None:
    root = beside_a_good_one(tmp_path)
    tags = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "MR", "ImageType": ["DERIVED", "SECONDARY"]}
    makers.series(root / "subtraction", **tags)
    result = scan(root, tmp_path / "s.json", keep_derived=True)
    assert len(kept(result)) == 2, reasons(result)
    result = scan(root, tmp_path / "s.json")
    assert "screen" not in reasons(result)
    assert len(kept(result)) == 2 or "derived" in reasons(result).casefold()


def test_a_secondary_capture_without_geometry_is_no_volume(tmp_path: Path) -> None:
    root = beside_a_good_one(tmp_path)

    def change(dataset: Any, index: int) -> None:
        del dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.FrameOfReferenceUID

    makers.series(root / "screens", change, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ImageType=["DERIVED", "SECONDARY"])
    result = scan(root, tmp_path / "s.json", keep_derived=True)
    assert len(kept(result)) == 1
    assert result.left_out != []


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom on the name
@pytest.mark.parametrize("length", [70_000, 1_000_000])
def test_a_name_without_end_takes_no_memory(length: int, tmp_path: Path) -> None:
    folder = makers.series(tmp_path / "long", PatientName="Q" * length + "^R")
    with bounded():
        scan(folder, tmp_path / "s.json")
    assert b"QQQQ" not in (tmp_path / "s.json").read_bytes()


@pytest.mark.timeout(600)  # a pipe must not be waited for
@pytest.mark.parametrize("pictures", [False, True])
def test_hostile_headers_are_counted_and_named(pictures: bool, tmp_path: Path) -> None:
    folder = makers.hostile(tmp_path / "headers")
    with bounded():
        result = scan(folder, tmp_path / "s.json", pictures=pictures, hide_names=False)
    assert "good.nii.gz" in [item["image"] for item in kept(result)]
    named = {path for entry in result.left_out for path in entry.paths}
    assert set(makers.HOSTILE) <= named, set(makers.HOSTILE) - named
    accounted = named | {str(item["image"]) for item in kept(result)}
    assert {path.name for path in folder.iterdir()} <= accounted


@pytest.mark.parametrize("name", ["outside.mhd", "absolute.mhd"])
def test_voxels_outside_of_the_folder_are_not_read(name: str, tmp_path: Path) -> None:
    folder = makers.hostile(tmp_path / "headers")
    with bounded():
        result = scan(folder, tmp_path / "s.json", hide_names=False)
    (entry,) = (entry for entry in result.left_out if name in entry.paths)
    assert entry.detail
    assert name not in [item["image"] for item in kept(result)]


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    truth, paths = makers.flipped_bits(tmp_path / "flips", 60)
    loaded = 0
    for path in paths:
        try:
            volume = LoadVolumed("image")({"image": str(path)})["image"].numpy()
        except Exception:
            continue
        assert np.array_equal(volume[0], truth), f"{path.name} loads with other voxels"
        loaded += 1
    assert loaded < 5  # a bit of the time of compression or the like


def test_flipped_bits_are_counted_named_and_left_out_by_a_scan(tmp_path: Path) -> None:
    truth, paths = makers.flipped_bits(tmp_path / "flips", 12)
    makers.labelled(tmp_path / "flips/good", makers.classes())
    result = scan(tmp_path / "flips", tmp_path / "s.json", pictures=True, hide_names=False)
    named = {path for entry in result.left_out for path in entry.paths}
    for path in paths:
        if path.name not in named:
            assert np.array_equal(LoadVolumed("image")({"image": str(path)})["image"].numpy()[0], truth)
