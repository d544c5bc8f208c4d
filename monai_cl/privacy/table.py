"""The table of ids: which file each stands for, beside the key, for its owner alone.

One table serves all studies of a key. It is a SQLite file, which takes care of writers at the same time and of those
killed in mid-write; looking up some ids does not read the rest. Rows are added and never changed.
"""

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice

from monai_cl.privacy.pseudonyms import KEY_VARIABLE, key_path

_SUFFIX = ".ids"
_AT_ONCE = 500  # ids a query
_WAIT = 120.0  # seconds for another writer
_AGAIN = "put a copy back, or scan the study again with the same key: its ids come out the same"


class IdTable:
    """The table beside a key.

    Args:
        key: File of the key; see :func:`~monai_cl.privacy.pseudonyms.key_path`.
    """

    def __init__(self, key: str | os.PathLike[str] | None = None) -> None:
        self.path = key_path(key).with_suffix(_SUFFIX)

    def add(self, files: Mapping[str, str | Sequence[str]]) -> None:
        """Note which file, or files of a series, each token stands for; what is noted already is left as it is.

        Args:
            files: Paths by token, as they are on disk; names that are no text as Python passes them on.

        Raises:
            ValueError: If a token is known as another file, or the table is damaged or open to others.
            OSError: If it cannot be written.
        """
        rows = {token: _packed(paths) for token, paths in files.items()}
        known = self._rows(rows) if self.path.exists() else {}
        for token, paths in known.items():
            if rows[token] != paths:
                raise ValueError(f"{token} is known as another file in {self.path.name}; {_AGAIN}")
        new = [(token, paths) for token, paths in rows.items() if token not in known]
        if not new:
            return
        self._make()
        with self._open("rw") as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS files (id TEXT PRIMARY KEY, paths BLOB) WITHOUT ROWID")
            connection.executemany("INSERT OR IGNORE INTO files VALUES (?, ?)", sorted(new))

    def find(self, tokens: Iterable[str]) -> dict[str, list[str]]:
        """The paths behind tokens, relative to the folder of the data unless they are absolute; unknown ones lack.

        Raises:
            FileNotFoundError: If no table exists.
            ValueError: If it is damaged or open to others.
        """
        if not self.path.exists():
            raise FileNotFoundError(
                f"no table of ids at {self.path.name}; copy it from where the study was scanned to beside the key, set "
                f"{KEY_VARIABLE} to the key beside which it lies, or scan the study again with the same key"
            )
        return {token: _unpacked(paths) for token, paths in self._rows(tokens).items()}

    def _rows(self, tokens: Iterable[str]) -> dict[str, bytes]:
        result: dict[str, bytes] = {}
        left = iter(dict.fromkeys(tokens))
        # a writer may have been killed: who can write puts right what it left, also when only reading
        with self._open("rw" if os.access(self.path, os.W_OK) else "ro") as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'files'").fetchone():
                return result  # made, but its maker was killed before the first row
            while some := list(islice(left, _AT_ONCE)):
                marks = ", ".join("?" * len(some))
                query = f"SELECT id, paths FROM files WHERE id IN ({marks})"
                result.update(connection.execute(query, some).fetchall())
        return result

    def _make(self) -> None:
        """Make the file before SQLite does, for its owner alone; its journal takes the same mode."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise OSError(
                f"the table of ids cannot be written: {error.strerror}; set {KEY_VARIABLE} to a key in a folder that "
                "can be written"
            ) from error

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        if os.name == "posix" and self.path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError(f"{self.path.name} can be read by others than its owner; chmod 600 it")
        try:
            uri = f"{self.path.absolute().as_uri()}?mode={mode}"
            with closing(sqlite3.connect(uri, timeout=_WAIT, uri=True)) as connection:
                yield connection
        except sqlite3.OperationalError as error:
            raise OSError(
                f"the table of ids {self.path.name} cannot be used ({error}); set {KEY_VARIABLE} to a key on a disk "
                "that can be written and locked"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path.name} is no table of ids ({error}); {_AGAIN}") from error


def _packed(paths: str | Sequence[str]) -> bytes:
    return b"\0".join(map(os.fsencode, [paths] if isinstance(paths, str) else paths))


def _unpacked(paths: bytes) -> list[str]:
    return [os.fsdecode(path) for path in paths.split(b"\0")]
