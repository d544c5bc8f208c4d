"""Slices of one volume that have a series identifier each: recognised, stacked on request, never two volumes as one."""

import csv
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_series, write_slice

from monai_cl.datalist import load_datalist
from monai_cl.intake.scan import ScanResult, scan
from monai_cl.transforms.load import LoadVolume

STUDY = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.9", "SeriesDescription": "t1 mprage"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_series(tmp_path / "data/good")
    return tmp_path / "data"


def scanned(folder: Path, **options: object) -> ScanResult:
    return scan(folder, folder.parent / "out/study.json", hide_names=False, **options)


def singles(folder: Path, indices=range(8), *, start: int = 0, place=lambda index: index, **tags: object) -> None:
    """One series a slice."""
    for number, index in enumerate(indices, start):
        write_slice(
            folder / f"{number:02d}",
            place(index),
            f"1.2.77.{sum(map(ord, folder.name))}.{number + 1}",
            **{**STUDY, **tags},
        )


def verdicts(result: ScanResult) -> list[tuple[str, int]]:
    return sorted((entry.reason, entry.count) for entry in result.left_out)


def test_one_line_says_that_they_stack(data):
    singles(data / "each")
    result = scanned(data)
    assert verdicts(result) == [("one series a slice", 8)]
    with open(result.exclusions, newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["path"], row["files"]) == ("each/00", "8")
    assert "stack into one volume of 6 x 5 x 8 voxels, a slice every 6.5 mm" in row["detail"]
    assert "--stack-series" in row["detail"]


def test_on_request_they_are_one_item_with_a_note_and_load_as_the_series_would(data):
    singles(data / "each")
    write_series(data / "same", range(8))
    result = scanned(data, stack_series=True)
    (item,) = [item for item in result.sections["unlabelled"] if isinstance(item["image"], list)]
    assert (len(item["image"]), item["shape"]) == (8, [6, 5, 8])
    assert result.notes == {"stacked from one series a slice": ["each/00"]}
    load = LoadVolume()
    listed = {one["case"]: load(one["image"]) for one in load_datalist(result.datalist, "unlabelled", dataset_dir=data)}
    assert np.array_equal(listed["each"], listed["same"])
    assert np.allclose(listed["each"].affine, listed["same"].affine)


def test_roundings_and_own_numbers_of_series_do_not_keep_slices_apart(data):
    for index in range(8):
        tags = {"PixelSpacing": [0.7031, 0.7031] if index % 2 else [0.703125, 0.703125], "SeriesNumber": 40 + index}
        singles(data / "each", [index], start=index, **tags)
    assert verdicts(scanned(data)) == [("one series a slice", 8)]
    assert scanned(data, stack_series=True).counts["unlabelled"] == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"EchoTime": 10}, {"EchoTime": 80}),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
        ({"EchoNumbers": 1}, {"EchoNumbers": 2}),
        ({"SeriesDescription": "t1"}, {"SeriesDescription": "t1 post"}),
        ({"ProtocolName": "a"}, {"ProtocolName": "b"}),
        ({"SeriesNumber": 3}, {"SeriesNumber": 4}),
        ({"StudyInstanceUID": "1.2.4"}, {"StudyInstanceUID": "1.2.5"}),
        ({"FrameOfReferenceUID": "1.2.4"}, {"FrameOfReferenceUID": "1.2.5"}),
        ({"PatientID": "a"}, {"PatientID": "b"}),
        ({"PixelSpacing": [1, 1]}, {"PixelSpacing": [1.1, 1.1]}),
        ({"orientation": (1, 0, 0, 0, 1, 0)}, {"orientation": (1, 0, 0, 0, 0, -1)}),
        ({"Rows": 5}, {"Rows": 6}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}),
    ],
)
@pytest.mark.parametrize("second", [range(4), range(4, 8)], ids=["at the same places", "behind"])
def test_two_series_are_never_joined(data, one, other, second):
    singles(data / "one", range(4), **one)
    singles(data / "two", second, **other)
    assert verdicts(scanned(data)) == [("one series a slice", 4)] * 2
    images = [item["image"] for item in scanned(data, stack_series=True).sections["unlabelled"]]
    assert sorted({path.split("/")[0] for path in image} for image in images if isinstance(image, list)) == [
        {"one"},
        {"two"},
    ]


def test_time_points_that_nothing_tells_apart_are_no_volume(data):
    singles(data / "one", range(4))
    singles(data / "two", range(4))
    for options in ({}, {"stack_series": True}):
        (entry,) = scanned(data, **options).left_out
        assert (entry.reason, entry.count) == ("one series a slice", 8)
        assert "4-D: 4 slice positions x 2 images each" in entry.detail


def test_a_gap_is_named(data):
    singles(data / "one", [0, 1, 2, 4, 5])
    (entry,) = scanned(data, stack_series=True).left_out
    assert "are no volume either: missing or unevenly spaced slices" in entry.detail
    assert "13.00 mm between" in entry.detail


def test_single_slices_of_three_planes_are_too_few(data):
    for number, plane in enumerate([(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)]):
        singles(data / "planes", [0], start=number, orientation=plane)
    assert verdicts(scanned(data, stack_series=True)) == [("too few slices", 1)] * 3


def test_real_series_of_two_slices_are_not_joined(data):
    for number in range(3):
        write_series(data / f"pair{number}", [2 * number, 2 * number + 1], **STUDY)
    assert verdicts(scanned(data, stack_series=True)) == [("too few slices", 2)] * 3


def test_a_list_of_two_series_does_not_load(data):
    singles(data / "one", range(4), EchoTime=10)
    singles(data / "two", range(4, 8), EchoTime=80)
    files = [str(path) for folder in ("one", "two") for path in sorted((data / folder).iterdir())]
    with pytest.raises(ValueError, match="expected exactly one DICOM image series"):
        LoadVolume()(files)
    with pytest.raises(ValueError, match="expected exactly one DICOM image series"):
        LoadVolume()(data / "one")
