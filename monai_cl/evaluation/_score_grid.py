"""Scores in any order as arrays over runs, seeds and cases; what is missing or doubled is named."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from monai_cl.evaluation._records import CaseScore

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Scores as arrays (run, seed, case), one for each arm and budget, with seeds and cases in common.

    Attributes:
        values: The arrays.
        runs: Names of the runs of each arm.
        patients: The patient of each case, by number.
    """

    values: dict[tuple[str, int], Array]
    runs: dict[str, list[str]]
    patients: npt.NDArray[np.int64]

    @classmethod
    def build(cls, scores: Iterable[CaseScore], wanted: Sequence[tuple[str, int]]) -> "Grid":
        records = list(scores)
        _require_known(records, wanted)
        records = [s for s in records if (s.arm, s.budget) in wanted]
        seeds, cases = sorted({s.seed for s in records}), sorted({s.case for s in records})
        runs = {arm: sorted({s.run for s in records if s.arm == arm}) for arm, _ in wanted}
        cells = _by_cell(records)
        grid = [(a, b, r, s, c) for a, b in wanted for r in runs[a] for s in seeds for c in cases]
        _require_complete([key for key in grid if key not in cells])
        values = {
            (a, b): np.array([[[cells[a, b, r, s, c] for c in cases] for s in seeds] for r in runs[a]])
            for a, b in wanted
        }
        owners = _owners(records)
        numbers = {name: number for number, name in enumerate(sorted(set(owners.values())))}
        return cls(values, runs, np.array([numbers[owners[c]] for c in cases], dtype=np.int64))


Cell = tuple[str, int, str, int, str]


def _by_cell(records: Sequence[CaseScore]) -> dict[Cell, float]:
    cells: dict[Cell, float] = {}
    for s in records:
        key = (s.arm, s.budget, s.run, s.seed, s.case)
        if key in cells:
            raise ValueError(f"each cell must have one score, got two for {_cell_name(key)}; remove one")
        if math.isinf(s.value):
            raise ValueError(f"a score must be finite, or NaN where undefined, got {s.value} for {_cell_name(key)}")
        cells[key] = float(s.value)
    return cells


def _owners(records: Sequence[CaseScore]) -> dict[str, str]:
    """The patient of each case: the one that is named, else the case."""
    owners: dict[str, str] = {}
    for s in records:
        # a case that is its own patient is no patient of that name
        owner = f"patient {s.patient}" if s.patient else f"case {s.case}"
        if owners.setdefault(s.case, owner) != owner:
            raise ValueError(f"a case must be of one patient, got {owners[s.case]} and {owner} for {s.case!r}")
    return owners


def require_arm(records: Sequence[CaseScore], arm: str) -> None:
    """Raise ``ValueError``, naming the closest, if no record is of this arm."""
    arms = sorted({s.arm for s in records})
    if arm not in arms:
        close = get_close_matches(arm, arms, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"arm must be one of {arms}, got {arm!r}{hint}")


def _require_known(records: Sequence[CaseScore], wanted: Sequence[tuple[str, int]]) -> None:
    for arm, budget in wanted:
        require_arm(records, arm)
        budgets = sorted({s.budget for s in records if s.arm == arm})
        if budget not in budgets:
            raise ValueError(f"budget of arm {arm!r} must be one of {budgets}, got {budget}")


def _require_complete(missing: Sequence[Cell]) -> None:
    if missing:
        shown = "; ".join(_cell_name(key) for key in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(
            f"a paired comparison needs every seed and case in each arm, missing are {len(missing)} scores: "
            f"{shown}{more}; finish those runs, or leave the seed or case out of every arm"
        )


def _cell_name(key: Cell) -> str:
    arm, budget, run, seed, case = key
    return f"arm {arm!r}, budget {budget}, {f'run {run!r}, ' if run else ''}seed {seed}, case {case!r}"
