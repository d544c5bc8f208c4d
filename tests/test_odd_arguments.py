"""Odd arguments of every verb: one message, exit code 1 (2 for what typer refuses), and no traceback."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import write_study

from monai_cl import cli
from monai_cl._endings import in_words

LIST, STUDY = "st udy [-x] ü/datalist.json", "st udy [-x] ü"
ODD = ("empty", "list.json", "number.json", "bytes", "null.json", "deep.json", "dir", "gone", "loop", "no/such", "pipe")
READING = (
    "scan ODD", "curate ODD --dry-run", "curate LIST --dry-run --against ODD", "cache ODD --recipe small_mr",
    "cache LIST --recipe ODD", "whose ODD", "report ODD", "report --card ODD", "report --check ODD", "card ODD",
    "curve ODD", "invariance ODD", "recipes preview ODD --image empty", "scan STUDY --key ODD --out o.json", "plan ODD",
)  # fmt: skip
WRITING = (
    "scan STUDY --out ODD/x.json", "curate LIST --out ODD/x.json", "cache LIST --recipe small_mr --out ODD/x",
    "phantom ODD/x --subjects 1 --spacing 12", "bundles copy volume_contrast ODD/x", "demo --out ODD/x",
)  # fmt: skip
NUMBERS = (
    "scan STUDY --workers -1", "scan STUDY --workers nan", "cache LIST --recipe small_mr --processes -1",
    "cache LIST --recipe small_mr --max-faults nan", "cache LIST --recipe small_mr --options {spacing:-1}",
    "cache LIST --recipe small_mr --options {", "curate LIST --threshold nan", "curate LIST --threshold 1e300",
    "curate LIST --hold-out -1", "curate LIST --hold-out nan", "curate LIST --sections nothing",
    "phantom p --seed -1", "phantom p --sequences T1w+nothing", "phantom p --sequences T1w --missing 1",
    "phantom p --sequences T1w --test 20", "phantom p --sequences T1w --patients nan", "phantom p --spacing nan",
    "phantom p --spacing 1e99", "phantom p --subjects 0", "demo --seed -1", "curve empty --processes 0", "nothing",
    "scan", "report", "scan STUDY --out EMPTY", "curate LIST --out EMPTY",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that are not what they should be."""
    root = tmp_path_factory.mktemp("odd")
    write_study(root / STUDY)
    contents = {"list.json": "[]", "number.json": "3", "null.json": "null", "deep.json": "[" * 9999, "empty": ""}
    for name, text in contents.items():
        (root / name).write_text(text)
    (root / "bytes").write_bytes(bytes(range(256)))
    (root / "dir").mkdir()
    (root / "gone").symlink_to("/nowhere/at/all")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    return root


def said(words: list[str], code: set[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["monai-cl", *words])
    monkeypatch.setattr(cli, "listen", lambda: None)  # this process is not the command's
    with pytest.raises(SystemExit, match=r"^\d+$") as end:
        cli.main()
    told = capsys.readouterr().err
    assert end.value.code in code, told
    assert "Traceback" not in told
    return told


def words_of(command: str, odd: str = "") -> list[str]:
    given = {"LIST": LIST, "STUDY": STUDY, "EMPTY": ""}
    return [given.get(word, word.replace("ODD", odd)) for word in command.split()]


@pytest.mark.timeout(600)  # a pipe must not be waited for
@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_input_is_told(
    odd: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for command in READING:
        if (command, odd) in (("scan STUDY --key ODD --out o.json", "no/such"),):  # makes one
            continue
        told = said(words_of(command, odd), {1}, monkeypatch, capsys)
        assert re.search(r"^error: \S.{10,}", told, re.MULTILINE), (command, told)


@pytest.mark.parametrize("odd", ["empty", "pipe", "loop", "/proc"])
def test_where_nothing_can_be_written_is_told(
    odd: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for command in WRITING:
        told = said(words_of(command, odd), {1}, monkeypatch, capsys)
        assert "another path" in told, (command, told)


def test_numbers_out_of_range_are_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for command in NUMBERS:
        assert said(words_of(command), {1, 2}, monkeypatch, capsys), command


@pytest.mark.parametrize("out", [LIST, "number.json", "loop.json", "list.txt", "dir"])
def test_curation_replaces_nothing_but_an_earlier_result(
    out: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = {path: path.read_bytes() for path in place.rglob("*.json") if path.is_file()}
    if not (place / "loop.json").is_symlink():
        (place / "loop.json").symlink_to("elsewhere.json")
    assert re.search(
        r"choose another name|must be a \.json file",
        said(["curate", LIST, "--out", out], {1}, monkeypatch, capsys),
    )
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("folder", ["", ".", "/", "dir"])
@pytest.mark.parametrize("command", ["cache ODD --recipe small_mr", "curate ODD"])
def test_a_folder_in_place_of_a_datalist_is_told(
    folder: str, command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    words = [word.replace("ODD", folder) for word in command.split()]
    told = said(words, {1}, monkeypatch, capsys)
    assert f"no such datalist: {folder or '.'}, which is a folder; `monai-cl scan FOLDER --out study.json`" in told


def test_curation_goes_over_its_own_result(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(cli, "listen", lambda: None)
    monkeypatch.setattr(sys, "argv", ["monai-cl", "curate", LIST, "--out", "mine.json"])
    for _ in range(2):
        with pytest.raises(SystemExit, match="0"):
            cli.main()
    assert "curation" in json.loads(Path("mine.json").read_text())


def test_errors_of_the_system_are_told_in_words() -> None:
    temporary = FileNotFoundError(2, os.strerror(2), "/a/.0123456789abcdef.b.json")
    assert in_words(temporary).startswith("/a/b.json does not exist, or cannot be made (No such file")
    assert in_words(OSError(13, os.strerror(13), "/a/.b.json.lock")).startswith("/a/b.json may not be read or written")
    assert in_words(FileNotFoundError("no such datalist: a")) == "no such datalist: a"
    assert in_words(ValueError("a must be b")) == "a must be b"
