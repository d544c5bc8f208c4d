"""Record of the scan of each mask: kept when it is made, beside the key, for the user of this machine alone."""

import csv
import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from monai_cl.privacy.ids import is_token, tokens_in
from monai_cl.privacy.pseudonyms import key_path

REGISTER = "masks.csv"
_COLUMNS = ("mask", "scan", "sha256")
_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".npz", ".npy", ".png", ".tif", ".tiff")


class Note(NamedTuple):
    """A mask, its scan, both absolute, and once the mask is written the SHA-256 of its file."""

    mask: str
    scan: str
    sha256: str = ""


def note_mask(note: Note) -> None:
    """Add a note, as one line in one write: others may add theirs at the same time.

    Raises:
        OSError: If the record cannot be written.
    """
    place = _register()
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        text = "" if os.fstat(descriptor).st_size else _line(_COLUMNS)
        if not text:
            os.lseek(descriptor, -1, os.SEEK_END)
            text = "" if os.read(descriptor, 1) == b"\n" else "\n"  # its writer was killed in mid-line
        os.write(descriptor, (text + _line(note)).encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)


def read_notes() -> list[Note]:
    """Notes of this user, oldest first."""
    try:
        with open(_register(), encoding="utf-8", errors="surrogateescape", newline="") as stream:
            rows = list(csv.reader(stream))
    except FileNotFoundError:
        return []
    return [Note(*row[:3]) for row in rows if len(row) in (2, 3) and tuple(row[:2]) != _COLUMNS[:2]]


def masks_at(place: str | os.PathLike[str]) -> list[Path]:
    """The mask at a place, or those below a folder.

    Raises:
        FileNotFoundError: If it does not exist.
    """
    source = Path(place)
    if not source.exists():
        raise FileNotFoundError(f"no mask or folder of masks at {source}")
    if source.is_file():
        return [source]
    return sorted(path for path in source.rglob("*") if path.is_file() and path.name.lower().endswith(_SUFFIXES))


def scans_of(masks: str | os.PathLike[str]) -> dict[str, str]:
    """The scan of each mask that is on record, as far as it is certain.

    A mask is known where it was written, by the last note of that path; elsewhere by the id in its name, or by its
    bytes, where these belong to one scan alone. Other names identify nothing: scans of many patients share them.

    Args:
        masks: A mask or a folder of masks.

    Returns:
        Scans by mask; masks that are not on record are left out.

    Raises:
        FileNotFoundError: If ``masks`` does not exist, or no mask is on record on this machine.
    """
    files = masks_at(masks)
    notes = read_notes()
    by_path = {note.mask: note.scan for note in notes}  # the last note of a file counts
    by_id = _scans_by((_identity(note.mask), note.scan) for note in notes)
    by_bytes = _scans_by((note.sha256, note.scan) for note in notes)
    result = {}
    for file in files:
        scan = by_path.get(os.path.abspath(file)) or _one(by_id, _identity(file.as_posix()))
        if scan is None and by_bytes:
            scan = _one(by_bytes, hash_of(file))
        if scan is not None:
            result[str(file)] = scan
    if not result:
        raise FileNotFoundError(
            f"none of the {len(files)} masks at {masks} is on record; only the user who made masks has their record"
        )
    return result


def hash_of(file: str | os.PathLike[str]) -> str:
    """SHA-256 of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(stream)


def _hash(stream: io.BufferedReader) -> str:
    """Hash of a file, equal to ``hashlib.file_digest`` of Python 3.11."""
    total = hashlib.sha256()
    while block := stream.read(1 << 20):
        total.update(block)
    return total.hexdigest()


def _scans_by(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    result: dict[str, set[str]] = {}
    for mark, scan in pairs:
        if mark:
            result.setdefault(mark, set()).add(scan)
    return result


def _one(scans: dict[str, set[str]], mark: str) -> str | None:
    known = scans.get(mark, set())
    return next(iter(known)) if len(known) == 1 else None


def _identity(mask: str) -> str:
    """Part of a mask's name that identifies its scan: a token, or the folder of a token with the path below it."""
    parts = mask.replace(os.sep, "/").split("/")
    if tokens := tokens_in(parts[-1]):
        return tokens[-1]
    for index in range(len(parts) - 2, -1, -1):
        if is_token(parts[index]):
            return "/".join(parts[index:])
    return ""


def _line(row: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


def _register() -> Path:
    return key_path().with_name(REGISTER)
