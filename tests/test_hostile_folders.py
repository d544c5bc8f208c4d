"""Folders of somebody else: links, pipes, deep JSON, odd names and sections, all without reading outside or waiting."""

import csv
import json
import os
import socket
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_series import write_series
from rich.console import Console
from typer.testing import CliRunner

from monai_cl._files import read_json
from monai_cl.cli import app
from monai_cl.data import load_datalist, scan
from monai_cl.data.cache.job import source_files
from monai_cl.datalist import read_datalist
from monai_cl.intake.scan import ScanResult
from monai_cl.io.maps.files import stated_unit
from monai_cl.report.study_page import write_study_page
from monai_cl.transforms import LoadVolume

OUTSIDE = "outside the scanned folder"
SECOND_NAME = "second name by a link"
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes of POSIX")


def volume(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).normal(0, 50, (9, 8, 7)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    volume(tmp_path / "data/good_001.nii.gz")
    return tmp_path / "data"


def scanned(folder: Path, **options: object) -> ScanResult:
    return scan(folder, folder.parent / "out/study.json", hide_names=False, **options)


def test_links_that_lead_out_are_counted_and_not_followed(data: Path, tmp_path: Path) -> None:
    volume(tmp_path / "elsewhere/secret_001.nii.gz")
    write_series(tmp_path / "elsewhere/series")
    (data / "file.nii.gz").symlink_to(tmp_path / "elsewhere/secret_001.nii.gz")
    (data / "folder").symlink_to(tmp_path / "elsewhere")
    (data / "up").symlink_to("..")
    (data / "chain.nii.gz").symlink_to("file.nii.gz")
    (data / "slice").symlink_to(next((tmp_path / "elsewhere/series").iterdir()))
    result = scanned(data)
    assert result.reasons == {OUTSIDE: 5}
    assert result.counts["training"] + result.counts["unlabelled"] == 1


def test_a_sibling_whose_name_begins_alike_is_outside(data: Path, tmp_path: Path) -> None:
    volume(tmp_path / "data_of_others/x_001.nii.gz")
    (data / "link").symlink_to("../data_of_others")
    assert scanned(data).reasons == {OUTSIDE: 1}


def images(result: ScanResult) -> set[str]:
    return {str(item["image"]) for items in result.sections.values() for item in items}


def test_each_file_counts_once_whatever_links_lead_to_it(data: Path, tmp_path: Path) -> None:
    volume(data / "store/b_002.nii.gz")
    (data / "a_003.nii.gz").symlink_to("store/b_002.nii.gz")
    (data / "chain_004.nii.gz").symlink_to("a_003.nii.gz")
    (data / "loop").symlink_to(".")
    (data / "store/up").symlink_to("..")
    (data / "again").symlink_to("store")  # comes first, so that its files have this name
    (tmp_path / "by_link").symlink_to(data)
    for folder in (data, tmp_path / "by_link"):
        result = scanned(folder)
        assert images(result) == {"again/b_002.nii.gz", "good_001.nii.gz"}
        assert result.reasons == {SECOND_NAME: 5}
        second = {entry.paths[0] for entry in result.left_out}
        assert second == {"a_003.nii.gz", "chain_004.nii.gz", "loop", "again/up", "store"}
    text = result.exclusions.read_text()
    assert "the same file as again/b_002.nii.gz, which is listed" in text


def test_a_link_from_one_given_folder_to_another_is_its_second_name(data: Path, tmp_path: Path) -> None:
    volume(tmp_path / "more/c_001.nii.gz")
    (data / "c_002.nii.gz").symlink_to(tmp_path / "more/c_001.nii.gz")
    result = scan([data, tmp_path / "more", data], tmp_path / "out/study.json", hide_names=False)
    assert images(result) == {"data/good_001.nii.gz", "more/c_001.nii.gz"}
    assert result.reasons == {SECOND_NAME: 1}


def test_a_second_name_is_hidden_as_any_other(data: Path, tmp_path: Path) -> None:
    (data / "Smith.nii.gz").symlink_to("good_001.nii.gz")
    result = scan(data, tmp_path / "out/study.json")
    assert result.reasons == {SECOND_NAME: 1}
    written = result.exclusions.read_text() + result.datalist.read_text()
    assert "Smith" not in written
    assert "good" not in written


def link(place: Path, *files: Path) -> None:
    """Make a folder of links to files, as what sorts an export by patients does."""
    place.mkdir(exist_ok=True)
    for file in files:
        (place / f"link_{file.name}").symlink_to(os.path.relpath(file, place))


IN_ORDER = [f"raw/{name}x" for name in ("011", "048", "085", "021", "058", "095")]
LINKED = {  # what is linked, the images that are listed, and what is left out
    "its folder": (lambda data, files: (data / "links").symlink_to("raw"), ["links"], {SECOND_NAME: 1}),
    "its files": (lambda data, files: link(data / "links", *files), ["raw"], {SECOND_NAME: 1}),
    "one of its files": (lambda data, files: link(data / "links", files[2]), ["raw"], {SECOND_NAME: 1}),
    "a file beside it": (lambda data, files: link(data / "raw", files[2]), [IN_ORDER], {SECOND_NAME: 1}),
    "another in a hidden folder": (
        lambda data, files: link(data / "links", *write_series(data / ".git/annex")), ["links", "raw"], {}
    ),
    "another outside": (
        lambda data, files: link(data / "links", *write_series(data.parent / "elsewhere")), ["raw"], {OUTSIDE: 6}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LINKED)
def test_a_series_is_listed_once_and_read_whatever_links_lead_to(case: str, tmp_path: Path) -> None:
    data, (build, listed, left_out) = tmp_path / "data", LINKED[case]
    build(data, write_series(data / "raw"))  # sorted behind the links
    for option in ("--hide-names", "--no-hide-names"):
        out = tmp_path / option / "study.json"
        command = ["scan", str(data), "--out", str(out), option, "--no-pictures"]
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
        assert read_json(out)["left_out"] == left_out
        items = load_datalist(out, "unlabelled", dataset_dir=data)
        assert len(items) == len(listed)
        for item in items:
            assert LoadVolume()(item["image"])[0, 0, 0].tolist() == [0, 100, 200, 300, 400, 500]  # slice by slice
    assert [item["image"] for item in read_json(out)["unlabelled"]] == listed


def test_a_link_to_a_slice_that_cannot_be_read_is_left_out_as_its_file(tmp_path: Path) -> None:
    files = write_series(tmp_path / "data/raw")
    files[0].write_bytes(files[0].read_bytes()[:-20])
    link(tmp_path / "data/links", *files)
    write_series(tmp_path / "data/good")
    result = scanned(tmp_path / "data")
    assert images(result) == {"good"}
    assert result.reasons == {"cut short": 1, SECOND_NAME: 1}  # a row of the series for each
    (cut,) = [entry for entry in result.left_out if entry.reason == "cut short"]
    assert cut.paths == ("links/link_011x", "raw")


def test_links_into_a_hidden_folder_are_names_like_any_other(data: Path) -> None:
    volume(data / ".git/annex/objects/MD5E-s9--1.nii.gz")
    for name in ("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"):  # one content, as DataLad keeps it
        (data / name).symlink_to(".git/annex/objects/MD5E-s9--1.nii.gz")
    result = scanned(data)
    assert images(result) == {"good_001.nii.gz", "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"}
    assert result.reasons == {}


def test_an_image_of_several_files_is_no_obstacle_to_links(data: Path) -> None:
    for number in range(2):
        volume(data / f"c_{number:04d}.nii.gz")
    (data / "second.nii.gz").symlink_to("good_001.nii.gz")
    listed = [{"image": ["c_0000.nii.gz", "c_0001.nii.gz"]}, {"image": "good_001.nii.gz"}, {"image": "second.nii.gz"}]
    (data / "dataset.json").write_text(json.dumps({"training": listed}))
    result = scanned(data)
    assert "good_001.nii.gz" in images(result)
    assert result.reasons[SECOND_NAME] == 1


def test_names_by_links_count_where_a_dataset_json_lists_them_or_a_label_belongs_to_them(data: Path) -> None:
    for name in ("a_002", "a_003", "b_002", "b_003"):
        volume(data / f"raw/{name}.nii.gz")
    for folder in ("listed", "study/imagesTr", "study/labelsTr"):
        (data / folder).mkdir(parents=True)
    (data / "listed/one.nii.gz").symlink_to("../raw/a_002.nii.gz")
    (data / "listed/truth.nii.gz").symlink_to("../raw/a_003.nii.gz")
    entry = {"image": "one.nii.gz", "label": "truth.nii.gz"}
    (data / "listed/dataset.json").write_text(json.dumps({"training": [entry]}))
    (data / "study/imagesTr/b.nii.gz").symlink_to("../../raw/b_002.nii.gz")
    (data / "study/labelsTr/b.nii.gz").symlink_to("../../raw/b_003.nii.gz")
    result = scanned(data)
    assert images(result) == {"good_001.nii.gz", "listed/one.nii.gz", "study/imagesTr/b.nii.gz"}
    labels = {item["label"] for item in result.sections["training"] if "label" in item}
    assert labels == {"listed/truth.nii.gz", "study/labelsTr/b.nii.gz"}
    assert result.reasons == {SECOND_NAME: 4}


@pytest.mark.parametrize("name", ["a.nii.gz", "b.nii", "c.dcm", "d.mha", "e.nrrd", "IM0001", "dataset.json"])
def test_pipes_and_sockets_are_counted_without_waiting(data: Path, name: str) -> None:
    os.mkfifo(data / name)
    with socket.socket(socket.AF_UNIX) as one:
        before = Path.cwd()
        os.chdir(data)  # names of sockets are short
        try:
            one.bind(f"s{name[-9:]}")
        finally:
            os.chdir(before)
        assert scanned(data).reasons == {"unreadable": 2}
    with pytest.raises(ValueError, match="a pipe, a socket or a device"):
        LoadVolume()(data / name)


def test_a_link_to_a_device_is_outside(data: Path) -> None:
    (data / "zero.nii").symlink_to("/dev/zero")
    assert scanned(data).reasons == {OUTSIDE: 1}
    with pytest.raises(ValueError, match="a pipe, a socket or a device"):
        LoadVolume()(data / "zero.nii")


DEEP = {
    "lists": "[" * 5000 + "]" * 5000,
    "objects": '{"a":' * 3000 + "1" + "}" * 3000,
    "below the limit of the interpreter": '{"a":' * 400 + "1" + "}" * 400,
}


@pytest.mark.parametrize("kind", DEEP)
def test_json_nested_without_end_is_refused(data: Path, kind: str) -> None:
    (data / "dataset.json").write_text(f'{{"training": [], "x": {DEEP[kind]}}}')
    with pytest.raises(ValueError, match=r"cannot read .*nested more than 64 deep; repair it, or remove it"):
        scanned(data)
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        read_datalist(data / "dataset.json")
    volume(data / "sub-01_T1map.nii.gz")
    (data / "sub-01_T1map.json").write_text(DEEP[kind])
    with pytest.raises(ValueError, match="cannot read the sidecar of a map"):
        stated_unit(data / "sub-01_T1map.nii.gz", "T1map", "a map")


def test_json_through_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "section", ["notes", "key", "left_out", "labels", "name", "modality", "description", "hide_names", "cache"]
)
@pytest.mark.parametrize("hide", [True, False])
def test_sections_named_like_fields_lose_nothing(data: Path, section: str, hide: bool) -> None:
    volume(data / "more_002.nii.gz")
    entries = {"training": [{"image": "good_001.nii.gz"}], section: [{"image": "more_002.nii.gz"}]}
    (data / "dataset.json").write_text(json.dumps(entries))
    result = scan(data, data.parent / "out/study.json", hide_names=hide)
    assert sum(result.counts.values()) == 2
    content = json.loads(result.datalist.read_text())
    assert content["key"] == content["key"][:64]
    assert isinstance(content["left_out"], dict)
    assert isinstance(content["notes"], dict)
    assert sum(len(items) for items in content.values() if isinstance(items, list)) == 2
    assert any(f"{section!r} is a field of the datalist" in note for note in result.notes) or hide


def test_fields_of_an_entry_do_not_stand_for_those_of_the_file(data: Path) -> None:
    entry = {
        "image": "good_001.nii.gz",
        "shape": [1],
        "spacing": "x",
        "cached": {"image": {"file": "../../x"}},
        "age": 5,
    }
    (data / "dataset.json").write_text(json.dumps({"training": [entry]}))
    result = scanned(data)
    (item,) = result.sections["unlabelled"] or result.sections["training"]
    assert (item["shape"], item["spacing"], item["age"]) == ([9, 8, 7], [2.0, 2.0, 2.0], 5)
    assert "cached" not in item


def test_names_that_are_no_utf8_pass_through_every_output(data: Path) -> None:
    odd = data / os.fsdecode(b"caf\xe9_002.nii.gz")
    volume(data / "x.nii.gz").rename(odd)
    (data / os.fsdecode(b"\xff\xfe.nii.gz")).write_bytes(b"no image")
    (data / "dataset.json").write_text(
        r'{"name": "a\ud800b", "training": [{"image": "good_001.nii.gz"}],'
        r' "x\udfff": [{"image": "caf\udce9_002.nii.gz"}]}'
    )
    for hide in (True, False):
        result = scan(data, data.parent / "out/study.json", hide_names=hide, pictures=True)
        assert sum(result.counts.values()) == 2
        assert result.datalist.read_bytes().decode("utf-8")
        rows = list(csv.reader(result.exclusions.read_text(encoding="utf-8").splitlines()))
        assert len(rows) == 2
        write_study_page(result, result.datalist.with_suffix(".html"))
        assert result.datalist.with_suffix(".html").read_bytes().decode("utf-8")
        with open(data.parent / "console", "w", encoding="utf-8") as stream:
            Console(file=stream).print(result.table())
    sections = [name for name, items in result.sections.items() if items and name not in ("training", "unlabelled")]
    (item,) = load_datalist(result.datalist, sections[0], dataset_dir=data)
    assert Path(item["image"]) == odd
    assert LoadVolume()(item["image"]).shape == (1, 9, 8, 7)


@pytest.mark.parametrize("kind", ["pipe", "outside"])
def test_files_beside_a_header_are_hashed_from_its_folder_alone(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(100))
    os.mkfifo(tmp_path / "data/pipe.raw")
    name = {"pipe": "pipe.raw", "outside": "../secret.raw"}[kind]
    header = tmp_path / "data/x.mhd"
    header.write_text(f"ObjectType = Image\nNDims = 3\nElementDataFile = {name}\n")
    assert source_files({"image": str(header)}) == [header]


def test_json_of_a_run_or_a_bundle_is_read_the_same_way(tmp_path: Path) -> None:
    from monai_cl.engine.save_cases import INDEX, read_cases

    (tmp_path / INDEX).write_text(DEEP["objects"])
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        read_cases(tmp_path)
