"""DICOM SEG: voxels where the series has them, its patient and study, coded classes, read back by highdicom."""

import json
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
import yaml
from dicom_series import NAME, OBLIQUE, PATIENT_ID, multi_frame, write_series
from monai.bundle import run
from monai.networks.nets import SegResNet
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import generate_uid

from monai_cl import bundles, weights
from monai_cl.io.dicom.series import slices_below
from monai_cl.io.segmentation.codes import TABLE, Code, segments_of
from monai_cl.io.segmentation.seg_object import KINDS, Algorithm, _read, save, segmentation_of
from monai_cl.transforms import LoadVolume, MaskFiles, SaveMask, mask_writer
from monai_cl.transforms.mask_writers import class_names_of

hd = pytest.importorskip("highdicom", reason="needs the extra `dicom-seg`")

CLASSES = {0: "background", 1: "left_kidney", 2: "tumour"}
ALGORITHM = Algorithm("Volume contrast", "0.2.0", {"weights": "sha256:abc"})
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def make(source: Any, kind: str = "binary", classes: dict[int, str] | None = None) -> tuple[np.ndarray, Any]:
    """A random mask of a series, and its object as a program reads it from a file."""
    volume = LoadVolume()(source)
    classes = classes or CLASSES
    mask = np.random.default_rng(0).integers(0, len(classes), volume.shape[1:]).astype(np.uint8)
    segments = segments_of(classes)
    return mask, segmentation_of(mask, volume.affine.numpy(), source, segments, algorithm=ALGORITHM, kind=kind)


def series(folder: Path, indices: Any = range(6), **tags: Any) -> Path:
    write_series(folder, indices, **{"FrameOfReferenceUID": "1.2.3.4", "SeriesNumber": 3, **tags})
    return folder


def by_position(read: Any, segment: int) -> dict[tuple[float, ...], np.ndarray]:
    """Frames of a segment by their position in mm, straight from the functional groups."""
    frames = read.pixel_array
    found = {}
    for number, group in enumerate(read.PerFrameFunctionalGroupsSequence):
        place = tuple(float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient)
        if read.SegmentationType == "LABELMAP":
            found[place] = frames[number] == segment
        elif group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
            found[place] = frames[number] == 1
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", [OBLIQUE, SAGITTAL, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)])
@pytest.mark.parametrize("step", [6.5, -6.5])  # head first, and the other way round
def test_each_voxel_lies_where_its_slice_has_it(tmp_path: Path, kind: str, orientation: Any, step: float) -> None:
    folder = series(tmp_path / "s", orientation=orientation, step=step)
    mask, made = make(folder, kind)
    save(made, tmp_path / "seg.dcm")
    read = hd.seg.segread(tmp_path / "seg.dcm")
    affine = np.diag([-1.0, -1, 1, 1]) @ LoadVolume()(folder).affine.numpy()
    slices = {}
    for file in folder.iterdir():
        one = pydicom.dcmread(file)
        slices[tuple(map(float, one.ImagePositionPatient))] = one.SOPInstanceUID
    for segment in (1, 2):
        frames = by_position(read, segment)
        assert len(frames) == len(slices)
        for place, frame in frames.items():
            nearest = min(slices, key=lambda other: float(np.linalg.norm(np.subtract(other, place))))
            assert np.linalg.norm(np.subtract(nearest, place)) < 0.01
            column, row, index = np.rint(np.linalg.solve(affine, [*place, 1])[:3]).astype(int)
            assert (column, row) == (0, 0)
            np.testing.assert_array_equal(frame, (mask[:, :, index] == segment).T)
    shared = read.SharedFunctionalGroupsSequence[0]
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == [0.75, 0.5]
    np.testing.assert_allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, orientation, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_highdicom_gives_the_mask_back_as_a_volume(tmp_path: Path, kind: str) -> None:
    folder = series(tmp_path / "s")
    mask, made = make(folder, kind)
    save(made, tmp_path / "seg.dcm")
    volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    affine = np.diag([-1.0, -1, 1, 1]) @ LoadVolume()(folder).affine.numpy()
    for index in np.ndindex(*volume.array.shape):
        place = volume.affine @ np.array([*index, 1])
        voxel = np.linalg.solve(affine, place)[:3]
        assert np.linalg.norm(affine @ [*np.rint(voxel), 1] - place) < 0.01
        assert mask[tuple(np.rint(voxel).astype(int))] == volume.array[index]


def test_it_belongs_to_patient_study_and_series_of_its_source(tmp_path: Path) -> None:
    tags = {"StudyID": "77", "AccessionNumber": "A1", "StudyTime": "101112", "SpecificCharacterSet": "ISO_IR 192"}
    folder = series(tmp_path / "s", **tags, PatientName="Müller^Jürgen", PatientSex="F")
    _, made = make(folder)
    save(made, tmp_path / "seg.dcm")
    read, sources = pydicom.dcmread(tmp_path / "seg.dcm"), [pydicom.dcmread(file) for file in folder.iterdir()]
    first = sources[0]
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        assert read[keyword].value == first[keyword].value, keyword
    assert (read.StudyID, read.AccessionNumber, read.StudyTime) == ("77", "A1", "101112")
    assert str(read.PatientName) == "Müller^Jürgen"
    assert read.PatientID == PATIENT_ID
    assert read.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert read.SeriesInstanceUID != first.SeriesInstanceUID
    (referenced,) = read.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == first.SeriesInstanceUID
    listed = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert listed == {one.SOPInstanceUID for one in sources}
    for group in read.PerFrameFunctionalGroupsSequence:  # each frame names the slice it lies on
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        slice_of = next(one for one in sources if one.SOPInstanceUID == source.ReferencedSOPInstanceUID)
        assert slice_of.ImagePositionPatient == group.PlanePositionSequence[0].ImagePositionPatient
    assert (read.Modality, read.SeriesNumber, read.Manufacturer) == ("SEG", 1003, "monai_cl")


def test_segments_carry_codes_and_the_algorithm(tmp_path: Path) -> None:
    _, made = make(series(tmp_path / "s"))
    kidney, tumor = made.SegmentSequence
    assert [item.SegmentLabel for item in (kidney, tumor)] == ["left_kidney", "tumour"]
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("64033007", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"
    assert tumor.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert tumor.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    for item in (kidney, tumor):
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        named = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (named.AlgorithmName, named.AlgorithmVersion) == ("Volume contrast", "0.2.0")
        assert named.AlgorithmParameters == "weights=sha256:abc"


@pytest.mark.parametrize("kind", KINDS)
def test_frames_without_a_voxel_are_kept(tmp_path: Path, kind: str) -> None:
    folder = series(tmp_path / "s")
    volume = LoadVolume()(folder)
    made = segmentation_of(
        np.zeros(volume.shape[1:], np.uint8),
        volume.affine.numpy(),
        folder,
        segments_of(CLASSES),
        algorithm=ALGORITHM,
        kind=kind,
    )
    assert int(made.NumberOfFrames) == (12 if kind == "binary" else 6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_multi_frame_series_keeps_its_order_of_frames(tmp_path: Path, kind: str) -> None:
    order = [3, 0, 2, 1]
    file = multi_frame(tmp_path / "one.dcm", [(1, 0)] * 4, indices=order)
    dataset = pydicom.dcmread(file)
    dataset.FrameOfReferenceUID = "1.2.3.4"
    dataset.save_as(file)
    mask, made = make(file, kind)
    save(made, tmp_path / "seg.dcm")
    read = hd.seg.segread(tmp_path / "seg.dcm")
    affine = np.diag([-1.0, -1, 1, 1]) @ LoadVolume()(file).affine.numpy()
    for segment in (1, 2):
        for place, frame in by_position(read, segment).items():
            index = round(float(np.linalg.solve(affine, [*place, 1])[2]))
            np.testing.assert_array_equal(frame, (mask[:, :, index] == segment).T)
    for group in read.PerFrameFunctionalGroupsSequence:
        number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        source = dataset.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0]
        assert source.ImagePositionPatient == group.PlanePositionSequence[0].ImagePositionPatient


def test_a_mask_stored_in_another_order_of_axes_lands_in_the_same_place(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    mask, made = make(folder)
    affine = LoadVolume()(folder).affine.numpy()
    turned = affine[:, [2, 0, 1, 3]] @ np.diag([-1.0, 1, 1, 1])
    turned[:3, 3] = affine[:3, 3] + affine[:3, 2] * (mask.shape[2] - 1)
    again = segmentation_of(
        mask.transpose(2, 0, 1)[::-1], turned, folder, segments_of(CLASSES), algorithm=ALGORITHM, kind="binary"
    )
    assert again.PixelData == made.PixelData


def test_malformed_values_of_a_header_stay_as_they_are(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"19610417", b"17.4.61 ").replace(b"20190823", b"unknown "))
    _, made = make(folder)
    save(made, tmp_path / "seg.dcm")
    content = (tmp_path / "seg.dcm").read_bytes()
    assert b"17.4.61 " in content
    assert b"unknown " in content


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy, of Debian's dicom3tools")
def test_the_checker_of_dicom3tools_finds_no_error(tmp_path: Path) -> None:
    _, made = make(series(tmp_path / "s", StudyTime="101112", StudyID="7"))
    save(made, tmp_path / "seg.dcm")
    said = subprocess.run(["dciodvfy", str(tmp_path / "seg.dcm")], capture_output=True, text=True)
    assert "Error" not in said.stdout + said.stderr


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="needs dcmdump, of dcmtk")
@pytest.mark.parametrize("kind", KINDS)
def test_dcmtk_reads_the_object(tmp_path: Path, kind: str) -> None:
    _, made = make(series(tmp_path / "s"), kind)
    save(made, tmp_path / "seg.dcm")
    said = subprocess.run(["dcmdump", "+P", "0062,0001", str(tmp_path / "seg.dcm")], capture_output=True, text=True)
    assert said.returncode == 0
    assert kind.upper() in said.stdout


# --- bad input


def test_a_series_that_changed_is_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    volume = LoadVolume()(folder)
    mask = np.zeros(volume.shape[1:], np.uint8)
    given = {"algorithm": ALGORITHM, "segments": segments_of(CLASSES)}
    last = sorted(folder.iterdir(), key=lambda file: float(pydicom.dcmread(file).ImagePositionPatient[0]))[-1]
    last.unlink()
    with pytest.raises(ValueError, match=r"the series has changed since its mask was made.*make the mask again"):
        segmentation_of(mask, volume.affine.numpy(), folder, **given)
    with pytest.raises(ValueError, match=r"the series has changed since its mask was made, a file cannot be read"):
        segmentation_of(mask, volume.affine.numpy(), [last], **given)
    headers = slices_below(folder)
    shutil.move(folder, tmp_path / "Mueller")
    with pytest.raises(ValueError, match=r"^the series has changed since its mask was made: No such file or dir"):
        _read(headers)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"FrameOfReferenceUID": ""}, r"no Frame of Reference UID, without which a viewer cannot place a SEG"),
        ({"SOPClassUID": "1.2.3"}, r"highdicom refuses its headers \(KeyError\)"),
        ({"StudyInstanceUID": ""}, r"no study, series or instance UID"),
    ],
)
def test_a_series_that_nothing_can_refer_to_is_refused(tmp_path: Path, tags: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(series(tmp_path / "s", **tags))
    assert NAME not in str(caught.value)


def test_several_series_are_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    volume = LoadVolume()(folder)
    for number, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = f"1.2.3.{number}"
        dataset.save_as(file)
    with pytest.raises(ValueError, match=r"a SEG must refer to one series, got slices of several"):
        segmentation_of(
            np.zeros(volume.shape[1:]), volume.affine.numpy(), folder, segments_of(CLASSES), algorithm=ALGORITHM
        )


def test_labels_without_a_code_and_objects_beyond_four_gigabytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = series(tmp_path / "s")
    volume = LoadVolume()(folder)
    mask = np.full(volume.shape[1:], 3, np.uint8)
    with pytest.raises(ValueError, match=r"labels must be 0 to 2, the number of codes, got 3"):
        segmentation_of(mask, volume.affine.numpy(), folder, segments_of(CLASSES), algorithm=ALGORITHM)
    monkeypatch.setattr("monai_cl.io.segmentation.seg_object._LARGEST", 10)
    with pytest.raises(ValueError, match=r"2 segments of 6 x 5 x 6 voxels have .* GB; write a labelmap"):
        make(folder)


# --- codes


def test_every_code_of_the_table_is_one_of_snomed() -> None:
    table = yaml.safe_load(TABLE.read_text())
    known = {number for numbers in concepts["SCT"].values() for number in numbers}
    codes = [*table["categories"].values(), *table["modifiers"].values()]
    codes += [entry["type"] for entry in table["segments"].values()]
    assert len(codes) > 50
    for scheme, number, _ in codes:
        assert scheme == "SCT"
        assert number in known, number
    assert set(table["synonyms"].values()) <= set(table["segments"])


@pytest.mark.parametrize(
    ("name", "number", "modifier"),
    [
        ("Liver", "10200004", None),
        ("kidney_right", "64033007", "Right"),
        ("Left-Kidney", "64033007", "Left"),
        ("left ventricle", "87878005", None),
        ("anterior hippocampus", "5366008", "Anterior"),
        ("tumour", "108369006", None),
    ],
)
def test_names_are_understood(name: str, number: str, modifier: str | None) -> None:
    (segment,) = segments_of({1: name})
    assert (segment.name, segment.type.value) == (name, number)
    assert (segment.modifier and segment.modifier.meaning) == modifier


def test_codes_of_a_user_win(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("segments: {tumour: {category: abnormality, type: [99HOSPITAL, '7', My tumour], modifier: left}}")
    (segment,) = segments_of({1: "tumour"}, codes=own)
    assert segment.type == Code("99HOSPITAL", "7", "My tumour")
    assert segment.modifier == Code("SCT", "7771000", "Left")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"must hold categories, modifiers, segments, synonyms alone"),
        ("segments: {a: {type: [SCT, '1', A]}}", r"segment 'a' .* must hold category and type"),
        ("segments: {a: {category: x, type: [SCT, '1', A]}}", r"category of segment 'a' must be one of anatomy, "),
        ("segments: {a: {category: anatomy, type: [SCT, 1, A]}}", r"each a text \(write numbers in quotes\)"),
        ("segments: {a: {category: anatomy, type: [SCT, '12345678901234567', A]}}", r"at most 16 characters"),
        ("segments: 3", r"each part of a table of codes must hold names"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)
    with pytest.raises(ValueError, match=message):
        segments_of({1: "liver"}, codes=own)


def test_unknown_names_are_all_named_with_the_closest() -> None:
    with pytest.raises(ValueError, match=r"none is known of 'livr', did you mean 'liver'\?, 'class 2'; name the class"):
        segments_of({1: "livr", 2: "class 2"})
    with pytest.raises(ValueError, match=r"labels of classes must be 1, 2, \.\.\. without a gap, got \[1, 3\]"):
        segments_of({1: "liver", 3: "spleen"})


def test_names_of_classes_come_from_the_metadata_or_the_command_line() -> None:
    metadata = json.loads((bundles.path("volume_contrast") / "configs/metadata.json").read_text())
    assert class_names_of(metadata, out_channels=3) == {1: "class 1", 2: "class 2"}
    assert class_names_of(metadata, ["liver"], out_channels=2) == {1: "liver"}
    assert class_names_of({}, {2: "b", 1: "a"}) == {1: "a", 2: "b"}
    with pytest.raises(ValueError, match=r"channel_def .* must name the 4 classes above background, got 2"):
        class_names_of(metadata, out_channels=5)


# --- in the bundles


def test_a_scan_that_is_no_dicom_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "a.nii.gz"
    file.write_bytes(b"no image")
    files = MaskFiles([{"image": str(file), "place": "a", "case": "a"}], tmp_path / "out", hide_names=False)
    assert files.filename(file).endswith("a_seg.nii.gz")
    with pytest.raises(ValueError, match=r"made for a DICOM series, 1 of 1 scans are none \(a\)"):
        SaveMask(files, writer=mask_writer("dicom_seg", classes=["liver"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "dicomseg"}, r"format must be one of nifti, dicom_seg, bids, got .*, did you mean 'dicom_seg'\?"),
        (
            {"format": "dicom_seg", "classes": ["liver"], "segmentation": "x"},
            r"segmentation must be binary or labelmap",
        ),
        ({"format": "dicom_seg", "metadata": "nowhere.json"}, r"cannot read the metadata of the bundle, nowhere.json"),
    ],
)
def test_wrong_choices_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mask_writer(**options)


def test_without_highdicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'monai_cl\[dicom-seg\]'"):
        mask_writer("dicom_seg", classes=["liver"])


def test_it_is_said_that_objects_name_patients(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = MaskFiles([{"image": str(series(tmp_path / "s")), "place": "s"}], tmp_path / "out", hide_names=False)
    with caplog.at_level(logging.WARNING, "monai_cl.transforms.mask_writers"):
        SaveMask(files, writer=mask_writer("dicom_seg", classes=["liver"]))
    assert "DICOM SEG name the patient of their series" in caplog.text


def test_nothing_of_a_header_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = series(tmp_path / "s")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"19610417", b"17.4.61 "))
    with caplog.at_level(logging.DEBUG):
        save(make(folder)[1], tmp_path / "seg.dcm")
    for secret in (NAME, PATIENT_ID, "17.4.61", "1.2.3.4"):
        assert secret not in caplog.text


def test_inference_writes_objects_for_a_pacs(tmp_path: Path) -> None:
    bundle = bundles.copy("volume_contrast", tmp_path / "bundle")
    torch.manual_seed(0)
    weights.save_network(
        SegResNet(out_channels=3, init_filters=8, blocks_down=(1, 2, 2, 4)), bundle / "models/model.pt"
    )
    for number in range(2):
        series(tmp_path / f"scans/{number}", range(12), series=generate_uid(), Columns=16, Rows=18)
    run(
        bundle_root=str(bundle),
        config_file=[str(bundle / "configs/inference.yaml"), str(bundle / "configs/small.yaml")],
        dataset_dir=str(tmp_path / "scans"),
        recipe="small_mr",
        roi_size=[48, 48, 48],
        format="dicom_seg",
        classes=["liver", "tumour"],
    )
    files = sorted((bundle / "runs/inference").rglob("*_seg.dcm"))
    assert len(files) == 2
    sources = {pydicom.dcmread(next((tmp_path / f"scans/{n}").iterdir())).SeriesInstanceUID for n in range(2)}
    read = [hd.seg.segread(file) for file in files]
    assert {one.ReferencedSeriesSequence[0].SeriesInstanceUID for one in read} == sources
    for one in read:
        assert one.SegmentationType == "BINARY"
        assert one.PatientID == PATIENT_ID
        assert one.SegmentSequence[-1].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "Volume contrast"
        assert int(one.NumberOfFrames) == 24
    assert not list((bundle / "runs/inference").rglob("*.nii.gz"))
