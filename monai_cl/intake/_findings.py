"""Findings of a scan, as one step gives them to the next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Item = dict[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """Image, label or series that was left out of the datalist.

    Args:
        paths: Its files, or its directory, relative to the scanned folder.
        reason: Short category.
        detail: Description of the fault and its remedy; a :class:`~monai_cl.privacy.quoting.Quoting`, so that names
            are hidden in its quotes alone.
        mentions: Further paths that ``detail`` may quote.
        series: Name of the DICOM series it is, or is part of; empty for other files.
        files: Number of its files, where ``paths`` is a directory.
    """

    paths: tuple[str, ...]
    reason: str
    detail: str = ""
    mentions: tuple[str, ...] = field(default=(), repr=False)
    series: str = field(default="", repr=False)
    files: int = 0

    @property
    def count(self) -> int:
        """Number of files."""
        return self.files or len(self.paths)

    @property
    def shown(self) -> str:
        """Directory or first file of the entry, and the number of further files."""
        more = len(self.paths) - 1
        return self.paths[0] + (f" and {more} more of its files" if more else "")


@dataclass
class Findings:
    """Items by section, what was left out, and notes with the paths they concern."""

    sections: dict[str, list[Item]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, section: str, item: Item) -> None:
        """Append an item to a section."""
        self.sections.setdefault(section, []).append(item)

    def leave_out(
        self,
        paths: Iterable[str],
        reason: str,
        detail: str = "",
        mentions: Iterable[str] = (),
        *,
        series: str = "",
        files: int = 0,
    ) -> None:
        """Record what is not used, and why; see :class:`LeftOut`."""
        self.left_out.append(LeftOut(tuple(paths), reason, detail, tuple(mentions), series, files))

    def note(self, text: str, path: str) -> None:
        """Record something worth a look about an item that is used."""
        self.notes.setdefault(text, []).append(path)

    def merge(self, more: Findings) -> None:
        """Take over what another step has left out and noted."""
        self.left_out += more.left_out
        for text, paths in more.notes.items():
            self.notes.setdefault(text, []).extend(paths)
