"""The picture of a label-efficiency curve: Dice against labels, and beside it what each arm gained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_cl.engine.drawing import LINES, new_figure, save
from monai_cl.evaluation.records import VARIANT
from monai_cl.evaluation.results import COMPUTE, STEPS, TWIN, Curve, CurveArm, Estimate
from monai_cl.evaluation.verdicts import short
from monai_cl.report.tables import rounded, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REFERENCE = "#444444"
# below the axes, where no interval is
_LEGEND: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "fontsize": 8, "frameon": False}
_MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">", "p")
_FEW = 5  # lines whose bands can be distinguished
_INCH_A_LINE = 0.2  # of a legend
_SPREAD = 0.13  # octaves between neighbours at the same budget


def draw_curve(curve: Curve, path: str | Path) -> Path:
    """Draw a curve as PNG; where pretraining does not help it is drawn just the same.

    Args:
        curve: The curve.
        path: The file.
    """
    return save(curve_figure(curve), path)


def curve_figure(curve: Curve) -> Figure:
    """Dice against the number of labels with its intervals, and the paired differences with theirs."""
    lines = max(len(_shown(curve)) + bool(curve.convergence), len(_gains(curve)))
    figure = new_figure(12.5, 5.0 + _INCH_A_LINE * lines)
    left, right = figure.subplots(1, 2)
    _draw_means(left, curve)
    _draw_differences(right, curve)
    for ax in (left, right):
        _label_axis(ax, [int(budget) for budget in curve.record["budgets"]])
    figure.suptitle(_headline(curve), fontsize=10)
    return figure


def curve_in_words(curve: Curve) -> str:
    """The same for those who cannot see the picture."""
    parts = [f"Mean Dice over {curve.counts()} against the number of labels, {_confidence(curve)} % intervals."]
    for arm in _shown(curve):
        values = ", ".join(f"{e.estimate:.3f} with {e.budget}" for e in curve.means(arm.name))
        parts.append(f"{arm.title}: {values}.")
    for arm, comparison, estimates in _gains(curve):
        values = ", ".join(f"{in_points(e)}{_word(e)} with {e.budget}" for e in estimates)
        parts.append(f"{arm.title} less {_other(curve, estimates[0])} at {comparison}, in Dice points: {values}.")
    return " ".join(parts)


def in_points(estimate: Estimate) -> str:
    """A difference in Dice points with its interval."""
    value, low, high = (
        rounded(100 * number, 1, sign="+") for number in (estimate.estimate, estimate.low, estimate.high)
    )
    return f"{value} [interval undefined]" if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def _word(estimate: Estimate) -> str:
    word = short(estimate.verdict)
    return "" if word in ("", "undefined") else f" ({word})"


def _draw_means(ax: Axes, curve: Curve) -> None:
    shown = _shown(curve)
    offsets = {
        arm.name: (index - (len(shown) - 1) / 2) * min(1.0, _FEW / len(shown)) for index, arm in enumerate(shown)
    }
    if not _single(curve):
        offsets = dict.fromkeys(offsets, 0.0)
    for arm in shown:
        estimates = curve.means(arm.name)
        x = _places(estimates, offsets[arm.name])
        colour, style = _style(curve, arm)
        mean, low, high = _columns(estimates)
        if _single(curve):
            bars: dict[str, Any] = {"linestyle": "none", "capsize": 3, "linewidth": 1.5, "label": _legend(arm)}
            ax.errorbar(x, mean, yerr=_reach(mean, low, high), color=colour, **bars, **style)
            continue
        if arm.role != COMPUTE and _few(curve):  # more bands hide each other; the other picture has all intervals
            ax.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        style |= {"linestyle": "--" if arm.role == COMPUTE else "-", "linewidth": 1.8}
        ax.plot(x, mean, color=colour, label=_legend(arm), **style)
    for check in curve.convergence:
        reference = next(e for e in curve.means(check.arm) if e.budget == check.budget)
        label = f"{curve.arm(check.arm).title}, twice the steps" if check is curve.convergence[0] else None
        x, y = _places([reference], offsets[check.arm]), reference.estimate + check.gain
        look: dict[str, Any] = {"color": _REFERENCE, "markerfacecolor": "none", "markersize": 11}
        ax.errorbar(x, y, fmt="*", label=label, zorder=5, **look)  # as the bars, whose order a legend keeps
    ax.set_ylabel("Dice, mean over classes and cases")
    ax.legend(**_LEGEND)


def _draw_differences(ax: Axes, curve: Curve) -> None:
    ax.axhline(0, color="black", linewidth=1.0)
    gains = _gains(curve)
    for index, (arm, comparison, estimates) in enumerate(gains):
        x = _places(estimates, (index - (len(gains) - 1) / 2) * min(1.0, _FEW / len(gains)))
        colour, style = _style(curve, arm)
        mean, low, high = (100 * column for column in _columns(estimates))
        filled = colour if comparison == STEPS else "white"
        label = f"{arm.title} - {_other(curve, estimates[0])} ({comparison})"
        look = {"color": colour, "markerfacecolor": filled, "marker": style["marker"], "markersize": 6}
        reach = _reach(mean, low, high)
        ax.errorbar(x, mean, yerr=reach, linestyle="none", capsize=3, linewidth=1.5, label=label, **look)
    ax.set_ylabel("paired difference in Dice points")
    if gains:
        ax.legend(**_LEGEND)
    else:
        ax.text(0.5, 0.5, "nothing to compare yet", transform=ax.transAxes, ha="center", color="#555555")


def _label_axis(ax: Axes, budgets: Sequence[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(budgets, [str(budget) for budget in budgets])
    ax.set_xticks([], minor=True)
    ax.set_xlim(min(budgets) / 1.4, max(budgets) * 1.4)
    ax.set_xlabel("labelled volumes")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _shown(curve: Curve) -> list[CurveArm]:
    """The arms that are lines: twice the steps is a mark, another evaluation stands in a table."""
    return [arm for arm in curve.arms if arm.role not in ("twice the steps", VARIANT) and curve.means(arm.name)]


def _few(curve: Curve) -> bool:
    return len(_shown(curve)) <= _FEW


def _single(curve: Curve) -> bool:
    """Return whether one number of labels was measured, where a band would have no width."""
    return len(curve.record["budgets"]) == 1


def _gains(curve: Curve) -> list[tuple[CurveArm, str, list[Estimate]]]:
    """Every comparison that has estimates."""
    pairs = product(curve.arms, (STEPS, COMPUTE, TWIN))
    result = [(arm, kind, curve.differences(arm.name, comparison=kind)) for arm, kind in pairs]
    return [entry for entry in result if entry[2]]


def _other(curve: Curve, estimate: Estimate) -> str:
    """Arm that is subtracted, in words; how it got its steps stands beside it."""
    name = str(curve.record["reference"]) if estimate.comparison == COMPUTE else estimate.reference
    return curve.arm(name).title


def _style(curve: Curve, arm: CurveArm) -> tuple[str, dict[str, Any]]:
    """Colour and mark of an arm; one that was given another's time has the colour of that one, in its own dashes."""
    if arm.name == curve.record["reference"]:
        return _REFERENCE, {"marker": "x", "markersize": 6}
    own = [each.name for each in curve.arms if each.role in ("pretrained", "scratch")]
    index = own.index(arm.gets or arm.name)
    marker = "x" if arm.gets else _MARKERS[index % len(_MARKERS)]
    return LINES[index % len(LINES)], {"marker": marker, "markersize": 5}


def _legend(arm: CurveArm) -> str:
    runs = f", {len(arm.runs)} pretraining runs" if len(arm.runs) > 1 else ""
    return f"{arm.title} ({arm.steps} steps{runs})"


def _places(estimates: Sequence[Estimate], offset: float) -> np.ndarray:
    budgets = np.array([estimate.budget for estimate in estimates], float)
    places: np.ndarray = budgets * 2 ** (_SPREAD * offset)
    return places


def _reach(mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> Any:
    """Lengths of the bars below and above the means; 0 where the interval is undefined."""
    known = np.isfinite(low)
    return [np.where(known, mean - low, 0.0), np.where(known, high - mean, 0.0)]


def _columns(estimates: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array([(each.estimate, each.low, each.high) for each in estimates], float)
    return table[:, 0], table[:, 1], table[:, 2]


def _headline(curve: Curve) -> str:
    record = curve.record
    counted = {each.seeds for arm in _shown(curve) for each in curve.means(arm.name)} or {len(record["seeds"])}
    seeds = f"{span(counted)} seed{'s' if max(counted) > 1 else ''}"
    failed = f"; {len(curve.failed)} runs failed" if curve.failed else ""
    drawn = "bands and bars" if _few(curve) and not _single(curve) else "bars"
    meaning = f"{drawn} are {_confidence(curve)} % intervals over patients, seeds and pretraining runs"
    verdicts = (each.verdict for _, _, estimates in _gains(curve) for each in estimates)
    carries = next((verdict for verdict in verdicts if verdict.startswith("hint")), "")
    return f"{record['section']}: {curve.counts()}, {seeds}; {meaning}{failed}" + (f"\n{carries}" if carries else "")


def _confidence(curve: Curve) -> str:
    return f"{100 * (curve.estimates[0].confidence if curve.estimates else 0.95):.4g}"
