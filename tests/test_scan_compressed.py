"""Compressed DICOM that is damaged gets its own reason, whatever whole copies lie beside it."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_series import multi_frame, slice_dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder, get_encoder
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless, RLELossless

from monai_cl.data import ScanResult, scan
from monai_cl.io.dicom import read_slice_header
from monai_cl.io.dicom.pixels import Codestream
from monai_cl.transforms.load import LoadVolume

SIZE = {"Columns": 48, "Rows": 40}
ITK = {"JPEG 2000": "JPEG2000", "JPEG": "JPEG"}
PYDICOM = {"JPEG-LS": JPEGLSLossless, "RLE": RLELossless}
KINDS = [*ITK, *PYDICOM]
TELLS_ITS_END = ["JPEG 2000", "JPEG", "JPEG-LS"]  # an RLE stream does not


def texture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 900, (40, 48), dtype="<i2")


def compressed_series(folder: Path, kind: str) -> list[Path]:
    """A series of textured slices in one compression; skips where nothing here encodes it."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind in PYDICOM and not get_encoder(PYDICOM[kind]).is_available:
        pytest.skip(f"no encoder of {kind} is installed")
    files = []
    for index in range(4):
        dataset = slice_dataset(index, "1.2.7", SOPInstanceUID=f"1.2.7.{index}", **SIZE)
        noise = texture(index)
        dataset.PixelData = noise.tobytes()
        if kind in PYDICOM:
            dataset.compress(PYDICOM[kind], generate_instance_uid=False)
        else:
            _by_itk(dataset, noise, ITK[kind], folder.parent / f"{folder.name}.itk.dcm")
        files.append(folder / f"{index}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def _by_itk(dataset: pydicom.Dataset, pixels: np.ndarray, compressor: str, scratch: Path) -> None:
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(scratch))
    writer.SetImageIO("GDCMImageIO")
    writer.SetCompressor(compressor)
    writer.UseCompressionOn()
    writer.Execute(sitk.GetImageFromArray(pixels[np.newaxis]))
    made = pydicom.dcmread(scratch)
    scratch.unlink()
    dataset.file_meta.TransferSyntaxUID = made.file_meta.TransferSyntaxUID
    dataset.PixelData = made.PixelData
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True


def cut_file(path: Path, *, keep: float) -> None:
    """As a copy that broke off."""
    content = path.read_bytes()
    pixels = content.rindex(b"\xe0\x7f\x10\x00OB")
    path.write_bytes(content[: pixels + 20 + int(keep * (len(content) - pixels - 20))])


def cut_stream(path: Path, *, keep: float) -> None:
    """As an export that wrapped a stream that broke off: every length in the file is right."""
    dataset = pydicom.dcmread(path)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([stream[: int(keep * len(stream)) // 2 * 2]])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(path, enforce_file_format=True)


def scanned(folder: Path) -> ScanResult:
    return scan(folder, folder.parent / "out" / "study.json", hide_names=False)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_series_are_kept_and_read(tmp_path: Path, kind: str) -> None:
    compressed_series(tmp_path / "data/s", kind)
    result = scanned(tmp_path / "data")
    assert (result.counts["unlabelled"], result.reasons) == (1, {})
    volume = LoadVolume()(tmp_path / "data/s")
    expected = np.stack([texture(index) for index in range(4)])
    np.testing.assert_array_equal(volume[0].numpy(), expected.transpose(2, 1, 0))


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.97])
@pytest.mark.parametrize(
    ("kind", "cut"), [(kind, cut_file) for kind in KINDS] + [(kind, cut_stream) for kind in TELLS_ITS_END]
)
def test_a_truncated_file_is_called_truncated(tmp_path: Path, kind: str, cut, keep: float) -> None:
    files = compressed_series(tmp_path / "data/s", kind)
    cut(files[1], keep=keep)
    result = scanned_or_nothing(tmp_path / "data")
    assert [(entry.paths, entry.reason) for entry in result] == [(("s",), "cut short")]
    with pytest.raises(ValueError, match=r"cut short: the pixel data of 1\.dcm ends early \(truncated\)"):
        LoadVolume()(tmp_path / "data/s")


def scanned_or_nothing(folder: Path) -> list:
    """What was left out; another series beside it keeps the scan from finding nothing."""
    for index in range(3):
        (folder / "other").mkdir(exist_ok=True)
        slice_dataset(index, "1.2.8").save_as(folder / f"other/{index}", enforce_file_format=True)
    return scanned(folder).left_out


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("kind", "cut"), [(kind, cut_file) for kind in KINDS] + [(kind, cut_stream) for kind in TELLS_ITS_END]
)
def test_a_truncated_copy_is_no_copy(tmp_path: Path, kind: str, cut, first: bool) -> None:
    files = compressed_series(tmp_path / "data/s", kind)
    bad = files[1].with_name("0_bad.dcm" if first else "zz_bad.dcm")
    bad.write_bytes(files[1].read_bytes())
    cut(bad, keep=0.6)
    result = scanned(tmp_path / "data")
    (entry,) = result.left_out
    assert (entry.paths, entry.reason) == ((f"s/{bad.name}",), "cut short")
    assert entry.detail.endswith("ends early (truncated); copy the file again; the same image as s/1.dcm")
    (item,) = result.sections["unlabelled"]
    assert item["image"] == [f"s/{index}.dcm" for index in range(4)]


def test_of_two_truncated_copies_neither_is_a_copy(tmp_path: Path) -> None:
    files = compressed_series(tmp_path / "data/s", "JPEG 2000")
    again = files[1].with_name("again.dcm")
    again.write_bytes(files[1].read_bytes())
    for path in (files[1], again):
        cut_file(path, keep=0.6)
    left_out = scanned_or_nothing(tmp_path / "data")
    assert {entry.reason for entry in left_out} == {"cut short"}


def test_the_readable_one_of_two_copies_is_kept(tmp_path: Path) -> None:
    files = compressed_series(tmp_path / "data/s", "JPEG 2000")
    for path in files:  # the same images in a compression that nothing here decodes, first in the order of paths
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.204"
        dataset.save_as(path.with_name(f"0_{path.name}"), enforce_file_format=True)
    result = scanned(tmp_path / "data")
    assert [(entry.reason, entry.count) for entry in result.left_out] == [("unsupported compression", 4)]
    (item,) = result.sections["unlabelled"]
    assert item["image"] == [f"s/{index}.dcm" for index in range(4)]


def test_the_end_is_found_across_fragments_and_behind_padding(tmp_path: Path) -> None:
    (path, *_) = compressed_series(tmp_path / "s", "JPEG 2000")
    dataset = pydicom.dcmread(path)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    for pieces, padding, state in ((3, 0, "complete"), (5, 12, "complete"), (3, -200, "cut short")):
        whole = stream + bytes(padding) if padding >= 0 else stream[:padding]
        dataset.PixelData = encapsulate([whole], fragments_per_frame=pieces)
        dataset.save_as(path, enforce_file_format=True)
        assert read_slice_header(path).pixels == state


def test_a_missing_tile_is_missed(tmp_path: Path) -> None:
    """Two tiles of one tile-part each: the second is gone, every length that is left is right."""
    size = struct.pack(">HHH8LH", 0xFF51, 41, 0, 20, 10, 0, 0, 10, 10, 0, 0, 1) + b"\x07\x01\x01"
    part = [struct.pack(">HHHLBB", 0xFF90, 10, tile, 20, 0, 1) + b"\xff\x93" + bytes(6) for tile in range(2)]
    for parts, whole in ((part, True), (part[:1], False), ([part[0], part[1][:-3]], False)):
        content = b"\xff\x4f" + size + b"".join(parts)
        (tmp_path / "x").write_bytes(content)
        with open(tmp_path / "x", "rb") as stream:
            found = Codestream(stream, [(0, len(content))]).is_whole("1.2.840.10008.1.2.4.90")
        assert found is whole


def test_frames_are_looked_at_one_by_one(tmp_path: Path) -> None:
    """A multi-frame file with the second of its frames cut short."""
    (path, *_) = compressed_series(tmp_path / "s", "JPEG 2000")
    dataset = pydicom.dcmread(path)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    for second, state in ((stream, "complete"), (stream[:300], "cut short")):
        dataset.NumberOfFrames = 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.PixelData = encapsulate([stream, second, stream])
        dataset.save_as(path, enforce_file_format=True)
        assert read_slice_header(path).pixels == state


def test_frames_of_lossless_jpeg_are_read_or_the_extra_that_reads_them_is_named(tmp_path: Path) -> None:
    files = compressed_series(tmp_path / "s", "JPEG")
    frames = [next(generate_frames(pydicom.dcmread(file).PixelData, number_of_frames=1)) for file in files]
    path = multi_frame(tmp_path / "data/frames", [(1, 0)] * len(files))
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.Columns = SIZE["Rows"], SIZE["Columns"]
    dataset.file_meta.TransferSyntaxUID, dataset.PixelData = JPEGLosslessSV1, encapsulate(frames)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(path, enforce_file_format=True)
    left_out = scanned_or_nothing(tmp_path / "data")
    if get_decoder(JPEGLosslessSV1).is_available:
        assert left_out == []
        np.testing.assert_array_equal(
            LoadVolume()(path)[0], np.stack([texture(i) for i in range(4)]).transpose(2, 1, 0)
        )
    else:
        (entry,) = left_out
        assert entry.reason == "unsupported compression"
        assert entry.detail.endswith("; pip install 'monai_cl[dicom]', or decompress it first")


@pytest.mark.parametrize("kind", ["JPEG 2000", "JPEG", "JPEG-LS"])
def test_a_picture_of_another_size_than_its_header_says_is_left_out(tmp_path: Path, kind: str) -> None:
    files = compressed_series(tmp_path / "data", kind)
    for path in files:
        header = read_slice_header(path)
        assert header.pixels == "complete"
        with open(path, "rb") as stream:
            content = stream.read()
        begin = content.index({"JPEG 2000": b"\xff\x4f\xff\x51"}.get(kind, b"\xff\xd8"), 400)
        with open(path, "rb") as stream:
            picture = Codestream(stream, [(begin, len(content) - begin)])
            assert picture.size(header.transfer_syntax) == (48, 40)
        dataset = pydicom.dcmread(path)
        dataset.Rows = 41
        dataset.save_as(path)
    with pytest.raises(ValueError, match=r"nothing usable below .*: 1 unreadable"):
        scanned(tmp_path / "data")
    with pytest.raises(ValueError, match="is of another size than its header states; export it again"):
        LoadVolume()(tmp_path / "data")
