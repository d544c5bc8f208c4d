"""Measured scores and their consequences: one class each for a score, an interval, convergence, labels saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

METRICS = ("dice", "surface_distance", "hausdorff_95")
DISTANCES = ("surface_distance", "hausdorff_95")  # in mm, the smaller the better
MEAN = "mean"  # over the classes of a case
STEPS, COMPUTE = "equal steps", "equal compute"  # comparisons
TWIN = "equal network"  # comparison of published weights with the same network from scratch
VARIANT = "the same networks"  # comparison of an evaluation with another, and role of the arm that stands for it
LONG, HANDED = "twice the steps", "equal compute"  # roles of arms that come by themselves
TRIAL = "trial"  # role of runs by which settings are chosen
PAIRED = "paired"  # name of the runs of an arm whose seeds take its pretraining runs in turn


@dataclass(frozen=True)
class CaseScore:
    """Score of one test case by one fine-tuned network.

    Attributes:
        arm: Starting point of the network, for example ``"scratch"``.
        budget: Number of labelled training cases.
        seed: Seed of the fine-tuning; arms with the same seed share the labelled subset.
        case: Name of the test case.
        value: Score, for example a Dice; NaN where it is undefined (the class is empty).
        run: Pretraining run the network started from; empty if none.
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
class Score:
    """A row of a curve's table: all metrics of one class in one case by one fine-tuned network.

    Attributes:
        arm: As in :class:`CaseScore`, like ``run``, ``budget``, ``seed``, ``case`` and ``patient``.
        label: Name of the class.
        dice: Dice; NaN where the truth lacks the class.
        surface_distance: Average symmetric distance of the surfaces in mm; NaN like ``dice``.
        hausdorff_95: Hausdorff distance at the 95th percentile in mm; NaN like ``dice``.
    """

    arm: str
    run: str
    budget: int
    seed: int
    case: str
    label: str
    dice: float
    surface_distance: float
    hausdorff_95: float
    patient: str = ""

    @property
    def missed(self) -> bool:
        """True where the prediction lacks a class that the truth has: both distances are then the volume's diagonal."""
        return self.dice == 0 and self.surface_distance == self.hausdorff_95

    def of(self, value: float) -> CaseScore:
        """One value of the same network and case."""
        return CaseScore(self.arm, self.budget, self.seed, self.case, value, self.run, self.patient)


@dataclass(frozen=True)
class Interval:
    """A mean, or a paired difference of means, with its confidence interval.

    Attributes:
        estimate: Mean over all scores that count, or that of the arm less that of the reference.
        low: Lower end; NaN where the spread is unknown.
        high: Upper end; NaN like ``low``.
        confidence: Share of such intervals that hold the true value.
        cases: Number of cases that count.
        seeds: Number of seeds that count.
        used: Number of scores, or of pairs of scores, that count.
        excluded: Number left out because a score was NaN.
        notes: Sources of spread that the interval does not cover, in words.
        patients: Number of patients that the cases are of; 0 where it is not known.
        kind: ``"mean"`` or ``"difference"``.
        arm: Name of the arm.
        reference: Of a difference: the arm it is compared with.
        budget: Number of labels.
        comparison: In a curve, of a difference: ``"equal steps"`` or ``"equal compute"``.
        metric: In a curve: ``"dice"``, ``"surface_distance"`` or ``"hausdorff_95"`` (mm).
        label: In a curve: a class, or ``"mean"`` over the classes of a case.
        runs: In a curve: number of pretraining runs of the arm.
        verdict: In a curve, of a difference: what it may be called, such as ``"gain"`` or ``"hint: 3 seeds; ..."``.
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
    kind: str = ""
    arm: str = ""
    reference: str = ""
    budget: int = 0
    comparison: str = ""
    metric: str = ""
    label: str = ""
    runs: int = 0
    verdict: str = ""

    def contains(self, value: float) -> bool:
        """Return whether ``value`` lies inside; False for undefined ends."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Convergence:
    """Answer to the question whether training twice as long would have changed the score.

    Attributes:
        converged: ``True`` where it would not, ``False`` where it would, ``None`` where the interval decides neither.
        difference: Score after twice the steps, less the score after the steps.
        tolerance: Gain that is too small to matter, in units of the score.
        reason: The rule that decided, in words.
        steps: In a curve: the steps; it was tried with twice as many.
    """

    converged: bool | None
    difference: Interval
    tolerance: float
    reason: str
    steps: int = 0

    @property
    def arm(self) -> str:
        """The arm in question."""
        return self.difference.reference

    @property
    def budget(self) -> int:
        """Number of labels."""
        return self.difference.budget

    @property
    def gain(self) -> float:
        """Score after twice the steps, less the score after the steps."""
        return self.difference.estimate

    @property
    def low(self) -> float:
        """Lower end of its interval."""
        return self.difference.low

    @property
    def high(self) -> float:
        """Upper end of its interval."""
        return self.difference.high

    @property
    def verdict(self) -> str:
        """``"yes"``, ``"no"`` or ``"undecided"``."""
        return "undecided" if self.converged is None else "yes" if self.converged else "no"


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
        notes: Undefined quantities and the reasons, in words.
        arm: Name of the arm.
        reference: The arm it is compared with.
        comparison: In a curve: ``"equal steps"`` or ``"equal compute"``.
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
    arm: str = ""
    reference: str = ""
    comparison: str = ""


# their names in the curves of 0.1.0
Estimate: TypeAlias = Interval
ArmConvergence: TypeAlias = Convergence
ArmLabelsSaved: TypeAlias = LabelsSaved


@dataclass(frozen=True)
class CurveArm:
    """An arm of a curve.

    Attributes:
        name: Its name in the tables.
        title: Its name in words.
        role: ``"reference"``, ``"pretrained"``, ``"scratch"`` (a further arm without pretraining), ``"twice the
            steps"`` or ``"equal compute"``.
        runs: Pretraining runs; one empty name without.
        steps: Steps of a fine-tuning.
        gets: Equal compute: the arm whose pretraining time it got.
        note: How its steps came about, in words.
        twin: The arm that trains the same network with the same recipe and settings from scratch.
    """

    name: str
    title: str
    role: str
    runs: tuple[str, ...]
    steps: int
    gets: str = ""
    note: str = ""
    twin: str = ""


@dataclass(frozen=True)
class Trial:
    """Settings that were tried for an arm before its runs.

    Attributes:
        arm: Name of the arm.
        values: Values of ids of the fine-tuning.
        dice: Mean Dice on the tuning list; NaN where it failed.
        seeds: Number of seeds behind it.
        steps: Steps of its fine-tuning.
        chosen: Whether the arm's runs have these settings.
        failed: Reason for which it failed, in short; empty where it did not.
    """

    arm: str
    values: Mapping[str, Any]
    dice: float
    seeds: int
    steps: int
    chosen: bool = False
    failed: str = ""


@dataclass(frozen=True)
class Curve:
    """A measured curve.

    Attributes:
        scores: One for each fine-tuned network, case and class.
        arms: The arms, in order.
        estimates: Means and differences with intervals.
        labels_saved: Labels saved at equal Dice.
        convergence: Whether the reference was trained long enough, by its Dice; empty where it was not tried.
        trials: Settings that were tried for each arm on the tuning list; empty where none were.
        failed: Name and reason of each run that failed.
        notes: Further remarks for a reader, in words.
        record: ``reference``, ``budgets``, ``seeds``, ``cases``, ``patients``, ``classes``, ``section``, ``steps``,
            ``versions``, ``hardware``, ``date``, ``elapsed_seconds`` (of the last start), ``cell_seconds`` (of all
            runs together), ``equal_compute``, ``datalist`` and ``config``; ``excluded`` where cases were left out, and
            ``tuning`` (``section``, ``cases``, ``patients``, ``labels``, ``seeds``) where settings were tried.
    """

    scores: tuple[Score, ...]
    arms: tuple[CurveArm, ...]
    estimates: tuple[Interval, ...]
    labels_saved: tuple[LabelsSaved, ...] = ()
    convergence: tuple[Convergence, ...] = ()
    trials: tuple[Trial, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def arm(self, name: str) -> CurveArm:
        """The arm of that name.

        Raises:
            ValueError: If none exists; the message lists all.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(f"arm must be one of {', '.join(arm.name for arm in self.arms)}, got {name!r}")

    def counts(self) -> str:
        """Number of cases that count, of their patients, and of those left out."""
        text = of_patients(int(self.record.get("cases", 0)), int(self.record.get("patients", 0)))
        return f"{text}, {left_out(self.record['excluded']['cases'])}" if self.record.get("excluded") else text

    def means(self, arm: str, *, metric: str = "dice", label: str = MEAN) -> list[Interval]:
        """Means of an arm, by budget."""
        return self._estimates("mean", arm, "", metric, label)

    def differences(
        self, arm: str, *, comparison: str = STEPS, metric: str = "dice", label: str = MEAN
    ) -> list[Interval]:
        """Paired differences of an arm to the reference (equal steps, equal compute) or its twin, by budget."""
        return self._estimates("difference", arm, comparison, metric, label)

    def unconverged(self, found: Interval) -> Convergence | None:
        """Check of the reference of a difference at equal steps, where more steps would change it or may; else none."""
        if found.comparison != STEPS:
            return None
        checks = (each for each in self.convergence if (each.arm, each.budget) == (found.reference, found.budget))
        return next((each for each in checks if each.converged is not True), None)

    def _estimates(self, *wanted: str) -> list[Interval]:
        result = [e for e in self.estimates if (e.kind, e.arm, e.comparison, e.metric, e.label) == wanted]
        return sorted(result, key=lambda estimate: estimate.budget)


def of_patients(cases: int, patients: int) -> str:
    """Numbers of cases and of patients, in words; ``patients`` is 0 if unknown.

    Example:
        >>> of_patients(20, 10), of_patients(1, 1), of_patients(20, 0)
        ('20 cases of 10 patients', '1 case of 1 patient', '20 cases (patients not known)')
    """
    text = f"{cases} case{'' if cases == 1 else 's'}"
    return f"{text} of {patients} patient{'' if patients == 1 else 's'}" if patients else f"{text} (patients not known)"


def left_out(cases: int) -> str:
    """Number of cases whose scores do not count, in words.

    Example:
        >>> left_out(2)
        '2 cases left out'
    """
    return f"{cases} case{'' if cases == 1 else 's'} left out"
