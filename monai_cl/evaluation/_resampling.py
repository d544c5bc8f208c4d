"""The crossed bootstrap over pretraining runs, seeds and patients, whose cases move together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from monai_cl.evaluation._records import PAIRED, Interval

Array = npt.NDArray[np.float64]
Draws = dict[str, Array]  # weights of a factor's levels, (T, levels), rows summing to one
UNDEFINED = float("nan")
IN_TURN = "the seeds took pretraining runs in turn"


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
        """Independent weights of each factor's levels: n - 1 draws from n, or 1 where there is one level."""
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
    """What an interval cannot tell, in words: spreads of which there is one sample only."""
    notes = []
    if seeds == 1:
        notes.append("one seed: the spread between seeds cannot be told, the interval speaks of this seed alone")
    if patients == 1:
        notes.append("one patient: the spread between patients cannot be told, the interval speaks of this one alone")
    notes.extend(
        f"one pretraining run ({names[0]}): the spread between pretraining runs cannot be told"
        for names in runs
        if len(names) == 1 and names[0] not in ("", PAIRED)
    )
    if [PAIRED] in runs:
        notes.append(f"{IN_TURN}: the spread between seeds holds that between runs")
    return tuple(notes)
