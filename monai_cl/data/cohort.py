"""Weak labels of whole volumes: healthy or patient, from a field of the datalist or a table of the user."""

import csv
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl.data.domains import with_domains
from monai_cl.datalist import subject_of
from monai_cl.privacy.plain import plain_or

logger = logging.getLogger(__name__)

HEALTHY = ("healthy", "control", "normal", "0", "false")
PATIENTS = ("patient", "case", "disease", "1", "true")
PATIENT = "patient"  # field that an item gains: 0 healthy, 1 patient
_MOST_NAMED = 5


def weak_labels(
    items: Sequence[Mapping[str, Any]],
    *,
    key: str = "cohort",
    healthy: Sequence[str] = HEALTHY,
    patients: Sequence[str] = PATIENTS,
    table: str | Path | None = None,
    both: bool = True,
    domain_key: str | None = None,
) -> list[dict[str, Any]]:
    """Items with a field ``patient``, 0 (healthy) or 1 (patient), those of the healthy first.

    In that order each of several processes, which take every so many-th item, has both kinds in about equal shares.
    A label is compared without regard to case and surrounding blanks.

    Args:
        items: Items as from :func:`monai_cl.datalist.load_datalist`.
        key: Field of the items, or column of the table, that labels a volume as healthy or patient.
        healthy: Labels of the healthy.
        patients: Labels of patients.
        table: CSV file with a column ``case`` or ``subject``, as the datalist names them, and a column ``key``; its
            labels go before those of the items.
        both: Refuse items of which none is healthy, or none a patient: one kind alone cannot be separated.
        domain_key: Field that names the site of each item, for ``domain`` as of :func:`monai_cl.data.with_domains`;
            with ``both``, healthy or patients must come from two sites at least.

    Raises:
        ValueError: If an item has no label or an unknown one, a label counts as both, the table lacks a column or has
            two labels for one, all items are of one kind, or as :func:`monai_cl.data.with_domains`.
        FileNotFoundError: If no such table exists.

    Example:
        >>> items = [{"image": "a", "cohort": "Patient"}, {"image": "b", "cohort": "healthy"}]
        >>> [(one["image"], one["patient"]) for one in weak_labels(items)]
        [('b', 0), ('a', 1)]
    """
    meanings = _meanings(healthy, patients)
    given = {} if table is None else _read(Path(table), key)
    labels = [given.get(str(one.get("case")), given.get(subject_of(one), one.get(key))) for one in items]
    _refuse_unknown(items, labels, meanings, key, show=_plainly if given else lambda label: repr(str(label)))
    labelled = [{**one, PATIENT: meanings[_bare(label)]} for one, label in zip(items, labels, strict=True)]
    counts = Counter(one[PATIENT] for one in labelled)
    if both and len(counts) < 2:
        raise ValueError(
            f"the volumes must include healthy and patients, got {counts[0]} healthy and {counts[1]} patients; "
            f"look at the field {key!r} and the sections that are read"
        )
    logger.info("weak labels: %d healthy, %d patients", counts[0], counts[1])
    if domain_key is not None:
        labelled = with_domains(labelled, domain_key, label_key=PATIENT if both else None)
    return sorted(labelled, key=lambda one: int(one[PATIENT]))


def _meanings(healthy: Sequence[str], patients: Sequence[str]) -> dict[str, int]:
    meanings = {_bare(label): 0 for label in healthy}
    shared = sorted(meanings.keys() & {_bare(label) for label in patients})
    if shared:
        raise ValueError(f"a label must be healthy or patient, {shared} are both; take them out of one of the lists")
    return meanings | {_bare(label): 1 for label in patients}


def _refuse_unknown(
    items: Sequence[Mapping[str, Any]],
    labels: Sequence[Any],
    meanings: Mapping[str, int],
    key: str,
    show: Callable[[Any], str],
) -> None:
    """Name the labels that are neither, and some volumes of each."""
    unknown: dict[str, list[str]] = {}
    for number, (one, label) in enumerate(zip(items, labels, strict=True)):
        if label is None or _bare(label) not in meanings:
            name = "no label" if label is None or not _bare(label) else show(label)
            unknown.setdefault(name, []).append(str(one.get("case", number)))
    if unknown:
        named = [f"{label} ({len(cases)}, such as {cases[0]})" for label, cases in sorted(unknown.items())]
        raise ValueError(
            f"{key} of each volume must be one of {sorted(meanings)}, got {', '.join(named[:_MOST_NAMED])}; add them "
            "to healthy or patients, correct the datalist, or give a table"
        )


def _read(path: Path, key: str) -> dict[str, str]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    by = next((name for name in ("case", "subject") if name in columns), None)
    if by is None or key not in columns:
        got = ", ".join(map(_plainly, columns)) or "none"
        raise ValueError(
            f"{path} must have a column case or subject, and a column {key}, named in its first line, got {got}; "
            "rename them, or put a line of names first"
        )
    result: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        if _bare(result.setdefault(row[by], row[key])) != _bare(row[key]):
            both = f"{_plainly(result[row[by]])} and {_plainly(row[key])}"
            raise ValueError(
                f"{path} has two labels for one {by}, {both} in rows {lines[row[by]]} and {line}; keep one"
            )
        lines.setdefault(row[by], line)
    return result


def _plainly(text: Any) -> str:
    """A text of a table in messages, as far as it names nobody: a table may lack its first line, or be another one."""
    return plain_or(str(text), "a text that might name somebody", form="{!r}")


def _bare(label: Any) -> str:
    return str(label).strip().casefold()
