"""SIGTERM and Ctrl-C at random moments, and disks that are full: the user reads it, and nothing half written stays."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from attack.harness import AFRESH, ATTACKED, Attacked, differences, draws, finish, hidden, outputs, run

pytestmark = pytest.mark.slow
QUICK = [one for one in ATTACKED if one.name in ("scan", "curate", "cache", "report", "train", "inference")]
FULL = [*QUICK, *(one for one in ATTACKED if one.name in ("pretrain-volume_contrast", "evaluate")), *AFRESH]


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("attacked", QUICK, ids=lambda one: one.name)
def test_a_stopped_command_says_so_and_leaves_nothing_half_written(
    attacked: Attacked, kind: signal.Signals, study_with_maps: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    whole = finish(attacked.prepare(folder, study_with_maps), folder)
    expected = outputs(folder, attacked.volatile)
    shutil.rmtree(folder)
    folder.mkdir()
    words = attacked.prepare(folder, study_with_maps)
    ((number, _),) = draws(f"{attacked.name} {kind}", whole.moments, 1)
    ended = run(words, folder, number=number, kind=kind)
    assert ended.code == 128 + kind, ended.said[-3000:]
    assert "no file is half written; the same command goes on or starts again" in ended.said
    assert "Traceback" not in ended.said
    assert hidden(folder) == []
    finish(words, folder)
    assert differences(outputs(folder, attacked.volatile), expected) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB, which only root may make."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(disk)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no small disk can be made here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("attacked", FULL, ids=lambda one: one.name)
def test_a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room(
    attacked: Attacked, small_disk: Path, study_with_maps: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    finish(attacked.prepare(folder, study_with_maps), folder)
    expected = outputs(folder, attacked.volatile)
    shutil.rmtree(folder)
    folder.mkdir()
    words = attacked.prepare(folder, study_with_maps)
    (folder / "out").mkdir(exist_ok=True)
    shutil.copytree(folder / "out", small_disk / "out")
    shutil.rmtree(folder / "out")
    (folder / "out").symlink_to(small_disk / "out")
    filler = small_disk / "filler"
    with open(filler, "wb") as file:
        free = shutil.disk_usage(small_disk).free
        file.write(bytes(max(0, free - 8192)))
    ended = run(words, folder)
    assert ended.code == 1, ended.said[-3000:]
    assert "full" in ended.said.splitlines()[-1], ended.said[-3000:]
    assert "room" in ended.said.splitlines()[-1], ended.said[-3000:]
    assert hidden(folder) == []
    filler.unlink()
    if attacked in AFRESH:
        assert [path for path in (folder / "out").rglob("*") if path.is_file()] == []
        shutil.rmtree(small_disk / "out")
        (small_disk / "out").mkdir()
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    finish(words, folder)
    assert differences(outputs(folder, attacked.volatile), expected) == []
