"""A measured curve in its folder: written, and read back, also where version 0.1.0 has written it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from monai_cl._files import atomic_write
from monai_cl.datalist import subjects_by_case
from monai_cl.engine.patients import numbered
from monai_cl.evaluation._store import read_json, write_json
from monai_cl.evaluation._summary import judged, summarise
from monai_cl.evaluation.records import (
    COMPUTE,
    DISTANCES,
    MEAN,
    METRICS,
    STEPS,
    TWIN,
    ArmConvergence,
    ArmLabelsSaved,
    Convergence,
    Curve,
    CurveArm,
    Estimate,
    Interval,
    LabelsSaved,
    Score,
    Trial,
)

TABLE, SUMMARY, SUMMARY_TABLE = "curve.csv", "summary.json", "summary.csv"
_FORMAT = 2  # 0.1.0 wrote none
_NOT_KNOWN = (
    "the curve is of version 0.1.0, which took every case for a patient of its own: where a patient has several, the "
    "intervals are too narrow; `monai-cl curve CONFIG` makes them again from the finished runs, and `monai-cl report "
    "--datalist` reads the patients from a datalist"
)
# the columns of each kind of record in the files, which stay what they were
_ROW = ("arm", "run", "budget", "seed", "case", "label", *METRICS, "patient")
_ARM = ("name", "title", "role", "runs", "steps", "gets", "note")
_ESTIMATE = (
    "kind", "comparison", "metric", "label", "arm", "reference", "budget", "estimate", "low", "high", "confidence",
    "runs", "seeds", "cases", "used", "excluded", "notes", "patients", "verdict",
)  # fmt: skip
_SAVED = (
    "comparison", "arm", "reference", "budget", "target", "needed", "saved", "low", "high", "confidence", "excluded",
    "notes",
)  # fmt: skip
_CONVERGENCE = ("arm", "budget", "steps", "converged", "gain", "low", "high", "tolerance", "reason")
_TRIAL = ("arm", "values", "dice", "seeds", "steps", "chosen", "failed")
_PARTS = {
    "arms": _ARM, "estimates": _ESTIMATE, "labels_saved": _SAVED, "convergence": _CONVERGENCE, "trials": _TRIAL,
}  # fmt: skip


def save_curve(curve: Curve, folder: Path) -> None:
    """Write ``curve.csv``, ``summary.csv`` and ``summary.json`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(folder / TABLE, _ROW, curve.scores)
    _write_rows(folder / SUMMARY_TABLE, _ESTIMATE, curve.estimates)
    content = {
        part: [{name: _plain(getattr(each, name)) for name in names} for each in getattr(curve, part)]
        for part, names in _PARTS.items()
    }
    rest = {"failed": dict(curve.failed), "notes": list(curve.notes), "record": _plain(dict(curve.record))}
    write_json(folder / SUMMARY, {"format": _FORMAT, **content, **rest})


def load_curve(folder: str | Path, *, datalist: str | Path | None = None) -> Curve:
    """Read a curve that ``monai-cl curve`` has written.

    Version 0.1.0 did not write down which cases are of one patient. Where a datalist names them, the intervals of such
    a curve are made again with the cases of a patient resampled together; else a note states that they are unknown.

    Args:
        folder: Its output folder.
        datalist: The datalist of the evaluation, for curves of 0.1.0; that of patients kept apart is found by itself.

    Raises:
        FileNotFoundError: If the curve or the datalist does not exist.
        ValueError: If the datalist does not know the cases of the curve.
    """
    folder = Path(folder)
    content = read_json(folder / SUMMARY)
    if content is None or not (folder / TABLE).is_file():
        raise FileNotFoundError(f"no curve in {folder}; `monai-cl curve CONFIG` measures one")
    curve = Curve(
        scores=tuple(_read_scores(folder / TABLE)),
        arms=tuple(_decoded(CurveArm, each) for each in content["arms"]),
        estimates=tuple(_decoded(Interval, each) for each in content["estimates"]),
        labels_saved=tuple(_decoded(LabelsSaved, each) for each in content["labels_saved"]),
        convergence=tuple(map(_convergence, content["convergence"])),
        trials=tuple(_decoded(Trial, each) for each in content.get("trials", [])),
        failed=content["failed"],
        notes=tuple(content["notes"]),
        record=content["record"],
    )
    # judged again: earlier versions called a shorter distance a loss
    curve = replace(curve, estimates=tuple(judged(estimate, curve.arms) for estimate in curve.estimates))
    if "format" in content:
        return curve
    own = folder / "datalist.json"
    source = Path(datalist) if datalist is not None else own if own.is_file() else None
    return _unclustered(curve) if source is None else _clustered(curve, source)


def _clustered(curve: Curve, datalist: Path) -> Curve:
    """A curve of 0.1.0 with the patients of a datalist, and its intervals made again."""
    # 0.1.0 named cases as the list does; only numbers of patients come out of it
    known = subjects_by_case(datalist, str(curve.record["section"]), hide_names=False)
    cases = {score.case for score in curve.scores}
    unknown = sorted(cases - known.keys())
    if unknown:
        raise ValueError(
            f"{datalist} must list the cases of the curve in {curve.record['section']}, {len(unknown)} of {len(cases)} "
            "are missing; give the datalist that it was evaluated with"
        )
    patients = numbered({case: name for case, name in known.items() if case in cases})
    scores = tuple(replace(score, patient=patients[score.case]) for score in curve.scores)
    tolerance = curve.convergence[0].tolerance if curve.convergence else 0.005
    confidence = curve.estimates[0].confidence if curve.estimates else 0.95
    reference = str(curve.record["reference"])
    result = summarise(scores, curve.arms, reference, tolerance=tolerance, confidence=confidence)
    record = {**curve.record, "patients": len(set(patients.values()))}
    return replace(curve, scores=scores, record=record, **result)


def _unclustered(curve: Curve) -> Curve:
    """A curve of 0.1.0 as it is, and what cannot be known about it."""
    undecided = [
        replace(each, converged=None) if each.converged and not each.high < each.tolerance else each
        for each in curve.convergence
    ]
    return replace(
        curve,
        convergence=tuple(undecided),
        notes=(_NOT_KNOWN, *curve.notes),
    )


def _decoded(kind: Any, content: Mapping[str, Any]) -> Any:
    kinds = {each.name: str(each.type) for each in fields(kind)}
    return kind(**{name: _as(kinds[name], value) for name, value in content.items()})


def _as(kind: str, value: Any) -> Any:
    if kind == "float":
        return math.nan if value is None else float(value)
    return tuple(value) if kind.startswith("tuple") else value


def _convergence(content: Mapping[str, Any]) -> Convergence:
    gain, low, high = (_as("float", content[name]) for name in ("gain", "low", "high"))
    who = {"kind": "difference", "reference": content["arm"], "budget": content["budget"]}
    # what else the interval rests on stands with the estimates
    difference = Interval(gain, low, high, math.nan, cases=0, seeds=0, used=0, excluded=0, **who)
    return Convergence(
        content["converged"], difference, content["tolerance"], content["reason"], steps=content["steps"]
    )


def _plain(value: Any) -> Any:
    """Value for JSON, which has neither NaN (null) nor infinity (text)."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _write_rows(path: Path, names: Sequence[str], records: Iterable[Any]) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class" if name == "label" else name for name in names])
        writer.writerows([_cell(getattr(each, name)) for name in names] for each in records)


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return "; ".join(value)
    return f"{value:.6g}" if isinstance(value, float) else value


def _read_scores(path: Path) -> Iterable[Score]:
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            who = (row["arm"], row["run"], int(row["budget"]), int(row["seed"]), row["case"], row["class"])
            dice, distance, hausdorff = (float(row[metric]) for metric in METRICS)
            patient = row.get("patient") or ""  # tables of 0.1.0 have no such column
            yield Score(*who, dice, distance, hausdorff, patient)


__all__ = [
    "COMPUTE",
    "DISTANCES",
    "MEAN",
    "METRICS",
    "STEPS",
    "SUMMARY",
    "SUMMARY_TABLE",
    "TABLE",
    "TWIN",
    "ArmConvergence",
    "ArmLabelsSaved",
    "Curve",
    "CurveArm",
    "Estimate",
    "Score",
    "load_curve",
    "save_curve",
]
