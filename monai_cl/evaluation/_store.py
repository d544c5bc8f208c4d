"""What is on disk of each cell: its record when it is finished, its failure, and who is working on it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from monai_cl._files import atomic_write, remove_leftovers
from monai_cl.evaluation._plan import Cell

RECORD, FAILURE, CLAIM = "cell.json", "failed.json", "claim.json"
STALE_SECONDS = 600.0  # a claim that nobody has renewed for so long belongs to a process that is no more


class Store:
    """The output folder of a curve, shared by all processes that work on it.

    Args:
        root: The folder.
        since: Failures recorded before this time (seconds since 1970) are of an earlier start and tried again.
    """

    def __init__(self, root: Path, *, since: float | None = None) -> None:
        self.root = root
        self.since = time.time() if since is None else since
        self._held: dict[str, str] = {}  # tokens by cell
        self._claimed: dict[str, Path] = {}  # folders by cell: its record may move it while it is held

    def folder(self, cell: Cell) -> Path:
        """Where a cell is kept: where it was done, which may have another name, else where it will be."""
        places = [self.root / name for name in (cell.folder, cell.also) if name]
        if len(places) == 1:
            return places[0]
        records = {place: read_json(place / RECORD) for place in places}
        same = [place for place, record in records.items() if record is not None and _start(record) == cell.start]
        free = [place for place, record in records.items() if record is None]
        return next(iter(same or free or places))

    def record(self, cell: Cell) -> dict[str, Any] | None:
        """What is known of a finished cell; ``None`` while it is not finished."""
        return read_json(self.folder(cell) / RECORD)

    def failure(self, cell: Cell) -> str | None:
        """Why a cell failed since this start; ``None`` where it did not."""
        content = read_json(self.folder(cell) / FAILURE)
        return None if content is None or content["time"] < self.since else str(content["reason"])

    def finish(self, cell: Cell, record: dict[str, Any]) -> None:
        """Write the record, the last thing that is done for a cell."""
        (self.folder(cell) / FAILURE).unlink(missing_ok=True)
        write_json(self.folder(cell) / RECORD, record)

    def fail(self, cell: Cell, reason: str) -> None:
        """Write down why a cell failed."""
        self.folder(cell).mkdir(parents=True, exist_ok=True)
        write_json(self.folder(cell) / FAILURE, {"reason": reason, "time": time.time()})

    def claimed(self, cell: Cell) -> bool:
        """Whether a process that lives is at work on a cell."""
        content = _read_claim(self.folder(cell) / CLAIM)
        return content is not None and not self._is_stale(cell, content)

    def claim(self, cell: Cell) -> bool:
        """Take a cell, unless another process has it: of several that try at once, one succeeds."""
        path = self.folder(cell) / CLAIM
        path.parent.mkdir(parents=True, exist_ok=True)
        there = _read_claim(path)
        if there is not None and not (self._is_stale(cell, there) and _remove(path, there)):
            return False
        token = secrets.token_hex(8)
        content = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": token})
        try:
            # complete before it has its name: nobody reads a claim that is half written
            temporary = path.with_name(f".{token}.{CLAIM}")
            temporary.write_text(content, encoding="utf-8")
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        self._held[cell.folder], self._claimed[cell.folder] = token, path.parent
        remove_leftovers(self.folder(cell) / RECORD)
        return True

    def release(self, cell: Cell) -> None:
        """Give a cell back."""
        if self._held.pop(cell.folder, None) is not None:
            (self._claimed.pop(cell.folder) / CLAIM).unlink(missing_ok=True)

    def renew(self) -> None:
        """Say of everything held that somebody is still at work."""
        for folder in list(self._claimed.values()):
            with contextlib.suppress(FileNotFoundError):  # released meanwhile
                os.utime(folder / CLAIM)

    def _is_stale(self, cell: Cell, content: dict[str, Any]) -> bool:
        if content.get("token") == self._held.get(cell.folder):
            return False
        if time.time() - content["time"] > STALE_SECONDS:
            return True
        if content.get("host") != socket.gethostname():
            return False
        # this very process holds it no more, or its owner was killed
        return content.get("pid") == os.getpid() or not _is_alive(int(content.get("pid", 0)))


def read_json(path: Path) -> dict[str, Any] | None:
    """An object in a JSON file; ``None`` where there is no file.

    Raises:
        ValueError: If the file holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); remove it to do its cell again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got a {type(content).__name__}; remove it")
    return content


def _start(record: dict[str, Any]) -> str:
    """Name of the pretraining run that a fine-tuning started from."""
    origin = record.get("settings", {}).get("pretrained")
    return f"seed_{origin['seed']}" if isinstance(origin, dict) else ""


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _read_claim(path: Path) -> dict[str, Any] | None:
    try:
        renewed = path.stat().st_mtime
        content = read_json(path)
    except FileNotFoundError:
        return None
    return None if content is None else {**content, "time": renewed}


def _remove(path: Path, expected: dict[str, Any]) -> bool:
    """Remove a claim, unless it has become another's since it was read."""
    aside = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return True
    found = read_json(aside) or {}
    if found.get("token") != expected.get("token"):
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)
    return bool(found.get("token") == expected.get("token"))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
