"""The label-efficiency curve of a folder, as tables with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from monai_cl.evaluation import results
from monai_cl.evaluation.records import VARIANT, left_out, of_patients
from monai_cl.evaluation.results import Curve, CurveArm
from monai_cl.evaluation.verdicts import short
from monai_cl.report._results import metric_name
from monai_cl.report.tables import Cell, Estimate, Table, is_number, rounded, span

_MEANINGS = {
    results.STEPS: "every arm fine-tuned for the same steps",
    results.COMPUTE: "the reference also got the time that pretraining took",
    results.TWIN: "published weights less the same network, recipe and settings from scratch",
    VARIANT: "each evaluated otherwise as well, the plain evaluation subtracted",
}
_FACTS = ("date", "hardware", "section", "steps", "cell_seconds", "elapsed_seconds")


def curve_tables(curve: Curve) -> list[Table]:
    """Results of the curve: Dice, differences, labels saved, whether the reference was trained long enough.

    Differences are those of Dice, then those of the Hausdorff distance: a far stray part changes the second alone.
    """
    tables = [_means(curve, "dice"), *_differences(curve, "dice"), *_differences(curve, "hausdorff_95")]
    tables += [*_labels_saved(curve), *_convergence(curve)]
    tables += [_trials(curve)] if curve.trials else []
    return [table for table in tables if table.rows]


def curve_details(curve: Curve) -> list[Table]:
    """Circumstances of the curve: its arms, the distances between surfaces, versions and hardware."""
    distances = [_means(curve, metric) for metric in results.DISTANCES]
    tables = [_arms(curve), *distances, *_differences(curve, "surface_distance"), _facts(curve)]
    return [table for table in tables if table.rows]


def curve_warnings(curve: Curve) -> list[str]:
    """Remarks that a reader of the curve must know, in sentences."""
    remarks = [f"{note[:1].upper()}{note[1:]}." if not note.endswith(".") else note for note in curve.notes]
    if curve.failed:  # their reasons may name cases, and stay in summary.json
        remarks.append(f"These runs failed and are left out: {', '.join(sorted(curve.failed))}.")
    return remarks


def _budgets(curve: Curve) -> list[int]:
    return sorted({estimate.budget for estimate in curve.estimates})


def _table(caption: str, curve: Curve, columns: Sequence[tuple[str, Sequence[results.Estimate]]]) -> Table:
    """Budgets as rows, an arm a column, with what the intervals cover below."""
    columns = [(name, result) for name, result in columns if result]
    rows = [(str(budget), *(_cell(result, budget) for _, result in columns)) for budget in _budgets(curve)]
    kept = tuple(row for row in rows if any(map(is_number, row)))
    every = [estimate for _, result in columns for estimate in result]
    return Table(caption, ("labels", *(name for name, _ in columns)), kept, tuple(_covers(curve, every)))


def _cell(found: Sequence[results.Estimate], budget: int) -> Cell:
    chosen = next((estimate for estimate in found if estimate.budget == budget), None)
    if chosen is None:
        return ""
    return Estimate.of(chosen, short(chosen.verdict))


def _covers(curve: Curve, estimates: Sequence[results.Estimate]) -> Iterator[str]:
    if not estimates:
        return
    first = estimates[0]
    seeds = {each.seeds for each in estimates}
    # an arm without pretraining counts as one run
    runs = {each.runs for each in estimates if curve.arm(each.arm).runs != ("",)}
    crossed = f" and {span(runs)} pretraining runs" if runs and max(runs) > 1 else ""  # else a note explains
    counted = dict.fromkeys(of_patients(e.cases, e.patients) for e in estimates)
    over = " or ".join(counted) + (f" ({left_out(gone['cases'])})" if (gone := curve.record.get("excluded")) else "")
    yield f"{100 * first.confidence:g} % intervals over {over}, {span(seeds)} seed{'s' * (seeds != {1})}{crossed}"
    yield from dict.fromkeys(note for estimate in estimates for note in estimate.notes)
    yield from dict.fromkeys(estimate.verdict for estimate in estimates if ":" in estimate.verdict)


def _means(curve: Curve, metric: str) -> Table:
    columns = [(arm.name, curve.means(arm.name, metric=metric)) for arm in curve.arms]
    return _table(f"{metric_name(metric)} by number of labels", curve, columns)


def _differences(curve: Curve, metric: str) -> Iterator[Table]:
    for comparison, meaning in _MEANINGS.items():
        results_of = [(arm, curve.differences(arm.name, comparison=comparison, metric=metric)) for arm in curve.arms]
        columns = [(_against(arm, result), result) for arm, result in results_of if result]
        if columns:
            at = "of" if comparison == VARIANT else "at"
            table = _table(f"{metric_name(metric)}, difference {at} {comparison}: {meaning}", curve, columns)
            notes = ["where an interval holds 0, no difference was shown"]
            notes += ["a distance that is shorter, below 0, is the better one"] if metric in results.DISTANCES else []
            yield Table(table.caption, table.columns, table.rows, (*table.notes, *notes))


def _against(arm: CurveArm, found: Sequence[results.Estimate]) -> str:
    return f"{arm.name} less {found[0].reference}"


def _labels_saved(curve: Curve) -> Iterator[Table]:
    heads = ("arm", "comparison", "labels of the reference", "its Dice", "labels needed", "labels saved")
    rows = [
        (f"{s.arm} instead of {s.reference}", s.comparison, s.budget, round(s.target, 3), _number(s.needed), _saved(s))
        for s in curve.labels_saved
    ]
    notes = [f"intervals over {curve.counts()}"] if rows else []
    notes += ["open: beyond the budgets that were measured"] if any(map(_is_open, curve.labels_saved)) else []
    notes += dict.fromkeys(note for saved in curve.labels_saved for note in saved.notes)
    yield Table("Labels saved at equal Dice", heads, tuple(rows), tuple(notes))


def _is_open(saved: results.ArmLabelsSaved) -> bool:
    return math.isinf(saved.low) or math.isinf(saved.high)


def _saved(saved: results.ArmLabelsSaved) -> str:
    return f"{_number(saved.saved)} [{_number(saved.low)}, {_number(saved.high)}]"


def _number(value: float) -> str:
    if math.isinf(value):
        return "open"
    return "not defined" if math.isnan(value) else rounded(value, 1)


def _convergence(curve: Curve) -> Iterator[Table]:
    heads = ("labels", "gain of twice the steps", "tolerance", "trained long enough", "by the rule that")
    rows = [(str(c.budget), Estimate.of(c.difference), c.tolerance, c.verdict, c.reason) for c in curve.convergence]
    arm = curve.convergence[0].arm if curve.convergence else ""
    yield Table(f"Was {arm} trained long enough?", heads, tuple(rows))


def _trials(curve: Curve) -> Table:
    """Every trial of settings, best first in each arm, and which one the arm's runs have."""
    names = list(dict.fromkeys(name for trial in curve.trials for name in trial.values))
    tuning = curve.record["tuning"]
    order = {arm.name: place for place, arm in enumerate(curve.arms)}
    rows: list[tuple[Cell, ...]] = []
    for trial in sorted(curve.trials, key=lambda t: (order.get(t.arm, len(order)), bool(t.failed), -t.dice)):
        values = [str(trial.values[name]) if name in trial.values else "" for name in names]
        dice: Cell = "failed" if trial.failed else round(trial.dice, 3)
        rows.append((trial.arm, *values, trial.steps, dice, "chosen" if trial.chosen else trial.failed))
    labels, seeds = int(tuning["labels"]), len(tuning["seeds"])
    note = (
        f"mean Dice over {of_patients(tuning['cases'], tuning['patients'])}, {labels} labelled volume"
        f"{'s' * (labels != 1)}, {seeds} seed{'s' * (seeds != 1)}; in no other list, so that what is chosen here is "
        "judged on others"
    )
    heads = ("arm", *names, "steps", f"Dice on {tuning['section']}", "")
    return Table("Settings that were tried, as many for every arm", heads, tuple(rows), (note,))


def _arms(curve: Curve) -> Table:
    heads = ("arm", "what it is", "role", "pretraining runs", "fine-tuning steps", "note")
    rows = [(a.name, a.title, a.role, len([run for run in a.runs if run]), a.steps, a.note) for a in curve.arms]
    return Table("Arms of the curve", heads, tuple(rows))


def _facts(curve: Curve) -> Table:
    known = curve.record
    rows: list[tuple[Cell, ...]] = [(key.replace("_", " "), _plain(known[key])) for key in _FACTS if known.get(key)]
    rows += [(f"version of {name}", str(text)) for name, text in dict(known.get("versions") or {}).items()]
    rows += [(key, _plain(known[key])) for key in ("seeds", "budgets") if known.get(key)]
    return Table("How the curve was measured", ("", "value"), tuple(rows))


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:.0f}" if isinstance(value, float) else str(value)
