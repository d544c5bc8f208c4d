"""Each kind of fault that an export can have, made here, and what scanning says of it."""

import json
import os
import random
import shutil
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import NAME, OBLIQUE, multi_frame, normal, slice_dataset, write_series, write_slice
from pydicom import Dataset, dcmread
from pydicom.pixels import get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, generate_uid

from monai_cl.intake.dicom import IN_PASSES, SEVERAL_FRAMES
from monai_cl.intake.scan import ScanResult, scan
from monai_cl.transforms.load import LoadVolume


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with one good series, so that a scan always finds something."""
    write_series(tmp_path / "data/good")
    return tmp_path / "data"


CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def scanned(folder: Path, **options: object) -> ScanResult:
    return scan(folder, folder.parent / "out/study.json", **{"hide_names": False, **options})


def reasons(folder: Path, **options: object) -> dict[str, int]:
    return scanned(folder, **options).reasons


def kept(folder: Path, **options: object) -> list:
    return [item["image"] for item in scanned(folder, **options).sections["unlabelled"]]


def volume(path: Path, *, unit: str = "mm", spacing: float = 1.0) -> None:
    image = nibabel.Nifti1Image(np.ones((9, 9, 9), "int16"), np.diag([spacing, spacing, spacing, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)


def test_tilted_gantry_is_left_out_unless_asked_for(data):
    for index in range(5):
        position = np.array([0.0, 0.0, 0.0]) + index * 3 * normal() + index * 0.6 * np.array(OBLIQUE[3:])
        write_slice(data / f"tilt/{index}", index, "1.2.7", ImagePositionPatient=[f"{v:.5f}" for v in position])
    result = scanned(data)
    assert result.reasons == {"gantry tilt": 1}
    assert "by 11.3 degrees" in result.left_out[0].detail
    assert "tilt" in kept(data, keep_tilted=True)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"SOPClassUID": CAPTURE}, "derived secondary image"),
        ({"SOPClassUID": CAPTURE, "ImagePositionPatient": None}, "secondary capture"),
        ({"SOPClassUID": CAPTURE, "PixelSpacing": None, "Modality": "OT"}, "secondary capture"),
        ({"SOPClassUID": CAPTURE, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "secondary capture"),
        ({"SOPClassUID": CAPTURE, "PhotometricInterpretation": "PALETTE COLOR"}, "secondary capture"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, "derived image"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "derived secondary image"),
        ({"BurnedInAnnotation": "YES"}, "text burned into the picture"),
        ({"PixelSpacing": [0.0005, 0.0005]}, "implausible units"),
        ({"PixelSpacing": [750, 750]}, "implausible units"),
        ({"ImagePositionPatient": None}, "no geometry tags"),
        ({"SamplesPerPixel": 3}, "colour image"),
        ({"Modality": "PT"}, "modality is not CT or MR"),
    ],
)
def test_series_that_are_no_scan_of_a_body(data, tags, reason):
    write_series(data / "bad", **tags)
    assert reasons(data) == {reason: 1}


@pytest.mark.parametrize("kind", ["ORIGINAL", "DERIVED"])
def test_a_secondary_capture_with_geometry_and_grey_values_is_a_derived_series(data, kind):
    write_series(data / "map", SOPClassUID=CAPTURE, ImageType=[kind, "SECONDARY"])
    (left_out,) = scanned(data).left_out
    assert left_out.reason == "derived secondary image"
    assert "with the geometry and grey values of a series" in left_out.detail
    assert "--keep-derived" in left_out.detail
    assert "map" in kept(data, keep_derived=True)


@pytest.mark.parametrize("modality", ["SEG", "SR", "PR", "KO", "RTSTRUCT", "RTDOSE", "REG"])
def test_objects_without_a_picture(data, modality):
    write_slice(data / "object", 0, "1.2.4", Modality=modality)
    assert reasons(data) == {"DICOM object that is not an image": 1}


def test_header_whose_pixels_are_gone(data):
    dataset = slice_dataset(0, "1.2.4")
    del dataset.PixelData
    dataset.save_as(data / "good/x", enforce_file_format=True)
    assert reasons(data) == {"no pixel data": 1}
    assert len(kept(data)) == 1


def write_compressed(folder: Path, syntax: str) -> None:
    """Slices whose pixel data is one fragment of nonsense."""
    folder.mkdir()
    fragment = b"\xff\x4f" * 8
    item, end = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
    for index in range(3):
        dataset = slice_dataset(index, "1.2.5")
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = item + bytes(4) + item + struct.pack("<L", len(fragment)) + fragment + end + bytes(4)
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.save_as(folder / str(index), enforce_file_format=True)


@pytest.mark.skipif(get_decoder("1.2.840.10008.1.2.4.201").is_available, reason="the extra `dicom` is installed")
def test_compression_that_nothing_here_decodes_names_the_extra(data):
    write_compressed(data / "jpeg", "1.2.840.10008.1.2.4.201")  # high-throughput JPEG 2000
    result = scanned(data)
    assert result.reasons == {"unsupported compression": 1}
    assert "pip install 'monai_cl[dicom]'" in result.left_out[0].detail


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.204"])  # MPEG-4, JPIP
def test_compression_that_no_package_decodes_is_to_be_exported_anew(data, syntax):
    write_compressed(data / "video", syntax)
    result = scanned(data)
    assert result.reasons == {"unsupported compression": 1}
    assert result.left_out[0].detail.endswith("no package that monai_cl reads with decodes it, export it uncompressed")


def test_echoes_and_time_points_are_four_dimensional(data):
    write_series(data / "echoes", range(4), "1.2.6")
    for index in range(4):
        write_slice(data / f"echoes/second{index}", index, "1.2.6")
    result = scanned(data)
    assert result.reasons == {"4-D": 1}
    assert "4 slice positions x 2 images each" in result.left_out[0].detail


@pytest.mark.parametrize(
    ("tags", "reason", "words"),
    [
        (lambda k: {"EchoTime": 2.3 * (1 + k // 3)}, "mixed echo times", "echo times from 2.3 to 4.6 ms; split it"),
        (
            lambda k: {"TemporalPositionIdentifier": 1 + (k > 2)},
            "mixed time points",
            "slices of 2 time points (TemporalPositionIdentifier) lie one behind",
        ),
        (lambda k: {"DiffusionBValue": 1000.0 * (k > 3)}, "mixed b-values", "from 0 to 1000 s/mm2; split it"),
        (lambda k: {"Modality": "CT" if k else "MR"}, "mixed modalities", "modality CT and MR; split it"),
        (
            lambda k: {"Modality": "MR" if k < 5 else "PLANTED"},
            "mixed modalities",
            "modality MR and another kind; split it",
        ),
        (
            lambda k: {"ImageType": ["DERIVED", "SECONDARY"][: 2 * (k == 3)] or ["ORIGINAL"]},
            "derived secondary image",
            "in 1 of 6",
        ),
        (lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "mosaic", "convert it"),
        (
            lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "DIXON", "WATER" if k < 3 else "FAT"]},
            "mixed contrasts",
            "one series holds images of ImageType FAT and WATER; split it",
        ),
        (
            lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "P" if k == 5 else "M", "ND"]},
            "mixed contrasts",
            "of ImageType M and P; split it",
        ),
    ],
)
def test_pictures_of_several_kinds_are_no_volume_though_their_places_fit(data, tags, reason, words):
    for index in range(6):
        write_slice(data / f"bad/{index}", index, "1.2.8", **tags(index))
    result = scanned(data)
    assert result.reasons == {reason: 1}
    assert words in result.left_out[0].detail


def test_a_slice_that_lacks_a_word_for_its_contrast_is_no_other_picture(data):
    for index in range(6):
        words = ["ORIGINAL", "PRIMARY", "M", *["ND", "WATER"][: 2 * (index > 2)]]
        write_slice(data / f"more/{index}", index, "1.2.8", ImageType=words)
    assert "more" in kept(data)


@pytest.mark.parametrize("alone", [False, True])
def test_a_capture_among_slices_takes_none_of_them_with_it(data, alone):
    place = data / ("shots" if alone else "series")
    write_series(data / "series", range(6), "1.2.8")
    for number in range(2):
        write_slice(place / f"shot{number}", number, "1.2.8", SOPClassUID=CAPTURE, ImagePositionPatient=None)
    result = scanned(data)
    assert result.reasons == {"secondary capture": 1}
    (entry,) = result.left_out
    assert len(entry.paths) == 2
    assert all(f"{place.name}/shot" in path for path in entry.paths)
    assert "among the slices of a series" in entry.detail
    (image,) = [image for image in kept(data) if "series" in str(image)]
    names = [image] if isinstance(image, str) else image
    assert LoadVolume()([data / name for name in names] if len(names) > 1 else data / names[0]).shape[-1] == 6


@pytest.mark.parametrize("point", [lambda k: k, lambda k: 1 + k % 2, lambda k: 1])
def test_time_points_that_are_numbers_of_slices_or_packages_are_kept(data, point):
    for index in range(6):
        write_slice(data / f"more/{index}", index, "1.2.8", TemporalPositionIdentifier=point(index))
    assert "more" in kept(data)


@pytest.mark.parametrize(
    ("second", "noted"),
    [
        (lambda k: k * 0.2 + 35 * (k > 3), True),  # arterial, then portal venous
        (lambda k: -k * 0.2 + 35 * (k > 3), True),
        (lambda k: 35 * (k > 3), True),
        (lambda k: 3 * (k // 3), False),  # steps of the table
        (lambda k: 40 * k, False),  # a breath-hold each
        (lambda k: 40 * (k % 2), False),  # interleaved packages
        (lambda k: 40 * (k % 3), False),
        (lambda k: 0, False),
    ],
)
@pytest.mark.parametrize("tag", ["AcquisitionTime", "ContentTime"])
def test_parts_of_a_stack_that_were_acquired_apart_are_noted(data, second, noted, tag):
    for index in range(9):
        clock = 36920 + second(index)
        time = f"10{clock % 3600 // 60:02.0f}{clock % 60:05.2f}"
        write_slice(data / f"two/{index}", index, "1.2.8", AcquisitionNumber=1 + index // 3, **{tag: time})
    assert scanned(data).notes == ({IN_PASSES: ["two"]} if noted else {})


def test_slices_of_several_frames_of_reference_are_noted(data):
    for index in range(6):
        write_slice(data / f"two/{index}", index, "1.2.8", FrameOfReferenceUID=f"1.2.{index // 3}")
    write_series(data / "one", FrameOfReferenceUID="1.2.5")
    assert scanned(data).notes == {SEVERAL_FRAMES: ["two"]}


def test_echo_times_and_b_values_that_are_measured_are_one_picture(data):
    for index in range(6):
        write_slice(data / f"more/{index}", index, "1.2.8", EchoTime=90 + index / 10, DiffusionBValue=995.0 + index)
    assert "more" in kept(data)


def test_duplicated_instances_are_named_and_the_series_stays_whole(data):
    source = sorted((data / "good").iterdir())
    for index, path in enumerate(source[:3]):
        shutil.copy(path, data / f"good/again{index}")
    result = scanned(data)
    assert [(entry.reason, entry.count) for entry in result.left_out] == [("copy of another file", 3)]
    (image,) = kept(data)
    assert len(image) == len(source)


@pytest.mark.parametrize("tags", [{"EchoTime": 80}, {"InstanceNumber": 9}, {"TemporalPositionIdentifier": 2}])
def test_echoes_whose_images_all_have_one_identifier_are_no_copies(data, tags):
    one = {"SOPInstanceUID": "1.2.3.4"}
    write_series(data / "echoes", range(4), "1.2.9", **one)
    for index in range(4):
        write_slice(data / f"echoes/second{index}", index, "1.2.9", **one, **tags)
    (left_out,) = scanned(data).left_out
    assert (left_out.reason, left_out.count) == ("4-D", 8)
    assert "4 slice positions x 2 images each" in left_out.detail


def named_in_listing(data, *names):
    (data / "dataset.json").write_text(json.dumps({"training": [{"image": name} for name in names]}))
    return {entry.paths[0]: (entry.reason, entry.detail) for entry in scanned(data).left_out}


def test_a_series_that_dataset_json_names_is_left_out_for_its_own_reason(data):
    write_series(data / "gap", [0, 1, 3, 4])
    found = named_in_listing(data, "gap", "nowhere")
    assert list(found) == ["gap", "nowhere"]
    assert found["gap"][0] == "missing or unevenly spaced slices"
    assert found["nowhere"][0] == "named in dataset.json but absent"


@pytest.mark.parametrize("second", [range(4), [0, 1, 3, 4]], ids=["two whole ones", "one with a gap"])
def test_a_folder_of_several_series_that_dataset_json_names_is_not_one_usable_series(data, second):
    write_series(data / "both/a", range(4), "1.2.97")
    write_series(data / "both/b", second, "1.2.98")
    found = named_in_listing(data, "both")
    assert found["both"] == (
        "named in dataset.json but not one usable series",
        "list the files of one series, or give each a folder of its own",
    )
    assert len(found) == (1 if second == range(4) else 2)


def test_two_series_in_one_folder_that_dataset_json_names_are_not_one_usable_series(data):
    for name in "ab":
        write_series(data / name, range(4), f"1.2.{ord(name)}")
        (data / "both").mkdir(exist_ok=True)
        for path in (data / name).iterdir():
            path.rename(data / "both" / f"{name}{path.name}")
        (data / name).rmdir()
    assert named_in_listing(data, "both")["both"][0] == "named in dataset.json but not one usable series"


def test_a_whole_copy_takes_the_place_of_a_file_cut_short(data):
    first = sorted((data / "good").iterdir())[0]
    shutil.copy(first, data / "good/zz_whole")
    first.write_bytes(first.read_bytes()[:-9])
    result = scanned(data)
    assert result.reasons == {"cut short": 1}
    told = (
        f"the pixel data of {first.name} ends early (truncated); copy the file again; the same image as good/zz_whole"
    )
    assert result.left_out[0].detail == told
    (image,) = kept(data)
    assert "good/zz_whole" in image
    assert f"good/{first.name}" not in image


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_files(data, share):
    write_series(data / "bad")
    path = sorted((data / "bad").iterdir())[2]
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    result = scanned(data)
    allowed = {"cut short", "no pixel data", "unreadable", "missing or unevenly spaced slices"}
    assert set(result.reasons) <= allowed | {"DICOM object that is not an image"}  # cut before it says what it is
    assert "bad" not in [item["image"] for item in result.sections["unlabelled"]]
    assert "good" in [item["image"] for item in result.sections["unlabelled"]]


def test_shuffled_names_change_nothing(data):
    before = LoadVolume()(data / "good")
    names = sorted(path.name for path in (data / "good").iterdir())
    for path, name in zip(sorted((data / "good").iterdir()), random.Random(1).sample(names, len(names)), strict=True):
        path.rename(data / f"good/new{name}")
    assert kept(data) == ["good"]
    np.testing.assert_array_equal(LoadVolume()(data / "good"), before)


def test_big_endian_is_read(data):
    little = LoadVolume()(data / "good")
    files = [slice_dataset(index, "1.2.8") for index in range(6)]
    (data / "big").mkdir()
    for index, dataset in enumerate(files):
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.save_as(data / f"big/{index}", enforce_file_format=True, little_endian=False, implicit_vr=False)
    assert sorted(kept(data)) == ["big", "good"]
    np.testing.assert_array_equal(LoadVolume()(data / "big"), little)


def test_byte_order_that_the_header_lies_about(data):
    write_series(data / "bad")
    for path in (data / "bad").iterdir():
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"))
    result = scanned(data)
    assert set(result.reasons) <= {"unreadable", "DICOM object that is not an image"}
    assert [item["image"] for item in result.sections["unlabelled"]] == ["good"]


@pytest.mark.parametrize("name", ["export.zip", "good/EXPORT.ZIP", "export.tar.gz", "export.7z", "good/1.dcm.gz"])
def test_archives_are_named_and_the_series_beside_them_stays_a_folder(data, name):
    (data / name).write_bytes(b"PK\3\4" + bytes(200))
    result = scanned(data)
    assert [(one.paths, one.reason, one.detail) for one in result.left_out] == [
        ((name,), "archive", "images in it are not read; unpack it and scan again")
    ]
    assert kept(data) == ["good"]


def test_empty_files(data):
    for name in ("a.dcm", "b.nii.gz", "c.nrrd", "noname"):
        (data / name).touch()
    assert reasons(data) == {"zero bytes": 3}


def test_loops_of_folders_end(data):
    (data / "good/back").symlink_to(data)
    (data / "self").symlink_to(data / "self")
    (data / "again").symlink_to(data / "good")
    assert len(kept(data)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_and_folders_without_permission(data):
    write_series(data / "closed")
    volume(data / "closed.nii.gz")
    (data / "closed").chmod(0)
    (data / "closed.nii.gz").chmod(0)
    result = scanned(data)
    (data / "closed").chmod(0o700)
    assert result.reasons == {"unreadable": 2}


def test_folder_that_cannot_be_listed_is_named(data, monkeypatch):
    real = os.scandir

    def scandir(place: Path) -> object:
        if str(place).endswith("closed"):
            raise PermissionError(13, "denied")
        return real(place)

    write_series(data / "closed")
    monkeypatch.setattr(os, "scandir", scandir)
    result = scanned(data)
    assert [(entry.paths, entry.reason) for entry in result.left_out] == [(("closed",), "unreadable")]
    assert "PermissionError" in result.left_out[0].detail


@pytest.mark.parametrize(("unit", "spacing"), [("meter", 0.001), ("micron", 1000.0), ("mm", 0.001), ("mm", 1000.0)])
def test_lengths_that_are_no_millimetres(data, unit, spacing):
    volume(data / "v.nii.gz", unit=unit, spacing=spacing)
    assert reasons(data) == {"implausible units": 1}


def test_identity_affine_of_a_thin_stack_is_noted(data):
    nibabel.save(nibabel.Nifti1Image(np.ones((60, 60, 8), "int16"), np.eye(4)), data / "heart.nii.gz")
    assert scanned(data).notes == {"affine is the identity: the spacing is probably missing": ["heart.nii.gz"]}


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("compress", [False, True])
def test_nrrd_and_metaimage(data, suffix, compress):
    values = np.random.default_rng(0).integers(0, 99, (7, 6, 5)).astype("int16")
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin((-10, 20, 30))
    path = data / f"v{suffix}"
    sitk.WriteImage(image, str(path), compress)
    assert f"v{suffix}" in kept(data)
    loaded = LoadVolume()(path)
    np.testing.assert_array_equal(loaded[0], values.T)
    corner = np.asarray(loaded.affine) @ [4, 5, 6, 1]
    np.testing.assert_allclose(corner[:3], np.array(image.TransformIndexToPhysicalPoint((4, 5, 6))) * [-1, -1, 1])
    path.write_bytes(path.read_bytes()[:-40])
    assert reasons(data) == {"cut short": 1}


def test_four_dimensional_and_vector_nrrd(data):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 7), "int16"), isVector=False), str(data / "t.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 6, 7, 3), "uint8"), isVector=True), str(data / "rgb.nrrd"))
    assert reasons(data) == {"4-D": 1, "colour image": 1}


def test_enhanced_file_is_a_volume_with_the_rescale_of_each_frame(data):
    frames = [(1.0, 0.0), (2.0, -5.0), (0.5, 100.0), (3.0, 7.0)]
    path = multi_frame(data / "enhanced/file", frames)
    assert "enhanced/file" in kept(data)
    loaded = LoadVolume()(path)
    assert loaded.shape == (1, 6, 5, 4)
    for index, (slope, intercept) in enumerate(frames):
        stored = 100 * index + np.arange(6)[:, None] + 10 * np.arange(5)[None]
        np.testing.assert_allclose(loaded[0, :, :, index], slope * stored + intercept)
    np.testing.assert_allclose(loaded.pixdim, [0.5, 0.75, 6.5], rtol=1e-6)


def test_two_enhanced_files_of_one_series_are_two_volumes(data):
    multi_frame(data / "enhanced/a", [(1.0, 0.0)] * 4, series="1.2.9")
    multi_frame(data / "enhanced/b", [(1.0, 0.0)] * 3, series="1.2.9")
    assert kept(data)[:2] == ["enhanced/a", "enhanced/b"]


def concatenation(folder: Path, parts: list[range], *, total: int | None) -> list[Path]:
    """A volume of enhanced frames over several files of one series."""
    paths = []
    for number, indices in enumerate(parts, 1):
        path = multi_frame(folder / f"{9 - number}", [(1.0, 0.0)] * len(indices), indices=indices, series="1.2.9")
        dataset = dcmread(path)
        dataset.ConcatenationUID, dataset.InConcatenationNumber = "1.2.66", number
        if total:
            dataset.InConcatenationTotalNumber = total
        dataset.save_as(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("total", [None, 2])
@pytest.mark.parametrize("parts", [[range(3), range(3, 6)], [range(0, 6, 2), range(1, 6, 2)]], ids=["halves", "mixed"])
def test_a_volume_over_several_files_is_one_volume(data, parts, total):
    concatenation(data / "enhanced", parts, total=total)
    multi_frame(data / "more/file", [(1.0, 0.0)] * 3, series="1.2.9")
    assert kept(data) == ["enhanced", "good", "more/file"]
    np.testing.assert_array_equal(LoadVolume()(data / "enhanced"), LoadVolume()(data / "good"))


def test_a_volume_that_lacks_one_of_its_files_is_left_out(data):
    first, _ = concatenation(data / "enhanced", [range(3), range(3, 6)], total=3)
    (left_out,) = scanned(data).left_out
    missing = "1 of 3 files of one volume (ConcatenationUID) are missing; add them"
    assert (left_out.reason, left_out.count, left_out.detail) == ("incomplete concatenation", 2, missing)
    with pytest.raises(ValueError, match="incomplete concatenation: 2 of 3 files"):
        LoadVolume()(first)


def test_enhanced_file_with_a_missing_frame_names_the_gap(data):
    multi_frame(data / "enhanced/a", [(1.0, 0.0)] * 4, indices=[0, 1, 2, 4])
    result = scanned(data)
    assert result.reasons == {"missing or unevenly spaced slices": 1}
    assert "13.00 mm between" in result.left_out[0].detail


def changed(path: Path, change) -> None:
    dataset = dcmread(path)
    change(dataset, dataset.PerFrameFunctionalGroupsSequence)
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("sequence", "element", "reason"),
    [
        ("MREchoSequence", "EffectiveEchoTime", "mixed echo times"),
        ("MRDiffusionSequence", "DiffusionBValue", "mixed b-values"),
    ],
)
def test_frames_of_several_echoes_or_b_values_are_no_volume(data, sequence, element, reason):
    def change(_, groups):
        for index, group in enumerate(groups):
            item = Dataset()
            setattr(item, element, 10.0 + 80 * (index > 2))
            setattr(group, sequence, [item])

    changed(multi_frame(data / "enhanced/a", [(1.0, 0.0)] * 6), change)
    result = scanned(data)
    assert result.reasons == {reason: 1}
    assert "from 10 to 90" in result.left_out[0].detail


@pytest.mark.parametrize(("announced", "described"), [(4, 6), (6, 5)])
def test_frames_that_are_not_those_announced_are_not_dropped(data, announced, described):
    def change(dataset, groups):
        dataset.NumberOfFrames = announced
        del groups[described:]

    changed(multi_frame(data / "enhanced/a", [(1.0, 0.0)] * 6), change)
    result = scanned(data)
    assert result.reasons == {"unreadable": 1}
    assert f"announces {announced} frames and describes {described}; export it again" in result.left_out[0].detail


def test_enhanced_file_with_two_kinds_of_frames(data):
    multi_frame(data / "enhanced/a", [(1.0, 0.0)] * 6, indices=[0, 1, 2] * 2, kinds=["M"] * 3 + ["FIELD_MAP"] * 3)
    assert reasons(data) == {"4-D": 1}


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        ({"Modality": "CT", "RepetitionTime": 500}, "Modality is CT, but the tags are those of MR"),
        ({"Modality": "MR", "KVP": 120}, "Modality is MR, but the tags are those of CT"),
        (
            {"SeriesDescription": "T1 ax", "ScanningSequence": "SE", "RepetitionTime": 5000, "EchoTime": 90},
            "described as T1w, but repetition, echo and inversion times are those of T2w",
        ),
        (
            {"BodyPartExamined": "KNEE", "SeriesDescription": "abdomen cor"},
            "the body part is tagged as KNEE, but described as ABDOMEN",
        ),
    ],
)
def test_contradicting_tags_are_noted(data, tags, note):
    write_series(data / "odd", **tags)
    assert scanned(data).notes[note] == ["odd"]


def test_picture_of_another_modality_is_noted(data):
    write_series(data / "odd", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    notes = scanned(data, pictures=True).notes
    assert [paths for text, paths in notes.items() if text.startswith("Modality is CT, but no voxel")] == [["odd"]]


def test_slice_that_cannot_be_decoded_takes_its_volume_out(data):
    write_compressed(data / "broken", "1.2.840.10008.1.2.4.90")
    assert len(kept(data)) == 2
    assert reasons(data, pictures=True) == {"undecodable pixel data": 1}


def test_two_patients_under_one_series_identifier_stay_apart(data):
    write_series(data / "mixed", range(3), "1.2.3")
    write_series(data / "mixed", range(3, 6), "1.2.3", PatientID="another")
    result = scanned(data)
    assert len({item["subject"] for item in result.sections["unlabelled"]}) == 2
    assert sum(isinstance(item["image"], list) for item in result.sections["unlabelled"]) == 2


def test_several_folders_share_one_list(data, tmp_path):
    write_series(tmp_path / "other/s")
    result = scan([data, tmp_path / "other"], tmp_path / "out/study.json", hide_names=False)
    assert [item["image"] for item in result.sections["unlabelled"]] == ["data/good", "other/s"]
    assert result.folder == tmp_path


def test_series_described_by_its_tags(data):
    uid = generate_uid()
    write_series(
        data / "flair", series=uid, SeriesDescription=f"{NAME} t2_tirm_tra_dark-fluid", BodyPartExamined="HEAD"
    )
    content = json.loads(scanned(data).datalist.read_text())
    (item,) = (item for item in content["unlabelled"] if item["image"] == "flair")
    assert (item["sequence"], item["body_part"], item["modality"]) == ("FLAIR", "BRAIN", "MR")


@pytest.mark.parametrize("tail", [bytes(900), b"\xfc\xff\xfc\xffOB\0\0\xff\xff\0\0" + bytes(99)])
def test_bytes_behind_the_pixels_do_no_harm(data, tail):
    for path in (data / "good").iterdir():
        path.write_bytes(path.read_bytes() + tail)
    assert_read_as_written(data)


@pytest.mark.parametrize(
    "tags",
    [
        {"SpacingBetweenSlices": 0},
        {"SOPClassUID": "1.3.46.670589.11.0.0.12.1"},  # of a vendor's own
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PhotometricInterpretation": "MONOCHROME1", "PixelRepresentation": 0},
    ],
)
def test_series_that_simpleitk_refuses_or_inverts_are_read_as_written(data, tags):
    shutil.rmtree(data / "good")
    write_series(data / "good", RescaleSlope=2, RescaleIntercept=-7, **tags)
    assert_read_as_written(data, slope=2, intercept=-7)


def assert_read_as_written(data: Path, *, slope: float = 1, intercept: float = 0) -> None:
    """The one series is kept, lies where its headers say and has the values of ``slice_dataset``."""
    result = scanned(data, pictures=True)
    assert result.reasons == {}
    assert [item["image"] for item in result.sections["unlabelled"]] == ["good"]
    volume = LoadVolume()(data / "good")
    column, row, index = np.indices(volume.shape[1:])
    np.testing.assert_allclose(volume[0].numpy(), (100 * index + column + 10 * row) * slope + intercept)
    corner = np.array([-40.0, 25.0, 10.0]) + 5 * 6.5 * normal()
    np.testing.assert_allclose(volume.affine.numpy()[:3] @ [0, 0, 5, 1], corner * [-1, -1, 1], atol=1e-4)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("tags", [{"PhotometricInterpretation": "monochrome2"}, {"SamplesPerPixel": None}])
def test_headers_that_leave_nothing_but_grey_values_are_read(data, tags):
    shutil.rmtree(data / "good")
    write_series(data / "good", **tags)
    assert_read_as_written(data)


@pytest.mark.parametrize("empty", [True, False])
def test_an_empty_or_missing_photometric_interpretation_is_grey(data, empty):
    for path in (data / "good").iterdir():
        dataset = dcmread(path)
        if empty:
            dataset.PhotometricInterpretation = ""
        else:
            del dataset.PhotometricInterpretation
        dataset.save_as(path)
    assert_read_as_written(data)


@pytest.mark.parametrize("kind", ["YBR_FULL", "MONOCHROME", "PLANTED"])
def test_grey_values_of_another_photometric_interpretation_are_left_out(data, kind):
    write_series(data / "odd", PhotometricInterpretation=kind)
    (left_out,) = scanned(data, pictures=True).left_out
    assert left_out.reason == "invalid photometric interpretation"
    assert left_out.detail.endswith("PhotometricInterpretation of another kind; write MONOCHROME2 there")
    assert "PLANTED" not in left_out.detail


def test_numbers_of_a_palette_are_no_grey_values(data):
    write_series(data / "map", PhotometricInterpretation="PALETTE COLOR")
    assert reasons(data) == {"colour image": 1}


@pytest.mark.parametrize("start", [b"\x02\0\0\0UL", b"\x02\0\x10\0UI", b"\x08\0\x08\0CS", b"\x08\0\x08\0\x12\0\0\0"])
@pytest.mark.parametrize("name", ["{}", "{}.dcm"])
def test_files_without_preamble_are_read(data, start, name):
    for number, path in enumerate(sorted((data / "good").iterdir())):
        if start.endswith(b"\0\0"):  # as old archives wrote them: implicit, and nothing in front
            dataset = dcmread(path)
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            dataset.save_as(path, implicit_vr=True, little_endian=True)
        content = path.read_bytes()
        path.unlink()
        (data / "good" / name.format(number)).write_bytes(content[content.index(start) :])
    assert_read_as_written(data)


def test_a_file_that_does_not_name_its_transfer_syntax_is_read(data):
    for path in (data / "good").iterdir():
        content = path.read_bytes()
        place = content.index(b"\x02\0\x10\0UI")
        length = 8 + int.from_bytes(content[place + 6 : place + 8], "little")
        path.write_bytes(content[:place] + content[place + length :])
    assert_read_as_written(data)


@pytest.mark.parametrize("content", [b"\x08\0" * 400, b"\x08\0\x05\0\xff\xff\xff\x7f" + bytes(400), b"\x08\0\x05\0CS"])
def test_files_that_only_begin_alike_are_no_dicom(data, content):
    (data / "table").write_bytes(content)
    result = scanned(data)
    assert (result.reasons, result.other_files) == ({}, 1)


@pytest.mark.parametrize("frames", [0, -3, 9])
def test_numbers_of_frames_that_cannot_be(data, frames):
    path = multi_frame(data / "quacksalber" / "file.dcm", [(1, 0)] * 4)
    dataset = dcmread(path)
    dataset.NumberOfFrames, dataset.PatientName = frames, "Quacksalber^Hedwig"
    dataset.PixelData *= 3
    dataset.save_as(path)
    result = scanned(data, hide_names=True)
    assert result.reasons == {"unreadable": 1}
    assert [path.partition("-")[0] for path in result.left_out[0].paths] == ["file"]  # the folder is a name


def test_any_number_of_frames_that_nothing_describes_is_judged_at_once(data):
    path = write_slice(data / "loop", 0, "1.2.9", NumberOfFrames=2**31 - 1)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert reasons(data) == {"no geometry tags": 1}


def test_a_nifti_unit_that_means_nothing_is_passed_over(data):
    volume(data / "a.nii", spacing=2.0)
    content = bytearray((data / "a.nii").read_bytes())
    content[123] = 7  # xyzt_units
    (data / "a.nii").write_bytes(content)
    assert "a.nii" in kept(data)


def test_complex_values_are_left_out(data):
    values = np.full((9, 9, 9), 3 + 4j, "complex64")
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), data / "kspace.nii")
    assert reasons(data) == {"complex values": 1}
    refusal = "complex values: voxels of type complex64, only real ones are read; save mag"
    with pytest.raises(ValueError, match=refusal):
        LoadVolume()(data / "kspace.nii")


def test_a_reader_that_fails_in_its_own_way_does_not_end_the_scan(data, monkeypatch):
    (data / "odd.nii").write_bytes(b"?")
    monkeypatch.setattr("monai_cl.intake._headers.read_grid", lambda path: {}[path])
    result = scanned(data)
    assert [(one.reason, one.detail) for one in result.left_out] == [
        ("unreadable", "no reader knows what to make of it (KeyError)")
    ]


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_values_that_are_not_finite_are_noted(data, share):
    values = np.random.default_rng(0).normal(size=(10, 10, 10)).astype("float32")
    values[: int(10 * share)] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), data / "masked.nii")
    (note,) = scanned(data, pictures=True).notes.items()
    assert note == (
        "the middle slice holds values that are not finite, which recipes refuse: set them to the value of air",
        ["masked.nii"],
    )
