"""Paired statistics of label-efficiency curves: differences with intervals over cases, seeds and pretraining runs."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Draws = dict[str, Array]  # weights of a factor's levels, (T, levels), rows summing to one
UNDEFINED = float("nan")


@dataclass(frozen=True)
class CaseScore:
    """Score of one test case by one fine-tuned network.

    Attributes:
        arm: What the network started from, for example ``"scratch"``.
        budget: Number of labelled training cases.
        seed: Seed of the fine-tuning; arms with the same seed share the labelled subset.
        case: Name of the test case.
        value: Score, for example a Dice; NaN where it is undefined (the class is empty).
        run: Pretraining run the network started from; empty where there was none.
    """

    arm: str
    budget: int
    seed: int
    case: str
    value: float
    run: str = ""


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference of means, with its confidence interval.

    Attributes:
        estimate: Mean over all scores that count.
        low: Lower end; NaN where nothing can be told of the spread.
        high: Upper end; NaN like ``low``.
        confidence: Share of such intervals that hold the true value.
        cases: Number of cases that count.
        seeds: Number of seeds that count.
        used: Number of scores, or of pairs of scores, that count.
        excluded: Number left out because a score was NaN.
        notes: What the interval does not cover, in words.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    cases: int
    seeds: int
    used: int
    excluded: int
    notes: tuple[str, ...] = ()

    def contains(self, value: float) -> bool:
        """Whether ``value`` lies inside; never, where the ends are undefined."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Convergence:
    """Whether training twice as long would have changed the score.

    Attributes:
        converged: Whether it would not.
        difference: Score after twice the steps, less the score after the steps.
        tolerance: Gain that is too small to matter, in units of the score.
        reason: The rule that decided, in words.
    """

    converged: bool
    difference: Interval
    tolerance: float
    reason: str


@dataclass(frozen=True)
class LabelsSaved:
    """Labels an arm needs fewer than the reference for the score that the reference reaches with ``budget`` labels.

    Attributes:
        budget: Labels of the reference.
        target: Score of the (monotone) reference curve there.
        needed: Labels with which the arm reaches it; NaN where that lies outside its budgets.
        saved: Labels saved, negative where the arm needs more; NaN where ``needed`` is.
        low: Lower end of the interval; minus infinity where the arm may need more than its largest budget.
        high: Upper end of the interval; infinity where the arm may need less than its smallest budget.
        confidence: Share of such intervals that hold the true value.
        excluded: Number of (seed, case) cells left out because a score was NaN.
        notes: What is undefined and why, in words.
    """

    budget: int
    target: float
    needed: float
    saved: float
    low: float
    high: float
    confidence: float
    excluded: int
    notes: tuple[str, ...] = ()


def interval(
    scores: Iterable[CaseScore],
    arm: str,
    budget: int,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    r"""Mean score of one arm with an interval over cases, seeds and pretraining runs.

    :math:`\bar y \pm t_\nu\, s`. The standard error ``s`` is the standard deviation of the mean under a crossed
    bootstrap: cases, seeds and runs are resampled independently, each by n - 1 draws from its n levels, which makes
    the variance unbiased for few seeds. ``t`` has the degrees of freedom of Satterthwaite,
    :math:`\nu = (\sum_f v_f)^2 / \sum_f v_f^2 / (n_f - 1)`, where :math:`v_f` is the variance when factor ``f``
    alone is resampled: with three seeds that matter the interval is wide, as it should be. Where noise that
    cases and seeds do not share dominates, the interval is too wide rather than too narrow (by 1.7 at most).

    Do not compare two arms by their single intervals: see :func:`paired_difference`.

    Args:
        scores: Scores of all arms, in any order; others than ``arm`` at ``budget`` are ignored.
        arm: Name of the arm.
        budget: Number of labels.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of bootstrap resamples, at least 100.
        seed: Seed of the resampling.

    Returns:
        The interval, in units of the score. NaN scores are left out and counted.

    Raises:
        ValueError: If the arm or budget is unknown, a cell is missing or given twice, a score is infinite, or none is
            defined.

    References:
        Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 2007; Rao and Wu, JASA 1988; Satterthwaite, Biometrics 1946.

    Example:
        >>> scores = [CaseScore("scratch", 4, seed, case, 0.8) for seed in (0, 1) for case in ("a", "b")]
        >>> result = interval(scores, "scratch", 4)
        >>> round(result.low, 3), round(result.high, 3)
        (0.8, 0.8)
    """
    grid = _Grid.build(scores, [(arm, budget)])
    values = grid.values[arm, budget][:, None]
    return _mean_interval(values, (grid.runs[arm], [""]), _Options(confidence, resamples, seed))


def paired_difference(
    scores: Iterable[CaseScore],
    arm: str,
    reference: str,
    budget: int,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    r"""Mean difference between two arms on the same seeds and cases, with its interval.

    :math:`\operatorname{mean}_{s,c} (y^{arm}_{s,c} - y^{reference}_{s,c})`: what makes a case hard or a subset poor
    is common to both arms and drops out. The interval is that of :func:`interval`, on differences. Several
    pretraining runs of an arm are resampled as well, independently in both arms.

    Args:
        scores: Scores of all arms, in any order; other arms and budgets are ignored.
        arm: Name of the arm of interest.
        reference: Name of the arm it is compared with.
        budget: Number of labels.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of bootstrap resamples, at least 100.
        seed: Seed of the resampling.

    Returns:
        The interval, in units of the score; positive where ``arm`` scores higher. A pair with a NaN on either side is
        left out and counted. Notes say where a single seed, case or pretraining run hides a spread.

    Raises:
        ValueError: If an arm or budget is unknown, a cell is missing in one arm (it is named) or given twice, a score
            is infinite, or no pair is defined.

    Example:
        >>> cells = [(seed, case) for seed in (0, 1, 2) for case in ("a", "b")]
        >>> scores = [CaseScore("scratch", 4, s, c, 0.7 + 0.1 * (c == "b")) for s, c in cells]
        >>> scores += [CaseScore("pretrained", 4, s, c, 0.75 + 0.1 * (c == "b")) for s, c in cells]
        >>> result = paired_difference(scores, "pretrained", "scratch", 4)
        >>> round(result.estimate, 3), round(result.high - result.low, 3)
        (0.05, 0.0)
    """
    if arm == reference:
        raise ValueError(f"arm and reference must differ, got {arm!r} twice")
    grid = _Grid.build(scores, [(arm, budget), (reference, budget)])
    # r = run of the arm, q = run of the reference, s = seed, c = case
    difference = grid.values[arm, budget][:, None] - grid.values[reference, budget][None]
    return _mean_interval(difference, (grid.runs[arm], grid.runs[reference]), _Options(confidence, resamples, seed))


def converged(
    scores: Iterable[CaseScore],
    arm: str,
    longer: str,
    budget: int,
    *,
    tolerance: float,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Convergence:
    """Whether an arm trained for N steps is as good as the same arm trained for 2 N.

    It is where the interval of the difference (2 N less N) holds 0, or its upper end lies below ``tolerance``. An
    interval that holds 0 only because it is wide is said to in the reason.

    Args:
        scores: Scores of all arms, in any order.
        arm: Name of the arm after N steps.
        longer: Name of the arm after 2 N steps, on the same seeds and cases.
        budget: Number of labels.
        tolerance: Gain too small to matter, in units of the score, at least 0.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of bootstrap resamples, at least 100.
        seed: Seed of the resampling.

    Raises:
        ValueError: If ``tolerance`` is negative, or as in :func:`paired_difference`.

    Example:
        >>> cells = [(seed, case) for seed in (0, 1) for case in ("a", "b")]
        >>> scores = [CaseScore("scratch", 4, s, c, 0.80) for s, c in cells]
        >>> scores += [CaseScore("scratch_2x", 4, s, c, 0.85) for s, c in cells]
        >>> converged(scores, "scratch", "scratch_2x", 4, tolerance=0.01).converged
        False
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance!r}")
    gain = paired_difference(scores, longer, arm, budget, confidence=confidence, resamples=resamples, seed=seed)
    span = f"[{gain.low:+.4g}, {gain.high:+.4g}]"
    if math.isnan(gain.low):
        return Convergence(False, gain, tolerance, "the interval of the gain is undefined: " + "; ".join(gain.notes))
    if gain.high < tolerance:
        return Convergence(True, gain, tolerance, f"the gain {span} lies below the tolerance {tolerance:g}")
    if gain.contains(0.0):
        reason = f"the gain {span} holds 0, but also gains above the tolerance {tolerance:g}: more seeds would tell"
        return Convergence(True, gain, tolerance, reason)
    return Convergence(False, gain, tolerance, f"the gain {span} lies above 0 and reaches the tolerance {tolerance:g}")


def labels_saved(
    scores: Iterable[CaseScore],
    arm: str,
    reference: str,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[LabelsSaved, ...]:
    r"""Labels saved at equal score, one entry for each budget of the reference.

    Both curves (mean score over runs, seeds and cases against :math:`\log_2` of the budget) are made monotone by
    isotonic regression and joined by straight lines. Saved are the fewest labels with which the reference reaches a
    score, less the fewest with which the arm does. The interval holds quantiles of the crossed bootstrap of
    :func:`interval`, both curves on the same resampled seeds and cases, moved outwards for few seeds (the expanded
    percentile interval). Beyond the arm's budgets nothing is extrapolated: the entry is undefined and says so.

    Args:
        scores: Scores of all arms, in any order; higher is better. Both arms need the same seeds and cases at each of
            their budgets; the budgets may differ.
        arm: Name of the arm of interest.
        reference: Name of the arm it is compared with.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of bootstrap resamples, at least 100.
        seed: Seed of the resampling.

    Raises:
        ValueError: If an arm is unknown or has fewer than two budgets, a cell is missing or given twice, a score is
            infinite, or no (seed, case) is defined throughout.

    References:
        Hesterberg, "What teachers should know about the bootstrap", Am. Stat. 2015 (expanded percentiles).

    Example:
        >>> cells = [(b, s, c) for b in (1, 2, 4, 8) for s in (0, 1) for c in ("a", "b")]
        >>> scores = [CaseScore("scratch", b, s, c, 0.6 + 0.1 * math.log2(b)) for b, s, c in cells]
        >>> scores += [CaseScore("pretrained", b, s, c, 0.7 + 0.1 * math.log2(b)) for b, s, c in cells]
        >>> [round(entry.saved, 3) for entry in labels_saved(scores, "pretrained", "scratch")]
        [nan, 1.0, 2.0, 4.0]
    """
    options = _Options(confidence, resamples, seed)
    records = list(scores)
    budgets = {name: _budgets(records, name) for name in (arm, reference)}
    grid = _Grid.build(records, [(name, budget) for name in (arm, reference) for budget in budgets[name]])
    pair = _CurvePair.build(grid, (arm, reference), budgets)
    draws = options.draws(pair.levels())
    center = pair.saved(_uniform(pair.levels()))
    replicates = pair.saved(draws)
    alone = [(n, pair.saved(_only(f, draws, pair.levels()))) for f, n in pair.levels().items() if n > 1]
    return tuple(
        _saved_entry(i, pair, center.at(i), replicates.at(i), [(n, values.at(i)) for n, values in alone], options)
        for i in range(len(budgets[reference]))
    )


# ---------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class _Grid:
    """Scores as arrays (run, seed, case), one for each arm and budget, with seeds and cases in common."""

    values: dict[tuple[str, int], Array]
    runs: dict[str, list[str]]

    @classmethod
    def build(cls, scores: Iterable[CaseScore], wanted: Sequence[tuple[str, int]]) -> "_Grid":
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
        return cls(values, runs)


_Cell = tuple[str, int, str, int, str]


def _by_cell(records: Sequence[CaseScore]) -> dict[_Cell, float]:
    cells: dict[_Cell, float] = {}
    for s in records:
        key = (s.arm, s.budget, s.run, s.seed, s.case)
        if key in cells:
            raise ValueError(f"each cell must have one score, got two for {_cell_name(key)}; remove one")
        if math.isinf(s.value):
            raise ValueError(f"a score must be finite, or NaN where undefined, got {s.value} for {_cell_name(key)}")
        cells[key] = float(s.value)
    return cells


def _require_arm(records: Sequence[CaseScore], arm: str) -> None:
    arms = sorted({s.arm for s in records})
    if arm not in arms:
        close = get_close_matches(arm, arms, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"arm must be one of {arms}, got {arm!r}{hint}")


def _require_known(records: Sequence[CaseScore], wanted: Sequence[tuple[str, int]]) -> None:
    for arm, budget in wanted:
        _require_arm(records, arm)
        budgets = sorted({s.budget for s in records if s.arm == arm})
        if budget not in budgets:
            raise ValueError(f"budget of arm {arm!r} must be one of {budgets}, got {budget}")


def _require_complete(missing: Sequence[_Cell]) -> None:
    if missing:
        shown = "; ".join(_cell_name(key) for key in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(
            f"a paired comparison needs every seed and case in each arm, missing are {len(missing)} scores: "
            f"{shown}{more}; finish those runs, or leave the seed or case out of every arm"
        )


def _cell_name(key: _Cell) -> str:
    arm, budget, run, seed, case = key
    return f"arm {arm!r}, budget {budget}, {f'run {run!r}, ' if run else ''}seed {seed}, case {case!r}"


# ------------------------------------------------------------------------------------------------------ the resampling


@dataclass(frozen=True)
class _Options:
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


def _uniform(levels: dict[str, int]) -> Draws:
    return {name: np.full((1, n), 1 / n) for name, n in levels.items()}


def _only(factor: str, draws: Draws, levels: dict[str, int]) -> Draws:
    """Weights that resample ``factor`` and leave the others alone."""
    return {**_uniform(levels), factor: draws[factor]}


def _degrees(variances: Sequence[tuple[int, float]]) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances, each with its number of levels."""
    total = sum(v for _, v in variances)
    # far below the rounding of scores around 1: no spread at all
    return total**2 / sum(v**2 / (n - 1) for n, v in variances) if total > 1e-30 else math.inf


def _weighted_mean(values: Array, present: Array, draws: Draws) -> Array:
    """Mean of the present ``values`` (r, q, s, c) under each row of weights, (T,); NaN where none is drawn."""

    def total(x: Array) -> Array:
        over_cases = np.einsum("rqst,ts->rqt", x @ draws["case"].T, draws["seed"])
        result: Array = np.einsum("rqt,tr,tq->t", over_cases, draws["run"], draws["reference run"])
        return result

    weight = total(present)
    return np.divide(
        total(np.where(present > 0, values, 0.0)), weight, where=weight > 0, out=np.full_like(weight, np.nan)
    )


def _mean_interval(values: Array, runs: tuple[list[str], list[str]], options: _Options) -> Interval:
    """Interval of the mean of ``values`` (r, q, s, c)."""
    excluded = int(np.isnan(values).sum())
    if excluded == values.size:
        raise ValueError(f"no pair of scores is defined, got NaN for all {excluded}; is the class empty in every case?")
    values = values[:, :, :, ~np.isnan(values).all(axis=(0, 1, 2))]  # a case without any score is no case
    values = values[:, :, ~np.isnan(values).all(axis=(0, 1, 3))]
    present = (~np.isnan(values)).astype(np.float64)
    levels = dict(zip(("run", "reference run", "seed", "case"), values.shape, strict=True))
    estimate = float(values[present > 0].mean())
    low, high = _ends(estimate, lambda draws: _weighted_mean(values, present, draws), levels, options)
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
        notes=_notes(seeds, cases, runs),
    )


def _ends(
    estimate: float, mean: Callable[[Draws], Array], levels: dict[str, int], options: _Options
) -> tuple[float, float]:
    draws = options.draws(levels)
    alone = [(n, float(np.nanvar(mean(_only(name, draws, levels))))) for name, n in levels.items() if n > 1]
    if not alone:
        return UNDEFINED, UNDEFINED
    half = options.quantile(_degrees(alone)) * float(np.nanstd(mean(draws)))
    return estimate - half, estimate + half


def _notes(seeds: int, cases: int, runs: tuple[list[str], list[str]]) -> tuple[str, ...]:
    notes = []
    if seeds == 1:
        notes.append("one seed: the spread between seeds cannot be told, the interval speaks of this seed alone")
    if cases == 1:
        notes.append("one case: the spread between cases cannot be told, the interval speaks of this case alone")
    notes.extend(
        f"one pretraining run ({names[0]}): the spread between pretraining runs cannot be told"
        for names in runs
        if len(names) == 1 and names[0]
    )
    return tuple(notes)


# ----------------------------------------------------------------------------------------------- labels at equal score


def _budgets(records: Sequence[CaseScore], arm: str) -> list[int]:
    _require_arm(records, arm)
    budgets = sorted({s.budget for s in records if s.arm == arm})
    if len(budgets) < 2 or budgets[0] < 1:
        raise ValueError(
            f"a curve needs at least two budgets, all positive, got {budgets} for {arm!r}; fine-tune with more"
        )
    return budgets


@dataclass(frozen=True)
class _CurvePair:
    """Scores (budget, run, seed, case) of an arm and its reference on the cells that are defined throughout."""

    arm: Array
    reference: Array
    present: Array  # (s, c)
    budgets: tuple[Array, Array]
    excluded: int
    notes: tuple[str, ...]

    @classmethod
    def build(cls, grid: _Grid, names: tuple[str, str], budgets: dict[str, list[int]]) -> "_CurvePair":
        arm, reference = (np.stack([grid.values[name, b] for b in budgets[name]]) for name in names)
        defined: npt.NDArray[np.bool_] = ~np.isnan(np.concatenate([*arm, *reference])).any(axis=0)
        if not defined.any():
            raise ValueError(
                "no seed and case has a score in every arm and budget, got NaN in each; is the class empty?"
            )
        seeds, cases = defined.any(1), defined.any(0)
        kept = np.ix_(seeds, cases)
        return cls(
            arm=arm[:, :, seeds][..., cases],
            reference=reference[:, :, seeds][..., cases],
            present=defined[kept].astype(np.float64),
            budgets=(np.array(budgets[names[0]], float), np.array(budgets[names[1]], float)),
            excluded=int((~defined).sum()),
            notes=_notes(int(seeds.sum()), int(cases.sum()), (grid.runs[names[0]], grid.runs[names[1]])),
        )

    def levels(self) -> dict[str, int]:
        return {
            "run": self.arm.shape[1],
            "reference run": self.reference.shape[1],
            "seed": self.present.shape[0],
            "case": self.present.shape[1],
        }

    def saved(self, draws: Draws) -> "_Saved":
        arm = _monotone(_curve(self.arm, self.present, draws, "run"))
        reference = _monotone(_curve(self.reference, self.present, draws, "reference run"))
        needed = _labels_reaching(reference, self.budgets[0], arm)
        return _Saved(reference, needed, _labels_reaching(reference, self.budgets[1], reference))


@dataclass(frozen=True)
class _Saved:
    """For each row of weights and budget of the reference: its score and the labels both arms need for it, (T, B)."""

    target: Array
    needed: Array  # minus infinity: fewer than the arm's smallest budget; infinity: more than its largest
    spent: Array

    def at(self, i: int) -> "_Saved":
        return _Saved(self.target[:, i], self.needed[:, i], self.spent[:, i])

    def within(self, smallest: float, largest: float) -> Array:
        """Labels saved, with what lies outside the range of budgets brought to its ends."""
        saved: Array = self.spent - self.needed.clip(smallest, largest)
        return saved


def _curve(values: Array, present: Array, draws: Draws, run: str) -> Array:
    """Mean score at each budget under each row of weights, (T, B)."""
    neutral = {**draws, "run": draws[run], "reference run": np.ones((1, 1))}
    size = max(len(weights) for weights in draws.values())
    neutral = {name: np.broadcast_to(weights, (size, weights.shape[1])) for name, weights in neutral.items()}
    mask = np.broadcast_to(present, (values.shape[1], 1, *present.shape))
    return np.stack([_weighted_mean(budget[:, None], mask, neutral) for budget in values], axis=1)


def _monotone(curve: Array) -> Array:
    """Isotonic regression of each row: the largest over j <= i of the smallest over k >= i of the means of j to k."""
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


def _saved_entry(
    i: int,
    pair: _CurvePair,
    center: _Saved,
    replicates: _Saved,
    alone: Sequence[tuple[int, _Saved]],
    options: _Options,
) -> LabelsSaved:
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
    replicates: _Saved, alone: Sequence[tuple[int, _Saved]], tried: tuple[float, float], options: _Options
) -> tuple[float, float]:
    """Expanded percentiles of the labels saved; what lies outside the budgets tried opens the end on its side."""
    if not alone:
        return UNDEFINED, UNDEFINED
    degrees = _degrees([(n, float(np.nanvar(values.within(*tried)))) for n, values in alone])
    tail = float(stats.norm.cdf(-options.quantile(degrees)))
    defined = ~np.isnan(replicates.needed)
    least = replicates.within(tried[0], math.inf)[defined]
    most = replicates.within(-math.inf, tried[1])[defined]
    low, high = np.quantile(least, tail, method="lower"), np.quantile(most, 1 - tail, method="higher")
    return float(low), float(high)
