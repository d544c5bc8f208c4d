"""Two commands in one place: the second stops at once and says who is there; nothing is lost."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from typer.testing import CliRunner

from monai_cl import _locks, bundles
from monai_cl._locks import OccupiedError, alone_in, claim_file, claim_folder, is_empty, release
from monai_cl.cli import app
from monai_cl.data import write_brain_maps

HOLD = """
import multiprocessing, sys, time
from monai_cl._locks import claim_file, claim_folder
{claim}(sys.argv[1])
def work(there):
    there.set()
    time.sleep(60)
if sys.argv[2] == "with a worker":
    context = multiprocessing.get_context("fork")
    there = context.Event()
    context.Process(target=work, args=(there,)).start()
    there.wait()
print("holding", flush=True)
time.sleep(60)
"""
TAKE_TURNS = """
import sys, time
from pathlib import Path
from monai_cl._locks import OccupiedError, alone_in
folder, inside, turns = Path(sys.argv[1]), Path(sys.argv[2]), 0
while turns < 15:
    try:
        with alone_in(folder):
            inside.touch(exist_ok=False)  # fails if another process is in the block
            time.sleep(0.001)
            inside.unlink()
            turns += 1
    except OccupiedError:
        pass
"""


@contextmanager
def holder(place: Path, how: str = "", claim: str = "claim_folder") -> "Iterator[subprocess.Popen[bytes]]":
    """Another process that holds a place."""
    command = [sys.executable, "-c", HOLD.format(claim=claim), str(place), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holding\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_that_another_process_writes_is_refused_by_its_name_and_the_time(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        said = rf"process {process.pid} on {socket.gethostname()} \(since 20\d\d-.* UTC\) is writing {tmp_path}: wait"
        with pytest.raises(OccupiedError, match=said):
            claim_folder(tmp_path)
        with (
            pytest.raises(OccupiedError, match=rf"stop it \(kill {process.pid}\), or give another --out"),
            alone_in(tmp_path),
        ):
            pass
        assert claim_folder(tmp_path / "below") is not None
    release(tmp_path.resolve() / "below" / ".lock")
    with alone_in(tmp_path):
        assert (tmp_path / ".lock").is_file()
    assert not (tmp_path / ".lock").exists()


def test_a_file_is_held_alone_and_others_beside_it_are_free(tmp_path: Path) -> None:
    with holder(tmp_path / "a.html", claim="claim_file"):
        with pytest.raises(OccupiedError, match=r"is writing .*a\.html"):
            claim_file(tmp_path / "a.html")
        release(claim_file(tmp_path / "b.html"))


def test_a_killed_process_holds_nothing_though_its_workers_live_on(tmp_path: Path) -> None:
    with holder(tmp_path, "with a worker") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with alone_in(tmp_path):
            assert (tmp_path / ".lock").is_file()


def test_a_command_that_fails_leaves_no_file_of_its_lock(tmp_path: Path) -> None:
    code = "import sys; from monai_cl._locks import claim_folder; claim_folder(sys.argv[1]); raise ValueError"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_one_process_may_claim_twice_and_the_first_claim_ends_it(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        with alone_in(tmp_path):
            pass
        assert (tmp_path / ".lock").is_file()
    assert is_empty(tmp_path)


def test_processes_that_start_together_are_never_there_together(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TAKE_TURNS, str(tmp_path / "folder"), str(tmp_path / "inside")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate(timeout=600)[1] for process in started]
    assert errors == [b""] * 4


def test_where_the_file_system_has_no_locks_the_record_tells_who_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_locks.fcntl, "flock", no_locks)
    myself = _locks._myself()
    for dead in ({**myself, "pid": 2**22 + 1}, {**myself, "began": myself["began"] - 60}):
        (tmp_path / ".lock").write_text(json.dumps(dead))
        with alone_in(tmp_path):
            pass
    for perhaps in (myself, {**myself, "host": "elsewhere"}):
        (tmp_path / ".lock").write_text(json.dumps(perhaps))
        with pytest.raises(OccupiedError, match=r"is writing .*; if it is no more, remove .*\.lock"):
            claim_folder(tmp_path)


def test_a_lock_that_is_a_link_to_a_file_elsewhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        claim_folder(tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "content"


def test_of_several_processes_of_one_run_the_first_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holder(tmp_path):
        monkeypatch.setenv("RANK", "1")
        bundles.claim(tmp_path)
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(OccupiedError, match="another --output_dir"):
            bundles.claim(tmp_path)


def test_a_run_claims_its_files_elsewhere_too_and_gives_all_back(tmp_path: Path) -> None:
    bundles.claim(tmp_path / "runs", tmp_path / "models/model.pt")
    assert sorted(path.name for path in tmp_path.rglob(".*")) == [".lock", ".model.pt.lock"]
    bundles.release()
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("file", sorted(ROOT.glob("bundles/*/configs/*.yaml")), ids=lambda f: "/".join(f.parts[-3::2]))
def test_every_step_of_a_bundle_claims_before_it_reads_anything(file: Path) -> None:
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    if "initialize" in config:
        assert config["initialize"][3].startswith("$bundles.claim(@output_dir")
    if "finalize" in config:
        assert config["finalize"][-1] == "$bundles.release()"


def test_phantoms_are_not_written_into_a_folder_that_is_being_filled(tmp_path: Path) -> None:
    with holder(tmp_path), pytest.raises(OccupiedError, match="another folder"):
        write_brain_maps(tmp_path)


@pytest.mark.parametrize("arguments", [["scan", "{study}"], ["report", "{study}"], ["curate", "{study}/datalist.json"]])
def test_commands_that_write_a_file_stop_at_once(study: Path, tmp_path: Path, arguments: list[str]) -> None:
    out = tmp_path / "out.json"
    with holder(out, claim="claim_file") as process:
        given = [part.format(study=study) for part in arguments]
        result = CliRunner().invoke(app, [*given, "--out", str(out)])
    assert isinstance(result.exception, OccupiedError)
    assert str(result.exception).startswith(f"process {process.pid} on ")
    assert not out.exists()
