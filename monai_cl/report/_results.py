"""Results of evaluations and curves, as tables with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from monai_cl.engine.save_cases import read_cases
from monai_cl.evaluation import CaseScore, interval, paired_difference
from monai_cl.evaluation.records import DISTANCES
from monai_cl.evaluation.verdicts import short, verdict
from monai_cl.report._folders import Run
from monai_cl.report.tables import Cell, Estimate, Table

METRICS = {
    "dice": "Dice",
    "surface_distance": "Average surface distance in mm",
    "hausdorff_95": "Hausdorff distance (95 %) in mm",
    "psnr": "PSNR in dB",
    "psnr_of_noisy_image": "PSNR in dB of the image before denoising",
    "ssim": "SSIM",
}
_MISSED = "a class that only the prediction lacks counts with the diagonal of the volume, the largest possible distance"
_ONE_NETWORK = "95 % intervals over patients, of one network each: they do not cover other seeds or subsets of labels"
_PATIENTS_UNKNOWN = (
    "patients not known (the evaluation did not record them): each case counts as a patient of its own, and intervals "
    "are too narrow where a patient has several; evaluate again"
)


def metric_name(metric: str) -> str:
    """A metric as people call it."""
    plain = metric.removeprefix("val_")
    return METRICS.get(plain.removeprefix("mean_"), plain.replace("_", " "))


def result_tables(runs: Sequence[Run]) -> list[Table]:
    """A table a metric, an evaluation a row; then the differences where the cases are the same."""
    metrics = dict.fromkeys(metric for run in runs for metric in run.scores)
    return [table for metric in metrics for table in _of_metric([run for run in runs if metric in run.scores], metric)]


def case_table(runs: Sequence[Run], metric: str, names: Callable[[str], str]) -> Table:
    """The mean over the classes of every case, an evaluation a column."""
    columns = [run.scores.get(metric, {}) for run in runs]
    cases = dict.fromkeys(case for scores in columns for case in scores)
    rows: list[tuple[Cell, ...]] = [
        (names(case), *(scores.get(case, {}).get("mean", math.nan) for scores in columns)) for case in cases
    ]
    caption = f"{metric_name(metric)} of each case, mean over its classes"
    return Table(caption, ("case", *(run.name for run in runs)), tuple(rows))


def _of_metric(runs: Sequence[Run], metric: str) -> list[Table]:
    labels = _labels(runs, metric)
    parts = ["mean", *labels]
    heads = ("evaluation", "cases", "patients", "mean over classes", *labels.values())
    rows = tuple((*_counts(run, metric), *(_estimate(run, metric, part) for part in parts)) for run in runs)
    cells = [row for run in runs for row in run.scores[metric].values()]
    empty = sum(math.isnan(value) for row in cells for part, value in row.items() if part != "mean")
    notes = [_ONE_NETWORK, *([f"{empty} scores are not defined (the class is absent) and left out"] if empty else [])]
    notes += [_MISSED] if "mm" in metric_name(metric) else []
    notes += [_PATIENTS_UNKNOWN] if not all(_are_known(run, metric) for run in runs) else []
    table = Table(f"{metric_name(metric)} on unseen cases", heads, rows, tuple(notes))
    return [table, *_differences(runs, metric)]


def _labels(runs: Sequence[Run], metric: str) -> dict[str, str]:
    """Heads of the columns: the names of the classes where an evaluation kept them."""
    kept = [read_cases(run.folder / "cases") for run in runs]
    names: dict[str, str] = next((content["classes"] for content in kept if content), {})
    result = dict.fromkeys(key for run in runs for row in run.scores[metric].values() for key in row)
    # MONAI counts the classes it was given from 0, and the background is not among them
    classes = [key for key in result if key != "mean"]
    return {key: names.get(str(number), f"class {number}") for number, key in enumerate(classes, start=1)}


def _scores(run: Run, metric: str, part: str, *, patients: Mapping[str, str] | None = None) -> list[CaseScore]:
    """Scores of an evaluation; the patients are its own, or those that another evaluation of the same cases knows."""
    rows = run.scores[metric]
    known = run.patients if patients is None else patients
    return [
        CaseScore(run.name, 0, 0, case, row.get(part, math.nan), patient=known.get(case, ""))
        for case, row in rows.items()
    ]


def _counts(run: Run, metric: str) -> tuple[Cell, ...]:
    """Name, number of cases and number of patients of an evaluation."""
    cases = run.scores[metric]
    patients = len({run.patients[case] for case in cases}) if _are_known(run, metric) else None
    return run.name, len(cases), patients


def _are_known(run: Run, metric: str) -> bool:
    return all(case in run.patients for case in run.scores[metric])


def _estimate(run: Run, metric: str, part: str) -> Cell:
    scores = _scores(run, metric, part)
    if all(math.isnan(score.value) for score in scores):
        return math.nan
    return Estimate.of(interval(scores, run.name, 0))


def _differences(runs: Sequence[Run], metric: str) -> list[Table]:
    if len(runs) < 2 or any(run.scores[metric].keys() != runs[0].scores[metric].keys() for run in runs):
        return []
    first, *others = runs
    known = next((run.patients for run in runs if _are_known(run, metric)), {})
    reference = _scores(first, metric, "mean", patients=known)
    result = {}
    for run in others:
        scores = _scores(run, metric, "mean", patients=known)
        if any(math.isfinite(a.value + b.value) for a, b in zip(scores, reference, strict=True)):
            result[run.name] = paired_difference([*scores, *reference], run.name, first.name, 0)
    smaller = metric.removeprefix("val_") in DISTANCES
    # one network is one seed and one pretraining run at most
    verdicts = {
        name: verdict(each.low, each.high, seeds=1, runs=1, clustered=bool(known), smaller_is_better=smaller)
        for name, each in result.items()
    }
    rows = [(name, Estimate.of(each, short(verdicts[name]))) for name, each in result.items()]
    notes = (_ONE_NETWORK, *dict.fromkeys(text for text in verdicts.values() if ":" in text))
    caption = f"{metric_name(metric)}: difference to {first.name}, same cases"
    return [Table(caption, ("evaluation", "difference"), tuple(rows), notes)] if rows else []
