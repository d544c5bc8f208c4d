"""DICOM objects to a server, each whole or not at all: by STOW, or by C-STORE.

Objects that the server holds are not sent again, so that the same call goes on where it ended.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from monai_cl.io.dicom.headers import is_dicom
from monai_cl.io.pacs.errors import PacsError
from monai_cl.io.pacs.web import WebServer
from monai_cl.io.threads import without_warnings_of_dicom
from monai_cl.privacy.ids import tokens_in
from monai_cl.privacy.naming import PlainNames
from monai_cl.privacy.plain import is_plain
from monai_cl.privacy.pseudonyms import find_or_make_key
from monai_cl.privacy.table import IdTable

# PS3.18 table I.2-2, PS3.4 annex B
_REASONS = {
    0x0110: "it cannot process it",
    0x0117: "it takes its identifiers for invalid",
    0x0122: "it does not store this kind of object",
    0x0124: "it gives no right to store",
    0x0212: "it takes no more of it",
    0xA700: "it is out of space",
    0xA900: "it takes the object for damaged",
    0xC000: "it cannot understand it",
}
_LISTED = 20


class Refused(NamedTuple):
    """A file that was not stored, and why."""

    path: Path
    reason: str


@dataclass
class Pushed:
    """Counts of a push.

    Args:
        stored: Files that the server has taken.
        there: Files that it had already.
        twice: Files that hold an object of another file.
    """

    stored: int = 0
    there: int = 0
    twice: int = 0
    refused: list[Refused] = field(default_factory=list)
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """Return whether the server has all objects."""
        return not self.refused and not self.stopped

    def summary(self) -> str:
        """Return the counts in a line."""
        parts = [f"{self.stored} stored"]
        parts += [f"{self.there} present before"] if self.there else []
        parts += [f"{self.twice} given twice"] if self.twice else []
        parts += [f"{len(self.refused)} not stored"] if self.refused else []
        return ", ".join(parts)

    def refusals(self) -> list[str]:
        """Return the first objects that were not stored, with the reason; ids stand for files called after somebody."""
        names = PlainNames(find_or_make_key)
        lines = [f"{_shown(path, names)}: {reason}" for path, reason in self.refused[:_LISTED]]
        IdTable().add(names.files)
        return lines

    def told(self) -> str:
        """Return :meth:`summary`, under its former name."""
        warnings.warn("`told` is now `summary`", FutureWarning, stacklevel=2)
        return self.summary()


class Store(Protocol):
    """A server that takes objects."""

    def has(self, dataset: Any) -> bool | None:
        """Return whether the server has an object; ``None`` if it cannot be asked."""

    def lacks(self, dataset: Any) -> int:
        """Count instances that an object refers to and the server does not have."""

    def put(self, dataset: Any) -> str:
        """Store an object; gives the reason why not."""


class WebStore:
    """Storage by STOW, with a QIDO query for present objects.

    Args:
        server: The server.
    """

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self._listed: dict[tuple[str, str], set[str]] = {}

    def has(self, dataset: Any) -> bool:
        """Return whether the server has an object."""
        result = self.server.instances(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
        return str(dataset.SOPInstanceUID) in result

    def lacks(self, dataset: Any) -> int:
        """Count instances that an object refers to and the server does not have."""
        lacking, study = 0, str(dataset.StudyInstanceUID)
        for series in dataset.get("ReferencedSeriesSequence") or ():
            place = (study, str(series.SeriesInstanceUID))
            if place not in self._listed:
                self._listed[place] = set(self.server.instances(*place))
            wanted = {str(item.ReferencedSOPInstanceUID) for item in series.get("ReferencedInstanceSequence") or ()}
            lacking += len(wanted - self._listed[place])
        return lacking

    def put(self, dataset: Any) -> str:
        """Store an object; gives the reason why not."""
        with without_warnings_of_dicom():
            answer = self.server.store(dataset)
        failed = answer.get("FailedSOPSequence")
        return reason_of(int(failed[0].get("FailureReason", 0)), self.server.name) if failed else ""


def reason_of(status: int, server: str) -> str:
    """Words for a status with which a server refuses an object."""
    known = _REASONS.get(status) or _REASONS.get(status & 0xFF00) or _REASONS.get(status & 0xF000)
    return f"{server} refuses the object: {known or 'no reason that is known'} ({status:04X}H)"


def push(
    store: Store,
    files: Sequence[str | os.PathLike[str]],
    *,
    incomplete: bool = False,
    progress: Callable[[Pushed], None] = lambda _: None,
) -> Pushed:
    """Store DICOM files, each object once; present objects are counted and not sent again.

    Args:
        store: The server.
        files: Files, or folders with files.
        incomplete: Whether to store an object that refers to instances the server does not have.
        progress: Called with the counts after each file.

    Raises:
        FileNotFoundError: If a file or folder is absent.
        ValueError: If the folder holds no DICOM file.
    """
    result, seen = Pushed(), set()
    for path in _dicom_files(files):
        try:
            dataset = _read(path)
            instance = str(dataset.SOPInstanceUID)
            if instance in seen:
                result.twice += 1
                continue
            seen.add(instance)
            _push_one(store, path, dataset, result, incomplete=incomplete)
        except PacsError as error:
            if error.stops:
                result.stopped = str(error)
                return result
            result.refused.append(Refused(path, str(error)))
        except ValueError as error:
            result.refused.append(Refused(path, str(error)))
        progress(result)
    return result


def _push_one(store: Store, path: Path, dataset: Any, found: Pushed, *, incomplete: bool) -> None:
    if store.has(dataset):
        found.there += 1
        return
    lacking = 0 if incomplete else store.lacks(dataset)
    if lacking:
        reason = (
            f"its series has changed: it refers to {lacking} instances that the server does not have; pull the series "
            "and make the mask again, or give --incomplete"
        )
        found.refused.append(Refused(path, reason))
        return
    reason = store.put(dataset)
    if reason:
        found.refused.append(Refused(path, reason))
    else:
        found.stored += 1


def _read(path: Path) -> Any:
    """Read a file with complete pixels and identifiers."""
    from pydicom import dcmread

    try:
        with without_warnings_of_dicom():
            dataset = dcmread(path)
            needed = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
            if not all(dataset.get(keyword) for keyword in needed):
                raise ValueError("no identifiers")
            whole = _is_whole(dataset)
    except Exception as error:  # whatever pydicom finds wrong; its texts may quote header values
        raise ValueError(f"no whole DICOM file ({type(error).__name__})") from None
    if not whole:
        raise ValueError("the pixels are cut short; make or copy the file again")
    return dataset


def _is_whole(dataset: Any) -> bool:
    if "PixelData" not in dataset or dataset.file_meta.TransferSyntaxUID.is_compressed:
        return True
    bits = (
        int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) * int(dataset.get("SamplesPerPixel", 1))
    )
    return len(dataset.PixelData) * 8 >= bits * int(dataset.get("NumberOfFrames") or 1)


def _shown(path: Path, names: PlainNames) -> str:
    rest = path.name
    for token in tokens_in(rest):  # a mask of ours
        rest = rest.replace(token, "")
    return path.name if is_plain(rest) else names.token("file", str(path.absolute()))


def _dicom_files(given: Sequence[str | os.PathLike[str]]) -> list[Path]:
    result: list[Path] = []
    for source in map(Path, given):
        if not source.exists():
            raise FileNotFoundError(f"no file or folder at {source}")
        inside = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        result += [path for path in inside if not path.name.startswith(".") and is_dicom(path)]
    if not result:
        raise ValueError(f"no DICOM file in {', '.join(map(str, given))}; write masks with --format dicom_seg")
    return result
