"""NRRD and MetaImage are read as ITK reads them, and no header of theirs reaches ITK."""

import gzip
import os
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from monai_cl.data import scan
from monai_cl.data.cache.job import source_files
from monai_cl.intake._middle_slice import middle_slice
from monai_cl.intake.scan import ScanResult
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.itk import read_itk, read_itk_header
from monai_cl.io.suffixes import ITK
from monai_cl.transforms import LoadVolume

OUTSIDE = "outside the scanned folder"
TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
VALUES = np.random.default_rng(0).normal(0, 300, (7, 6, 5)).astype("<i2")  # z, y, x
MHA = "ObjectType = Image\nNDims = 3\n{}DimSize = 5 6 7\nElementType = MET_SHORT\nElementSpacing = 2 2 2\n"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 7\nspacings: 2 2 2\nendian: little\n"


def image(dtype: str = "int16", seed: int = 0) -> sitk.Image:
    rng = np.random.default_rng(seed)
    low = 0 if dtype.startswith("u") else -100
    made = sitk.GetImageFromArray(rng.integers(low, 100, (7, 6, 5)).astype(dtype))
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    made.SetDirection(q.ravel())
    made.SetSpacing(rng.uniform(0.5, 3, 3))
    made.SetOrigin(rng.normal(0, 90, 3))
    return made


def by_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    read = sitk.ReadImage(str(path), sitk.sitkFloat32)
    affine = np.eye(4)
    affine[:3, :3] = np.array(read.GetDirection()).reshape(3, 3) * np.array(read.GetSpacing())
    affine[:3, 3] = read.GetOrigin()
    return sitk.GetArrayFromImage(read).T[np.newaxis], np.diag([-1, -1, 1, 1]) @ affine


def assert_as_itk(path: Path) -> None:
    values, affine = read_itk(path)
    expected, where = by_itk(path)
    assert np.array_equal(values, expected)
    assert np.abs(affine - where).max() < 1e-9
    read_itk_header(path)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("suffix", ITK)
@pytest.mark.parametrize("packed", [False, True])
def test_what_itk_writes_is_read_as_it_reads_it(tmp_path: Path, suffix: str, dtype: str, packed: bool) -> None:
    path = tmp_path / f"x{suffix}"
    sitk.WriteImage(image(dtype, TYPES.index(dtype)), str(path), useCompression=packed)
    assert_as_itk(path)


@pytest.mark.parametrize("space", ["RAS", "LAS", "LPS", "left-posterior-superior", "scanner-xyz", ""])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii", "hex"])
def test_headers_of_nrrd_in_any_wording(tmp_path: Path, space: str, encoding: str) -> None:
    raw = VALUES.tobytes()
    data = {
        "raw": raw,
        "gzip": gzip.compress(raw),
        "ascii": " ".join(map(str, VALUES.ravel())).encode(),
        "hex": raw.hex().encode(),
    }[encoding]
    place = f"space: {space}\n" if space else "space dimension: 3\n"
    place += "space directions: (0,1.5,0) (2,0,0) (0,0.2,2.5)\nspace origin: (3,-4,5)\n"
    text = f"NRRD0005\n# remark\ntype: short\ndimension: 3\n{place}sizes: 5 6 7\nkinds: domain domain domain\n"
    text += f"endian: little\nencoding: {encoding}\nPatientName:=Planted\n\n"
    (tmp_path / "x.nrrd").write_bytes(text.encode() + data)
    assert_as_itk(tmp_path / "x.nrrd")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_headers_of_metaimage_in_any_wording(tmp_path: Path, order: str, ends: str) -> None:
    text = MHA.format("") + "Position = 1 2 3\nOrientation = 0 1 0 1 0 0 0 0 1\nBinaryData = True\n"
    text += f"BinaryDataByteOrderMSB = {order == '>'}\nComment = {'x' * 90}\nElementDataFile = LOCAL\n"
    (tmp_path / "x.mha").write_bytes(text.replace("\n", ends).encode() + VALUES.astype(f"{order}i2").tobytes())
    assert_as_itk(tmp_path / "x.mha")


def detached(folder: Path, kind: str) -> Path:
    """A header whose values lie in files of a list or a pattern."""
    folder.mkdir(exist_ok=True)
    for number, plane in enumerate(VALUES):
        (folder / f"s{number:03d}.raw").write_bytes(plane.tobytes())
    names = "".join(f"s{number:03d}.raw\n" for number in range(7))
    if kind.startswith("mhd"):
        where = {"list": f"LIST\n{names}", "pattern": "s%03d.raw 0 6 1\n"}[kind.split()[1]]
        path, text = folder / "x.mhd", MHA.format("") + f"BinaryData = True\nElementDataFile = {where}"
    else:
        where = {"list": f"LIST\n{names}", "pattern": "s%03d.raw 0 6 1\n"}[kind.split()[1]]
        path, text = folder / "x.nhdr", NRRD + f"encoding: raw\ndata file: {where}"
    path.write_text(text)
    return path


KINDS = ("mhd list", "mhd pattern", "nhdr list", "nhdr pattern")


@pytest.mark.parametrize("kind", KINDS)
def test_values_in_several_files(tmp_path: Path, kind: str) -> None:
    path = detached(tmp_path / "data", kind)
    assert_as_itk(path)
    assert len(source_files({"image": str(path)})) == 8
    os.truncate(tmp_path / "data/s003.raw", 20)
    with pytest.raises(UnusableImageError, match="cut short: 20 of 60 bytes"):
        read_itk_header(path)
    (tmp_path / "data/s003.raw").unlink()
    with pytest.raises(UnusableImageError, match="which the header names, is absent"):
        read_itk_header(path)


def scanned(folder: Path) -> ScanResult:
    sitk.WriteImage(image(), str(folder / "good.mha"))
    return scan(folder, folder.parent / "out/study.json", hide_names=False, pictures=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["above", "absolute", "through", "link"])
def test_values_outside_of_the_folder_are_refused(tmp_path: Path, kind: str, how: str) -> None:
    path = detached(tmp_path / "data", kind)
    (tmp_path / "elsewhere").mkdir()
    for number, plane in enumerate(VALUES):
        (tmp_path / f"elsewhere/s{number:03d}.raw").write_bytes(plane.tobytes())
    if how == "link":
        (tmp_path / "data/s003.raw").unlink()
        (tmp_path / "data/s003.raw").symlink_to(tmp_path / "elsewhere/s003.raw")
        assert scanned(tmp_path / "data").reasons == {OUTSIDE: 2}  # the header and the link
        return
    prefix = {"above": "../elsewhere/", "absolute": f"{tmp_path}/elsewhere/", "through": "sub/../../elsewhere/"}[how]
    lines = [f"{prefix}{line}" if line.startswith("s0") else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines).replace("s%03d", f"{prefix}s%03d") + "\n")
    assert scanned(tmp_path / "data").reasons == {OUTSIDE: 1}
    with pytest.raises(ValueError, match="lies outside of its own folder; put it beside it"):
        LoadVolume()(path)
    assert source_files({"image": str(path)}) == [path]


def test_links_of_values_that_stay_inside_are_fine(tmp_path: Path) -> None:
    path = detached(tmp_path / "data", "mhd list")
    (tmp_path / "data/store").mkdir()
    (tmp_path / "data/s003.raw").rename(tmp_path / "data/store/s003.raw")
    (tmp_path / "data/s003.raw").symlink_to("store/s003.raw")
    assert scanned(tmp_path / "data").reasons == {}
    assert_as_itk(path)


HOSTILE = {
    **{f"NDims {n}": MHA.replace("NDims = 3", f"NDims = {n}") for n in ("99", "-1", "0", "1e9", "x", "", "3 3")},
    **{f"DimSize {n}": MHA.replace("5 6 7", n) for n in ("-5 6 7", "0 6 7", "5 6", "5 6 7 8", f"{2**62} 6 7", "a b c")},
    **{f"type {n}": MHA.replace("MET_SHORT", n) for n in ("MET_STRING", "", "MET_OTHER")},
    **{f"channels {n}": MHA.format(f"ElementNumberOfChannels = {n}\n") for n in ("-1", "0", "999999999999")},
    "spacing": MHA.replace("2 2 2", "nan 2 2"),
    "no spacing": MHA.replace("2 2 2", "0 0 0"),
    "matrix": MHA.format("TransformMatrix = 1 0 0\n"),
}


@pytest.mark.parametrize(("slope", "offset"), [("2", "0"), ("1", "-1024"), ("0", "0")])
def test_metaimages_of_scaled_values_are_refused(tmp_path: Path, slope: str, offset: str) -> None:
    """ITK reads the stored values, which are others than the header promises."""
    (tmp_path / "data").mkdir()
    fields = "ElementToIntensityFunctionSlope = {}\nElementToIntensityFunctionOffset = {}\n"
    for name, values in (("scaled", (slope, offset)), ("plain", ("1", "0"))):
        text = MHA.format(fields.format(*values)) + "ElementDataFile = LOCAL\n"
        (tmp_path / f"data/{name}.mha").write_bytes(text.encode() + VALUES.tobytes())
    result = scanned(tmp_path / "data")
    assert result.reasons == {"scaled values": 1}
    assert f"the slope {slope} and the offset {offset}" in result.left_out[0].detail
    with pytest.raises(ValueError, match="scaled values: ElementToIntensityFunction has the slope"):
        LoadVolume()(tmp_path / "data/scaled.mha")
    assert_as_itk(tmp_path / "data/plain.mha")


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_metaimages_are_counted(tmp_path: Path, case: str) -> None:
    (tmp_path / "data").mkdir()
    text = HOSTILE[case].format("") + "ElementDataFile = LOCAL\n"
    (tmp_path / "data/x.mha").write_bytes(text.encode() + bytes(500))
    assert sum(scanned(tmp_path / "data").reasons.values()) == 1
    with pytest.raises(ValueError, match="cannot read"):
        LoadVolume()(tmp_path / "data/x.mha")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *[("dimension: 3", f"dimension: {n}") for n in ("99", "-1", "0", "x", "")],
        *[("sizes: 5 6 7", f"sizes: {n}") for n in ("5 6", "-5 6 7", "5 6 0", "a b c", f"{2**62} 6 7")],
        *[("type: short", f"type: {n}") for n in ("block", "", "%s")],
        ("endian: little", "endian: sideways"),
        ("spacings: 2 2 2", "space: RAS\nspace directions: (1,0,0) (0,1,0)"),
        ("spacings: 2 2 2", "space: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,0)"),
        ("spacings: 2 2 2", "space: RAS\nspace directions: (1,0) (0,1) (0,0)"),
    ],
)
def test_hostile_nrrds_are_counted(tmp_path: Path, before: str, after: str) -> None:
    (tmp_path / "data").mkdir()
    text = NRRD.replace(before, after) + "encoding: raw\n\n"
    (tmp_path / "data/x.nrrd").write_bytes(text.encode() + bytes(500))
    assert sum(scanned(tmp_path / "data").reasons.values()) == 1
    with pytest.raises(ValueError, match="cannot read"):
        LoadVolume()(tmp_path / "data/x.nrrd")


@pytest.mark.parametrize(
    "pattern", ["s%d.raw 0 999999999999 1", "s%d.raw 0 6 0", "s%999999999d.raw 0 6 1", "%n%s 0 6 1"]
)
def test_patterns_without_an_end_or_of_other_kinds_are_counted(tmp_path: Path, pattern: str) -> None:
    path = detached(tmp_path / "data", "mhd list")
    path.write_text(MHA.format("") + f"ElementDataFile = {pattern}\n")
    assert sum(scanned(tmp_path / "data").reasons.values()) == 1


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("place", [-1, -3, -30, "half", "behind"])
def test_damaged_compression_is_counted(tmp_path: Path, suffix: str, place: int | str) -> None:
    raw = VALUES.tobytes()
    packed = bytearray(zlib.compress(raw) if suffix == ".mha" else gzip.compress(raw))
    if place == "behind":
        packed += b"appended"
    elif place == "half":
        del packed[len(packed) // 2 :]
    else:
        packed[place] ^= 4
    text = MHA.format("CompressedData = True\n") + "ElementDataFile = LOCAL\n"
    text = text if suffix == ".mha" else NRRD + "encoding: gzip\n\n"
    (tmp_path / "data").mkdir()
    path = tmp_path / f"data/x{suffix}"
    path.write_bytes(text.encode() + packed)
    assert sum(scanned(tmp_path / "data").reasons.values()) == 1
    with pytest.raises(ValueError, match="cannot read"):
        LoadVolume()(path)


@pytest.mark.parametrize("kind", [".nii", ".mha", ".nrrd"])
def test_a_picture_of_a_huge_hole_takes_little_memory(tmp_path: Path, kind: str) -> None:
    size, depth = 9000, 20
    if kind == ".nii":
        import nibabel

        small = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.diag([0.05, 0.05, 1, 1]))
        raw = bytearray(small.to_bytes()[:352])
        raw[40:56] = np.array([3, size, size, depth, 1, 1, 1, 1], "<i2").tobytes()
    elif kind == ".mha":
        raw = MHA.format("").replace("5 6 7", f"{size} {size} {depth}").replace("2 2 2", "0.05 0.05 1").encode()
        raw += b"ElementDataFile = LOCAL\n"
    else:
        raw = NRRD.replace("5 6 7", f"{size} {size} {depth}").encode() + b"encoding: raw\n\n"
    path = tmp_path / f"x{kind}"
    with open(path, "wb") as file:
        file.write(raw)
        file.truncate(len(raw) + 2 * size * size * depth)
    tracemalloc.start()
    plane, _ = middle_slice(tmp_path, {"image": path.name})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(plane.shape) <= 1024
    assert peak < 40e6


@pytest.mark.parametrize("kind", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_claims_beyond_the_memory_are_left_out(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_cl.io.memory.memory", lambda: 800)
    sitk.WriteImage(image(), str(tmp_path / f"x{kind}"))
    with pytest.raises(ValueError, match=r"nothing usable below .*: 1 larger than memory"):
        scan(tmp_path, tmp_path / "out/study.json")
    with pytest.raises(ValueError, match=r"7 voxels take 8\.4e-07 GB, this machine has 8e-07 GB; crop or resample"):
        LoadVolume()(tmp_path / f"x{kind}")
