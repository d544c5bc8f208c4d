"""Estimates with intervals from the scores of all runs; unpaired scores are left out with a note."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from monai_cl.evaluation._bootstrap import IN_TURN
from monai_cl.evaluation.records import (
    COMPUTE,
    DISTANCES,
    HANDED,
    LONG,
    MEAN,
    METRICS,
    STEPS,
    TWIN,
    VARIANT,
    CaseScore,
    Convergence,
    CurveArm,
    Interval,
    LabelsSaved,
    Score,
)
from monai_cl.evaluation.statistics import converged, interval, labels_saved, paired_difference
from monai_cl.evaluation.verdicts import verdict


@dataclass(frozen=True)
class Comparison:
    """Two arms whose scores are paired."""

    kind: str  # STEPS, COMPUTE, TWIN or VARIANT
    arm: str
    reference: str


def summarise(
    scores: Sequence[Score],
    arms: Sequence[CurveArm],
    reference: str,
    *,
    tolerance: float = 0.005,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> dict[str, Any]:
    """Estimates of every arm and comparison, labels saved, and whether the reference was trained long enough.

    Args:
        scores: Scores of all arms, some of which may be missing since their runs failed.
        arms: The arms, in order.
        reference: Name of the arm that the others are compared with.
        tolerance: Gain of twice the steps that is too small to matter.
        confidence: Confidence level of intervals.
        resamples: Bootstrap resamples.

    Returns:
        ``estimates``, ``labels_saved`` and ``convergence`` of a :class:`Curve`.
    """
    counted, lost = _whole_seeds(scores, arms)
    statistics = Statistics(counted, confidence=confidence, resamples=resamples)
    others = [arm for arm in arms if arm.role in ("scratch", "pretrained")]
    pairs = [Comparison(STEPS, arm.name, reference) for arm in others]
    pairs += [Comparison(TWIN, arm.name, arm.twin) for arm in others if arm.twin not in ("", reference)]
    pairs += [Comparison(VARIANT, arm.name, arm.gets) for arm in arms if arm.role == VARIANT]
    pairs += [Comparison(COMPUTE, arm.gets, arm.name) for arm in arms if arm.role == HANDED]
    first = next(arm for arm in arms if arm.name == reference)
    longer = [arm.name for arm in arms if arm.role == LONG]
    estimates = statistics.estimates([arm.name for arm in arms], pairs)
    return {
        "estimates": tuple(_with_lost(judged(estimate, arms), lost) for estimate in estimates),
        "labels_saved": tuple(
            entry for pair in pairs if pair.kind != VARIANT for entry in statistics.labels_saved(pair)
        ),
        "convergence": tuple(each for name in longer for each in statistics.convergence(first, name, tolerance)),
    }


def _whole_seeds(scores: Sequence[Score], arms: Sequence[CurveArm]) -> tuple[list[Score], dict[int, list[int]]]:
    """Scores of the seeds that every arm has finished, budget by budget, and the seeds that were left out.

    Means over different seeds cannot be laid beside each other. An arm, or a pretraining run, of which nothing is
    there at a budget does not count as missing.
    """
    given = {arm.name for arm in arms if arm.role not in (LONG, HANDED, VARIANT)}
    cells = {(score.budget, score.arm, score.run, score.seed) for score in scores}
    lost: dict[int, list[int]] = {}
    for budget in sorted({cell[0] for cell in cells}):
        series = {cell[1:3] for cell in cells if cell[0] == budget and cell[1] in given}
        seeds = sorted({cell[3] for cell in cells if cell[0] == budget})
        lost[budget] = [seed for seed in seeds if any((budget, *each, seed) not in cells for each in series)]
    return [score for score in scores if score.seed not in lost[score.budget]], lost


def _with_lost(estimate: Interval, lost: dict[int, list[int]]) -> Interval:
    notes = [_left_out(seed) for seed in lost[estimate.budget] if _left_out(seed) not in estimate.notes]
    return replace(estimate, notes=(*estimate.notes, *notes))


def _left_out(seed: int) -> str:
    return f"seed {seed} left out: not finished in every arm"


def judged(estimate: Interval, arms: Sequence[CurveArm]) -> Interval:
    """An estimate with what it may be called, where it is a difference."""
    if estimate.kind != "difference":
        return estimate
    arm = next(arm for arm in arms if arm.name == estimate.arm)
    in_turn = any(note.startswith(IN_TURN) for note in estimate.notes)
    # those that finished, or those that the seeds took in turn
    behind = min(len(arm.runs), estimate.seeds) if in_turn else estimate.runs
    decision = verdict(
        estimate.low,
        estimate.high,
        seeds=estimate.seeds,
        runs=None if arm.runs == ("",) else behind,
        clustered=estimate.patients > 0,
        patients=estimate.patients,
        smaller_is_better=estimate.metric in DISTANCES,
    )
    return replace(estimate, verdict=decision)


class Statistics:
    """Estimates from scores, some of which may be missing since their runs failed.

    Args:
        scores: Scores of all arms, runs, budgets, seeds, cases and classes.
        confidence: Confidence level of intervals.
        resamples: Bootstrap resamples.
    """

    def __init__(self, scores: Sequence[Score], *, confidence: float = 0.95, resamples: int = 10_000) -> None:
        self.options: dict[str, Any] = {"confidence": confidence, "resamples": resamples}
        labels = list(dict.fromkeys(score.label for score in scores))
        # with one class the mean over classes is that class
        kinds = product(METRICS, [MEAN, *labels] if len(labels) > 1 else [MEAN])
        self._tables = {(metric, label): list(_table(scores, metric, label)) for metric, label in kinds}

    def estimates(self, arms: Sequence[str], comparisons: Sequence[Comparison]) -> Iterator[Interval]:
        """Means of the arms and differences of the comparisons, for every budget, metric and class."""
        for (metric, label), table in self._tables.items():
            about = {"metric": metric, "label": label}
            for arm in arms:
                for budget, complete in _usable(table, arm):
                    result = interval(complete.scores, arm, budget, **self.options)
                    yield complete.annotated(result, **about)
            for pair in comparisons:
                for budget, complete in _usable(table, pair.arm, pair.reference):
                    options = {**self.options, "same_runs": pair.kind == VARIANT}
                    result = paired_difference(complete.scores, pair.arm, pair.reference, budget, **options)
                    yield complete.annotated(result, comparison=pair.kind, **about)

    def labels_saved(self, comparison: Comparison) -> Iterator[LabelsSaved]:
        """Labels saved at equal Dice; nothing where fewer than two budgets can be compared."""
        table = self._tables["dice", MEAN]
        budgets = [b for b in _budgets(table, comparison.reference) if b in _budgets(table, comparison.arm)]
        complete = _complete(table, [(a, b) for b in budgets for a in (comparison.arm, comparison.reference)])
        if len(budgets) < 2 or not complete.scores:
            return
        for entry in labels_saved(complete.scores, comparison.arm, comparison.reference, **self.options):
            yield replace(entry, comparison=comparison.kind, notes=(*entry.notes, *complete.notes))

    def convergence(self, arm: CurveArm, longer: str, tolerance: float) -> Iterator[Convergence]:
        """Effect of twice the steps on the Dice of an arm, for each budget where they were tried."""
        for budget, complete in _usable(self._tables["dice", MEAN], longer, arm.name):
            result = converged(complete.scores, arm.name, longer, budget, tolerance=tolerance, **self.options)
            yield replace(result, steps=arm.steps, reason="; ".join([result.reason, *complete.notes]))


@dataclass(frozen=True)
class _Complete:
    """Scores of the runs and seeds that every arm has, and what was left out for it."""

    scores: list[CaseScore]
    notes: tuple[str, ...]
    runs: dict[str, int]

    def annotated(self, found: Interval, **about: str) -> Interval:
        """An interval with what it is of, and what was left out for it."""
        known = all(score.patient for score in self.scores)
        return replace(
            found,
            notes=(*found.notes, *self.notes),
            runs=self.runs[found.arm],
            patients=found.patients if known else 0,
            **about,  # type: ignore[arg-type]
        )


def _usable(table: Sequence[CaseScore], *arms: str) -> Iterator[tuple[int, _Complete]]:
    """Budgets of the first arm at which all of these have scores that are defined."""
    for budget in _budgets(table, arms[0]):
        complete = _complete(table, [(arm, budget) for arm in arms])
        if any(not math.isnan(score.value) for score in complete.scores):
            yield budget, complete


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


def _budgets(table: Sequence[CaseScore], arm: str) -> list[int]:
    return sorted({score.budget for score in table if score.arm == arm})


def _table(scores: Sequence[Score], metric: str, label: str) -> Iterator[CaseScore]:
    """One value for each case: of a class, or the mean of the classes that the truth has."""
    if label != MEAN:
        yield from (score.of(getattr(score, metric)) for score in scores if score.label == label)
        return
    values: dict[CaseScore, list[float]] = defaultdict(list)
    for score in scores:
        values[score.of(0.0)].append(getattr(score, metric))
    for who, result in values.items():
        known = [value for value in result if not math.isnan(value)]
        yield replace(who, value=float(np.mean(known)) if known else math.nan)
