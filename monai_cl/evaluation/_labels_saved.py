"""Labels saved between two monotone curves at equal score."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from monai_cl.evaluation._bootstrap import (
    UNDEFINED,
    Array,
    Draws,
    Grid,
    Options,
    by_patient,
    require_arm,
    satterthwaite,
    spread_notes,
    weighted_mean,
)
from monai_cl.evaluation.records import CaseScore, LabelsSaved


def budgets_of(records: Sequence[CaseScore], arm: str) -> list[int]:
    """Budgets of an arm in rising order, at least two."""
    require_arm(records, arm)
    budgets = sorted({s.budget for s in records if s.arm == arm})
    if len(budgets) < 2 or budgets[0] < 1:
        raise ValueError(
            f"a curve needs at least two budgets, all positive, got {budgets} for {arm!r}; fine-tune with more"
        )
    return budgets


@dataclass(frozen=True)
class CurvePair:
    """Sums of the scores of each patient on the cells that are defined throughout, of an arm and its reference."""

    arm: Array  # (budget, run, seed, patient)
    reference: Array
    counts: Array  # how many cases are summed, (s, p)
    budgets: tuple[Array, Array]
    excluded: int
    notes: tuple[str, ...]

    @classmethod
    def build(cls, grid: Grid, names: tuple[str, str], budgets: dict[str, list[int]]) -> "CurvePair":
        arm, reference = (np.stack([grid.values[name, b] for b in budgets[name]]) for name in names)
        defined: npt.NDArray[np.bool_] = ~np.isnan(np.concatenate([*arm, *reference])).any(axis=0)
        if not defined.any():
            raise ValueError(
                "no seed and case has a score in every arm and budget, got NaN in each; is the class empty?"
            )
        seeds, cases = defined.any(1), defined.any(0)
        present, patients = defined[np.ix_(seeds, cases)], grid.patients[cases]

        def sums(values: Array) -> Array:
            return by_patient(np.where(present, values[:, :, seeds][..., cases], 0.0), patients)

        counts = by_patient(present.astype(np.float64), patients)
        return cls(
            arm=sums(arm),
            reference=sums(reference),
            counts=counts,
            budgets=(np.array(budgets[names[0]], float), np.array(budgets[names[1]], float)),
            excluded=int((~defined).sum()),
            notes=spread_notes(int(seeds.sum()), counts.shape[1], (grid.runs[names[0]], grid.runs[names[1]])),
        )

    def levels(self) -> dict[str, int]:
        return {
            "run": self.arm.shape[1],
            "reference run": self.reference.shape[1],
            "seed": self.counts.shape[0],
            "patient": self.counts.shape[1],
        }

    def saved(self, draws: Draws) -> "Saved":
        arm = _monotone(_curve(self.arm, self.counts, draws, "run"))
        reference = _monotone(_curve(self.reference, self.counts, draws, "reference run"))
        needed = _labels_reaching(reference, self.budgets[0], arm)
        return Saved(reference, needed, _labels_reaching(reference, self.budgets[1], reference))


@dataclass(frozen=True)
class Saved:
    """Score of the reference at each budget and the labels both arms need for it, by row of weights (T, B)."""

    target: Array
    needed: Array  # minus infinity: fewer than the arm's smallest budget; infinity: more than its largest
    spent: Array

    def at(self, i: int) -> "Saved":
        return Saved(self.target[:, i], self.needed[:, i], self.spent[:, i])

    def within(self, smallest: float, largest: float) -> Array:
        """Labels saved, with what lies outside the range of budgets brought to its ends."""
        saved: Array = self.spent - self.needed.clip(smallest, largest)
        return saved


def _curve(sums: Array, counts: Array, draws: Draws, run: str) -> Array:
    """Mean score at each budget under each row of weights, (T, B)."""
    neutral = {**draws, "run": draws[run], "reference run": np.ones((1, 1))}
    size = max(len(weights) for weights in draws.values())
    neutral = {name: np.broadcast_to(weights, (size, weights.shape[1])) for name, weights in neutral.items()}
    known = np.broadcast_to(counts, (sums.shape[1], 1, *counts.shape))
    return np.stack([weighted_mean(budget[:, None], known, neutral) for budget in sums], axis=1)


def _monotone(curve: Array) -> Array:
    """Isotonic regression of each row: the largest over j <= i of the smallest over k >= i of the means of j to k."""
    # all resamples at once: row by row, scipy's takes twenty times as long and scikit-learn's three hundred times
    size = curve.shape[1]
    sums = np.concatenate([np.zeros((len(curve), 1)), curve.cumsum(1)], axis=1)
    means = {(j, k): (sums[:, k + 1] - sums[:, j]) / (k + 1 - j) for j in range(size) for k in range(j, size)}
    fitted = [
        np.max([np.min([means[j, k] for k in range(i, size)], axis=0) for j in range(i + 1)], axis=0)
        for i in range(size)
    ]
    return np.stack(fitted, axis=1)


def _labels_reaching(target: Array, budgets: Array, curve: Array) -> Array:
    """Fewest labels with which each row's monotone ``curve`` reaches its ``target`` (T, B), on lines over log2.

    Minus infinity where the smallest budget already exceeds the target, infinity where the largest does not reach it.
    """
    logs = np.log2(budgets)
    slack = 1e-12 * (1 + np.abs(target))  # rounding: a curve reaches its own points
    index = (curve[:, None, :] < (target - slack)[:, :, None]).sum(-1)  # first budget that reaches it
    upper = np.minimum(index, len(budgets) - 1)
    lower = np.maximum(upper - 1, 0)
    y0, y1 = np.take_along_axis(curve, lower, 1), np.take_along_axis(curve, upper, 1)
    share = np.divide(target - y0, y1 - y0, where=y1 > y0, out=np.ones_like(target)).clip(0, 1)
    labels = 2 ** (logs[lower] + share * (logs[upper] - logs[lower]))
    labels = np.where((index == 0) & (target < curve[:, :1] - slack), -np.inf, labels)
    return np.where(np.isnan(target), np.nan, np.where(index == len(budgets), np.inf, labels))


def saved_entry(
    i: int,
    pair: CurvePair,
    center: Saved,
    replicates: Saved,
    alone: Sequence[tuple[int, Saved]],
    options: Options,
) -> LabelsSaved:
    """The record of budget ``i``: estimate, interval, and what is undefined about them."""
    target, needed, spent = float(center.target[0]), float(center.needed[0]), float(center.spent[0])
    smallest, largest = (float(budget) for budget in pair.budgets[0][[0, -1]])
    low, high = _saved_ends(replicates, alone, (smallest, largest), options)
    notes = list(pair.notes)
    if needed == -math.inf:
        notes.append(f"undefined: the arm reaches {target:.4g} with fewer than {smallest:g} labels, the least tried")
    if needed == math.inf:
        notes.append(f"undefined: the arm does not reach {target:.4g} with {largest:g} labels, the most tried")
    if high == math.inf:
        notes.append(f"the upper end is open: the arm may need fewer than {smallest:g} labels, the least tried")
    if low == -math.inf:
        notes.append(f"the lower end is open: the arm may need more than {largest:g} labels, the most tried")
    return LabelsSaved(
        budget=int(pair.budgets[1][i]),
        target=target,
        needed=needed if math.isfinite(needed) else UNDEFINED,
        saved=spent - needed if math.isfinite(needed) else UNDEFINED,
        low=low,
        high=high,
        confidence=options.confidence,
        excluded=pair.excluded,
        notes=tuple(notes),
    )


def _saved_ends(
    replicates: Saved, alone: Sequence[tuple[int, Saved]], tried: tuple[float, float], options: Options
) -> tuple[float, float]:
    """Expanded percentiles of the labels saved; what lies outside the budgets tried opens the end on its side."""
    if not alone:
        return UNDEFINED, UNDEFINED
    degrees = satterthwaite([(n, float(np.nanvar(values.within(*tried)))) for n, values in alone])
    tail = float(stats.norm.cdf(-options.quantile(degrees)))
    defined = ~np.isnan(replicates.needed)
    least = replicates.within(tried[0], math.inf)[defined]
    most = replicates.within(-math.inf, tried[1])[defined]
    low, high = np.quantile(least, tail, method="lower"), np.quantile(most, 1 - tail, method="higher")
    return float(low), float(high)
