"""A measured label-efficiency curve: scores, estimates with intervals, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_cl.evaluation._records import convergence_verdict
from monai_cl.evaluation._table import METRICS, Score

STEPS, COMPUTE = "equal steps", "equal compute"
MEAN = "mean"  # over the classes of a case
LONG, HANDED = "twice the steps", "equal compute"  # roles of arms that come by themselves


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
    """

    name: str
    title: str
    role: str
    runs: tuple[str, ...]
    steps: int
    gets: str = ""
    note: str = ""


@dataclass(frozen=True)
class Estimate:
    """A mean, or a paired difference of means, with its interval.

    Attributes:
        kind: ``"mean"`` or ``"difference"``.
        comparison: Of a difference: ``"equal steps"`` or ``"equal compute"``.
        metric: ``"dice"``, ``"surface_distance"`` or ``"hausdorff_95"`` (mm).
        label: A class, or ``"mean"`` over the classes of a case.
        arm: Name of the arm.
        reference: Of a difference: the arm it is compared with.
        budget: Number of labels.
        estimate: The mean, or arm less reference.
        low: Lower end of the interval; NaN where nothing can be told of the spread.
        high: Upper end.
        confidence: Share of such intervals that hold the true value.
        runs: Number of pretraining runs of the arm.
        seeds: Number of seeds.
        cases: Number of cases.
        used: Number of scores, or of pairs.
        excluded: Number left out as undefined.
        notes: What the interval does not cover, in words.
        patients: Number of patients that the cases are of; 0 where it is not known.
        verdict: Of a difference: what it may be called, such as ``"gain"`` or ``"hint: 3 seeds; ..."``.
    """

    kind: str
    comparison: str
    metric: str
    label: str
    arm: str
    reference: str
    budget: int
    estimate: float
    low: float
    high: float
    confidence: float
    runs: int
    seeds: int
    cases: int
    used: int
    excluded: int
    notes: tuple[str, ...] = ()
    patients: int = 0
    verdict: str = ""


@dataclass(frozen=True)
class ArmLabelsSaved:
    """Labels that an arm saves at equal Dice; see :class:`monai_cl.evaluation.LabelsSaved`."""

    comparison: str
    arm: str
    reference: str
    budget: int
    target: float
    needed: float
    saved: float
    low: float
    high: float
    confidence: float
    excluded: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArmConvergence:
    """Effect of twice the steps on the Dice of the reference; see :func:`monai_cl.evaluation.converged`.

    Attributes:
        arm: The reference.
        budget: Number of labels.
        steps: Its steps; it was tried with twice as many.
        converged: ``True`` where they change nothing that matters, ``None`` where that is undecided.
        gain: Dice after twice the steps, less Dice after the steps.
        low: Lower end of the interval of the gain.
        high: Upper end.
        tolerance: Gain that is too small to matter.
        reason: The rule that decided, in words.
    """

    arm: str
    budget: int
    steps: int
    converged: bool | None
    gain: float
    low: float
    high: float
    tolerance: float
    reason: str

    @property
    def verdict(self) -> str:
        """``"yes"``, ``"no"`` or ``"undecided"``."""
        return convergence_verdict(self.converged)


@dataclass(frozen=True)
class Curve:
    """A measured curve.

    Attributes:
        scores: One for each fine-tuned network, case and class.
        arms: The arms, in order.
        estimates: Means and differences with intervals.
        labels_saved: Labels saved at equal Dice.
        convergence: Whether the reference was trained long enough; empty where it was not tried.
        failed: Name and reason of each run that failed.
        notes: What a reader must know besides, in words.
        record: ``reference``, ``budgets``, ``seeds``, ``cases``, ``patients``, ``classes``, ``section``, ``steps``,
            ``versions``, ``hardware``, ``date``, ``elapsed_seconds`` (of the last start), ``cell_seconds`` (of all
            runs together), ``equal_compute``, ``datalist`` and ``config``.
    """

    scores: tuple[Score, ...]
    arms: tuple[CurveArm, ...]
    estimates: tuple[Estimate, ...]
    labels_saved: tuple[ArmLabelsSaved, ...] = ()
    convergence: tuple[ArmConvergence, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def arm(self, name: str) -> CurveArm:
        """The arm of that name.

        Raises:
            ValueError: If there is none; the message lists all.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(f"arm must be one of {', '.join(arm.name for arm in self.arms)}, got {name!r}")

    def means(self, arm: str, *, metric: str = "dice", label: str = MEAN) -> list[Estimate]:
        """Means of an arm, by budget."""
        found = [e for e in self.estimates if e.kind == "mean" and (e.arm, e.metric, e.label) == (arm, metric, label)]
        return sorted(found, key=lambda estimate: estimate.budget)

    def differences(
        self, arm: str, *, comparison: str = STEPS, metric: str = "dice", label: str = MEAN
    ) -> list[Estimate]:
        """Paired differences between an arm and the reference (``"equal steps"``, ``"equal compute"``), by budget."""
        wanted = (arm, comparison, metric, label)
        found = [
            e for e in self.estimates if e.kind == "difference" and (e.arm, e.comparison, e.metric, e.label) == wanted
        ]
        return sorted(found, key=lambda estimate: estimate.budget)


__all__ = [
    "COMPUTE",
    "MEAN",
    "METRICS",
    "STEPS",
    "ArmConvergence",
    "ArmLabelsSaved",
    "Curve",
    "CurveArm",
    "Estimate",
    "Score",
]
