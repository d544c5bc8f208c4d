"""HTML page of a scanned study: a picture of each kept volume, and the reason for every file left out."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cl.intake.scan import ScanResult
from monai_cl.report._page import rendered, write_page
from monai_cl.report.tables import Cell, Table

_MOST_PATHS = 3  # examples a reason
_ROW = 3  # volumes a subject, on average, from which on subjects have headings of their own


@dataclass(frozen=True)
class Tile:
    """Tile of one volume."""

    source: str
    alt: str
    title: str
    geometry: str
    subject: str
    place: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Volumes under one heading: of a section, or of one subject in it."""

    title: str
    tiles: tuple[Tile, ...]


def write_study_page(result: ScanResult, out: str | Path) -> Path:
    """Write the summary of a scan: one page, offline, the same for the same scan.

    Args:
        result: From :func:`monai_cl.intake.scan.scan` with ``pictures=True``; without pictures the tiles are empty.
        out: The page.

    Returns:
        Its path.
    """
    target = Path(out)
    page = rendered(
        "study.html.j2",
        title="Study" if target.stem == "study" else f"Study {target.stem}",
        summary=_summary(result),
        kept=_kept(result),
        left_out=_left_out(result),
        notes=_notes(result),
        groups=_groups(result),
    )
    return write_page(target, page)


def _items(result: ScanResult) -> list[dict[str, Any]]:
    return [item for items in result.sections.values() for item in items]


def _summary(result: ScanResult) -> str:
    items = _items(result)
    subjects = len({str(item["subject"]) for item in items})
    left_out = f"{len(result.left_out)} left out" if result.left_out else "nothing left out"
    return (
        f"{_count(len(items), 'volume')} of {_count(subjects, 'subject')} kept, {left_out}, "
        f"{_count(result.other_files, 'file')} of other kinds passed over. Names of patients are in none of it."
    )


def _kept(result: ScanResult) -> Table:
    kinds = Counter(_kind(item) for item in _items(result))
    subjects: dict[tuple[str, str, str], set[str]] = {}
    for item in _items(result):
        subjects.setdefault(_kind(item), set()).add(str(item["subject"]))
    rows: list[tuple[Cell, ...]] = [
        (modality or "unknown", sequence or "", body_part or "", count, len(subjects[modality, sequence, body_part]))
        for (modality, sequence, body_part), count in sorted(kinds.items())
    ]
    return Table("Volumes by kind", ("modality", "sequence", "body part", "volumes", "subjects"), tuple(rows))


def _kind(item: dict[str, Any]) -> tuple[str, str, str]:
    return str(item.get("modality", "")), str(item.get("sequence", "")), str(item.get("body_part", ""))


def _left_out(result: ScanResult) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for reason, count in result.reasons.items():
        entries = [entry for entry in result.left_out if entry.reason == reason]
        rows.append((reason, count, _some([entry.shown for entry in entries]), entries[0].detail))
    note = f"Each series, or file of no series, has a row in {result.exclusions.name}."
    return Table("By reason", ("reason", "count", "such as", "detail of the first"), tuple(rows), (note,))


def _notes(result: ScanResult) -> Table:
    rows = tuple((text, len(paths), _some(paths)) for text, paths in result.notes.items())
    return Table("Kept, but worth a look", ("what", "count", "such as"), rows)


def _groups(result: ScanResult) -> list[Group]:
    remarks: dict[str, list[str]] = {}
    for text, paths in result.notes.items():
        for path in paths:
            remarks.setdefault(path, []).append(text)
    groups = []
    for section, items in result.sections.items():
        by_subject: dict[str, list[dict[str, Any]]] = {}
        for item in items:
            by_subject.setdefault(str(item["subject"]), []).append(item)
        if len(items) < _ROW * len(by_subject):  # a heading for every tile or two would be noise, and a long page
            flow = [item for one in by_subject.values() for item in one]
            groups.append(Group(section, tuple(_tile(item, result, remarks, named=True) for item in flow)))
            continue
        for subject, own in by_subject.items():
            groups.append(Group(f"{section}: {subject}", tuple(_tile(item, result, remarks) for item in own)))
    return groups


def _tile(item: dict[str, Any], result: ScanResult, remarks: dict[str, list[str]], *, named: bool = False) -> Tile:
    image = item["image"]
    place = image if isinstance(image, str) else image[0]
    picture = result.pictures.get(place)
    title = " ".join(filter(None, _kind(item))) or "unknown kind"
    shape, spacing = item.get("shape", ()), item.get("spacing", ())
    geometry = f"{' x '.join(map(str, shape))}, {' x '.join(f'{side:.3g}' for side in spacing)} mm"
    source = "data:image/png;base64," + base64.b64encode(picture).decode("ascii") if picture else ""
    shown = place if isinstance(image, str) else f"{place} and {len(image) - 1} more files"
    alt = f"Middle slice of {title}, {item['subject']}"
    subject = f"subject {item['subject']}" if named else ""
    return Tile(source, alt, title, geometry, subject, shown, tuple(remarks.get(place, ())))


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _MOST_PATHS} more" if len(paths) > _MOST_PATHS else ""
    return ", ".join(paths[:_MOST_PATHS]) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s'[: number != 1]}"
