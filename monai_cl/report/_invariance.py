"""Errors of points looked for in other sequences, as tables with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl._files import read_json
from monai_cl.evaluation.invariance_tables import rows_by_sequences
from monai_cl.evaluation.sequence_invariance import INVARIANCE_FILE
from monai_cl.report._folders import Run
from monai_cl.report.tables import Cell, Estimate, Table

_HEADS = ("features", "median error in mm", "found within 5 mm in %")
_BOOTSTRAP = "95 % intervals over patients, each with all its pairs of sequences, and points within the pairs"
_BY_PAIR = (
    "95 % intervals over pairs of sequences and points within them, as version 0.1.0 made them: they take pairs of one "
    "patient as independent, are too narrow and do not hold for other patients"
)


def invariance_tables(runs: Sequence[Run]) -> list[Table]:
    """Tables of each measurement: all descriptors compared with the first one, and each pair of sequences.

    Raises:
        ValueError: If a file holds no such measurement.
    """
    return [table for run in runs for table in _tables(run.folder / INVARIANCE_FILE)]


def _tables(path: Path) -> tuple[Table, Table]:
    try:
        content = read_json(path)
        results, settings = content["results"], content["settings"]
        first = results[0]["name"]
        rows = tuple(tuple(_cells(result, place)) for place, result in enumerate(results))
        notes = (*_circumstances(settings), _BOOTSTRAP if content.get("resampled") == "patients" else _BY_PAIR)
        by_pair = _by_sequences(results)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{path} is no measurement of invariance ({error!r}); run `monai-cl invariance` again"
        ) from error
    heads = (*_HEADS, f"less {first} in percentage points")
    return Table("Points of one MR sequence found again in another", heads, rows, notes), by_pair


def _by_sequences(results: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(rows_by_sequences([result["pairs"] for result in results]))
    note = "median error and share within 5 mm, each the mean of patients and both ways"
    return Table("By pair of sequences", ("sequences", *(str(result["name"]) for result in results)), rows, (note,))


def _cells(found: Mapping[str, Any], place: int) -> Iterator[Cell]:
    yield str(found["name"])
    low, high = found["median_interval"]
    yield Estimate(found["median"], low, high)
    yield _percent(found["near"], found["near_interval"])
    yield _percent(found["gain"], found["gain_interval"]) if place else "reference"


def _percent(value: float, interval: Sequence[float]) -> Estimate:
    low, high = interval
    return Estimate(100 * value, 100 * low, 100 * high)


def _circumstances(settings: Mapping[str, Any]) -> Iterator[str]:
    patients: Mapping[str, Sequence[str]] = settings.get("sequences", {})
    seen = "; ".join(", ".join(names) for names in patients.values())
    yield (
        f"patients: {len(patients)} ({seen}), {settings['points']} points each, spacing {settings['spacing']:g} mm; "
        f"every {settings['stride']} voxels of the body are searched"
    )
