"""Paired statistics of label-efficiency curves: differences with intervals over patients, seeds and runs."""

import math
from collections.abc import Iterable
from dataclasses import replace

from monai_cl.evaluation._bootstrap import Grid, Options, mean_interval, only, uniform
from monai_cl.evaluation._labels_saved import CurvePair, budgets_of, saved_entry
from monai_cl.evaluation.records import CaseScore, Convergence, Interval, LabelsSaved

__all__ = [
    "CaseScore",
    "Convergence",
    "Interval",
    "LabelsSaved",
    "converged",
    "interval",
    "labels_saved",
    "paired_difference",
]


def interval(
    scores: Iterable[CaseScore],
    arm: str,
    budget: int,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    r"""Mean score of one arm with an interval over patients, seeds and pretraining runs.

    :math:`\bar y \pm t_\nu\, s`, where the mean goes over cases: a patient with two volumes counts twice. The standard
    error ``s`` is the standard deviation of the mean under a crossed bootstrap: patients, seeds and runs are resampled
    independently, each by n - 1 draws from its n levels, which makes the variance unbiased for few seeds. All cases
    of a patient move together, since two volumes of one patient carry less information than two patients. ``t`` has
    the degrees of freedom of Satterthwaite, :math:`\nu = (\sum_f v_f)^2 / \sum_f v_f^2 / (n_f - 1)`, where :math:`v_f`
    is the variance when factor ``f`` alone is resampled: with three seeds that matter the interval is wide, as it
    should be. Where noise that patients and seeds do not share dominates, the interval is too wide rather than too
    narrow (by 1.7 at most).

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
        ValueError: If the arm or budget is unknown, a cell is missing or given twice, a case is of two patients, a
            score is infinite, or none is defined.

    References:
        Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 2007; Rao and Wu, JASA 1988; Satterthwaite, Biometrics 1946.

    Example:
        >>> scores = [CaseScore("scratch", 4, seed, case, 0.8) for seed in (0, 1) for case in ("a", "b")]
        >>> result = interval(scores, "scratch", 4)
        >>> round(result.low, 3), round(result.high, 3)
        (0.8, 0.8)
    """
    grid = Grid.build(scores, [(arm, budget)])
    values = grid.values[arm, budget][:, None]
    result = mean_interval(values, grid.patients, (grid.runs[arm], [""]), Options(confidence, resamples, seed))
    return replace(result, kind="mean", arm=arm, budget=budget)


def paired_difference(
    scores: Iterable[CaseScore],
    arm: str,
    reference: str,
    budget: int,
    *,
    same_runs: bool = False,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    r"""Mean difference between two arms on the same seeds and cases, with its interval.

    :math:`\operatorname{mean}_{s,c} (y^{arm}_{s,c} - y^{reference}_{s,c})`: what makes a case hard or a subset poor
    is common to both arms and drops out. The interval is that of :func:`interval`, on differences. Several
    pretraining runs of an arm are resampled as well, independently in both arms unless these have them in common.

    Args:
        scores: Scores of all arms, in any order; other arms and budgets are ignored.
        arm: Name of the arm of interest.
        reference: Name of the arm it is compared with.
        budget: Number of labels.
        same_runs: Whether the networks of both arms are the same, run by run, and scores are paired by run as well.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of bootstrap resamples, at least 100.
        seed: Seed of the resampling.

    Returns:
        The interval, in units of the score; positive where ``arm`` scores higher. A pair with a NaN on either side is
        left out and counted. Notes state where a single seed, patient or pretraining run hides a spread.

    Raises:
        ValueError: If an arm or budget is unknown, a cell is missing in one arm (it is named) or given twice, a score
            is infinite, no pair is defined, or runs that should be the same are not.

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
    grid = Grid.build(scores, [(arm, budget), (reference, budget)])
    ours, theirs = grid.values[arm, budget], grid.values[reference, budget]
    runs = (grid.runs[arm], grid.runs[reference])
    if same_runs:
        if runs[0] != runs[1]:
            raise ValueError(f"with same_runs both arms must have the same runs, got {runs[0]} and {runs[1]}")
        runs = (runs[0], [""])
    # r = run of the arm, q = run of the reference (one where they are paired), s = seed, c = case
    difference = (ours - theirs)[:, None] if same_runs else ours[:, None] - theirs[None]
    result = mean_interval(difference, grid.patients, runs, Options(confidence, resamples, seed))
    return replace(result, kind="difference", arm=arm, reference=reference, budget=budget)


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
    """Return whether an arm trained for N steps is as good as the same arm trained for 2 N.

    It is where the upper end of the interval of the difference (2 N less N) lies below ``tolerance``, and it is not
    where the interval lies above 0 and reaches it. An interval that holds 0 and also gains that matter, or has no
    ends, decides nothing: ``converged`` is ``None`` then.

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
        return Convergence(None, gain, tolerance, "the interval of the gain is undefined: " + "; ".join(gain.notes))
    if gain.high < tolerance:
        return Convergence(True, gain, tolerance, f"the gain {span} lies below the tolerance {tolerance:g}")
    if gain.contains(0.0):
        reason = f"the gain {span} holds 0, but also gains above the tolerance {tolerance:g}: more seeds would decide"
        return Convergence(None, gain, tolerance, reason)
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
    percentile interval). Beyond the arm's budgets nothing is extrapolated: the entry is marked as undefined.

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
    options = Options(confidence, resamples, seed)
    records = list(scores)
    budgets = {name: budgets_of(records, name) for name in (arm, reference)}
    grid = Grid.build(records, [(name, budget) for name in (arm, reference) for budget in budgets[name]])
    pair = CurvePair.build(grid, (arm, reference), budgets)
    draws = options.draws(pair.levels())
    center = pair.saved(uniform(pair.levels()))
    replicates = pair.saved(draws)
    alone = [(n, pair.saved(only(f, draws, pair.levels()))) for f, n in pair.levels().items() if n > 1]
    entries = (
        saved_entry(i, pair, center.at(i), replicates.at(i), [(n, values.at(i)) for n, values in alone], options)
        for i in range(len(budgets[reference]))
    )
    return tuple(replace(entry, arm=arm, reference=reference) for entry in entries)
