"""What the evaluations and curves found, as tables with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from monai_cl.evaluation import CaseScore, interval, paired_difference
from monai_cl.report._folders import Run, Scores
from monai_cl.report.save_cases import read_cases
from monai_cl.report.tables import Cell, Estimate, Table

METRICS = {
    "val_mean_dice": "Dice",
    "val_surface_distance": "Average surface distance in mm",
    "val_hausdorff_95": "Hausdorff distance (95 %) in mm",
    "psnr": "PSNR in dB",
    "psnr_of_noisy_image": "PSNR in dB of the image before denoising",
    "ssim": "SSIM",
}
_MISSED = "a class that only the prediction lacks counts with the diagonal of the volume, the largest distance there is"
_ONE_NETWORK = "95 % intervals over cases, of one network each: they say nothing of other seeds or subsets of labels"


def metric_name(metric: str) -> str:
    """A metric as people call it."""
    return METRICS.get(metric, metric.removeprefix("val_").replace("_", " "))


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
    heads = ("evaluation", "cases", "mean over classes", *labels.values())
    rows = tuple((run.name, len(run.scores[metric]), *(_estimate(run, metric, part) for part in parts)) for run in runs)
    cells = [row for run in runs for row in run.scores[metric].values()]
    empty = sum(math.isnan(value) for row in cells for part, value in row.items() if part != "mean")
    notes = [_ONE_NETWORK, *([f"{empty} scores are not defined (the class is absent) and left out"] if empty else [])]
    notes += [_MISSED] if "mm" in metric_name(metric) else []
    table = Table(f"{metric_name(metric)} on unseen cases", heads, rows, tuple(notes))
    return [table, *_differences(runs, metric)]


def _labels(runs: Sequence[Run], metric: str) -> dict[str, str]:
    """Heads of the columns: the names of the classes where an evaluation kept them."""
    kept = [read_cases(run.folder / "cases") for run in runs]
    names: dict[str, str] = next((content["classes"] for content in kept if content), {})
    found = dict.fromkeys(key for run in runs for row in run.scores[metric].values() for key in row)
    # MONAI counts the classes it was given from 0, and the background is not among them
    classes = [key for key in found if key != "mean"]
    return {key: names.get(str(number), f"class {number}") for number, key in enumerate(classes, start=1)}


def _scores(run: Run, metric: str, part: str) -> list[CaseScore]:
    rows: Scores = run.scores[metric]
    return [CaseScore(run.name, 0, 0, case, row.get(part, math.nan)) for case, row in rows.items()]


def _estimate(run: Run, metric: str, part: str) -> Cell:
    scores = _scores(run, metric, part)
    if all(math.isnan(score.value) for score in scores):
        return math.nan
    return Estimate.of(interval(scores, run.name, 0))


def _differences(runs: Sequence[Run], metric: str) -> list[Table]:
    if len(runs) < 2 or any(run.scores[metric].keys() != runs[0].scores[metric].keys() for run in runs):
        return []
    first, *others = runs
    reference = _scores(first, metric, "mean")
    rows = [
        (run.name, Estimate.of(paired_difference([*_scores(run, metric, "mean"), *reference], run.name, first.name, 0)))
        for run in others
        if any(math.isfinite(a.value + b.value) for a, b in zip(_scores(run, metric, "mean"), reference, strict=True))
    ]
    caption = f"{metric_name(metric)}: difference to {first.name}, same cases"
    return [Table(caption, ("evaluation", "difference"), tuple(rows), (_ONE_NETWORK,))] if rows else []
