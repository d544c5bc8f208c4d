"""Files are written whole or not at all, and nobody's leftovers stay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_cl import _files
from monai_cl._files import atomic_write, read_json, read_yaml, remove_leftovers, write_json

KILLED = """
import os, signal, sys
from monai_cl._files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _as_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "_looked_through", set())


@pytest.fixture
def leftover(tmp_path: Path) -> Path:
    """What a killed process has left."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.json")])
    assert killed.returncode < 0
    (path,) = tmp_path.iterdir()
    return path


def write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


@pytest.mark.parametrize("name", ["a.json", "another.csv"])
def test_the_next_writer_in_the_folder_removes_what_a_kill_has_left(leftover: Path, name: str) -> None:
    write(leftover.with_name(name), "whole")
    assert [path.name for path in leftover.parent.iterdir()] == [name]
    assert leftover.with_name(name).read_text() == "whole"


def test_files_of_the_living_and_of_other_machines_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_write(tmp_path / "a.json") as mine:
        mine.write_text("one")
        parent = mine.with_name(mine.name.replace(f"{os.getpid():06x}", f"{os.getppid():06x}"))
        elsewhere = mine.with_name(f".{'0' * 16}.a.json")
        other = mine.with_name(".gitignore")
        for path in (parent, elsewhere, other):
            path.touch()
        monkeypatch.setattr(_files, "_looked_through", set())
        write(tmp_path / "a.json", "two")
        assert all(path.exists() for path in (mine, parent, elsewhere, other))
    assert (tmp_path / "a.json").read_text() == "one"
    remove_leftovers(tmp_path / "a.json")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".gitignore"}


def test_json_is_written_in_utf_8_and_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("before")
    write_json(tmp_path / "a.json", {"b": [1], "a": "ä"}, indent=2, ensure_ascii=False)
    assert (tmp_path / "a.json").read_bytes() == '{\n  "b": [\n    1\n  ],\n  "a": "ä"\n}\n'.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"), allow_nan=False)
    assert (tmp_path / "a.json").read_text().startswith("{")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_is_read_in_any_encoding_of_unicode(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_text('{"a": "\u00e4"}', encoding=encoding)
    assert read_json(tmp_path / "a.json") == {"a": "\u00e4"}


def test_json_in_a_code_page_says_which_encodings_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('{"a": "\u00e4"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="must be UTF-8 or UTF-16, byte 7 is neither"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(("key", "shown"), [("training", "'training'"), ("Planted", "a key")])
def test_a_list_that_json_would_lose_is_refused(tmp_path: Path, key: str, shown: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"{key}": [{{"image": "a"}}], "{key}": [{{"image": "b"}}]}}')
    with pytest.raises(ValueError, match=f"^{shown} comes twice with different content, merge both"):
        read_json(path)
    path.write_text(f'{{"{key}": [1], "{key}": [1], "b": 1, "b": 2}}')  # sidecars of converters repeat numbers
    assert read_json(path) == {key: [1], "b": 2}


def test_a_key_that_comes_twice_in_a_yaml_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seeds: [0, 1]\narms: {a: 1}\nseeds: [5]\n")
    with pytest.raises(ValueError, match=r"must be valid YAML, .*key 'seeds' comes twice, keep one of them.* line 3"):
        read_yaml(path, "the file of a curve")
    path.write_text("one: &a {x: 1}\ntwo: {<<: *a, y: 2}\nthree: {x: 3, y: [1, {x: 2}]}\n")
    assert read_yaml(path, "a file") == {
        "one": {"x": 1},
        "two": {"x": 1, "y": 2},
        "three": {"x": 3, "y": [1, {"x": 2}]},
    }
