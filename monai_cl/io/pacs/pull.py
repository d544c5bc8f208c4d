"""Download of series from a DICOMweb server: existing files stay, missing ones are listed."""

import csv
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from monai_cl._files import atomic_write
from monai_cl.io.dicom.headers import read_slice_header
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.pacs.errors import PacsError
from monai_cl.io.pacs.web import WebServer
from monai_cl.io.threads import without_warnings_of_dicom

MISSING = "not_pulled.csv"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_STUDY = ("PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber", "ModalitiesInStudy", "StudyDescription")
_SERIES = ("Modality", "SeriesInstanceUID", "SeriesDescription")


class Missing(NamedTuple):
    """An instance, or a whole series or study, that could not be got."""

    study: str
    series: str
    instance: str
    reason: str


@dataclass
class Pulled:
    """Counts of a pull.

    Args:
        folder: Where the files are.
        gone: Files of before that the server no longer lists: their series has changed. They stay.
    """

    folder: Path
    studies: int = 0
    series: int = 0
    got: int = 0
    there: int = 0
    twice: int = 0
    gone: int = 0
    missing: list[Missing] = field(default_factory=list)
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """Return whether all requested objects are present."""
        return not self.missing and not self.stopped

    def summary(self) -> str:
        """Return the counts in a line."""
        parts = [f"{self.series} series of {self.studies} studies", f"{self.got} instances got"]
        parts += [f"{self.there} present before"] if self.there else []
        parts += [f"{self.twice} listed twice and kept once"] if self.twice else []
        parts += [f"{self.gone} of before are no longer at the server, and stay here"] if self.gone else []
        parts += [f"{len(self.missing)} could not be got, see {MISSING}"] if self.missing else []
        return ", ".join(parts)

    def told(self) -> str:
        """Return :meth:`summary`, under its former name."""
        warnings.warn("`told` is now `summary`", FutureWarning, stacklevel=2)
        return self.summary()


def pull(
    server: WebServer,
    folder: str | os.PathLike[str],
    *,
    filters: Mapping[str, str],
    limit: int | None = None,
    progress: Callable[[Pulled], None] = lambda _: None,
) -> Pulled:
    """Get the series that filters name as ``FOLDER/STUDY/SERIES/INSTANCE.dcm``; the same call goes on where it ended.

    Each file is whole or absent: its pixels are complete, and it is the instance that was asked for. An instance that
    fails is listed in ``not_pulled.csv`` with the reason, and the next one follows; a server that is away or refuses
    the credentials ends the pull.

    Args:
        server: The server.
        folder: Folder of the files, which name patients: one of the clinic.
        filters: Values by keyword, such as ``{"PatientID": "1", "Modality": "MR"}``, with ``*`` and ``?`` as wildcards.
        limit: Studies to get at most.
        progress: Called with the counts after each instance.

    Raises:
        PacsError: If the search for studies fails.
        ValueError: If a filter is unknown or missing, or nothing matches.
    """
    unknown = sorted(set(filters) - {*_STUDY, *_SERIES})
    if unknown or not filters:
        raise ValueError(f"filters must be among {', '.join((*_STUDY, *_SERIES))}, got {', '.join(unknown) or 'none'}")
    result = Pulled(Path(folder))
    by_study = {key: value for key, value in filters.items() if key in _STUDY}
    if "Modality" in filters and "ModalitiesInStudy" not in by_study:
        by_study["ModalitiesInStudy"] = filters["Modality"]
    studies = _unique(one.get("StudyInstanceUID") for one in server.studies(by_study))[:limit]
    if not studies:
        raise ValueError("the server has no study that fits the filters; nothing was written")
    result.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    inside = {key: value for key, value in filters.items() if key in _SERIES}
    try:
        for study in studies:
            _pull_study(server, study, inside, result, progress)
    except PacsError as error:
        result.stopped = str(error)
    _list_missing(result)
    return result


def _pull_study(
    server: WebServer, study: str, filters: dict[str, str], found: Pulled, progress: Callable[[Pulled], None]
) -> None:
    found.studies += 1
    try:
        listed = server.series(study, filters)
    except PacsError as error:
        _miss(found, Missing(study, "", "", str(error)), error)
        return
    by_uid = {str(one.get("SeriesInstanceUID")): one for one in listed}
    for series in _unique(by_uid):
        _pull_series(server, study, by_uid[series], found, progress)


def _pull_series(
    server: WebServer, study: str, listed: Mapping[str, Any], found: Pulled, progress: Callable[[Pulled], None]
) -> None:
    series, before = str(listed["SeriesInstanceUID"]), found.got
    found.series += 1
    try:
        instances = server.instances(study, series)
    except PacsError as error:
        _miss(found, Missing(study, series, "", str(error)), error)
        return
    wanted = _unique(instances)
    found.twice += len(instances) - len(wanted)
    announced = _count(listed.get("NumberOfSeriesRelatedInstances"))
    for _ in range(announced - len(wanted)):
        found.missing.append(Missing(study, series, "", f"announced as one of {announced}, and not listed"))
    target = found.folder / study / series
    lacking = {one for one in wanted if not (target / f"{one}.dcm").exists()}
    found.there += len(wanted) - len(lacking)
    found.gone += len({file.stem for file in target.glob("*.dcm")} - set(wanted))
    if not lacking:
        return
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    if len(lacking) > 1:
        _take_stream(server, study, series, target, lacking, found, progress)
    for instance in sorted(lacking):
        try:
            reason = _take(server.instance(study, series, instance), target, {instance})
        except PacsError as error:
            if error.stops:
                _miss_all(found, study, series, lacking, error)
            reason = str(error)
        if reason:
            found.missing.append(Missing(study, series, instance, reason))
            continue
        lacking.discard(instance)
        found.got += 1
        progress(found)
    if found.got == before and not any(target.iterdir()):
        target.rmdir()


def _take_stream(
    server: WebServer,
    study: str,
    series: str,
    target: Path,
    lacking: set[str],
    found: Pulled,
    progress: Callable[[Pulled], None],
) -> None:
    """Take a series as one answer; what it lacks, or comes damaged, stays in ``lacking`` and is asked for singly."""
    try:
        for dataset in server.instances_of_series(study, series):
            instance = str(dataset.get("SOPInstanceUID", ""))
            if instance in lacking and not _take(dataset, target, lacking):
                lacking.discard(instance)
                found.got += 1
                progress(found)
    except PacsError as error:
        if error.stops:
            _miss_all(found, study, series, lacking, error)


def _miss_all(found: Pulled, study: str, series: str, lacking: set[str], error: PacsError) -> NoReturn:
    found.missing += [Missing(study, series, instance, str(error)) for instance in sorted(lacking)]
    raise error


def _take(dataset: Any, target: Path, wanted: Iterable[str]) -> str:
    """Write an instance, whole or not at all; gives the reason why not."""
    instance = str(dataset.get("SOPInstanceUID", ""))
    if instance not in wanted or not _UID.fullmatch(instance):
        return "the server gave another instance"
    try:
        with atomic_write(target / f"{instance}.dcm") as temporary, without_warnings_of_dicom():
            dataset.save_as(temporary, enforce_file_format=True)
            if read_slice_header(temporary).pixels == "cut short":
                raise UnusableImageError("cut short", "the pixels are cut short")
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # their texts may quote header values
        return "the pixels are cut short" if "cut short" in str(error) else f"no whole file ({type(error).__name__})"
    return ""


def _miss(found: Pulled, missing: Missing, error: PacsError) -> None:
    found.missing.append(missing)
    if error.stops:
        raise error


def _count(value: Any) -> int:
    """A number of an answer, 0 for a text that is none, which an error would quote."""
    try:
        return int(value or 0)
    except (TypeError, ValueError):
        return 0


def _unique(uids: Iterable[Any]) -> list[str]:
    """Identifiers, each once; one that is none could lead out of the folder."""
    return [uid for uid in dict.fromkeys(str(one) for one in uids if one) if _UID.fullmatch(uid)]


def _list_missing(found: Pulled) -> None:
    """Write what is missing, or remove the list of before."""
    path = found.folder / MISSING
    if not found.missing:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(Missing._fields)
        writer.writerows(found.missing)
