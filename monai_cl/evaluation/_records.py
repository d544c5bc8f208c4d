"""What the statistics take and give."""

from dataclasses import dataclass

PAIRED = "paired"  # name of the runs of an arm whose seeds take its pretraining runs in turn


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
        patient: Patient of the case; cases of one patient are resampled together. Empty: the case is its own patient.
    """

    arm: str
    budget: int
    seed: int
    case: str
    value: float
    run: str = ""
    patient: str = ""


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
        patients: Number of patients that the cases are of.
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
    patients: int = 0

    def contains(self, value: float) -> bool:
        """Whether ``value`` lies inside; never, where the ends are undefined."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Convergence:
    """Whether training twice as long would have changed the score.

    Attributes:
        converged: ``True`` where it would not, ``False`` where it would, ``None`` where the interval decides neither.
        difference: Score after twice the steps, less the score after the steps.
        tolerance: Gain that is too small to matter, in units of the score.
        reason: The rule that decided, in words.
    """

    converged: bool | None
    difference: Interval
    tolerance: float
    reason: str

    @property
    def verdict(self) -> str:
        """``"yes"``, ``"no"`` or ``"undecided"``."""
        return convergence_verdict(self.converged)


def convergence_verdict(converged: bool | None) -> str:
    """Three answers to the question of convergence in words."""
    return "undecided" if converged is None else "yes" if converged else "no"


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
