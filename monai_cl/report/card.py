"""Model cards: ``docs/README.md`` of a bundle, made from its prose and its records, never typed by hand.

The prose stands in ``docs/card.md.j2``, a jinja2 template with ``{{ results }}`` where the results go and ``metadata``
for facts of ``configs/metadata.json``. The results stand in ``docs/records/*.json``, each written by
:func:`record_results` from runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from monai_cl._files import read_json, write_json, write_text
from monai_cl.engine.machine import hardware, versions
from monai_cl.evaluation import load_curve
from monai_cl.report._facts import data_tables, receipts
from monai_cl.report._folders import Found, find
from monai_cl.report._headline import headline
from monai_cl.report._invariance import invariance_tables
from monai_cl.report._label_curve import curve_tables, curve_warnings
from monai_cl.report._privacy import without_paths
from monai_cl.report._results import result_tables
from monai_cl.report._safety import inside
from monai_cl.report.tables import Table, from_json, to_json, to_markdown

CARD, PROSE, RECORDS = "docs/README.md", "docs/card.md.j2", "docs/records"
_FORMAT = 1
_NONE = "No results have been recorded for this version of the bundle."


@dataclass(frozen=True)
class Record:
    """Results of record.

    Attributes:
        title: Title of the measurement.
        date: Day of the measurement.
        hardware: Machine of the measurement.
        versions: Versions of the packages.
        tables: The results, with intervals.
        command: How to measure them again.
        notes: Remarks for the reader.
        lead: Sentences on what helped, by how much, with its interval; one a curve.
    """

    title: str
    date: str
    hardware: str
    versions: Mapping[str, str]
    tables: tuple[Table, ...]
    command: str = ""
    notes: tuple[str, ...] = ()
    lead: tuple[str, ...] = ()


def record_results(
    runs: Sequence[str | Path], path: str | Path, *, title: str, command: str = "", date: str | None = None
) -> Record:
    """Write the results of runs as a record for a model card.

    Versions, hardware and the day are those that the runs recorded; where none did, those of now.

    Args:
        runs: Folders as for :func:`monai_cl.report.html.write_report`.
        path: The JSON file, in ``docs/records`` of a bundle.
        title: Title of the measurement.
        command: How to measure it again.
        date: Day of the measurement, where the runs did not record it.

    Returns:
        The record.

    Raises:
        ValueError: If the runs hold no evaluation, no curve and no measurement of invariance.
    """
    record = _of_runs(find(runs, examples=False), title, command, date)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": _FORMAT,
        "title": record.title,
        "date": record.date,
        "hardware": record.hardware,
        "versions": dict(record.versions),
        "command": record.command,
        "lead": list(record.lead),
        "tables": [to_json(table) for table in record.tables],
        "notes": list(record.notes),
    }
    write_json(target, content, allow_nan=False)
    return record


def read_records(bundle: str | Path) -> list[Record]:
    """The records of a bundle, by file name.

    Raises:
        ValueError: If a file is no record.
    """
    root = Path(bundle)
    return [_read(path) for path in sorted((root / RECORDS).glob("*.json")) if inside(root, path)]


def render_card(bundle: str | Path) -> str:
    """The model card that prose and records of a bundle give.

    Raises:
        FileNotFoundError: If the bundle has no prose or metadata.
        ValueError: If a record is none, or the prose names something that is not known.
    """
    root = Path(bundle)
    prose = root / PROSE
    if not prose.is_file():
        raise FileNotFoundError(f"the prose of the card must be in {prose}, which does not exist; is {root} a bundle?")
    if not inside(root, prose):
        raise ValueError(f"{prose} must lie in the bundle itself, it is a link out of it")
    metadata = read_json(root / "configs/metadata.json")
    records = read_records(root)
    results = "\n\n".join(map(_markdown, records)) or _NONE
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    try:
        template = environment.from_string(prose.read_text(encoding="utf-8"))
        return template.render(metadata=metadata, records=records, results=results)
    except Exception as error:  # whatever a template may raise
        raise ValueError(f"{prose} cannot be made into a card: {error}") from error


def write_card(bundle: str | Path) -> Path:
    """Write the model card of a bundle."""
    text, target = render_card(bundle), Path(bundle) / CARD
    write_text(target, text)
    return target


def check_card(bundle: str | Path) -> str:
    """Difference of the model card from its prose and records, as a unified diff; empty if up to date."""
    target = Path(bundle) / CARD
    wanted = render_card(bundle).splitlines(keepends=True)
    present = target.read_text(encoding="utf-8").splitlines(keepends=True) if target.is_file() else []
    return "".join(difflib.unified_diff(present, wanted, f"{CARD} as it is", f"{CARD} from the records"))


def _of_runs(found: Found, title: str, command: str, date: str | None) -> Record:
    curves = [load_curve(run.folder) for run in found.of("curve")]
    results = [table for curve in curves for table in curve_tables(curve)] + result_tables(found.of("evaluate"))
    results += invariance_tables(found.of("invariance"))
    if not results:
        raise ValueError("a record needs an evaluation, a curve or a measurement of invariance, the runs hold none")
    runs = found.of("pretrain", "train", "evaluate")
    parts = [part for run in runs for part in run.record.get("parts", [])]
    known: list[dict[str, Any]] = [dict(curve.record) for curve in curves] or parts
    days = [str(day)[:10] for each in known if (day := each.get("date") or each.get("started"))]
    machines = [machine for each in known for machine in _listed(each.get("hardware"))]
    packages = [dict(each["versions"]) for each in known if each.get("versions")]
    return Record(
        title=title,
        date=max(days, default="") or date or datetime.now(timezone.utc).date().isoformat(),
        hardware="; ".join(dict.fromkeys(machines)) or hardware(),
        versions=packages[-1] if packages else versions(),
        tables=(*results, *data_tables(runs), *receipts(found)),
        command=without_paths(command),
        notes=tuple(text for curve in curves for text in curve_warnings(curve)),
        lead=tuple(filter(None, map(headline, curves))),
    )


def _listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else [str(value)] if value else []


def _read(path: Path) -> Record:
    try:
        content = read_json(path)
        if content["format"] != _FORMAT:
            raise ValueError(f"its format must be {_FORMAT}, got {content['format']!r}")
        return Record(
            title=str(content["title"]),
            date=str(content["date"]),
            hardware=str(content["hardware"]),
            versions={str(key): str(value) for key, value in content["versions"].items()},
            tables=tuple(map(from_json, content["tables"])),
            command=str(content.get("command", "")),
            notes=tuple(map(str, content.get("notes", ()))),
            lead=tuple(map(str, content.get("lead", ()))),
        )
    except KeyError as error:
        raise ValueError(f"{path} is no record: it lacks {error}; write it with `monai-cl report --record`") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no record: {error}; write it with `monai-cl report --record`") from error


def _markdown(record: Record) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in record.versions.items())
    parts = [f"### {record.title}", f"Measured {record.date} on {record.hardware}; {packages}."]
    parts += record.lead
    parts += [f"```bash\n{record.command}\n```"] if record.command else []
    return "\n\n".join([*parts, *map(to_markdown, record.tables), *record.notes])
