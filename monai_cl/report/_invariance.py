"""How well points were found again in other sequences, as tables with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl.evaluation.sequence_invariance import INVARIANCE_FILE
from monai_cl.report._folders import Run
from monai_cl.report.tables import Cell, Estimate, Table

_HEADS = ("features", "median error in mm", "found within 5 mm in %")
_BOOTSTRAP = "95 % intervals over pairs of sequences and points within them; they say nothing of other patients"


def invariance_tables(runs: Sequence[Run]) -> list[Table]:
    """A table for each measurement: all descriptors, compared with the first one.

    Raises:
        ValueError: If a file holds no such measurement.
    """
    return [_table(run.folder / INVARIANCE_FILE) for run in runs]


def _table(path: Path) -> Table:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results, settings = content["results"], content["settings"]
        first = results[0]["name"]
        rows = tuple(tuple(_cells(found, place)) for place, found in enumerate(results))
        notes = (*_circumstances(settings), _BOOTSTRAP)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{path} is no measurement of invariance ({error!r}); run `monai-cl invariance` again"
        ) from error
    return Table(
        "Points of one MR sequence found again in another", (*_HEADS, f"less {first} in percentage points"), rows, notes
    )


def _cells(found: Mapping[str, Any], place: int) -> Iterator[Cell]:
    yield str(found["name"])
    yield Estimate(found["median"], *found["median_interval"])
    yield _percent(found["near"], found["near_interval"])
    yield _percent(found["gain"], found["gain_interval"]) if place else "reference"


def _percent(value: float, interval: Sequence[float]) -> Estimate:
    return Estimate(100 * value, *(100 * end for end in interval))


def _circumstances(settings: Mapping[str, Any]) -> Iterator[str]:
    patients: Mapping[str, Sequence[str]] = settings.get("sequences", {})
    seen = "; ".join(", ".join(names) for names in patients.values())
    yield (
        f"patients: {len(patients)} ({seen}), {settings['points']} points each, spacing {settings['spacing']:g} mm; "
        f"every {settings['stride']} voxels of the body are searched"
    )
