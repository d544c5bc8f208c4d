"""Results of evaluations and curves, as tables with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from monai_cl.engine.save_cases import read_cases
from monai_cl.evaluation import CaseScore, Interval, interval, paired_difference
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
_OF_IMAGES = ("psnr", "psnr_of_noisy_image", "ssim")  # a value for each channel, not for each class
_MISSED = "a class that only the prediction lacks counts with the diagonal of the volume, the largest possible distance"
_ONE_NETWORK = "95 % intervals over patients, of one network each: they do not cover other seeds or subsets of labels"
_PATIENTS_UNKNOWN = (
    "patients not known (the evaluation did not record them): each case counts as a patient of its own, and intervals "
    "are too narrow where a patient has several; evaluate again"
)


def metric_name(metric: str) -> str:
    """A metric as people call it."""
    return METRICS.get(_plain(metric), metric.removeprefix("val_").replace("_", " "))


def _plain(metric: str) -> str:
    return metric.removeprefix("val_").removeprefix("mean_")


def _parts(metric: str) -> tuple[str, str]:
    return ("channel", "channels") if _plain(metric) in _OF_IMAGES else ("class", "classes")


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
    caption = f"{metric_name(metric)} of each case, mean over its {_parts(metric)[1]}"
    return Table(caption, ("case", *(run.name for run in runs)), tuple(rows))


def _of_metric(runs: Sequence[Run], metric: str) -> list[Table]:
    names = {run.name: read_cases(run.folder / "cases").get("classes", {}) for run in runs}
    agreed = list({tuple(each.items()): each for each in names.values() if each}.values())
    labels = _labels(runs, metric, agreed[0] if len(agreed) == 1 else {})
    parts = ["mean", *labels]
    heads = ("evaluation", "cases", "patients", f"mean over {_parts(metric)[1]}", *labels.values())
    rows = tuple((*_counts(run, metric), *(_estimate(run, metric, part) for part in parts)) for run in runs)
    notes = [_ONE_NETWORK, *_undefined(runs, metric)]
    notes += [_MISSED] if _plain(metric) in DISTANCES else []
    notes += [_PATIENTS_UNKNOWN] if not all(_are_known(run, metric) for run in runs) else []
    if len(agreed) > 1:
        notes += [
            f"the classes of {name}, in order: {', '.join(each.values())}" for name, each in names.items() if each
        ]
    table = Table(f"{metric_name(metric)} on unseen cases", heads, rows, tuple(notes))
    return [table, *_differences(runs, metric)]


def _undefined(runs: Sequence[Run], metric: str) -> list[str]:
    """Numbers of scores that are none, in words."""
    rows = [row for run in runs for row in run.scores[metric].values()]
    values = [value for row in rows for part, value in row.items() if part != "mean"]
    empty, infinite = sum(map(math.isnan, values)), sum(map(math.isinf, values))
    absent = "" if _plain(metric) in _OF_IMAGES else " (the class is absent)"
    notes = [f"{empty} scores are not defined{absent} and left out"] if empty else []
    if infinite:
        notes.append(f"infinite scores ({infinite}) leave the means with them not defined; evaluate with finite ones")
    return notes


def _labels(runs: Sequence[Run], metric: str, names: Mapping[str, str]) -> dict[str, str]:
    """Heads of the columns: the names of the classes where evaluations kept them and agree on them."""
    result = dict.fromkeys(key for run in runs for row in run.scores[metric].values() for key in row)
    classes = [key for key in result if key != "mean"]
    if names and len(names) != len(classes):
        return {key: key for key in classes}  # such as one more, the background
    # MONAI counts the classes it was given from 0, and the background is not among them
    part = _parts(metric)[0]
    return {key: names.get(str(number), f"{part} {number}") for number, key in enumerate(classes, start=1)}


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
    if all(math.isnan(score.value) for score in scores) or any(math.isinf(score.value) for score in scores):
        return math.nan
    return Estimate.of(interval(scores, run.name, 0))


def _differences(runs: Sequence[Run], metric: str) -> list[Table]:
    if len(runs) < 2 or any(run.scores[metric].keys() != runs[0].scores[metric].keys() for run in runs):
        return []
    first, *others = runs
    known = next((run.patients for run in runs if _are_known(run, metric)), {})
    reference = _scores(first, metric, "mean", patients=known)
    rows: list[tuple[Cell, ...]] = []
    verdicts = []
    for run in others:
        scores = _scores(run, metric, "mean", patients=known)
        values = {score.case: score.value for score in scores}
        both = [(values[score.case], score.value) for score in reference]
        if any(map(math.isinf, (value for pair in both for value in pair))):
            rows.append((run.name, math.nan))
        elif any(not math.isnan(ours + theirs) for ours, theirs in both):
            result = paired_difference([*scores, *reference], run.name, first.name, 0)
            verdicts.append(_verdict(result, metric, clustered=bool(known)))
            rows.append((run.name, Estimate.of(result, short(verdicts[-1]))))
    notes = [_ONE_NETWORK, *dict.fromkeys(text for text in verdicts if ":" in text)]
    name = metric_name(metric)
    notes += [] if _plain(metric) in METRICS else [f"not known: whether a larger or a smaller {name} is the better one"]
    notes += ["a distance that is shorter, below 0, is the better one"] if _plain(metric) in DISTANCES else []
    caption = f"{name}: difference to {first.name}, same cases"
    return [Table(caption, ("evaluation", "difference"), tuple(rows), tuple(notes))] if rows else []


def _verdict(found: Interval, metric: str, *, clustered: bool) -> str:
    """Name that a difference of two networks deserves; empty where the better side of its metric is not known."""
    if _plain(metric) not in METRICS:
        return ""
    smaller = _plain(metric) in DISTANCES
    # one network is one seed and one pretraining run at most
    return verdict(found.low, found.high, seeds=1, runs=1, clustered=clustered, smaller_is_better=smaller)
