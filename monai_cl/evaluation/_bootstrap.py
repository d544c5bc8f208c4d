"""Scores as arrays over runs, seeds and cases, and the crossed bootstrap over runs, seeds and patients.

All cases of a patient move together. Missing or doubled scores are named.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from monai_cl._words import suggestion
from monai_cl.evaluation.records import PAIRED, CaseScore, Interval

Array = npt.NDArray[np.float64]
Draws = dict[str, Array]  # weights of a factor's levels, (T, levels), rows summing to one
UNDEFINED = float("nan")
IN_TURN = "the seeds took pretraining runs in turn"


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
        close = suggestion(arm, arms, form=" (did you mean {!r}?)")
        raise ValueError(f"arm must be one of {arms}, got {arm!r}{close}")


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


@dataclass(frozen=True)
class Options:
    confidence: float
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {self.confidence!r}")
        if self.resamples < 100:
            raise ValueError(f"resamples must be at least 100, got {self.resamples!r}")

    def draws(self, levels: dict[str, int]) -> Draws:
        """Bootstrap weights of each factor's levels: n - 1 draws from n, or 1 for a single level."""
        rng = np.random.default_rng(self.seed)
        size = self.resamples
        return {
            name: np.ones((size, 1)) if n == 1 else rng.multinomial(n - 1, np.full(n, 1 / n), size) / (n - 1)
            for name, n in levels.items()
        }

    def quantile(self, degrees: float) -> float:
        """Two-sided quantile of Student's t (of the normal for infinitely many degrees)."""
        return float(stats.t.ppf((1 + self.confidence) / 2, degrees))


def uniform(levels: dict[str, int]) -> Draws:
    """Weights that leave every factor as it is."""
    return {name: np.full((1, n), 1 / n) for name, n in levels.items()}


def only(factor: str, draws: Draws, levels: dict[str, int]) -> Draws:
    """Weights that resample ``factor`` and leave the others alone."""
    return {**uniform(levels), factor: draws[factor]}


def satterthwaite(variances: Sequence[tuple[int, float]]) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances, each with its number of levels."""
    total = sum(v for _, v in variances)
    # far below the rounding of scores around 1: no spread at all
    return total**2 / sum(v**2 / (n - 1) for n, v in variances) if total > 1e-30 else math.inf


def by_patient(values: Array, patients: npt.NDArray[np.int64]) -> Array:
    """Sums over the cases of each patient, (..., c) to (..., p); patients without a case are left out."""
    member = patients[:, None] == np.unique(patients)[None]
    sums: Array = values @ member.astype(np.float64)
    return sums


def weighted_mean(sums: Array, counts: Array, draws: Draws) -> Array:
    """Mean over cases under each row of weights, (T,); NaN where none is drawn.

    A patient's weight is the weight of each of its cases, so that a patient with two volumes counts twice.

    Args:
        sums: Sum of the scores of each patient, (r, q, s, p).
        counts: Number of scores behind it, alike.
        draws: Weights of runs, reference runs, seeds and patients.
    """

    def total(x: Array) -> Array:
        over_patients = np.einsum("rqst,ts->rqt", x @ draws["patient"].T, draws["seed"])
        result: Array = np.einsum("rqt,tr,tq->t", over_patients, draws["run"], draws["reference run"])
        return result

    weight = total(counts)
    return np.divide(total(sums), weight, where=weight > 0, out=np.full_like(weight, np.nan))


def mean_interval(
    values: Array, patients: npt.NDArray[np.int64], runs: tuple[list[str], list[str]], options: Options
) -> Interval:
    """Interval of the mean of ``values`` (r, q, s, c), given the patient of each case."""
    excluded = int(np.isnan(values).sum())
    if excluded == values.size:
        raise ValueError(f"no pair of scores is defined, got NaN for all {excluded}; is the class empty in every case?")
    scored = ~np.isnan(values).all(axis=(0, 1, 2))  # a case without any score is no case
    values, patients = values[:, :, :, scored], patients[scored]
    values = values[:, :, ~np.isnan(values).all(axis=(0, 1, 3))]
    present = (~np.isnan(values)).astype(np.float64)
    sums, counts = by_patient(np.where(present > 0, values, 0.0), patients), by_patient(present, patients)
    levels = dict(zip(("run", "reference run", "seed", "patient"), sums.shape, strict=True))
    estimate = float(values[present > 0].mean())
    low, high = _ends(estimate, lambda draws: weighted_mean(sums, counts, draws), levels, options)
    seeds, cases = values.shape[2:]
    return Interval(
        estimate=estimate,
        low=low,
        high=high,
        confidence=options.confidence,
        cases=cases,
        seeds=seeds,
        used=int(present.sum()),
        excluded=excluded,
        notes=spread_notes(seeds, levels["patient"], runs),
        patients=levels["patient"],
    )


def _ends(
    estimate: float, mean: Callable[[Draws], Array], levels: dict[str, int], options: Options
) -> tuple[float, float]:
    draws = options.draws(levels)
    alone = [(n, float(np.nanvar(mean(only(name, draws, levels))))) for name, n in levels.items() if n > 1]
    if not alone:
        return UNDEFINED, UNDEFINED
    half = options.quantile(satterthwaite(alone)) * float(np.nanstd(mean(draws)))
    return estimate - half, estimate + half


def spread_notes(seeds: int, patients: int, runs: tuple[list[str], list[str]]) -> tuple[str, ...]:
    """Limits of an interval, in words: factors with a single level."""
    notes = []
    if seeds == 1:
        notes.append("one seed: the spread between seeds is unknown, the interval holds for this seed alone")
    if patients == 1:
        notes.append("one patient: the spread between patients is unknown, the interval holds for this one alone")
    notes.extend(
        f"one pretraining run ({names[0]}): the spread between pretraining runs is unknown"
        for names in runs
        if len(names) == 1 and names[0] not in ("", PAIRED)
    )
    if [PAIRED] in runs:
        notes.append(f"{IN_TURN}: the spread between seeds holds that between runs")
    return tuple(notes)
