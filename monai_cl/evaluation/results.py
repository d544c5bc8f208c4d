"""A measured label-efficiency curve: scores, estimates with intervals, and what they rest on; written and read back."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from monai_cl._files import atomic_write
from monai_cl.evaluation._store import read_json, write_json
from monai_cl.evaluation._table import METRICS, Score, read_table, write_table

TABLE, SUMMARY, SUMMARY_TABLE = "curve.csv", "summary.json", "summary.csv"
STEPS, COMPUTE = "equal steps", "equal compute"
MEAN = "mean"  # over the classes of a case


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
    """Whether twice the steps would have changed the Dice of the reference; see :func:`monai_cl.evaluation.converged`.

    Attributes:
        arm: The reference.
        budget: Number of labels.
        steps: Its steps; it was tried with twice as many.
        converged: Whether they change nothing that matters.
        gain: Dice after twice the steps, less Dice after the steps.
        low: Lower end of the interval of the gain.
        high: Upper end.
        tolerance: Gain that is too small to matter.
        reason: The rule that decided, in words.
    """

    arm: str
    budget: int
    steps: int
    converged: bool
    gain: float
    low: float
    high: float
    tolerance: float
    reason: str


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
        record: ``reference``, ``budgets``, ``seeds``, ``cases``, ``classes``, ``section``, ``steps``, ``versions``,
            ``hardware``, ``date``, ``elapsed_seconds`` (of the last start), ``cell_seconds`` (of all runs together),
            ``equal_compute``, ``datalist`` and ``config``.
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


def save_curve(curve: Curve, folder: Path) -> None:
    """Write ``curve.csv``, ``summary.csv`` and ``summary.json`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / TABLE, curve.scores)
    _write_estimates(folder / SUMMARY_TABLE, curve.estimates)
    content = {name: [_encode(each) for each in getattr(curve, name)] for name in _TYPES}
    rest = {"failed": dict(curve.failed), "notes": list(curve.notes), "record": _plain(dict(curve.record))}
    write_json(folder / SUMMARY, {**content, **rest})


def load_curve(folder: str | Path) -> Curve:
    """Read a curve that ``monai-cl curve`` has written.

    Args:
        folder: Its output folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    folder = Path(folder)
    content = read_json(folder / SUMMARY)
    if content is None:
        raise FileNotFoundError(f"no curve in {folder}; `monai-cl curve CONFIG` measures one")
    parts: dict[str, Any] = {
        name: tuple(_decode(kind, each) for each in content[name]) for name, kind in _TYPES.items()
    }
    return Curve(
        scores=read_table(folder / TABLE),
        failed=content["failed"],
        notes=tuple(content["notes"]),
        record=content["record"],
        **parts,
    )


_TYPES: dict[str, type] = {
    "arms": CurveArm,
    "estimates": Estimate,
    "labels_saved": ArmLabelsSaved,
    "convergence": ArmConvergence,
}
_Any = TypeVar("_Any")


def _encode(item: Any) -> dict[str, Any]:
    return {each.name: _plain(getattr(item, each.name)) for each in fields(item)}


def _decode(kind: type[_Any], content: Mapping[str, Any]) -> _Any:
    kinds = {each.name: str(each.type) for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _as(kinds[name], value) for name, value in content.items()})


def _as(kind: str, value: Any) -> Any:
    if kind == "float":
        return math.nan if value is None else float(value)
    return tuple(value) if kind.startswith("tuple") else value


def _plain(value: Any) -> Any:
    """As JSON has it, which knows neither NaN (null) nor infinity (text)."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _write_estimates(path: Path, estimates: Sequence[Estimate]) -> None:
    names = [each.name for each in fields(Estimate)]
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class" if name == "label" else name for name in names])
        writer.writerows([_cell(getattr(each, name)) for name in names] for each in estimates)


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return "; ".join(value)
    return f"{value:.6g}" if isinstance(value, float) else value


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
    "load_curve",
    "save_curve",
]
