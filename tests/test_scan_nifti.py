"""NIfTI headers that say several things, or nothing, of where the voxels lie and begin."""

import bz2
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_cl.intake.scan import ScanResult, scan
from monai_cl.io.grid import NO_ORIENTATION, SHEARED, TWO_PLACES
from monai_cl.transforms.load import LoadVolume

AFFINE = np.array([[-1.5, 0, 0, 30], [0, -1.5, 0, 20], [0, 0, 2, -10], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).integers(50, 900, (9, 8, 7)).astype("int16")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with one good volume, so that a scan always finds something."""
    (tmp_path / "data").mkdir()
    save(tmp_path / "data/good.nii")
    return tmp_path / "data"


def save(path: Path, values=VALUES, *, sform=AFFINE, qform=None) -> Path:
    image = nibabel.Nifti1Image(values, AFFINE)
    image.set_sform(sform, 0 if sform is None else 2)
    image.set_qform(qform, 0 if qform is None else 1)
    nibabel.save(image, path)
    return path


def patched(folder: Path, place: int, form: str, value: object) -> Path:
    content = bytearray((folder / "good.nii").read_bytes())
    struct.pack_into(form, content, place, value)
    (folder / "bad.nii").write_bytes(content)
    return folder / "bad.nii"


def scanned(folder: Path) -> ScanResult:
    return scan(folder, folder.parent / "out/study.json", hide_names=False)


def moved(x: float) -> np.ndarray:
    return AFFINE + np.eye(4)[0][:, None] * [0, 0, 0, x]


@pytest.mark.parametrize(
    ("sform", "qform", "note"),
    [
        (AFFINE, AFFINE, None),
        (AFFINE, moved(5e-4), None),
        (None, AFFINE, None),
        (AFFINE, moved(40), TWO_PLACES),
        (AFFINE @ np.diag([-1, 1, 1, 1]), AFFINE, TWO_PLACES),
        (None, None, NO_ORIENTATION),
        (AFFINE + np.array([[0, 0.5, 0, 0]] + [[0] * 4] * 3), None, SHEARED),
    ],
)
def test_places_that_are_no_single_ones_are_noted(data: Path, sform, qform, note: str | None) -> None:
    save(data / "bad.nii", sform=sform, qform=qform)
    assert scanned(data).notes == ({note: ["bad.nii"]} if note else {})


@pytest.mark.parametrize(
    ("place", "form", "value", "reason", "words"),
    [
        (108, "<f", 0.0, "unreadable", "voxels begin at byte 0, inside the header; write 352 there"),
        (292, "<f", 1e9, "implausible place", "the first voxel lies 1e.09 mm from the origin, 100000 mm are allowed"),
    ],
)
def test_headers_that_no_reader_understands_alike_are_refused(data: Path, place, form, value, reason, words) -> None:
    patched(data, place, form, value)
    result = scanned(data)
    assert result.reasons == {reason: 1}
    assert words.replace("1e.09", "1e+09") in result.left_out[0].detail


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_axes_that_span_no_space_are_refused_though_voxels_have_sides(data: Path, suffix: str) -> None:
    flat = AFFINE.copy()
    flat[:3, 1] = flat[:3, 0] * 1.00001
    if suffix == ".nii":
        save(data / "bad.nii", sform=flat)
    elif suffix == ".nrrd":
        head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 9 8 7\nendian: little\nencoding: raw\n"
        head += "space: left-posterior-superior\nspace directions: (1,0,0) (1,0,0) (0,0,1)\n\n"
        (data / "bad.nrrd").write_bytes(head.encode() + VALUES.tobytes())
    else:
        head = "NDims = 3\nDimSize = 9 8 7\nElementType = MET_SHORT\nTransformMatrix = 1 0 0 1 0 0 0 0 1\n"
        (data / "bad.mha").write_bytes(f"{head}ElementDataFile = LOCAL\n".encode() + VALUES.tobytes())
    assert scanned(data).reasons == {"invalid affine": 1}


def nrrd_in_units(path: Path, geometry: str) -> Path:
    head = "NRRD0005\ntype: short\ndimension: 3\nsizes: 9 8 7\nendian: little\nencoding: raw\n"
    path.write_bytes(f"{head}{geometry}\n\n".encode() + VALUES.tobytes(order="F"))
    return path


DIRECTIONS = "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,2)\n"


@pytest.mark.parametrize(
    ("geometry", "unit"),
    [
        (DIRECTIONS + 'space units: "m" "m" "m"', "metres"),
        (DIRECTIONS + 'space units: "mm" "mm" "cm"', "centimetres"),
        (DIRECTIONS + 'space units: "\u00b5m" "\u00b5m" "\u00b5m"', "micrometres"),
        ('spacings: 1 1 2\nunits: "um" "um" "um"', "micrometres"),
    ],
)
def test_nrrd_lengths_in_another_unit_than_mm_are_refused(data: Path, geometry: str, unit: str) -> None:
    path = nrrd_in_units(data / "bad.nrrd", geometry)
    result = scanned(data)
    assert result.reasons == {"implausible units": 1}
    assert f"the header gives lengths in {unit}, readers take them as mm" in result.left_out[0].detail
    with pytest.raises(ValueError, match=f"implausible units: the header gives lengths in {unit}"):
        LoadVolume()(path)


@pytest.mark.parametrize("units", ['"mm" "mm" "mm"', '"" "" ""', '"Quarble^Zyx" "mm" "mm"'])
def test_nrrd_lengths_in_mm_or_in_no_unit_are_kept(data: Path, units: str) -> None:
    path = nrrd_in_units(data / "bad.nrrd", DIRECTIONS + f"space units: {units}")
    assert scanned(data).reasons == {}
    assert np.array_equal(LoadVolume()(path)[0].numpy(), VALUES)


@pytest.mark.parametrize(("kind", "place", "form"), [("Nifti1Image", 108, "<f"), ("Nifti2Image", 168, "<q")])
def test_voxels_at_byte_0_are_not_loaded_from_the_header(data: Path, kind: str, place: int, form: str) -> None:
    nibabel.save(getattr(nibabel, kind)(VALUES, AFFINE), data / "good.nii")
    with pytest.raises(ValueError, match=r"cannot read .*bad\.nii: unreadable: voxels begin at byte 0"):
        LoadVolume()(patched(data, place, form, 0))


def test_compressed_files_without_the_name_of_any_are_told_so(data: Path) -> None:
    save(data / "a.nii.gz").rename(data / "a.nii")
    (data / "b.nii.bz2").write_bytes(bz2.compress((data / "good.nii").read_bytes()))
    result = scanned(data)
    assert {entry.paths[0]: (entry.reason, entry.detail) for entry in result.left_out} == {
        "a.nii": ("unreadable", "compressed, in spite of its name; add .gz to it"),
        "b.nii.bz2": ("format that scan does not read", "convert it to NIfTI"),
    }


@pytest.mark.parametrize("more", [(1,), (1, 1), (1, 1, 1)])
def test_what_a_scan_keeps_with_trailing_axes_loads(data: Path, more: tuple[int, ...]) -> None:
    save(data / "bad.nii", VALUES.reshape(*VALUES.shape, *more))
    assert scanned(data).reasons == {}
    volume = LoadVolume()(data / "bad.nii")
    assert np.array_equal(volume[0].numpy(), VALUES)
    assert volume.meta["spatial_shape"].tolist() == list(VALUES.shape)
    assert np.allclose(volume.affine, AFFINE)
