"""Ids, the table that says which file each is, masks that are never overwritten, and whose they are."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import write_volume
from dicom_series import write_series, write_slice
from monai.data import MetaTensor
from typer.testing import CliRunner

from monai_cl.cli import app
from monai_cl.data import MaskFiles, few_labels, find_images, load_datalist, scan, scans_of
from monai_cl.datalist import drawn_by, read_datalist, subject_of
from monai_cl.privacy.ids import make_token, tokens_in
from monai_cl.privacy.lookup import UNKNOWN, look_up
from monai_cl.privacy.mask_record import Note, hash_of, note_mask, read_notes
from monai_cl.privacy.plain import is_plain, is_plain_path, is_plain_value
from monai_cl.privacy.pseudonyms import Key, find_or_make_key, read_key
from monai_cl.privacy.table import IdTable
from monai_cl.transforms import SaveMask

SUBJECTS = ("sub-01", "sub-02", "sub-03")
NAMES = Path(__file__).parents[2] / "shared/cases/names.txt"


@pytest.fixture(autouse=True)
def key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key of its own for each test, and no table yet."""
    place = tmp_path_factory.mktemp("of_mine") / "pseudonym.key"
    monkeypatch.setenv("MONAI_CL_KEY", str(place))
    return place


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """Scans of three patients under one base name."""
    for number, subject in enumerate(SUBJECTS):
        write_volume(tmp_path / "data" / subject / "T1w.nii.gz", number, shape=(8, 8, 8))
    return tmp_path / "data"


def listed(folder: Path, *images: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list.json").write_text(json.dumps({"test": [{"image": image} for image in images]}))
    return folder / "list.json"


def write_masks(items: list[dict], out: Path, **options: object) -> list[Path]:
    files = MaskFiles(items, out, **options)
    written = []
    for number, item in enumerate(items):
        image = item["image"][0] if isinstance(item["image"], list) else item["image"]
        written.append(Path(files.filename(image)))
        written[-1].write_bytes(b"mask %d" % number)
    del files  # the bytes of the last are noted
    return written


# Masks


@pytest.mark.parametrize("hide_names", [True, False])
@pytest.mark.parametrize("way", ["absolute", "up", "mixed"])
def test_scans_of_one_base_name_get_a_mask_each(alike: Path, tmp_path: Path, way: str, hide_names: bool) -> None:
    absolute = [str(alike / subject / "T1w.nii.gz") for subject in SUBJECTS]
    up = [f"../data/{subject}/T1w.nii.gz" for subject in SUBJECTS]
    paths = {"absolute": absolute, "up": up, "mixed": [absolute[0], up[1], f"../../{tmp_path.name}/{up[2][3:]}"]}[way]
    (tmp_path / "from").mkdir()
    items = find_images(tmp_path / "from", datalist=listed(tmp_path, *paths), hide_names=hide_names)
    masks = write_masks(items, tmp_path / "out", hide_names=hide_names)
    assert len(set(masks)) == 3
    assert all(mask.resolve().is_relative_to(tmp_path / "out") and mask.is_file() for mask in masks)
    if hide_names:
        assert [scans_of(mask)[str(mask)] for mask in masks] == absolute
        assert str(tmp_path) not in "".join(str(mask.relative_to(tmp_path / "out")) for mask in masks)
    else:
        assert all(subject in str(mask) for subject, mask in zip(SUBJECTS, masks, strict=True))


def test_a_scan_that_a_list_has_twice_gets_one_mask(alike: Path, tmp_path: Path) -> None:
    both = listed(tmp_path, "sub-01/T1w.nii.gz", str(alike / "sub-01/T1w.nii.gz"))
    assert len(find_images(alike, datalist=both)) == 1


def test_masks_that_would_share_a_file_stop_the_run_before_it_starts(tmp_path: Path) -> None:
    items = [{"image": f"/a/{case}.nii", "case": case, "place": "x/../one"} for case in ("mr-1", "mr-2")]
    with pytest.raises(ValueError, match=r"got one name for those of mr-1 and mr-2: one_seg\.nii\.gz; give"):
        MaskFiles(items, tmp_path)
    shared = [{"image": ["/a/1", "/a/2"], "place": "one"}, {"image": ["/a/2", "/a/3"], "place": "two"}]
    with pytest.raises(ValueError, match="a file that is part of two items, two and one; list it once"):
        MaskFiles(shared, tmp_path)
    for place in ("../x", "/x"):
        with pytest.raises(ValueError, match=r"masks must lie below .* that of mr-1 would not"):
            MaskFiles([items[0] | {"place": place}], tmp_path)


def test_whose_answers_for_what_is_certain_alone(alike: Path, tmp_path: Path) -> None:
    items = find_images(alike, datalist=listed(tmp_path, *(str(alike / s / "T1w.nii.gz") for s in SUBJECTS)))
    masks = write_masks(items, tmp_path / "out")
    place = tmp_path / "elsewhere"
    place.mkdir()
    by_name = shutil.copytree(masks[0].parent, place / masks[0].parent.name) / masks[0].name
    by_bytes = shutil.copy(masks[1], place / "renamed.nii.gz")
    edited = place / "T1w_seg.nii.gz"  # the base name of all three, and bytes of none
    edited.write_bytes(b"another")
    first, second = (str(alike / subject / "T1w.nii.gz") for subject in SUBJECTS[:2])
    assert scans_of(place) == {str(by_name): first, str(by_bytes): second}
    assert dict(look_up(place))[str(edited)] == UNKNOWN
    masks[0].write_bytes(b"corrected by hand")
    assert scans_of(masks[0]) == {str(masks[0]): first}
    with pytest.raises(FileNotFoundError, match=r"none of the 1 masks at .* is on record"):
        scans_of(edited)
    said = CliRunner().invoke(app, ["whose", str(place)])
    assert f"{edited}\tnot on record\n" in said.output
    assert f"{by_name}\t{first}\n" in said.output


def test_masks_with_the_same_bytes_tell_nothing(alike: Path, tmp_path: Path) -> None:
    items = find_images(alike)
    files = MaskFiles(items, tmp_path / "out")
    for item in items:
        Path(files.filename(item["image"])).write_bytes(b"empty")
    del files
    lost = tmp_path / "lost.nii.gz"
    lost.write_bytes(b"empty")
    with pytest.raises(FileNotFoundError, match="is on record"):
        scans_of(lost)


def test_of_two_notes_of_a_mask_the_last_counts(tmp_path: Path, key: Path) -> None:
    mask = tmp_path / "m_seg.nii.gz"
    mask.touch()
    note_mask(Note(str(mask), "/first"))
    with open(key.with_name("masks.csv"), "a") as stream:
        stream.write(f"{mask},/cut in mid-")  # its writer was killed
    note_mask(Note(str(mask), "/sec,ond\n\udcff"))
    assert scans_of(mask) == {str(mask): "/sec,ond\n\udcff"}
    assert stat.S_IMODE(key.with_name("masks.csv").stat().st_mode) == 0o600


def test_a_run_given_again_notes_nothing_twice(alike: Path, tmp_path: Path, key: Path) -> None:
    items = find_images(alike)
    write_masks(items, tmp_path / "out")
    before = key.with_name("masks.csv").read_bytes()
    write_masks(items, tmp_path / "out")
    assert key.with_name("masks.csv").read_bytes() == before
    assert len(read_notes()) == 6


def test_the_bytes_of_a_mask_are_noted_once_it_is_written(alike: Path, tmp_path: Path) -> None:
    files = MaskFiles(find_images(alike), tmp_path / "out")
    image = files.items[0]["image"]
    SaveMask(files)(MetaTensor(torch.ones(1, 8, 8, 8), meta={"filename_or_obj": image}))
    known = [note.sha256 for note in read_notes()]
    assert known == ["", hash_of(files.filename(image))]  # `files` is alive


def test_notes_of_version_0_1_0_go_on(tmp_path: Path, key: Path) -> None:
    mask = tmp_path / "hidden-0123456789ab_seg.nii.gz"
    mask.touch()
    key.with_name("masks.csv").write_text(f"mask,scan\n{mask},/old\n")
    note_mask(Note("/b_seg.nii.gz", "/new"))
    assert scans_of(mask) == {str(mask): "/old"}
    assert read_notes()[-1] == ("/b_seg.nii.gz", "/new", "")


# The table


def test_the_table_is_for_its_owner_adds_and_never_changes(key: Path) -> None:
    find_or_make_key()
    table = IdTable()
    with pytest.raises(FileNotFoundError, match=r"no table of ids at pseudonym\.ids; copy it .* MONAI_CL_KEY"):
        table.find(["ct-0123456789abcdef"])
    odd = os.fsdecode(b"m\xfcller/\xff\n.nii")
    table.add({"ct-a": odd, "mr-b": ["two", "files"]})
    before = table.path.read_bytes()
    table.add({"ct-a": odd})
    assert table.path.read_bytes() == before
    assert table.find(["mr-b", "none", "ct-a"]) == {"ct-a": [odd], "mr-b": ["two", "files"]}
    assert stat.S_IMODE(table.path.stat().st_mode) == 0o600
    with pytest.raises(ValueError, match=r"ct-a is known as another file in pseudonym\.ids"):
        table.add({"ct-a": "other"})
    table.path.chmod(0o640)
    with pytest.raises(ValueError, match=r"pseudonym\.ids can be read by others than its owner; chmod 600 it"):
        table.find(["ct-a"])
    table.path.chmod(0o600)
    table.path.write_bytes(b"no database" * 200)
    with pytest.raises(
        ValueError, match=r"pseudonym\.ids is no table of ids .* scan the study again with the same key"
    ):
        table.find(["ct-a"])


def _add_many(start: int) -> None:
    for block in range(20):
        IdTable().add({f"ct-{n}": f"folder/{n}" for n in range(start + 50 * block, start + 50 * block + 100)})


def test_writers_at_the_same_time_lose_nothing(key: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add_many, args=(start,)) for start in (0, 500, 900)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(IdTable().find(f"ct-{n}" for n in range(3000))) == 1950
    assert len({find_or_make_key(key).fingerprint for _ in range(2)}) == 1


def test_a_writer_killed_in_mid_write_leaves_the_table_whole(key: Path) -> None:
    IdTable().add({"ct-a": "first"})
    code = (
        "import os, sqlite3, sys, time\n"
        "c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN')\n"
        "c.executemany('INSERT INTO files VALUES (?, ?)', ((f'x{n}', bytes(2000)) for n in range(2000)))\n"
        "print('half', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(IdTable().path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"half\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert IdTable().find(["ct-a", "x1"]) == {"ct-a": ["first"]}
    IdTable().add({"ct-b": "second"})
    connection = sqlite3.connect(IdTable().path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_table_of_many_is_quick(key: Path) -> None:
    IdTable().add({f"ct-{n:016x}": f"series/{n}" for n in range(100_000)})
    start = time.process_time()
    assert len(IdTable().find(f"ct-{n:016x}" for n in range(0, 100_000, 1000))) == 100
    assert time.process_time() - start < 1


# Scan


def export(root: Path) -> Path:
    write_series(root / "Mueller Hans/05Mar1964")
    for number in range(2):  # two series in one folder
        for file in write_series(root / "both"):
            file.rename(file.with_name(f"Hans{number}{file.name}"))
    write_volume(root / "imagesTr/Mueller.nii.gz", 0)
    write_volume(root / "labelsTr/Mueller.nii.gz", 0, label=True)
    write_slice(root / "Mueller Hans/few/a", 0, "1.2.3")
    (root / "Hans.nii.gz").touch()
    return root


def test_ids_are_the_same_in_every_scan_and_whose_resolves_them(tmp_path: Path) -> None:
    root = export(tmp_path / "data")
    first = scan(root, tmp_path / "a/study.json").datalist.read_bytes()
    (root / "more").mkdir()
    write_volume(root / "more/x.nii.gz", 1)
    write_volume(root / "unlike.nii.gz", 2)
    second = scan(root, tmp_path / "b/study.json")
    ours = [item for items in second.sections.values() for item in items]
    assert {item["image"] for item in ours} > {
        item["image"] for name in ("training", "unlabelled") for item in json.loads(first)[name]
    }
    known = dict(look_up(second.datalist))
    items = load_datalist(second.datalist, ["training", "unlabelled"], dataset_dir=root)
    assert len(items) == len(ours) == 6
    for item in items:
        paths = item["image"] if isinstance(item["image"], list) else [item["image"]]
        assert known[tokens_in(item["case"])[0]] in [os.path.relpath(path, root) for path in paths]
    label = next(item["label"] for item in json.loads(first)["training"])
    assert look_up(label.split("/")[1]) == [(label.split("/")[1], "labelsTr/Mueller.nii.gz")]


def test_the_owner_finds_what_was_left_out(tmp_path: Path) -> None:
    result = scan(export(tmp_path / "data"), tmp_path / "study.json")
    text = result.exclusions.read_text()
    assert not [word for word in ("Mueller", "Hans", "few/") if word in text]
    assert set(dict(look_up(result.exclusions)).values()) == {"Hans.nii.gz", "Mueller Hans/few"}
    with open(result.exclusions, newline="") as stream:
        assert {row["reason"] for row in csv.DictReader(stream)} == {"zero bytes", "too few slices"}
    said = CliRunner().invoke(app, ["whose", str(result.exclusions)])
    assert "\tHans.nii.gz\n" in said.output


def test_a_study_moves_with_its_key_and_its_table(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = scan(export(tmp_path / "data"), tmp_path / "study.json")
    there = tmp_path / "another machine"
    shutil.copytree(tmp_path / "data", there / "scans")
    shutil.copy(result.datalist, there)
    monkeypatch.setenv("MONAI_CL_KEY", str(there / "pseudonym.key"))
    with pytest.raises(FileNotFoundError, match=r"no key of pseudonyms at pseudonym\.key"):
        load_datalist(there / "study.json", dataset_dir=there / "scans")
    shutil.copy(key, there)
    with pytest.raises(FileNotFoundError, match=r"no table of ids at pseudonym\.ids; copy it from where"):
        load_datalist(there / "study.json", dataset_dir=there / "scans")
    IdTable().add({"ct-0123456789abcdef": "of another study"})
    with pytest.raises(FileNotFoundError, match=r"2 of 2 ids are not in pseudonym\.ids, such as .*; copy the table"):
        load_datalist(there / "study.json", dataset_dir=there / "scans")
    shutil.copy(key.with_suffix(".ids"), there)
    (item,) = load_datalist(there / "study.json", dataset_dir=there / "scans")
    assert item["image"] == str(there / "scans/imagesTr/Mueller.nii.gz")
    (there / "scans/imagesTr/Mueller.nii.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 2 files .* are absent, such as sub-.*; paths start from"
    ) as error:
        load_datalist(there / "study.json", dataset_dir=there / "scans")
    assert "Mueller" not in str(error.value)


@pytest.mark.parametrize("extra", [{}, {"hide_names": False}])
def test_ids_copied_into_a_list_without_the_key_are_named_as_such(tmp_path: Path, extra: dict[str, bool]) -> None:
    result = scan(export(tmp_path / "data"), tmp_path / "study.json")
    scanned = json.loads(result.datalist.read_text())
    copied = {**extra, "training": scanned["training"]}
    (tmp_path / "mine.json").write_text(json.dumps(copied))
    with pytest.raises(FileNotFoundError, match=r'2 of them are ids of a scan, .* take over its line "key"'):
        load_datalist(tmp_path / "mine.json", dataset_dir=tmp_path / "data")
    (tmp_path / "mine.json").write_text(json.dumps({"training": scanned["training"], "key": scanned["key"]}))
    (item,) = load_datalist(tmp_path / "mine.json", dataset_dir=tmp_path / "data")
    assert item["image"] == str(tmp_path / "data/imagesTr/Mueller.nii.gz")


def test_old_lists_with_hidden_parts_are_found_as_before(tmp_path: Path) -> None:
    from monai_cl.privacy.hidden_paths import alias_of

    secret = find_or_make_key()
    write_volume(tmp_path / "Mueller/brain_1.nii.gz", 0)
    image = f"{alias_of('Mueller', secret)}/brain_1.nii.gz"
    content = {"key": secret.fingerprint, "unlabelled": [{"image": image, "subject": "x"}], "left_out": {}}
    (tmp_path / "old.json").write_text(json.dumps(content))
    (item,) = load_datalist(tmp_path / "old.json", "unlabelled")
    assert (item["case"], str(item["image"])) == ("brain_1", str(tmp_path / "Mueller/brain_1.nii.gz"))
    assert read_datalist(tmp_path / "old.json") == content


# Lists made by hand


def test_plain_names_stay_and_others_become_ids(tmp_path: Path) -> None:
    plain = ["imagesTr/hippocampus_001.nii.gz", "./imagesTr/la_003.nii.gz", "patient001_frame01.nii", "sub-01_T1w.nii"]
    other = ["Mueller/T1w.nii.gz", "imagesTr/Mueller.nii.gz", str(tmp_path / "case_7.nii.gz"), "5.3.1964/case_8.nii"]
    for path in (*plain, *other):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    items = load_datalist(listed(tmp_path, *plain, *other), "test")
    cases = [item["case"] for item in items]
    assert cases[:4] == ["hippocampus_001", "la_003", "patient001_frame01", "sub-01_T1w"]
    assert (cases[4], cases[6], cases[7]) == ("T1w", "case_7", "case_8")
    assert cases[5].startswith("file-")
    assert [str(item["image"]) for item in items] == [os.path.normpath(tmp_path / path) for path in (*plain, *other)]
    assert look_up(cases[5]) == [(cases[5], other[1])]


@pytest.mark.parametrize("image", ["images/heart_001.nii.gz", "images/mueller.nii.gz"])
def test_a_section_is_read_by_its_own_name_whatever_is_hidden_of_it(image: str, tmp_path: Path) -> None:
    path = tmp_path / image
    path.parent.mkdir()
    path.touch()
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({"mueller cohort": [{"image": image}]}))
    (item,) = load_datalist(listed, "mueller cohort", labelled=False)
    assert item["image"] == str(path)
    assert "mueller" not in json.dumps(read_datalist(listed))


def test_what_a_list_says_of_patients_classes_and_sections_is_looked_through(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "case_1.nii.gz").touch()
    entry = {"image": "case_1.nii.gz", "subject": "Hans", "seen": "5.3.1964", "age": 64, "spacing": [1, 1, 1.5]}
    content = {
        "name": "Mueller", "Hans": [entry], "labels": {"0": "background", "1": "Hans", "2": "left atrium"},
        "description": "of Hans Mueller", "licence": "CC-BY-SA 4.0", "training": [],
    }  # fmt: skip
    (tmp_path / "list.json").write_text(json.dumps(content))
    (item,) = load_datalist(tmp_path / "list.json", "Hans")
    assert item["spacing"] == [1, 1, 1.5]
    found = read_datalist(tmp_path / "list.json")
    assert found["labels"] == {"0": "background", "1": "class 1", "2": "left atrium"}
    assert found["licence"] == "CC-BY-SA 4.0"
    text = json.dumps([found, {**item, "image": ""}])
    assert not [word for word in ("Hans", "Mueller", "1964") if word in text]
    assert "2 field values and 2 texts of the datalist" in caplog.text
    for licence in ("CC BY-NC-SA 4.0", "Apache-2.0", "CC0 1.0"):
        (tmp_path / "list.json").write_text(json.dumps(content | {"licence": licence}))
        assert read_datalist(tmp_path / "list.json")["licence"] == licence
    (tmp_path / "list.json").write_text(json.dumps(content | {"licence": "CC-BY 4.0 of Hans Mueller"}))
    assert "licence" not in read_datalist(tmp_path / "list.json")
    (tmp_path / "list.json").write_text(json.dumps(content | {"hide_names": False}))
    assert load_datalist(tmp_path / "list.json", "Hans")[0]["subject"] == "Hans"


@pytest.mark.parametrize("image", [["Mueller.nii", 3], {"Mueller": 1}, 19640305, [["Mueller.nii"]]])
def test_what_stands_in_the_place_of_a_path_is_refused_without_its_names(tmp_path: Path, image: object) -> None:
    entries = [{"image": image, "label": {"Mueller": 2}}, {"image": "case_1.nii"}]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    with pytest.raises(ValueError, match=r"each entry of 'training' in .* needs a path as 'image', got ") as error:
        load_datalist(tmp_path / "list.json")
    assert not any(word in str(error.value) for word in ("Mueller", "1964"))
    (tmp_path / "list.json").write_text(json.dumps({"training": entries, "hide_names": False}))
    with pytest.raises(ValueError, match="Mueller"):
        load_datalist(tmp_path / "list.json")


def test_long_numbers_of_classes_and_foreign_keys_of_a_list_are_not_trusted(tmp_path: Path) -> None:
    labels = {"0": "background", "3": "liver", "12175": "gyrus", "19640305": "liver", "123456": "spleen"}
    curation = {"method": "every-n", "threshold": 6.0, "dropped": {"exact duplicate": 2, "picture is held out": 1}}
    content = {"test": [{"image": "case_1.nii"}], "labels": labels, "curation": curation}
    for name, value in (("key", "Mueller"), ("key", True), ("cache", "Mueller")):
        (tmp_path / "list.json").write_text(json.dumps(content | {name: value, "remark": "Mueller"}))
        found = read_datalist(tmp_path / "list.json")
        assert found["labels"] == {"0": "background", "3": "liver", "12175": "gyrus"}
        assert found["curation"] == curation
        assert "Mueller" not in json.dumps(found)
    for odd in ({"Mueller": 1}, {"method": "Mueller"}, {"dropped": {"Mueller": 2}}, ["Mueller"], 19640305):
        (tmp_path / "list.json").write_text(json.dumps(content | {"curation": odd}))
        assert "curation" not in read_datalist(tmp_path / "list.json")


def test_a_patient_without_a_name_is_the_image_as_the_list_has_it(tmp_path: Path) -> None:
    for name in ("Mueller.nii", "la_003.nii"):
        (tmp_path / name).touch()
    mixed = [{"image": ["Mueller.nii", "la_003.nii"]}, {"image": "la_003.nii"}]
    (tmp_path / "list.json").write_text(json.dumps({"training": mixed}))
    items = load_datalist(tmp_path / "list.json")
    hidden = make_token(read_key(), "file", "Mueller.nii")
    assert [subject_of(item) for item in items] == [f"{hidden}|la_003.nii", "la_003.nii"]
    assert drawn_by(items[1]) == str(tmp_path / "la_003.nii")
    with pytest.raises(ValueError, match=r"order of an item must be a number, got 'x' for file-") as error:
        few_labels([{"image": items[0]["image"], "order": "x"}], 1, seed=0)
    assert "Mueller" not in str(error.value)
    assert subject_of({}) == "None"


def test_draws_of_few_labels_do_not_depend_on_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [{"image": f"la_{n}.nii.gz", "subject": f"9DQYTIU00I{n}"} for n in range(12)]
    for entry in entries:
        (tmp_path / entry["image"]).touch()
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    draws = []
    for name in ("a", "b"):
        monkeypatch.setenv("MONAI_CL_KEY", str(tmp_path / name / "key"))
        items = load_datalist(tmp_path / "list.json", limit=4, seed=1)
        assert not any("9DQY" in str(item["subject"]) for item in items)
        draws.append([item["case"] for item in items])
    shown = [{**entry, "image": str(tmp_path / entry["image"])} for entry in entries]
    assert draws[0] == draws[1] == [Path(item["image"]).name[:-7] for item in few_labels(shown, 4, seed=1)]


def test_without_a_key_a_list_that_names_somebody_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MONAI_CL_KEY", str(tmp_path / "file/key"))
    with pytest.raises(OSError, match=r"neither read nor made: .*; set MONAI_CL_KEY .* add `\"hide_names\": false`"):
        load_datalist(listed(tmp_path, "Mueller.nii.gz"), "test")


# What is plain


@pytest.mark.parametrize(
    "path",
    """imagesTr/hippocampus_001.nii.gz ./labelsTr/la_003.nii.gz patient001_frame01 sub-01/anat/sub-01_ses-2_T1w.nii
    case_0001_0000.nii.gz s0123/ct.nii.gz T2_FLAIR 12-T1post-05670 vertebrae_L5 BraTS20_Training_001_t1.nii.gz a.nii
    imagesUnlabelled sub-07_T2starmap.json 00000017.dcm""".split(),  # noqa: SIM905
)
def test_names_of_public_studies_are_plain(path: str) -> None:
    assert is_plain_path(path)


VARIANTS = """6.4.1965 06-04-65 65-4-6 6_4_65 1965.096 1965_96 06Apr1965 6april65 Apr-06-1965 650406 19650406 T1_650406
    born1965 b.1965 y1965 case_1965 T2.4.65 L5.4.65 65/04/06 2019 0151-2345678 (030)12345 030-4711-12 555_123_4567
    +49761270 MRN-1234 MRN12 PAT482 PID_4821 48213 S48213 123-45-6789 ACC99CT1 SN4711 G12345 brain_Erika_Muster
    Ax_Erika ErikaMuster erika_muster Muster Wu_Li Li Ng Xu_1 Erika.Muster OMalley_Tim MacNeil Großmann Müller 佐藤 é
    佐 علي 박지성 e.muster@clinic.org St_Nowhere js_1 j.s. P-ü id7 1961-04""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", VARIANTS)
def test_names_numbers_and_dates_are_not_plain(name: str) -> None:
    assert not is_plain_path(name)
    assert not is_plain_path(f"imagesTr/{name}.nii.gz")
    assert "/" in name or not is_plain_value(name)


@pytest.mark.skipif(not NAMES.is_file(), reason="needs the list of made-up names in ../shared/cases")
def test_no_line_of_the_list_of_names_is_plain() -> None:
    for name in NAMES.read_text(encoding="utf-8").splitlines():
        for form in (name, f"{name}.nii.gz", name.removesuffix(".nii.gz"), name.casefold(), name.upper()):
            assert not is_plain(form), form


def test_tokens_depend_on_key_and_path() -> None:
    one, other = Key(b"0" * 32), Key(b"1" * 32)
    tokens = {make_token(k, "ct", path) for k in (one, other) for path in ("a", "b", ["a", "b"])}
    assert len(tokens) == 6


def test_the_room_loads_neither_torch_nor_monai() -> None:
    code = (
        "import sys, monai_cl.privacy.lookup, monai_cl.privacy.naming\n"
        "sys.exit(', '.join({'torch', 'monai', 'numpy', 'pydicom'} & set(sys.modules)) or None)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
