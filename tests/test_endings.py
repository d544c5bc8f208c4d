"""What a user reads when a signal or a full disk ends a command, and that nothing half written stays."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monai_cl import cli
from monai_cl._endings import full_disk
from monai_cl._files import atomic_write

WRITING = """
import sys, time
from monai_cl import cli
from monai_cl._endings import listen
from monai_cl._files import atomic_write
listen(leave=True)
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("now", flush=True)
    time.sleep(60)
"""
FORKED = """
import os, signal, sys, time
from monai_cl import cli
from monai_cl._endings import listen
listen()
child = os.fork()
if child == 0:
    time.sleep(60)
time.sleep(0.2)
os.kill(child, signal.SIGTERM)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + 100)
"""


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)])
def test_a_signal_ends_a_command_with_a_line_and_nothing_half_written(
    number: signal.Signals, name: str, code: int, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(tmp_path / "a.json")],
        stdout=-1,
        stderr=-1,
        text=True,
        # a shell starts what it runs in the background with Ctrl-C ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    assert process.stdout.readline() == "now\n"
    assert [path.name.startswith(".") for path in tmp_path.iterdir()] == [True]
    process.send_signal(number)
    _, said = process.communicate(timeout=600)
    assert process.returncode == code
    assert said.strip() == f"stopped by {name}: no file is half written; the same command goes on or starts again"
    assert list(tmp_path.iterdir()) == []


def test_a_worker_ends_without_a_word() -> None:
    ended = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True)
    assert ended.returncode == 100 - signal.SIGTERM
    assert ended.stderr == ""


def _fill(path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("much")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_told_with_its_folder_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        _fill(tmp_path / "a.json")
    told = f"the disk of {tmp_path} is full; nothing is half written: make room and give the same command again, or ano"
    assert (full_disk(caught.value) or "").startswith(told)
    assert list(tmp_path.iterdir()) == []


def test_what_a_full_disk_has_caused_is_told_as_such_and_nothing_else_is() -> None:
    behind = RuntimeError("could not save")
    behind.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert (full_disk(behind) or "").startswith("the disk is full; nothing is half written")
    assert (full_disk(OSError(errno.EFBIG, "File too large")) or "").startswith("no file may grow further; ")
    assert full_disk(OSError(errno.EACCES, "Permission denied", "a")) is None
    assert full_disk(ValueError("a")) is None


def test_the_command_line_ends_with_the_code_of_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[Path], *args: object, **kwargs: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr("monai_cl.intake.scan.scan", interrupted)
    monkeypatch.setattr(sys, "argv", ["monai-cl", "scan", "."])
    try:
        with pytest.raises(SystemExit, match="143"):
            cli.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
