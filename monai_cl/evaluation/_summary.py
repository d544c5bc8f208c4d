"""From the scores of all runs to estimates with intervals, leaving out, and saying, what cannot be paired."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypedDict

import numpy as np

from monai_cl.evaluation._believing import verdict
from monai_cl.evaluation._curve_data import (
    COMPUTE,
    HANDED,
    LONG,
    MEAN,
    STEPS,
    ArmConvergence,
    ArmLabelsSaved,
    CurveArm,
    Estimate,
)
from monai_cl.evaluation._records import CaseScore, Interval
from monai_cl.evaluation._resampling import IN_TURN
from monai_cl.evaluation._table import METRICS, Score
from monai_cl.evaluation.statistics import converged, interval, labels_saved, paired_difference


@dataclass(frozen=True)
class Comparison:
    """Two arms whose scores are paired."""

    kind: str  # STEPS or COMPUTE
    arm: str
    reference: str


class _Options(TypedDict):
    confidence: float
    resamples: int


@dataclass(frozen=True)
class Summary:
    """What scores say together."""

    estimates: tuple[Estimate, ...]
    labels_saved: tuple[ArmLabelsSaved, ...]
    convergence: tuple[ArmConvergence, ...]


def summarise(
    scores: Sequence[Score],
    arms: Sequence[CurveArm],
    reference: str,
    *,
    tolerance: float = 0.005,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Summary:
    """Estimates of every arm and comparison, labels saved, and whether the reference was trained long enough.

    Args:
        scores: Scores of all arms, some of which may be missing since their runs failed.
        arms: The arms, in order.
        reference: Name of the arm that the others are compared with.
        tolerance: Gain of twice the steps that is too small to matter.
        confidence: Confidence level of intervals.
        resamples: Bootstrap resamples.
    """
    counted, lost = whole_seeds(scores, arms)
    statistics = Statistics(counted, confidence=confidence, resamples=resamples)
    pairs = comparisons(arms, reference)
    first = next(arm for arm in arms if arm.name == reference)
    longer = [arm.name for arm in arms if arm.role == LONG]
    estimates = statistics.estimates([arm.name for arm in arms], pairs)
    return Summary(
        estimates=tuple(_with_lost(judged(estimate, arms), lost) for estimate in estimates),
        labels_saved=tuple(entry for pair in pairs for entry in statistics.labels_saved(pair)),
        convergence=tuple(each for name in longer for each in statistics.convergence(first, name, tolerance)),
    )


def whole_seeds(scores: Sequence[Score], arms: Sequence[CurveArm]) -> tuple[list[Score], dict[int, list[int]]]:
    """Scores of the seeds that every arm has finished, budget by budget, and the seeds that were left out.

    Means over different seeds cannot be laid beside each other. An arm, or a pretraining run, of which nothing is
    there at a budget does not count as missing.
    """
    given = {arm.name for arm in arms if arm.role not in (LONG, HANDED)}
    cells = {(score.budget, score.arm, score.run, score.seed) for score in scores}
    lost: dict[int, list[int]] = {}
    for budget in sorted({cell[0] for cell in cells}):
        series = {cell[1:3] for cell in cells if cell[0] == budget and cell[1] in given}
        seeds = sorted({cell[3] for cell in cells if cell[0] == budget})
        lost[budget] = [seed for seed in seeds if any((budget, *each, seed) not in cells for each in series)]
    return [score for score in scores if score.seed not in lost[score.budget]], lost


def _with_lost(estimate: Estimate, lost: dict[int, list[int]]) -> Estimate:
    notes = [_left_out(seed) for seed in lost[estimate.budget] if _left_out(seed) not in estimate.notes]
    return replace(estimate, notes=(*estimate.notes, *notes))


def _left_out(seed: int) -> str:
    return f"seed {seed} left out: not finished in every arm"


def comparisons(arms: Sequence[CurveArm], reference: str) -> list[Comparison]:
    """The pairs of arms that a curve compares."""
    others = [arm for arm in arms if arm.role in ("scratch", "pretrained")]
    return [
        *(Comparison(STEPS, arm.name, reference) for arm in others),
        *(Comparison(COMPUTE, arm.gets, arm.name) for arm in arms if arm.role == HANDED),
    ]


def judged(estimate: Estimate, arms: Sequence[CurveArm]) -> Estimate:
    """An estimate with what it may be called, where it is a difference."""
    if estimate.kind != "difference":
        return estimate
    arm = next(arm for arm in arms if arm.name == estimate.arm)
    runs = None if arm.runs == ("",) else _runs_behind(estimate, arm)
    ends = (estimate.low, estimate.high)
    clustered = estimate.patients > 0
    return replace(estimate, verdict=verdict(*ends, seeds=estimate.seeds, runs=runs, clustered=clustered))


def _runs_behind(estimate: Estimate, arm: CurveArm) -> int:
    """Pretraining runs behind a difference: those that finished, or those that the seeds took in turn."""
    in_turn = any(note.startswith(IN_TURN) for note in estimate.notes)
    return min(len(arm.runs), estimate.seeds) if in_turn else estimate.runs


class Statistics:
    """Estimates from scores, some of which may be missing since their runs failed.

    Args:
        scores: Scores of all arms, runs, budgets, seeds, cases and classes.
        confidence: Confidence level of intervals.
        resamples: Bootstrap resamples.
    """

    def __init__(self, scores: Sequence[Score], *, confidence: float = 0.95, resamples: int = 10_000) -> None:
        self.options = _Options(confidence=confidence, resamples=resamples)
        labels = list(dict.fromkeys(score.label for score in scores))
        # with one class the mean over classes is that class
        kinds = product(METRICS, [MEAN, *labels] if len(labels) > 1 else [MEAN])
        self._tables = {(metric, label): list(_table(scores, metric, label)) for metric, label in kinds}

    def estimates(self, arms: Sequence[str], comparisons: Sequence[Comparison]) -> Iterator[Estimate]:
        """Means of the arms and differences of the comparisons, for every budget, metric and class."""
        for metric, label in self._tables:
            for arm in arms:
                yield from self._means(metric, label, arm)
            for comparison in comparisons:
                yield from self._differences(metric, label, comparison)

    def labels_saved(self, comparison: Comparison) -> Iterator[ArmLabelsSaved]:
        """Labels saved at equal Dice; nothing where fewer than two budgets can be compared."""
        table = self._tables["dice", MEAN]
        budgets = [b for b in _budgets(table, comparison.reference) if b in _budgets(table, comparison.arm)]
        complete = _complete(table, [(a, b) for b in budgets for a in (comparison.arm, comparison.reference)])
        if len(budgets) < 2 or not complete.scores:
            return
        for entry in labels_saved(complete.scores, comparison.arm, comparison.reference, **self.options):
            yield ArmLabelsSaved(
                comparison=comparison.kind,
                arm=comparison.arm,
                reference=comparison.reference,
                budget=entry.budget,
                target=entry.target,
                needed=entry.needed,
                saved=entry.saved,
                low=entry.low,
                high=entry.high,
                confidence=entry.confidence,
                excluded=entry.excluded,
                notes=(*entry.notes, *complete.notes),
            )

    def convergence(self, arm: CurveArm, longer: str, tolerance: float) -> Iterator[ArmConvergence]:
        """Whether twice the steps change the Dice of an arm, for each budget where they were tried."""
        table = self._tables["dice", MEAN]
        for budget in _budgets(table, longer):
            complete = _complete(table, [(arm.name, budget), (longer, budget)])
            if not _defined(complete.scores):
                continue
            found = converged(complete.scores, arm.name, longer, budget, tolerance=tolerance, **self.options)
            gain = found.difference
            reason = "; ".join([found.reason, *complete.notes])
            ends = (gain.estimate, gain.low, gain.high, tolerance, reason)
            yield ArmConvergence(arm.name, budget, arm.steps, found.converged, *ends)

    def _means(self, metric: str, label: str, arm: str) -> Iterator[Estimate]:
        table = self._tables[metric, label]
        for budget in _budgets(table, arm):
            complete = _complete(table, [(arm, budget)])
            if _defined(complete.scores):
                found = interval(complete.scores, arm, budget, **self.options)
                yield _estimate("mean", "", metric, label, arm, "", budget, found, complete)

    def _differences(self, metric: str, label: str, pair: Comparison) -> Iterator[Estimate]:
        table = self._tables[metric, label]
        for budget in _budgets(table, pair.arm):
            complete = _complete(table, [(pair.arm, budget), (pair.reference, budget)])
            if _defined(complete.scores):
                names = (pair.arm, pair.reference, budget)
                found = paired_difference(complete.scores, *names, **self.options)
                yield _estimate("difference", pair.kind, metric, label, *names, found, complete)


@dataclass(frozen=True)
class _Complete:
    """Scores of the runs and seeds that every arm has, and what was left out for it."""

    scores: list[CaseScore]
    notes: tuple[str, ...]
    runs: dict[str, int]


def _complete(table: Sequence[CaseScore], wanted: Sequence[tuple[str, int]]) -> _Complete:
    mine = [score for score in table if (score.arm, score.budget) in wanted]
    cells = {(s.arm, s.budget, s.run, s.seed) for s in mine}
    if any(not any((a, b) == cell[:2] for cell in cells) for a, b in wanted):
        return _Complete([], (), {})
    all_runs = {arm: sorted({run for a, _, run, _ in cells if a == arm}) for arm, _ in wanted}
    runs = {
        arm: [run for run in names if all(any(c[:3] == (a, b, run) for c in cells) for a, b in wanted if a == arm)]
        for arm, names in all_runs.items()
    }
    all_seeds = sorted({seed for *_, seed in cells})
    seeds = [seed for seed in all_seeds if all((a, b, run, seed) in cells for a, b in wanted for run in runs[a])]
    lost = [(arm, run) for arm in runs for run in all_runs[arm] if run not in runs[arm]]
    notes = [f"run {run} of {arm} left out: not finished" for arm, run in lost]
    notes += [_left_out(seed) for seed in all_seeds if seed not in seeds]
    kept = [s for s in mine if s.run in runs[s.arm] and s.seed in seeds] if all(runs.values()) else []
    return _Complete(kept, tuple(notes), {arm: len(names) for arm, names in runs.items()})


def _defined(scores: Sequence[CaseScore]) -> bool:
    return any(not math.isnan(score.value) for score in scores)


def _budgets(table: Sequence[CaseScore], arm: str) -> list[int]:
    return sorted({score.budget for score in table if score.arm == arm})


def _table(scores: Sequence[Score], metric: str, label: str) -> Iterator[CaseScore]:
    """One value for each case: of a class, or the mean of the classes that the truth has."""
    if label != MEAN:
        for s in (score for score in scores if score.label == label):
            yield CaseScore(s.arm, s.budget, s.seed, s.case, getattr(s, metric), s.run, s.patient)
        return
    values: dict[tuple[str, int, int, str, str, str], list[float]] = defaultdict(list)
    for s in scores:
        values[s.arm, s.budget, s.seed, s.case, s.run, s.patient].append(getattr(s, metric))
    for (arm, budget, seed, case, run, patient), found in values.items():
        known = [value for value in found if not math.isnan(value)]
        yield CaseScore(arm, budget, seed, case, float(np.mean(known)) if known else math.nan, run, patient)


def _estimate(
    kind: str,
    comparison: str,
    metric: str,
    label: str,
    arm: str,
    reference: str,
    budget: int,
    found: Interval,
    complete: _Complete,
) -> Estimate:
    return Estimate(
        kind=kind,
        comparison=comparison,
        metric=metric,
        label=label,
        arm=arm,
        reference=reference,
        budget=budget,
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        runs=complete.runs[arm],
        seeds=found.seeds,
        cases=found.cases,
        used=found.used,
        excluded=found.excluded,
        notes=(*found.notes, *complete.notes),
        patients=found.patients if all(score.patient for score in complete.scores) else 0,
    )


__all__ = ["COMPUTE", "STEPS", "Comparison", "Statistics", "Summary", "comparisons", "judged", "summarise"]
