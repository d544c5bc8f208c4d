"""Slice headers on their way from files to series: on disk, so that memory does not grow with their number."""

import dataclasses
import pickle
import sqlite3
from collections.abc import Iterator
from hashlib import blake2b

from monai_cl.intake._findings import Findings
from monai_cl.intake._walk import SECOND_NAME
from monai_cl.io.dicom import SliceHeader, check_pixels, check_single_image
from monai_cl.io.errors import UnusableImageError
from monai_cl.privacy.quoting import Quoting

_CACHE_KB = 16_000


class SliceStore:
    """Collects the headers of files and gives them back series by series.

    They lie in a temporary database without a name, which the system removes when it is closed or the process ends.

    Args:
        findings: Receives files that are no pictures, and copies.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE slices (series BLOB, headers BLOB)")
        self._db.execute("CREATE TABLE later (turn INTEGER, headers BLOB)")
        self._db.execute("CREATE TABLE images (mark BLOB PRIMARY KEY, path BLOB) WITHOUT ROWID")
        self._db.execute("CREATE TABLE folders (folder BLOB PRIMARY KEY, files INTEGER) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Give the space back."""
        self._db.close()

    def add(self, headers: list[SliceHeader]) -> None:
        """Take the headers of one file: one, or one a frame."""
        first = headers[0]
        self.count_file(first.path.as_posix())
        try:
            check_single_image(first)
        except UnusableImageError as error:
            self._findings.leave_out([first.path.as_posix()], error.reason, error.detail, series=series_name(first))
            return
        turn = 2 * (_fault(first) is not None) + first.by_link
        if turn:  # the file that a link leads to, or a copy that can be read, may follow
            self._db.execute("INSERT INTO later VALUES (?, ?)", (turn, _slim(headers)))
        else:
            self._keep(headers)

    def count_file(self, path: str) -> None:
        """Count a file of a series, or one that looks like DICOM and could not be read, in its folder."""
        self._db.execute(
            "INSERT INTO folders VALUES (?, 1) ON CONFLICT (folder) DO UPDATE SET files = files + 1",
            (_raw(path.rpartition("/")[0] or "."),),
        )

    def files_in(self, folder: str) -> int:
        """Number of DICOM files in a folder."""
        row = self._db.execute("SELECT files FROM folders WHERE folder = ?", (_raw(folder),)).fetchone()
        return int(row[0]) if row else 0

    def series(self) -> Iterator[list[SliceHeader]]:
        """The slices of each series, in the order in which the series were met."""
        for (blob,) in self._db.execute("SELECT headers FROM later ORDER BY turn, rowid"):
            self._keep(pickle.loads(blob))  # of our own making, never from a file
        self._db.execute("CREATE INDEX by_series ON slices (series)")
        order = self._db.execute("SELECT series FROM slices GROUP BY series ORDER BY min(rowid)").fetchall()
        for (series,) in order:
            rows = self._db.execute("SELECT headers FROM slices WHERE series = ? ORDER BY rowid", (series,))
            yield [header for (blob,) in rows for header in pickle.loads(blob)]

    def _keep(self, headers: list[SliceHeader]) -> None:
        first = headers[0]
        mark, path = _mark(first), first.path.as_posix()
        cursor = self._db.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (mark, _raw(path)))
        if cursor.rowcount == 0:
            (row,) = self._db.execute("SELECT path FROM images WHERE mark = ?", (mark,)).fetchone()
            self._leave_out(first, row.decode("utf-8", "surrogateescape"))
            return
        self._db.execute("INSERT INTO slices VALUES (?, ?)", (_series_of(first), _slim(headers)))

    def _leave_out(self, header: SliceHeader, original: str) -> None:
        """Leave out a second file of an image, for its own fault if it has one, else as a link or a copy."""
        path, fault = header.path.as_posix(), _fault(header)
        if fault is None:
            reason = SECOND_NAME if header.by_link else "copy of another file"
            detail = Quoting("same image as {}", original)
        else:
            reason, detail = fault.reason, Quoting("{}; the same image as {}", fault.detail, original)
        self._findings.leave_out([path], reason, detail, mentions=[path, original], series=series_name(header))


def _fault(header: SliceHeader) -> UnusableImageError | None:
    """Fault that keeps the pixels of a file from being read, if any."""
    try:
        check_pixels([header])
    except UnusableImageError as error:
        return error
    return None


def _slim(headers: list[SliceHeader]) -> bytes:
    return pickle.dumps([dataclasses.replace(header, person=None) for header in headers], protocol=5)


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")  # names of files need not be text


def _mark(header: SliceHeader) -> bytes:
    """Mark that two files of one image share."""
    # Place and description belong to it: careless anonymisation gives one identifier to all slices of all echoes.
    place = (header.position, header.orientation, tuple(sorted(header.facts.items())))
    key = (header.sop_instance or str(header.path), header.series, header.patient, *place)
    return blake2b(repr(key).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def series_name(header: SliceHeader) -> str:
    """Name that slices of one series share: patient and series, or folder.

    A file of frames is its own series, unless it is part of a concatenation.

    It identifies a person: never write it.
    """
    own = header.concatenation or (header.path.as_posix() if header.frames > 1 else "")
    return "\0".join((header.patient, header.series or f"folder {header.path.parent.as_posix()}", own))


def _series_of(header: SliceHeader) -> bytes:
    return blake2b(_raw(series_name(header)), digest_size=16).digest()
