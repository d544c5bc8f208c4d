import csv
import gzip
import io
import itertools
import json
import logging
import os
import re
import shlex
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_series import BIRTH, DATE, NAME, PATIENT_ID, write_series, write_slice
from pydicom import dcmread
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLSLossless
from rich.console import Console
from typer.testing import CliRunner

from monai_cl import bundles
from monai_cl.cli import app
from monai_cl.datalist import load_datalist
from monai_cl.intake.decathlon import subjects_by_name
from monai_cl.intake.scan import ScanResult, scan
from monai_cl.transforms.load import LoadVolume, LoadVolumed

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data in ../shared/data")
SERIES = "1.2.826.0.1.3680043.8.498.55"


def nifti(path: Path, shape=(6, 7, 8), affine=None, dtype="int16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.ones(shape, dtype), np.eye(4) if affine is None else affine)
    nibabel.save(image, path)
    return path


def decathlon(folder: Path, cases=("a", "b"), *, listing: bool = True) -> Path:
    """A small Decathlon folder with labels."""
    for case in cases:
        nifti(folder / f"imagesTr/{case}.nii.gz")
        nifti(folder / f"labelsTr/{case}.nii.gz", dtype="uint8")
    if listing:
        entries = [
            {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz", "subject": index}
            for index, case in enumerate(cases)
        ]
        declare(folder, training=entries, name="demo", modality={"0": "MRI"}, labels={"0": "background", "1": "organ"})
    return folder


def declare(folder: Path, **content: object) -> None:
    (folder / "dataset.json").write_text(json.dumps(content))


def scanned(folder: Path, **options: object) -> tuple[ScanResult, dict]:
    result = scan(folder, folder.parent / "out" / "list.json", **{"hide_names": False, **options})
    return result, json.loads(result.datalist.read_text())


def plain(items: list[dict]) -> list[dict]:
    """Items without what describes the picture."""
    described = ("sequence", "body_part", "spacing", "shape", "modality")
    return [{key: value for key, value in item.items() if key not in described} for item in items]


def table(result: ScanResult) -> list[dict[str, str]]:
    with open(result.exclusions, newline="") as stream:
        return list(csv.DictReader(stream))


def rows(result: ScanResult) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in table(result)}


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


# Decathlon folders


def test_dataset_json_keeps_sections_fields_and_names(data):
    decathlon(data, "abc")
    content = json.loads((data / "dataset.json").read_text())
    declare(data, **content | {"validation": [content["training"].pop() | {"site": "north"}], "licence": "CC0"})
    result, written = scanned(data)
    assert result.counts == {"training": 2, "validation": 1, "test": 0, "unlabelled": 0}
    assert plain(written["training"])[0] == {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz", "subject": 0}
    assert written["training"][0]["shape"] == [6, 7, 8]
    assert written["training"][0]["modality"] == "MR"
    assert written["validation"][0]["site"] == "north"
    assert (written["name"], written["licence"], written["labels"]["1"]) == ("demo", "CC0", "organ")


def test_test_section_of_bare_strings_is_kept_without_labels(data):
    decathlon(data)
    nifti(data / "imagesTs/t.nii.gz")
    declare(data, **json.loads((data / "dataset.json").read_text()) | {"test": ["./imagesTs/t.nii.gz"]})
    _, written = scanned(data)
    assert plain(written["test"]) == [{"image": "imagesTs/t.nii.gz", "subject": "t"}]


def test_files_that_dataset_json_does_not_name_are_reported(data):
    decathlon(data)
    nifti(data / "imagesTr/extra.nii.gz")
    assert rows(scanned(data)[0]) == {"imagesTr/extra.nii.gz": "not named in dataset.json"}


def test_absent_image_is_reported_and_its_label_is_not_paired_with_another(data):
    decathlon(data, "abc")
    (data / "imagesTr/b.nii.gz").unlink()
    result, written = scanned(data)
    assert [item["image"] for item in written["training"]] == ["imagesTr/a.nii.gz", "imagesTr/c.nii.gz"]
    assert rows(result) == {
        "imagesTr/b.nii.gz": "named in dataset.json but absent",
        "labelsTr/b.nii.gz": "label without image",
    }


def test_image_whose_label_is_absent_becomes_unlabelled(data):
    decathlon(data)
    (data / "labelsTr/a.nii.gz").unlink()
    result, written = scanned(data)
    assert plain(written["unlabelled"]) == [{"image": "imagesTr/a.nii.gz", "subject": 0}]
    assert result.notes == {"image without label, kept as unlabelled": ["imagesTr/a.nii.gz"]}
    assert rows(result) == {"labelsTr/a.nii.gz": "named in dataset.json but absent"}


def test_image_named_in_two_sections_is_used_once(data):
    decathlon(data)
    content = json.loads((data / "dataset.json").read_text())
    declare(data, **content | {"validation": content["training"][:1]})
    result, _ = scanned(data)
    assert result.counts["training"] + result.counts["validation"] == 2
    assert any("named more than once" in note for note in result.notes)


def test_subject_shared_by_training_and_validation_is_noted(data):
    decathlon(data)
    content = json.loads((data / "dataset.json").read_text())
    moved = content["training"].pop() | {"subject": 0}
    declare(data, **content | {"validation": [moved]})
    assert scanned(data)[0].notes == {"subject both in training and in validation": ["0"]}


def test_invalid_entries_and_paths_outside_are_left_out(data):
    decathlon(data)
    content = json.loads((data / "dataset.json").read_text())
    content["training"] += [{"image": 3}, {"image": "../secret/x.nii.gz"}]
    declare(data, **content)
    assert scanned(data)[0].reasons == {"invalid entry in dataset.json": 1, "outside the scanned folder": 1}


@pytest.mark.parametrize(("text", "message"), [("{", "cannot read .*dataset.json"), ("[]", "must hold a JSON object")])
def test_damaged_dataset_json_stops_the_scan(data, text, message):
    decathlon(data)
    (data / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        scanned(data)


def test_a_dataset_json_made_on_windows_is_read(data):
    decathlon(data)
    text = (data / "dataset.json").read_text().replace("Tr/", r"Tr\\")
    (data / "dataset.json").write_text(text, encoding="utf-16")
    _, written = scanned(data)
    assert written["training"]
    assert all("/" in item["image"] and "/" in item["label"] for item in written["training"])


def test_layout_without_json_is_paired_by_name_never_by_position(data):
    decathlon(data, "abcd", listing=False)
    (data / "imagesTr/a.nii.gz").unlink()
    (data / "labelsTr/d.nii.gz").unlink()
    nifti(data / "imagesTs/e.nii.gz")
    result, written = scanned(data)
    pairs = [(item["image"][-8:], item["label"][-8:]) for item in written["training"]]
    assert pairs == [("b.nii.gz", "b.nii.gz"), ("c.nii.gz", "c.nii.gz")]
    assert [item["image"] for item in written["unlabelled"]] == ["imagesTr/d.nii.gz"]
    assert [item["image"] for item in written["test"]] == ["imagesTs/e.nii.gz"]
    assert rows(result) == {"labelsTr/a.nii.gz": "label without image"}


def test_numbered_channels_of_nnunet_meet_their_label(data):
    nifti(data / "imagesTr/case_0000.nii.gz")
    nifti(data / "labelsTr/case.nii.gz")
    declare(data, channel_names={"0": "CT"}, labels={"background": 0, "liver": 1}, numTraining=1)
    _, written = scanned(data)
    assert written["training"][0]["label"] == "labelsTr/case.nii.gz"
    assert written["labels"] == {"0": "background", "1": "liver"}


def test_data_sets_side_by_side_keep_their_subjects_apart(data):
    decathlon(data / "one")
    decathlon(data / "two")
    result, written = scanned(data)
    assert result.counts["training"] == 4
    assert {item["subject"] for item in written["training"]} == {"one/0", "one/1", "two/0", "two/1"}


def test_an_image_whose_label_cannot_be_read_stays_and_is_noted(data):
    decathlon(data, "abcd", listing=False)
    nifti(data / "labelsTr/a.nii.gz", (6, 7, 8, 3))
    (data / "labelsTr/b.nii.gz").write_bytes(nifti(data / "labelsTr/b.nii").read_bytes())
    (data / "labelsTr/b.nii").unlink()
    (data / "imagesTr/c.nii.gz").write_bytes(b"")
    result, written = scanned(data)
    assert [item["image"] for item in written["unlabelled"]] == ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"]
    assert result.notes == {"its label was left out, kept as unlabelled": ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"]}
    assert rows(result) == {
        "labelsTr/a.nii.gz": "4-D",
        "labelsTr/b.nii.gz": "unreadable",
        "imagesTr/c.nii.gz": "zero bytes",
        "labelsTr/c.nii.gz": "label without image",
    }
    details = {row["path"]: row["detail"] for row in table(result)}
    assert details["labelsTr/b.nii.gz"] == "not compressed, in spite of its name; rename it, or copy the file again"


def test_labels_of_other_shape_or_place_are_left_out_and_their_images_stay(data):
    decathlon(data, "abcd", listing=False)
    shifted, rounded = np.eye(4), np.eye(4)
    shifted[0, 3], rounded[0, 1] = 0.01, 2e-5
    nifti(data / "labelsTr/a.nii.gz", (6, 7, 9))
    nifti(data / "labelsTr/b.nii.gz", affine=shifted)
    nifti(data / "labelsTr/c.nii.gz", affine=rounded)
    result, written = scanned(data)
    assert [item["image"] for item in written["training"]] == ["imagesTr/c.nii.gz", "imagesTr/d.nii.gz"]
    assert [item["image"] for item in written["unlabelled"]] == ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"]
    assert not any("label" in item for item in written["unlabelled"])
    assert result.notes == {"its label was left out, kept as unlabelled": ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"]}
    assert rows(result) == {
        "labelsTr/a.nii.gz": "image and label differ in shape",
        "labelsTr/b.nii.gz": "image and label differ in affine",
    }
    assert "lie up to 0.01 mm from those of the image" in result.left_out[0].detail


ORDERS = [(axes, flips) for axes in itertools.permutations(range(3)) for flips in ((), (0,), (1, 2), (0, 1, 2))]


@pytest.mark.parametrize(("axes", "flips"), ORDERS)
def test_a_label_stored_in_another_order_is_kept_and_lies_on_its_image(data, axes, flips):
    """The affine and the voxels of the label are those of nibabel's own reorientation."""
    affine = np.array([[0.9, 0.3, 0, 4], [-0.3, 0.9, 0.2, 5], [0.1, -0.2, 2.5, 6], [0, 0, 0, 1.0]])
    values = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)
    orientation = np.array([[axes[i], -1 if i in flips else 1] for i in range(3)])
    image = nibabel.Nifti1Image(values, affine)
    for folder, one in (("imagesTr", image), ("labelsTr", image.as_reoriented(orientation))):
        (data / folder).mkdir(parents=True)
        nibabel.save(one, data / folder / "a.nii.gz")
    _, written = scanned(data)
    (item,) = written["training"]
    loaded = LoadVolumed(["image", "label"])({key: data / item[key] for key in ("image", "label")})
    assert np.array_equal(loaded["image"], loaded["label"])
    assert np.allclose(loaded["image"].affine, loaded["label"].affine, atol=1e-5)


def test_a_mirrored_label_is_refused_with_its_distance(data):
    decathlon(data, "ab", listing=False)
    nifti(data / "labelsTr/a.nii.gz", affine=np.diag([-1.0, 1, 1, 1]))
    result, written = scanned(data)
    assert [item["image"] for item in written["unlabelled"]] == ["imagesTr/a.nii.gz"]
    assert "lie up to 5 mm from those of the image, whose smallest side is 1 mm" in result.left_out[0].detail


def test_volumes_on_other_grids_are_loaded_as_they_are(data):
    one, other = nifti(data / "a.nii.gz"), nifti(data / "b.nii.gz", affine=np.diag([-2.0, 1, 1, 1]))
    loaded = LoadVolumed(["t1", "t2"])({"t1": one, "t2": other})
    assert loaded["t2"].affine.diag().tolist() == [-2, 1, 1, 1]


# Loose NIfTI files


def test_suffix_pairs_a_label_and_other_files_are_unlabelled(data):
    for name in ("p1", "p1_seg", "p2", "p3_mask"):
        nifti(data / f"{name}.nii.gz")
    result, written = scanned(data)
    assert plain(written["training"]) == [{"image": "p1.nii.gz", "label": "p1_seg.nii.gz", "subject": "p1"}]
    assert plain(written["unlabelled"]) == [{"image": "p2.nii.gz", "subject": "p2"}]
    assert rows(result) == {"p3_mask.nii.gz": "label without image"}


@pytest.mark.parametrize(
    ("paths", "subjects"),
    [
        (["sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01/ses-2/x.nii"], ["sub-01", "sub-01"]),
        (["stroke_T1.nii.gz", "stroke_FLAIR.nii.gz"], ["stroke", "stroke"]),
        (["imagesTr/patient003_frame01.nii.gz", "imagesTr/patient004_frame12.nii.gz"], ["patient003", "patient004"]),
        (["Br_001_t1ce.nii.gz", "Br_001_0002.nii.gz"], ["Br_001", "Br_001"]),
        (["p1/brain.nii.gz", "p2/brain.nii.gz", "p2/t1.nii.gz"], ["p1", "p2", "p2"]),
        (["T1/p7.nii.gz", "T2/p7.nii.gz"], ["p7", "p7"]),
        (["T1.nii.gz"], ["T1"]),
    ],
)
def test_subjects_are_guessed_from_names(paths, subjects):
    assert list(subjects_by_name(paths).values()) == subjects


def test_each_bad_nifti_gets_its_reason(data):
    nifti(data / "good.nii.gz")
    nifti(data / "flat.nii.gz", (6, 7))
    nifti(data / "flat1.nii.gz", (6, 7, 1))
    nifti(data / "thin.nii.gz", (6, 7, 2))
    nifti(data / "time.nii.gz", (4, 4, 4, 3))
    (data / "nothing.nii.gz").touch()
    (data / "text.nii").write_text("no image" * 100)
    (data / "gone.nii.gz").symlink_to(data / "absent.nii.gz")
    (data / "other.mgz").write_text("volume")
    (data / "header.nrrd").write_text("NRRD0004")
    singular = nibabel.Nifti1Image(np.ones((4, 4, 4), "int16"), np.eye(4))
    singular.header.set_sform(np.zeros((4, 4)), 1)
    nibabel.save(nibabel.Nifti1Image(singular.dataobj, None, singular.header), data / "place.nii")
    raw = bytearray(nifti(data / "zero.nii").read_bytes())
    raw[42:44] = b"\0\0"
    (data / "zero.nii").write_bytes(raw)
    colour = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), data / "colour.nii")
    result, written = scanned(data)
    assert [item["image"] for item in written["unlabelled"]] == ["good.nii.gz"]
    assert rows(result) == {
        "flat.nii.gz": "2-D",
        "flat1.nii.gz": "2-D",
        "thin.nii.gz": "too few slices",
        "time.nii.gz": "4-D",
        "nothing.nii.gz": "zero bytes",
        "text.nii": "unreadable",
        "gone.nii.gz": "unreadable",
        "other.mgz": "format that scan does not read",
        "header.nrrd": "unreadable",
        "place.nii": "invalid affine",
        "zero.nii": "empty header",
        "colour.nii": "colour image",
    }


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
def test_file_cut_short_is_left_out(data, name, share):
    nifti(data / "good.nii.gz")
    path = nifti(data / name)
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(12, 12, 12)), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert set(rows(scanned(data)[0]).values()) <= {"cut short", "unreadable"}
    assert set(rows(scanned(data)[0])) == {name}


def test_gzip_of_several_members_is_complete(data):
    raw = gzip.decompress(nifti(data / "a.nii.gz").read_bytes())
    (data / "a.nii.gz").write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]))
    assert scanned(data)[0].counts["unlabelled"] == 1


def test_unreadable_label_leaves_its_image_unlabelled(data):
    decathlon(data)
    (data / "labelsTr/a.nii.gz").write_bytes(b"")
    result, _ = scanned(data)
    assert result.counts == {"training": 1, "validation": 0, "test": 0, "unlabelled": 1}
    assert rows(result) == {"labelsTr/a.nii.gz": "zero bytes"}


def test_unsigned_ct_is_noted(data):
    nifti(data / "imagesTr/a.nii.gz", dtype="uint8")
    declare(data, modality={"0": "CT"}, unlabelled=[{"image": "imagesTr/a.nii.gz"}])
    assert list(scanned(data)[0].notes) == ["CT that cannot hold negative values, so not in Hounsfield units"]


# DICOM


def test_series_alone_in_its_directory_is_named_by_it(data):
    write_series(data / "p/s1")
    (data / "p/s1/notes.txt").write_text("no image")
    _, written = scanned(data)
    (item,) = written["unlabelled"]
    assert (item["image"], item["modality"], item["shape"]) == ("p/s1", "MR", [6, 5, 6])
    assert item["spacing"] == [0.5, 0.75, 6.5]
    assert written["modality"] == {"0": "MR"}


def test_series_sharing_a_directory_are_lists_sorted_by_position(data):
    first = write_series(data, range(4))
    second = write_series(data, range(4, 8))
    _, written = scanned(data)
    expected = [[path.relative_to(data).as_posix() for path in files] for files in (first, second)]
    assert sorted(item["image"] for item in written["unlabelled"]) == sorted(expected)


def test_scanned_items_load(data):
    write_series(data / "alone")
    write_series(data / "pair", range(4))
    write_series(data / "pair", range(4, 8))
    nifti(data / "n.nii.gz")
    result, _ = scanned(data)
    volumes = [LoadVolume()(item["image"]) for item in load_datalist(result.datalist, "unlabelled", dataset_dir=data)]
    assert sorted(volume.shape[-1] for volume in volumes) == [4, 4, 6, 8]


def test_folder_that_is_itself_a_series_loads(data):
    write_series(data)
    result = scan(data, data / "list.json", hide_names=False)
    item = load_datalist(result.datalist, "unlabelled")[0]
    assert item["case"] == "series"
    assert LoadVolume()(item["image"]).shape[-1] == 6


def test_series_of_a_patient_share_a_pseudonym(data):
    write_series(data / "a")
    write_series(data / "b", PatientID="someone else")
    write_series(data / "c")
    first, other, third = (item["subject"] for item in scanned(data)[1]["unlabelled"])
    assert first == third != other
    assert re.fullmatch(r"sub-[0-9a-f]{12}", first)


def test_nothing_written_or_logged_names_the_patient(data, caplog, capfd):
    files = write_series(data / "a")
    write_series(data / "b", [0, 1, 4])
    files[0].write_bytes(files[0].read_bytes()[:-5])
    nifti(data / "n.nii.gz")
    screen = Console(file=io.StringIO(), width=200)
    with caplog.at_level(logging.DEBUG):
        result, _ = scanned(data, console=screen)
    screen.print(result.table())
    text = result.datalist.read_text() + result.exclusions.read_text() + screen.file.getvalue() + caplog.text
    text += "".join(capfd.readouterr()) + repr(result)
    header = dcmread(files[1])
    secrets = [NAME, "Planted", PATIENT_ID, BIRTH, DATE, header.SeriesInstanceUID, header.StudyInstanceUID, "1.2.8"]
    assert not [secret for secret in secrets if str(secret) in text]


def test_each_bad_series_gets_its_reason(data):
    write_series(data / "good")
    write_series(data / "missing", [0, 1, 2, 4, 5])
    write_series(data / "few", [0, 1])
    write_series(data / "derived", ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    write_series(data / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(data / "ultrasound", Modality="US")
    cut = write_series(data / "cut")
    cut[-1].write_bytes(cut[-1].read_bytes()[:-9])
    write_series(data / "sizes", range(3), SERIES + ".1")
    write_slice(data / "sizes/other", 3, SERIES + ".1", Rows=9)
    write_series(data / "turned", range(3), SERIES + ".2")
    write_slice(data / "turned/other", 3, SERIES + ".2", orientation=(1, 0, 0, 0, 1, 0))
    write_slice(data / "frames", 0, SERIES + ".3", NumberOfFrames=3)
    write_slice(data / "mask", 0, SERIES + ".4", Modality="SEG")
    write_series(data / "echoes", range(3), SERIES + ".5")
    write_slice(data / "echoes/second", 1, SERIES + ".5")
    (data / "empty.dcm").touch()
    (data / "fake.dcm").write_text("not DICOM")
    result, written = scanned(data)
    assert [item["image"] for item in written["unlabelled"]] == ["good"]
    assert rows(result) == {
        "missing": "missing or unevenly spaced slices",
        "few": "too few slices",
        "derived": "derived secondary image",
        "scout": "localiser",
        "ultrasound": "modality is not CT or MR",
        "cut": "cut short",
        "sizes": "mixed image sizes",
        "turned": "mixed orientations",
        "frames": "cut short",
        "mask": "DICOM object that is not an image",
        "echoes": "several images at one position",
        "empty.dcm": "zero bytes",
        "fake.dcm": "unreadable",
    }
    assert written["left_out"] == result.reasons
    gap = next(entry.detail for entry in result.left_out if entry.paths == ("missing",))
    assert "13.00 mm between" in gap


def test_table_of_what_is_left_out_has_a_row_a_series_with_its_files(data):
    write_series(data / "mixed", range(4), SERIES + ".1", Modality="US")
    write_series(data / "mixed/deep", range(2), SERIES + ".2")
    nifti(data / "flat.nii.gz", (6, 7))
    write_series(data / "good")
    result, _ = scanned(data)
    found = {row["path"]: (row["files"], row["reason"], row["detail"]) for row in table(result)}
    assert found == {
        "flat.nii.gz": ("1", "2-D", "6 x 7 voxels, a volume is needed"),
        "mixed": ("4", "modality is not CT or MR", "modality is US"),
        "mixed/deep": ("2", "too few slices", "3 slices are needed at least, it has 2"),
    }
    names = {row["path"]: row["series"] for row in table(result)}
    assert names["flat.nii.gz"] == ""
    assert names["mixed"] != names["mixed/deep"]
    assert re.fullmatch("series-[0-9a-f]{12}", names["mixed"])


def test_derived_series_are_kept_on_request(data):
    write_series(data / "derived", ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    assert scanned(data, keep_derived=True)[0].counts["unlabelled"] == 1


def test_copied_files_are_left_out_and_the_series_stays_whole(data):
    files = write_series(data / "a")
    shutil.copy(files[2], data / "a/copy")
    shutil.copytree(data / "a", data / "b")
    result, written = scanned(data)
    assert len(written["unlabelled"]) == 1
    assert len(written["unlabelled"][0]["image"]) == 6
    assert result.reasons == {"copy of another file": 1}
    (row,) = table(result)
    assert (row["path"], row["files"], row["reason"]) == ("a/copy", "8", "copy of another file")
    assert row["detail"].endswith("; 7 more files of this series alike")


def test_series_that_dataset_json_names_keeps_its_entry(data):
    write_series(data / "s1")
    write_series(data / "s2")
    declare(data, name="mixed", validation=[{"image": "s1", "subject": "patient 9"}], test=[{"image": "s1"}])
    _, written = scanned(data)
    assert plain(written["unlabelled"]) == [
        {"image": "s1", "subject": "patient 9"},
        {"image": "s2", "subject": "patient 9"},
    ]


# The scan itself


def test_mixed_folder_is_sorted_into_sections(data):
    decathlon(data / "msd")
    nifti(data / "loose/x_T1.nii.gz")
    write_series(data / "hospital/s")
    result, _ = scanned(data)
    assert result.counts == {"training": 2, "validation": 0, "test": 0, "unlabelled": 2}
    assert not result.left_out


def test_second_scan_gives_the_same_bytes_also_inside_the_folder(data):
    decathlon(data, listing=False)
    write_series(data / "s", [0, 1, 3])
    first = scan(data, data / "list.json")
    before = (first.datalist.read_bytes(), first.exclusions.read_bytes())
    second = scan(data, data / "list.json", workers=1)
    assert (second.datalist.read_bytes(), second.exclusions.read_bytes()) == before
    assert str(data).encode() not in b"".join(before)


def test_folder_of_the_output_is_created_and_nothing_else_is_left_there(data):
    decathlon(data)
    scan(data, data.parent / "new/deep/list.json")
    assert sorted(os.listdir(data.parent / "new/deep")) == ["list.json", "list.left_out.csv"]


def test_hidden_files_and_link_loops_are_passed_over(data):
    nifti(data / "a.nii.gz")
    (data / "._a.nii.gz").write_bytes(b"resource fork")
    (data / "loop").symlink_to(data)
    assert scanned(data)[0].counts["unlabelled"] == 1


def test_table_and_next_command_tell_what_to_do(data):
    decathlon(data)
    (data / "imagesTr/a.nii.gz").write_bytes(b"")
    result, _ = scanned(data)
    screen = Console(file=io.StringIO(), width=150)
    screen.print(result.table())
    assert "left out: zero bytes" in screen.file.getvalue()
    assert "imagesTr/a.nii.gz" in screen.file.getvalue()
    copy, command = result.next_command.splitlines()
    assert copy == "monai-cl bundles copy global_local_contrast my_bundle"  # its dataset.json has MR
    words = shlex.split(command, comments=True)
    assert words[:4] == ["python", "-m", "monai.bundle", "run"]
    assert words[words.index("--datalist") + 1] == str(result.datalist)


@pytest.mark.parametrize(
    ("modality", "copied", "files"),
    [
        ("CT", "volume_contrast", "my_bundle/configs/pretrain.yaml"),
        ("MR", "global_local_contrast", "['my_bundle/configs/pretrain.yaml', 'my_bundle/configs/dense.yaml']"),
    ],
)
def test_the_next_command_is_that_of_the_modality(data, modality, copied, files):
    write_series(data, Modality=modality)
    copy, command = scanned(data)[0].next_command.splitlines()
    assert copy == f"monai-cl bundles copy {copied} my_bundle"
    words = shlex.split(command, comments=True)
    assert words[words.index("--config_file") + 1] == files
    assert all(
        (bundles.path(copied) / "configs" / Path(name).name).is_file() for name in re.findall(r"[\w/]+\.yaml", files)
    )


def test_an_unknown_modality_leaves_the_choice_of_a_bundle(data):
    nifti(data / "a.nii.gz")
    (copy, _) = scanned(data)[0].next_command.splitlines()
    assert copy == "monai-cl bundles copy volume_contrast my_bundle  # CT; for MR global_local_contrast"


def test_labels_without_a_validation_are_held_out_first(data):
    decathlon(data)
    rng = np.random.default_rng(0)
    for case in "ab":  # pictures that curation does not take for one
        nibabel.save(nibabel.Nifti1Image(rng.normal(size=(16, 16, 16)), np.eye(4)), data / f"imagesTr/{case}.nii.gz")
        nifti(data / f"labelsTr/{case}.nii.gz", (16, 16, 16), dtype="uint8")
    result, _ = scanned(data)
    hold_out, _, pretrain = result.next_command.splitlines()
    words = shlex.split(hold_out, comments=True)
    assert words == ["monai-cl", "curate", str(result.datalist), "--dataset-dir", str(data), "--hold-out", "0.2"]
    CliRunner().invoke(app, words[1:], catch_exceptions=False)
    held = json.loads(Path(shlex.split(pretrain, comments=True)[-3]).read_text())
    assert (len(held["training"]), len(held["validation"])) == (1, 1)
    declare(data, **{section: held_section(section) for section in ("training", "validation")})
    assert "--hold-out" not in scanned(data)[0].next_command


def held_section(section: str) -> list[dict[str, str]]:
    case = "a" if section == "training" else "b"
    return [{"image": f"imagesTr/{case}.nii.gz", "label": f"labelsTr/{case}.nii.gz"}]


def test_absent_folder_and_file_as_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*absent"):
        scan(tmp_path / "absent", tmp_path / "o.json")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="expected a folder to scan, got the file"):
        scan(tmp_path / "file", tmp_path / "o.json")


def test_folder_without_volumes_is_refused(data):
    data.mkdir()
    (data / "readme.txt").touch()
    with pytest.raises(ValueError, match=r"no NIfTI or DICOM files below .* \(1 other files\)"):
        scanned(data)


def test_folder_without_usable_volumes_names_the_reasons(data):
    nifti(data / "a.nii.gz", (4, 4, 4, 3))
    (data / "b.nii.gz").touch()
    with pytest.raises(ValueError, match=r"nothing usable below .*: 1 4-D, 1 zero bytes; .*list\.left_out\.csv names"):
        scanned(data)
    assert not (data.parent / "out/list.json").exists()


def test_nothing_but_an_earlier_datalist_is_overwritten(data):
    decathlon(data)
    with pytest.raises(ValueError, match=r"dataset\.json exists and is not the datalist of a scan"):
        scan(data, data / "dataset.json")
    (data.parent / "mine.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"mine\.json exists and is not the datalist of a scan"):
        scan(data, data.parent / "mine.json")
    with pytest.raises(ValueError, match=r"out must be a \.json file, got .*list\.txt"):
        scan(data, data.parent / "list.txt")
    (data.parent / "dir.json").mkdir()
    with pytest.raises(ValueError, match=r"out must be a file, but .* is a folder"):
        scan(data, data.parent / "dir.json")


def test_output_that_the_next_scan_would_read_is_refused(data):
    decathlon(data, listing=False)
    with pytest.raises(ValueError, match=r"dataset\.json in the scanned folder is an input of the next scan"):
        scan(data, data / "dataset.json")


# Real data


@needs_data
def test_hippocampus_is_taken_whole(tmp_path):
    result = scan(SHARED / "hippocampus", tmp_path / "list.json", hide_names=False)
    assert result.counts == {"training": 149, "validation": 28, "test": 0, "unlabelled": 1}
    assert not result.left_out
    assert not result.notes
    assert json.loads(result.datalist.read_text())["training"][1]["subject"] == 2


@needs_data
def test_hippocampus_with_orphan_labels_stays_in_step(data):
    chosen = sorted(path.name for path in (SHARED / "hippocampus/imagesTr").iterdir())[:12]
    for name in chosen:
        for kind in ("imagesTr", "labelsTr"):
            (data / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(SHARED / "hippocampus" / kind / name, data / kind / name)
    for name in ("hippocampus_010.nii.gz", "wrong_dataset_hippocampus_281.nii.gz"):
        shutil.copy(
            SHARED / "bad_cases" / f"orphan_label_{name}", data / "labelsTr" / name.replace("wrong_dataset_", "")
        )
    result, written = scanned(data)
    assert all(Path(item["image"]).name == Path(item["label"]).name for item in written["training"])
    assert [Path(item["image"]).name for item in written["training"]] == chosen
    assert rows(result) == {
        "labelsTr/hippocampus_010.nii.gz": "label without image",
        "labelsTr/hippocampus_281.nii.gz": "label without image",
    }


@needs_data
def test_label_of_another_data_set_is_left_out(data):
    decathlon(data, "a", listing=False)
    wrong = SHARED / "bad_cases/orphan_label_wrong_dataset_hippocampus_281.nii.gz"
    image = SHARED / "hippocampus/imagesTr/hippocampus_001.nii.gz"
    shutil.copy(image, data / "imagesTr/hippocampus_281.nii.gz")
    shutil.copy(wrong, data / "labelsTr/hippocampus_281.nii.gz")
    assert scanned(data)[0].reasons == {"image and label differ in shape": 1}


@needs_data
def test_clinical_series_are_kept_and_derived_crops_are_not(tmp_path):
    result = scan(SHARED / "dicom_brain", tmp_path / "list.json", hide_names=False)
    items = result.sections["unlabelled"]
    assert [len({item["subject"] for item in part}) for part in (items[:4], items[4:], items)] == [1, 1, 2]
    assert [item["sequence"] for item in items] == ["T1w", "T1w", "FLAIR", "T2w"] * 2
    assert {item["body_part"] for item in items} == {"BRAIN"}
    assert {item["modality"] for item in items} == {"MR"}
    assert rows(result) == {
        "Study1/13_HCropVolume": "derived secondary image",
        "Study3/11_HCropVolume": "derived secondary image",
    }
    assert "PGBM" not in result.datalist.read_text() + result.exclusions.read_text()


@needs_data
def test_nasty_dicom_is_sorted_out(tmp_path):
    result = scan(SHARED / "dicom_nasty", tmp_path / "list.json", hide_names=False)
    undecoded = {} if get_decoder(JPEGLSLossless).is_available else {"unsupported compression": 1}  # one of the copies
    assert [item["image"] for item in result.sections["unlabelled"]] == ["dcmqi_ct_3slice", "torchio_ct_17slices"]
    assert result.reasons == {
        "4-D": 1,
        "DICOM object that is not an image": 2,
        "copy of another file": 4 - len(undecoded),
        **undecoded,
        "cut short": 1,
        "missing or unevenly spaced slices": 1,
        "secondary capture": 1,
        "no geometry tags": 1,
        "too few slices": 1,
    }


@needs_data
def test_miscellaneous_volumes_are_sorted_out(tmp_path):
    result = scan(SHARED / "mr_misc", tmp_path / "list.json", hide_names=False)
    assert [item["label"] for item in result.sections["training"]] == ["ts_example_mr_seg.nii.gz"]
    assert rows(result) == {"niivue_pcasl_4d.nii.gz": "4-D", "pyrad_brain1_tumour.nii.gz": "mask among images"}
    assert [item["subject"] for item in result.sections["unlabelled"]] == ["pyrad_brain1"] + ["stroke"] * 3
