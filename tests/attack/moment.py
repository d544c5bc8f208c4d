"""Runs a command in this process and sends it a signal at the n-th time that it opens, renames or removes something.

    python moment.py NOTES NUMBER SIGNAL DELAY FOLDER monai-cl scan ...
    python moment.py NOTES NUMBER SIGNAL DELAY FOLDER monai.bundle run ...

What it does below FOLDER is counted, by Python's audit events: each one a moment at which a kill could leave something
half done. With number 0 nothing is sent. A line for each event is kept in the file NOTES, outside of FOLDER.
"""

import os
import runpy
import signal
import sys
import threading
from pathlib import Path
from typing import Any

_TWO_PATHS = ("os.rename", "os.link", "os.symlink")
_ONE_PATH = ("os.remove", "os.mkdir", "os.rmdir", "os.truncate")


class Moment:
    """Counts what is done below a folder, and sends the signal when its time has come."""

    def __init__(self, notes: int, number: int, signal_number: int, delay: float, folder: str) -> None:
        self.notes, self.number, self.signal, self.delay = notes, number, signal_number, delay
        self.folder = os.path.join(os.path.abspath(folder), "")
        self.process = os.getpid()
        self.count = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See an event, as ``sys.addaudithook`` hands it over; those of forked processes are not counted."""
        if os.getpid() != self.process or not any(map(self._below, self._changed(event, arguments))):
            return
        self.count += 1
        os.write(self.notes, f"{event} {arguments[0]}\n".encode(errors="replace"))
        if self.count == self.number and self.delay:
            timer = threading.Timer(self.delay, os.kill, (self.process, self.signal))
            timer.daemon = True
            timer.start()
        elif self.count == self.number:
            os.kill(self.process, self.signal)

    def _below(self, path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(
            self.folder
        )

    @staticmethod
    def _changed(event: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            return (path,) if writes else ()
        return arguments[:2] if event in _TWO_PATHS else arguments[:1] if event in _ONE_PATH else ()


def main() -> None:
    """Start counting, then run what the rest of the command line says."""
    notes, number, signal_number, delay, folder, program, *rest = sys.argv[1:]
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background, where nobody could send Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.addaudithook(Moment(descriptor, int(number), int(signal_number), float(delay), folder))
    sys.path[0] = ""
    if program == "monai-cl":
        from monai_cl.cli import main as run

        sys.argv = [str(Path(sys.executable).with_name(program)), *rest]
        run()
    else:
        sys.argv = [program, *rest]
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
