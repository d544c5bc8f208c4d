"""Lock of an output folder against a second command; it names its holder and ends with the holder's process."""

import atexit
import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"  # in a folder; of a file .NAME.lock beside it
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_MOMENT = 0.05  # seconds, in which a holder that has just come writes who it is
_APART = 2.0  # seconds between the beginnings of two processes; that of one is known to a hundredth


class OccupiedError(RuntimeError):
    """Another process is writing in the same place."""


@dataclass(frozen=True)
class _Held:
    descriptor: int
    process: int


_held: dict[Path, _Held] = {}


def claim_folder(folder: str | Path, *, instead: str = "another folder") -> Path | None:
    """Make a folder and take it for this process alone, until :func:`release` or the end of the process.

    Args:
        folder: The folder; its lock is the file ``.lock`` in it.
        instead: Option by which a user avoids the conflict, for the message.

    Returns:
        Argument of :func:`release`; ``None`` where this process has the folder already.

    Raises:
        OccupiedError: If another process has it; names it, since when, and what to do.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return _claim(path.resolve() / LOCK, path, instead)


def claim_file(file: str | Path, *, instead: str = "another file") -> Path | None:
    """Take the name of a file for this process alone, as :func:`claim_folder` does a folder; it need not exist."""
    path = Path(file)
    if not path.name:
        raise ValueError(f"a file to write must have a name, got {os.fspath(file)!r}; give {instead}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return _claim(path.parent.resolve() / f".{path.name}{LOCK}", path, instead)


def release(lock: Path | None) -> None:
    """Give back what a claim has returned; the file of the lock is removed."""
    if lock is None or (held := _held.get(lock)) is None or held.process != os.getpid():
        return
    lock.unlink(missing_ok=True)  # while it is held: who waits for this very file looks again
    del _held[lock]
    os.close(held.descriptor)


@contextlib.contextmanager
def alone_in(folder: str | Path, *, instead: str = "another --out") -> Iterator[None]:
    """Hold a folder as :func:`claim_folder` does while the block runs."""
    lock = claim_folder(folder, instead=instead)
    try:
        yield
    finally:
        release(lock)


@contextlib.contextmanager
def alone_with(file: str | Path, *, instead: str = "another --out") -> Iterator[None]:
    """Hold a file as :func:`claim_file` does while the block runs."""
    lock = claim_file(file, instead=instead)
    try:
        yield
    finally:
        release(lock)


def is_empty(folder: Path) -> bool:
    """Return whether a folder is absent or holds its own lock alone."""
    return not folder.exists() or all(path.name == LOCK for path in folder.iterdir())


def _claim(lock: Path, place: Path, instead: str) -> Path | None:
    if lock in _held and _held[lock].process == os.getpid():
        return None
    while True:
        # not through a link: what is written here must not land in a file elsewhere
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(descriptor, lock, place, instead)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_still(lock, descriptor):
            break
        os.close(descriptor)  # its holder has gone and has taken the file away
    _held[lock] = _Held(descriptor, os.getpid())
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_myself()).encode())
    except OSError as error:  # as on a full disk
        release(lock)
        raise OSError(error.errno, error.strerror, str(lock)) from error
    return lock


def _lock(descriptor: int, lock: Path, place: Path, instead: str) -> None:
    """Hold the lock by the operating system, which ends it with the process; fall back on the content of the file."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOLCK, "no locks")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _read(lock)
        # a file system without locks: a holder of this machine that is no more holds nothing
        if error.errno in _TAKEN or (holder and not _is_dead(holder)):
            raise OccupiedError(_message(holder, lock, place, instead, sure=error.errno in _TAKEN)) from None


def _message(holder: dict[str, Any], lock: Path, place: Path, instead: str, *, sure: bool) -> str:
    who, stop = "another process", "or stop it"
    if holder:
        who = f"process {holder.get('pid')} on {holder.get('host')} (since {holder.get('since')})"
        stop = f"or stop it (kill {holder.get('pid')})"
    unsure = "" if sure else f"; if it is no more, remove {lock}"
    return f"{who} is writing {place}: wait until it has ended, {stop}, or give {instead}{unsure}"


def _myself() -> dict[str, Any]:
    since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "began": _began(os.getpid())}


def _read(lock: Path) -> dict[str, Any]:
    """Holder of a lock by its file; ``None`` if the file names no holder."""
    for _ in range(3):
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(lock.read_text(encoding="utf-8"))
            if isinstance(content, dict) and isinstance(content.get("pid"), int):
                return content
        time.sleep(_MOMENT)
    return {}


def _is_still(lock: Path, descriptor: int) -> bool:
    try:
        now, mine = os.stat(lock), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)


def _is_dead(holder: dict[str, Any]) -> bool:
    """Return whether a process of this machine has ended, allowing for a reused number."""
    if holder.get("host") != socket.gethostname():
        return False
    began = _began(holder["pid"])
    return began is None or abs(began - float(holder.get("began") or 0)) > _APART


def _began(process: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(process).create_time())
    except psutil.Error:
        return None


def _forget() -> None:
    """Release the inherited lock in a forked process: only the parent holds it."""
    for held in _held.values():
        with contextlib.suppress(OSError):
            os.close(held.descriptor)
    _held.clear()


@atexit.register
def _release_all() -> None:
    """Remove the files of locks whose command failed before it could."""
    for lock in list(_held):
        release(lock)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
