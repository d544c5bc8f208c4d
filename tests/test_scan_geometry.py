"""Where the voxels of every kept series of the real data lie, against pydicom's own arithmetic; and their values."""

import itertools
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut

from monai_cl.data import load_datalist, scan
from monai_cl.io.dicom.headers import WANTED
from monai_cl.io.dicom.tags import IMPLICIT, Tags, read_tags
from monai_cl.transforms.load import LoadVolume

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FOLDERS = ("dicom_brain", "dicom_nasty")
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data in ../shared/data")


def series() -> list[tuple[str, list[Path]]]:
    if not SHARED.is_dir():
        return []
    folders = sorted({path.parent for folder in FOLDERS for path in (SHARED / folder).rglob("*") if path.is_file()})
    return [
        (folder.relative_to(SHARED).as_posix(), [p for p in sorted(folder.iterdir()) if p.is_file()])
        for folder in folders
    ]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    out = tmp_path_factory.mktemp("scan") / "study.json"
    items = []
    for folder in FOLDERS:
        result = scan(SHARED / folder, out, keep_derived=True, hide_names=False)
        items += load_datalist(result.datalist, "unlabelled", dataset_dir=SHARED / folder)
    return items


def of_item(item: dict) -> list[pydicom.Dataset]:
    image = item["image"]
    paths = sorted(Path(image).iterdir()) if isinstance(image, str) else map(Path, image)
    headers = [pydicom.dcmread(path) for path in paths]
    row, column = np.split(np.array(headers[0].ImageOrientationPatient, float), 2)
    normal = np.cross(row, column)
    return sorted(headers, key=lambda one: float(normal @ np.array(one.ImagePositionPatient, float)))


def test_every_kept_series_lies_where_its_headers_say_within_a_hundredth_of_a_mm(volumes):
    assert len(volumes) >= 12
    for item in volumes:
        headers, affine = of_item(item), np.asarray(LoadVolume()(item["image"]).affine)
        for k, one in enumerate(headers):
            row, column = np.split(np.array(one.ImageOrientationPatient, float), 2)
            down, across = map(float, one.PixelSpacing)
            for i, j in itertools.product((0, one.Columns - 1), (0, one.Rows - 1)):
                lps = np.array(one.ImagePositionPatient, float) + i * across * row + j * down * column
                assert np.linalg.norm((affine @ [i, j, k, 1])[:3] - lps * [-1, -1, 1]) < 0.01, item["case"]


def test_every_kept_series_has_the_values_that_pydicom_gives(volumes):
    for item in volumes:
        headers, volume = of_item(item), np.asarray(LoadVolume()(item["image"]))[0]
        for k in (0, len(headers) // 2, len(headers) - 1):
            stored = headers[k].pixel_array
            expected, loaded = apply_modality_lut(stored, headers[k]), volume[:, :, k].T
            padding = headers[k].get("PixelPaddingValue")  # which becomes background
            picture = np.ones(stored.shape, bool) if padding is None else stored != padding
            np.testing.assert_allclose(loaded[picture], expected[picture], rtol=1e-6, atol=1e-3)
            assert loaded[~picture].max(initial=-np.inf) <= loaded[picture].max()


@pytest.mark.parametrize("path", [path for _, paths in series() for path in paths[:2]], ids=lambda path: path.name)
def test_the_quick_reading_of_tags_gives_what_pydicom_gives(path):
    with open(path, "rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            pytest.skip("no DICOM")
        quick: Tags = read_tags(stream, WANTED)
    dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=sorted(WANTED))
    assert quick.syntax == str(dataset.file_meta.get("TransferSyntaxUID", IMPLICIT))
    slow = {tag: dataset.get_item(tag).value for tag in WANTED if tag in dataset}
    charset = 0x00080005  # pydicom decodes it at once
    assert {tag: value for tag, value in quick.values.items() if value and tag != charset} == {
        tag: value for tag, value in slow.items() if isinstance(value, bytes) and value
    }
