"""Cells on disk: the record of each when it is finished, its failure, and who is working on it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from monai_cl import _files
from monai_cl._files import remove_leftovers
from monai_cl._locks import OccupiedError, claim_file, release
from monai_cl.evaluation._cells import Cell

RECORD, FAILURE = "cell.json", "failed.json"
_CLAIM_0_1_0, _RENEWED_SECONDS = "claim.json", 90.0  # 0.1.0 touches its own each half minute


class Store:
    """The output folder of a curve, shared by all processes that work on it.

    Args:
        root: The folder.
        since: Failures recorded before this time (seconds since 1970) are of an earlier start and tried again.
    """

    def __init__(self, root: Path, *, since: float | None = None) -> None:
        self.root = root
        self.since = time.time() if since is None else since
        self._held: dict[str, Path] = {}  # locks by cell

    def folder(self, cell: Cell) -> Path:
        """Folder of a cell: that where it was done, which may have another name, else that where it will be."""
        places = [self.root / name for name in (cell.folder, cell.also) if name]
        if len(places) == 1:
            return places[0]
        records = {place: read_json(place / RECORD) for place in places}
        same = [place for place, record in records.items() if record is not None and _start(record) == cell.start]
        free = [place for place, record in records.items() if record is None]
        return next(iter(same or free or places))

    def record(self, cell: Cell) -> dict[str, Any] | None:
        """Record of a finished cell; ``None`` while it is not finished."""
        return read_json(self.folder(cell) / RECORD)

    def failure(self, cell: Cell) -> str | None:
        """Reason for which a cell failed since this start; ``None`` where it did not."""
        content = read_json(self.folder(cell) / FAILURE)
        return None if content is None or content["time"] < self.since else str(content["reason"])

    def finish(self, cell: Cell, record: dict[str, Any]) -> None:
        """Write the record, the last thing that is done for a cell."""
        (self.folder(cell) / FAILURE).unlink(missing_ok=True)
        write_json(self.folder(cell) / RECORD, record)

    def fail(self, cell: Cell, reason: str) -> None:
        """Write down why a cell failed."""
        write_json(self.folder(cell) / FAILURE, {"reason": reason, "time": time.time()})

    def claim(self, cell: Cell) -> bool:
        """Take a cell, unless another process has it: of several that try at once, one succeeds."""
        folder = self.folder(cell)
        try:
            # of the record, since a step locks the folder for itself
            lock = claim_file(folder / RECORD)
        except OccupiedError:
            return False
        if lock is None:  # this process works on it already
            return False
        if _is_held_by_0_1_0(folder / _CLAIM_0_1_0):
            release(lock)
            return False
        self._held[cell.folder] = lock
        remove_leftovers(folder / RECORD)
        return True

    def release(self, cell: Cell) -> None:
        """Give a cell back."""
        release(self._held.pop(cell.folder, None))


def read_json(path: Path) -> dict[str, Any] | None:
    """Read an object from a JSON file; ``None`` if absent.

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


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _files.write_json(path, content, sort_keys=True, allow_nan=False)


def _start(record: dict[str, Any]) -> str:
    """Name of the pretraining run that a fine-tuning started from."""
    origin = record.get("settings", {}).get("pretrained")
    return f"seed_{origin['seed']}" if isinstance(origin, dict) else ""


def _is_held_by_0_1_0(claim: Path) -> bool:
    try:
        held = time.time() - claim.stat().st_mtime < _RENEWED_SECONDS
    except FileNotFoundError:
        return False
    if not held:
        claim.unlink(missing_ok=True)
    return held
