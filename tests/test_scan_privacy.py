"""Planted identities, in tags, file names and folder names, come out nowhere."""

import copy
import csv
import json
import logging
import os
import pickle
import re
import shutil
import stat
import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import write_volume
from dicom_series import multi_frame, slice_dataset, write_series, write_slice
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from typer.testing import CliRunner

from monai_cl.cli import app
from monai_cl.data import PreparedDataset, TooManyFaultsError, load_datalist, scan
from monai_cl.intake._concealment import Concealer
from monai_cl.intake._findings import LeftOut
from monai_cl.intake._naming import ScanNames
from monai_cl.io.dicom import Person
from monai_cl.io.threads import without_warnings_of_dicom
from monai_cl.privacy.hidden_paths import Finder, HiddenPath, alias_of, without_hidden
from monai_cl.privacy.lookup import look_up
from monai_cl.privacy.pseudonyms import Key, find_or_make_key, new_key, read_key
from monai_cl.privacy.quoting import Quoting
from monai_cl.transforms.load import LoadVolume, LoadVolumed

WHO = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Müller-Lüdenscheidt^Jürgen",
    "PatientID": "MRN-0048213",
    "PatientBirthDate": "19610417",
    "StudyDate": "20190823",
    "AccessionNumber": "ACC7788990",
    "ReferringPhysicianName": "Quacksalber^Hedwig",
}
# whole, in parts, with and without accents, and dates as people write them
SECRETS = """Müller Mueller Muller Lüdenscheidt Luedenscheidt Ludenscheidt Jürgen Juergen Jurgen MRN-0048213 0048213 48213
19610417 1961-04-17 17.04.1961 20190823 2019-08-23 23.08.2019 ACC7788990 7788990 Quacksalber Hedwig Ludensch Yamada 山田 太郎""".split()  # noqa: E501, SIM905
FOLDERS = ["JÜRGEN Müller/kopf", "study 2019-08-23/x", "MRN-0048213", "luedenscheidt_T1", "u/ACC7788990_b", "Ludensch"]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export of a patient whose identity is all over it."""
    root = tmp_path / "export"
    for number, folder in enumerate(FOLDERS):
        write_series(root / folder, SeriesDescription="T1 of Juergen", StudyDescription="Müller", **WHO)
        os.rename(next((root / folder).iterdir()), root / folder / f"Mueller{number}.dcm")
    write_series(root / unicodedata.normalize("NFD", "Jürgen"), **WHO)
    write_series(root / "s1", [0, 1, 4], **WHO)  # a gap
    write_series(root / "few_48213", [0], **WHO)
    both = write_series(root / "two", range(3), **WHO) + write_series(root / "two", range(3, 6), **WHO)
    os.rename(both[0], root / "two/Jurgen_17.04.1961")
    write_series(
        root / "yamada" / "山田",
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Yamada^Taro=山田^太郎",
        PatientID="x",
    )
    cut = write_slice(root / "Juergen.dcm", 0, "1.2.3", **WHO)
    cut.write_bytes(cut.read_bytes()[:-7])
    (root / "Mueller.nii.gz").touch()
    image = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(8, 9, 10)).astype("float32"), np.eye(4))
    for name in ("Mueller_Juergen_T1", "19610417", "ok_T2"):
        nibabel.save(image, root / f"{name}.nii.gz")
    (root / "Lüdenscheidt_seg.nii.gz").write_bytes((root / "ok_T2.nii.gz").read_bytes())
    return root


def leaks(text: str) -> list[str]:
    folded = unicodedata.normalize("NFC", text).casefold()
    return [secret for secret in SECRETS if unicodedata.normalize("NFC", secret).casefold() in folded]


def everything_below(folder: Path) -> str:
    names = "\n".join(path.name for path in folder.rglob("*"))
    return names + "".join(p.read_text("utf-8") for p in folder.rglob("*") if p.is_file())


def test_the_planted_values_are_found_by_this_test(export):
    names = "\n".join(str(path.relative_to(export)) for path in export.rglob("*"))
    assert len(leaks(names)) > 10


def test_no_output_of_the_command_names_anybody(export, tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.DEBUG):
        said = CliRunner().invoke(app, ["scan", str(export), "--out", "out/study.json"], catch_exceptions=False)
    assert said.exit_code == 0
    assert leaks(said.output + caplog.text + "".join(capfd.readouterr())) == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "study.html",
        "study.json",
        "study.left_out.csv",
    ]
    assert leaks(everything_below(tmp_path / "out")) == []


def test_a_scanned_folder_named_after_the_patient_is_not_printed(tmp_path, monkeypatch):
    write_series(tmp_path / "Müller_Jürgen_19610417", **WHO)
    write_series(tmp_path / "Müller_Jürgen_19610417/bad", [0], **WHO)
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["scan", "Müller_Jürgen_19610417", "--out", "out/study.json"])
    assert said.exit_code == 0
    assert "THE_SCANNED_FOLDER" in said.output
    assert leaks(said.output + everything_below(tmp_path / "out")) == []


def test_nothing_usable_below_a_folder_named_after_the_patient(tmp_path):
    write_series(tmp_path / "Müller_Jürgen", [0], **WHO)
    with pytest.raises(ValueError, match=r"nothing usable below the folder: 1 too few") as error:
        scan(tmp_path / "Müller_Jürgen", tmp_path / "out/study.json")
    assert leaks(str(error.value) + repr(error.value)) == []


def test_hidden_files_are_found_again_with_the_key(export, tmp_path):
    result = scan(export, tmp_path / "out/study.json", pictures=True)
    ids = [str(item["image"]) for item in result.sections["unlabelled"]]
    assert all(re.fullmatch(r"sub-[0-9a-f]{12}/(mr|image)-[0-9a-f]{16}", one) for one in ids)
    items = load_datalist(result.datalist, "unlabelled", dataset_dir=export)
    assert len(items) == len(result.sections["unlabelled"])
    assert all(LoadVolume()(item["image"]).shape[-1] >= 3 for item in items)
    assert leaks(" ".join(item["case"] for item in items)) == []
    assert leaks(repr(result)) == []


def test_one_patient_is_one_subject_whatever_the_folder(export, tmp_path):
    result = scan(export, tmp_path / "out/study.json")
    series = [item for item in result.sections["unlabelled"] if item["shape"][:2] == [6, 5]]
    assert len(series) == len(FOLDERS) + 4
    assert len({item["subject"] for item in series}) == 2


def test_the_same_key_gives_the_same_bytes_another_key_other_pseudonyms(export, tmp_path):
    key = new_key()
    first = scan(export, tmp_path / "a/study.json", key=key).datalist.read_bytes()
    assert scan(export, tmp_path / "b/study.json", key=key, workers=1).datalist.read_bytes() == first
    other = scan(export, tmp_path / "c/study.json", key=new_key())
    subjects = {item["subject"] for item in json.loads(first)["unlabelled"] if item["subject"].startswith("sub-")}
    assert subjects
    assert not subjects & {str(item["subject"]) for item in other.sections["unlabelled"]}


def test_loading_needs_the_key_of_the_scan(export, tmp_path, monkeypatch):
    result = scan(export, tmp_path / "out/study.json", key=new_key())
    find_or_make_key()
    with pytest.raises(ValueError, match=r"scanned with the key of fingerprint [0-9a-f]{8}, this one is"):
        load_datalist(result.datalist, "unlabelled", dataset_dir=export)
    monkeypatch.setenv("MONAI_CL_KEY", str(tmp_path / "absent.key"))
    with pytest.raises(FileNotFoundError, match=r"no key of pseudonyms at absent\.key; give the key"):
        load_datalist(result.datalist, "unlabelled", dataset_dir=export)


def test_a_volume_that_breaks_after_the_scan_is_named_by_what_the_list_says(export, tmp_path, caplog):
    result = scan(export, tmp_path / "out/study.json")
    items = load_datalist(result.datalist, "unlabelled", dataset_dir=export)
    for path in (path for path in export.rglob("*") if path.is_file()):
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(TooManyFaultsError, match=r"at most 5 % of the volumes may fail") as error:
        PreparedDataset(items, LoadVolumed("image"), max_faults=0.05)
    assert leaks(str(error.value) + caplog.text) == []
    assert re.search(r"mr-[0-9a-f]{16}: cut short", str(error.value))
    assert pickle.loads(pickle.dumps(items))[0]["image"] == items[0]["image"]


def test_files_of_a_series_are_not_named_where_their_folder_is(tmp_path, caplog):
    for number, file in enumerate(write_series(tmp_path / "scan_1")):
        file.rename(tmp_path / f"scan_1/Mueller{number}.dcm")
    cut = tmp_path / "scan_1/Mueller3.dcm"
    cut.write_bytes(cut.read_bytes()[:-7])
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": "scan_1"}]}))
    with pytest.raises(TooManyFaultsError, match="the pixel data of scan_1 ends early") as error:
        PreparedDataset(load_datalist(tmp_path / "list.json"), LoadVolumed("image"))
    assert "Mueller" not in str(error.value) + caplog.text


def test_a_fault_of_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "Mueller").mkdir()
    monkeypatch.setattr("monai_cl.privacy.hidden_paths.os.listdir", refuse)
    for shown in ("sub-0123456789ab/ct-0123456789abcdef", "hidden-0123456789ab"):
        item = {"image": HiddenPath(str(tmp_path / "Mueller"), shown)}
        assert without_hidden(f"cannot list {tmp_path}/Mueller", item) == f"cannot list {shown}"


def test_the_folder_of_the_data_is_not_named_by_a_series_that_fills_it():
    item = {"image": [HiddenPath(f"/scans/Mueller/{name}.dcm", f"{name}.dcm") for name in "12"]}
    text = "cannot read the DICOM series at /scans/Mueller: 1.dcm ends early, as /scans/Mueller/2.dcm does"
    assert without_hidden(text, item) == "cannot read the DICOM series at the folder: 1.dcm ends early, as 2.dcm does"


def test_files_of_another_program_are_named_by_ids(tmp_path, caplog, monkeypatch):
    names = [tmp_path / name for name in ("Mueller.nii.gz", "la_003.nii.gz")]
    for name in names:
        name.touch()
    items = [{"image": str(name), "label": str(names[0])} for name in names]
    load = LoadVolumed(["image", "label"])
    with pytest.raises(
        TooManyFaultsError, match=r"dir-[0-9a-f]{16}/la_003\.nii\.gz: ValueError: cannot read d"
    ) as error:
        PreparedDataset(items, load)
    assert "the file is empty" in str(error.value)
    assert "Mueller" not in str(error.value) + caplog.text
    (file,) = set(re.findall(r"file-[0-9a-f]{16}", caplog.text))
    assert look_up(file) == [(file, str(names[0]))]
    with pytest.raises(TooManyFaultsError, match="a volume: "):
        PreparedDataset([{"image": [1]}], load)
    monkeypatch.setenv("MONAI_CL_KEY", str(names[0] / "key"))  # which cannot be made
    with pytest.raises(TooManyFaultsError, match="a file: ValueError: cannot read a file: the file is empty"):
        PreparedDataset(items[:1], load)


def test_names_are_shown_on_request(export, tmp_path):
    result = scan(export, tmp_path / "out/study.json", hide_names=False)
    assert "MRN-0048213" in [item["image"] for item in result.sections["unlabelled"]]


def test_fields_of_a_dataset_json_are_looked_through(tmp_path):
    write_series(tmp_path / "data/s", **WHO)
    entry = {"image": "s", "remark": "patient Mueller came on 20190823", "subject": "Juergen", "site": "left"}
    entry |= {"born": 1961, "number": 48213, "Juergen": 1, "age": 57, "seen": [23, 8, 2019]}
    (tmp_path / "data/dataset.json").write_text(json.dumps({"unlabelled": [entry], "description": "MRN-0048213 alone"}))
    result = scan(tmp_path / "data", tmp_path / "out/study.json")
    assert leaks(everything_below(tmp_path / "out")) == []
    fields = result.sections["unlabelled"][0].keys()
    assert fields - {"modality", "sequence", "body_part", "spacing", "shape"} == {"image", "subject", "site"}
    assert {"modality", "sequence", "body_part", "spacing", "shape"} < fields
    told = {text: len(found) for text, found in result.notes.items()}
    assert told == {
        "texts of dataset.json that might name somebody, left out or replaced": 1,
        "field values that might name somebody, left out or replaced": 6,
    }


def test_a_dataset_json_names_nobody_by_its_name_or_by_its_folder(tmp_path):
    write_series(tmp_path / "data/Juergen/s", **WHO)
    listing = {"unlabelled": [{"image": "Juergen/s"}], "name": "Scans of Mueller"}
    (tmp_path / "data/dataset.json").write_text(json.dumps(listing))
    scan(tmp_path / "data", tmp_path / "out/study.json")
    assert leaks(everything_below(tmp_path / "out")) == []
    (tmp_path / "data/Juergen/dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot read dir-[0-9a-f]{16}/dataset\.json: ") as error:
        scan(tmp_path / "data", tmp_path / "out/study.json")
    assert leaks(str(error.value)) == []


# What is hidden


def concealer(**tags: tuple[str, ...]) -> Concealer:
    found = Concealer()
    values = {name: tuple(text.encode() for text in tags.get(name, ())) for name in ("names", "ids", "dates")}
    found.learn(Person(**values, charset="ISO_IR 192"))
    return found


def test_sections_that_share_a_subject_are_named_as_the_list_names_them(tmp_path):
    data = tmp_path / "data"
    for number in range(2):
        write_volume(data / f"imagesTr/case_{number}.nii.gz", number)
    entries = [{"image": f"imagesTr/case_{number}.nii.gz", "subject": "p1"} for number in range(2)]
    (data / "dataset.json").write_text(json.dumps({"Mueller": entries[:1], "test": entries[1:]}))
    result = scan(data, tmp_path / "list.json")
    (name,) = json.loads((tmp_path / "list.json").read_text()).keys() & {key for key in result.counts if "-" in key}
    assert list(result.notes) == [f"subject both in {name} and in test"]
    shown = scan(data, tmp_path / "shown.json", hide_names=False)
    assert list(shown.notes) == ["subject both in Mueller and in test"]


@pytest.mark.parametrize(
    "component",
    [
        "smith",
        "T1_SMITH",
        "xSmithx",
        "JohnSmith",
        "Smi_john",
        "smit.dcm",
        "li",
        "Li_T1",
        "2007-11-02",
        "id55519",
        "071102",
    ],
)
def test_parts_of_known_identities_are_hidden(component):
    assert concealer(names=("Smith^John", "Li^B"), ids=("A-55519",), dates=("20071102",)).knows(component)


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("Żółw^Łukasz", "zolw_lukasz"),
        ("Sørensen^Bjørn", "SORENSEN"),
        ("Đorđević^Ana", "dordevic"),
        ("Þór^Guðrún", "gudrun"),
    ],
)
def test_names_are_found_as_they_are_spelled_without_their_own_letters(name, component):
    assert concealer(names=(name,)).knows(component)


@pytest.mark.parametrize("tag", ["RequestingPhysician", "ConsultingPhysicianName", "PhysiciansOfRecord"])
def test_physicians_are_hidden(tmp_path, tag):
    write_series(tmp_path / "data/quacksalber", **{tag: "Quacksalber^Hedwig"})
    scan(tmp_path / "data", tmp_path / "out/study.json")
    assert leaks(everything_below(tmp_path / "out")) == []


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths stated", "lengths open"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_ids_of_other_hospitals_are_hidden(tmp_path, syntax, undefined):
    """Ids that stand in a sequence of the header, whether its items tell their length or end with a mark."""
    item, other, kind = Dataset(), Dataset(), Dataset()
    item.PatientID, other.PatientID, kind.CodeValue = "LEGACY-558123", "Q7W9KX", "R"
    other.IssuerOfPatientIDQualifiersSequence = [kind]
    for number in range(6):
        dataset = slice_dataset(number, "1.2.3", OtherPatientIDsSequence=[item, other])
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["OtherPatientIDsSequence"].is_undefined_length = undefined
        for each in dataset.OtherPatientIDsSequence:
            each.is_undefined_length_sequence_item = undefined
        folder = tmp_path / "export" / "knee_Q7W9KX" / "558123_T1"
        folder.mkdir(parents=True, exist_ok=True)
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    scan(tmp_path / "export", tmp_path / "out" / "study.json")
    found = everything_below(tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "study.json").read_text())["unlabelled"]) == 1
    assert not [secret for secret in ("558123", "Q7W9KX", "LEGACY") if secret in found]


def test_alias_keeps_the_suffix_and_tells_nothing_without_the_key(tmp_path):
    alias = alias_of("Smith.nii.gz", Key(b"0" * 32))
    assert alias.endswith(".nii.gz")
    assert alias != alias_of("Smith.nii.gz", Key(b"1" * 32))
    (tmp_path / "Smith.nii.gz").touch()
    assert Finder(tmp_path, Key(b"0" * 32))(alias) == "Smith.nii.gz"
    with pytest.raises(FileNotFoundError, match="is not below the dataset folder under this key"):
        Finder(tmp_path, Key(b"1" * 32))(alias)
    with pytest.raises(NotADirectoryError, match=rf"^{alias}/{alias} cannot be looked for: .*\(Not a directory\)$"):
        Finder(tmp_path, Key(b"0" * 32))(f"{alias}/{alias}")


def test_names_that_are_no_text_are_hidden_and_found_again(tmp_path):
    root = os.fsencode(tmp_path / "data") + b"/\xff\xfe"
    write_series(tmp_path / "data/s")
    os.rename(tmp_path / "data/s", root)
    result = scan(tmp_path / "data", tmp_path / "out/study.json")
    (item,) = load_datalist(result.datalist, "unlabelled", dataset_dir=tmp_path / "data")
    assert LoadVolume()(item["image"]).shape[-1] == 6


# The words of messages


def details(result) -> dict[str, str]:
    with result.exclusions.open(newline="") as stream:
        return {row["reason"]: row["detail"] for row in csv.DictReader(stream)}


def test_folders_that_are_called_like_words_of_a_message_leave_the_message_whole(tmp_path):
    data = tmp_path / "data"
    write_series(data / "theirs")
    (data / "this").symlink_to("theirs")
    write_series(tmp_path / "leads")
    (data / "leads").symlink_to(tmp_path / "leads")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4)), np.eye(4)), data / "needed.nii")
    (data / "empty").mkdir()
    (data / "empty" / "again.nii").touch()
    written = details(scan(data, tmp_path / "out/study.json"))
    assert written["outside the scanned folder"] == "a link leads there; scan the folder that it leads to"
    assert written["second name by a link"] == "this folder is scanned under its other name"
    assert written["2-D"] == "4 x 4 voxels, a volume is needed"
    assert written["zero bytes"] == "the file is empty; copy it again"


def test_a_file_is_hidden_where_a_message_quotes_it_and_not_where_its_name_is_a_word_of_it(tmp_path):
    files = write_series(tmp_path / "data/header", PatientName="Early^Copy")
    write_series(tmp_path / "data/good")
    files[0].write_bytes(files[0].read_bytes()[:-20])
    os.rename(files[0], tmp_path / "data/header/truncated")
    hidden = details(scan(tmp_path / "data", tmp_path / "out/study.json"))["cut short"]
    message = "the pixel data of {} ends early (truncated); copy the file again"
    assert re.fullmatch(re.escape(message).replace(r"\{\}", "file-[0-9a-f]{16}"), hidden)
    shown = details(scan(tmp_path / "data", tmp_path / "out/study.json", hide_names=False))["cut short"]
    assert shown == message.format("truncated")


def test_a_copy_names_its_original_once_where_both_lie_in_one_folder(tmp_path):
    first = write_series(tmp_path / "data/Juergen/Mueller", **WHO)[0]
    shutil.copy(first, first.parent / "zz_again")
    result = scan(tmp_path / "data", tmp_path / "out/study.json")
    (image,) = (item["image"] for item in result.sections["unlabelled"])
    assert details(result) == {"copy of another file": f"same image as {image}"}


def test_a_value_of_a_header_in_a_message_is_hidden_where_it_is_a_name(tmp_path):
    write_series(tmp_path / "data/good")
    write_series(tmp_path / "data/s", ImageType=["DERIVED", "SMITH"], PatientName="Smith^Scan")
    hidden = details(scan(tmp_path / "data", tmp_path / "out/study.json"))["derived image"]
    assert hidden.startswith("ImageType is [hidden]: computed from other images")
    assert hidden.endswith("; scan with --keep-derived to keep it")


@pytest.mark.parametrize(
    ("reason", "tags", "shown", "hidden"),
    [
        ("derived image", {"ImageType": ["DERIVED", "PRIMARY", "MUELLER"]}, "DERIVED\\PRIMARY\\", "MUELLER"),
        ("localiser", {"ImageType": ["ORIGINAL", "LOCALIZER", "DOE JANE"]}, "ORIGINAL\\LOCALIZER\\", "DOE JANE"),
        ("modality is not CT or MR", {"Modality": "MUELLER"}, "modality is ", "MUELLER"),
        ("modality is not CT or MR", {"Modality": "PT"}, "modality is PT", ""),
    ],
)
def test_free_text_of_headers_is_in_no_message(tmp_path, reason, tags, shown, hidden):
    write_series(tmp_path / "data/good")
    write_series(tmp_path / "data/s", **tags)  # no tag of a person says who MUELLER is
    detail = details(scan(tmp_path / "data", tmp_path / "out/study.json"))[reason]
    assert shown in detail
    assert not any(name in detail for name in ("MUELLER", "DOE"))
    assert detail.count("[hidden]") == len(hidden.split())
    assert f"{shown}{hidden}" in details(scan(tmp_path / "data", tmp_path / "s.json", hide_names=False))[reason]


def test_kinds_of_frames_and_encodings_are_terms_of_the_standard(tmp_path, caplog):
    write_series(tmp_path / "data/good")
    multi_frame(tmp_path / "data/kinds/f.dcm", [(1, 0)] * 6, kinds=["M", "MUELLER"] * 3)
    odd = slice_dataset(0, "1.2.9")
    odd.save_as(tmp_path / "data/odd.dcm", enforce_file_format=True)
    content = (tmp_path / "data/odd.dcm").read_bytes()
    uid = str(ExplicitVRLittleEndian).encode().ljust(20, b"\0")
    assert content.count(uid) == 1
    (tmp_path / "data/odd.dcm").write_bytes(content.replace(uid, b"1.2.MUELLER.19640305"))
    found = details(scan(tmp_path / "data", tmp_path / "out/study.json"))
    kinds = "ORIGINAL\\PRIMARY\\T1\\M; ORIGINAL\\PRIMARY\\T1\\[hidden]"
    assert found["4-D"] == f"frames of 2 kinds in one file ({kinds}); export each as a series of its own"
    assert "is stored as an unknown transfer syntax; " in found["unsupported compression"]
    assert "MUELLER" not in everything_below(tmp_path / "out") + caplog.text


def test_what_pydicom_logs_of_headers_is_hidden_until_the_outermost_reader_is_done(caplog):
    with without_warnings_of_dicom():
        with without_warnings_of_dicom():
            logging.getLogger("pydicom").warning("inner")
        logging.getLogger("pydicom").warning("outer")
    logging.getLogger("pydicom").warning("later")
    assert [record.message for record in caplog.records] == ["later"]


def test_an_entry_that_names_no_image_is_reported_without_the_name_of_its_section(tmp_path):
    write_volume(tmp_path / "data/imagesTr/case_0.nii.gz", 0)
    entries = [{"image": "imagesTr/case_0.nii.gz"}, {"image": None}]
    (tmp_path / "data/dataset.json").write_text(json.dumps({"Mueller": entries, "test": [{"image": 3}]}))
    scan(tmp_path / "data", tmp_path / "out/study.json")
    table = (tmp_path / "out/study.left_out.csv").read_text()
    assert all(f"in section '{name}'" in table for name in ("[hidden]", "test"))
    assert "Mueller" not in everything_below(tmp_path / "out")
    shown = scan(tmp_path / "data", tmp_path / "s.json", hide_names=False)
    assert {entry.detail for entry in shown.left_out} == {"in section 'Mueller'", "in section 'test'"}


def test_a_message_of_unknown_make_is_a_quote_as_a_whole():
    names = ScanNames(new_key(), True, concealer(names=("Smith^John",)))
    text = "mueller/a1.dcm of Smith"
    (entry,) = names.left_out([LeftOut(("mueller/a1.dcm",), "cut short", text)])
    assert re.fullmatch(r"file-[0-9a-f]{16} of \[hidden\]", entry.detail)


def test_messages_within_a_message_keep_their_own_words():
    inner = Quoting("{} lacks a place", "smith.dcm")
    message = Quoting("{}; the same image as {}", inner, "smith/b")
    assert message == "smith.dcm lacks a place; the same image as smith/b"
    assert message.quotes == ("smith.dcm", "smith/b")
    for again in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert again.with_quotes(str.upper) == "SMITH.DCM lacks a place; the same image as SMITH/B"
    assert Quoting("a pair of {}").with_quotes(str.upper) == "a pair of {}"
    with pytest.raises(ValueError, match="with 1 places needs as many quotes, got 2"):
        Quoting("{}", "a", "b")


# The key


def test_key_is_made_once_for_its_owner_alone(tmp_path):
    place = tmp_path / "new/key"
    key = find_or_make_key(place)
    assert find_or_make_key(place) == key
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert key.secret.hex() not in repr(key)


def test_key_must_lie_apart_from_the_scans(tmp_path):
    write_series(tmp_path / "s")
    with pytest.raises(ValueError, match="must lie outside the scanned folder"):
        scan(tmp_path, tmp_path / "study.json", key=tmp_path / "key")


def test_open_or_damaged_keys_are_refused(tmp_path):
    find_or_make_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(ValueError, match="can be read by others than its owner; chmod 600 it"):
        read_key(tmp_path / "key")
    (tmp_path / "bad").write_text("not hexadecimal")
    with pytest.raises(ValueError, match="bad is no key of pseudonyms"):
        read_key(tmp_path / "bad")
