"""The table of a curve: one row for every fine-tuned network, case and class."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from monai_cl._files import atomic_write

METRICS = ("dice", "surface_distance", "hausdorff_95")
_FILES = {"dice": "val_mean_dice", "surface_distance": "val_surface_distance", "hausdorff_95": "val_hausdorff_95"}


@dataclass(frozen=True)
class Score:
    """Scores of one class in one case by one fine-tuned network.

    Attributes:
        arm: What the network started from.
        run: Pretraining run; empty without.
        budget: Number of labels.
        seed: Seed of subset and fine-tuning.
        case: Name of the case.
        label: Name of the class.
        dice: Dice; NaN where the truth lacks the class.
        surface_distance: Average symmetric distance of the surfaces in mm; NaN like ``dice``.
        hausdorff_95: Hausdorff distance at the 95th percentile in mm; NaN like ``dice``.
        patient: Number of the patient of the case; empty where it is not known.
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


def read_scores(
    folder: Path, who: tuple[str, str, int, int], classes: Sequence[str], patients: Mapping[str, str]
) -> list[Score]:
    """The scores that the evaluation step has left in a folder.

    Args:
        folder: The folder.
        who: Arm, run, budget and seed.
        classes: Names of the classes above background.
        patients: The patient of each case; others have no scores that count.

    Raises:
        ValueError: If a table is absent or does not belong to these classes.
    """
    tables = {metric: _read_table(folder / f"{name}_raw.csv", len(classes)) for metric, name in _FILES.items()}
    missing = [case for case in patients if case not in tables["dice"]]
    if missing:
        raise ValueError(
            f"the scores in {folder} must be of the cases of the evaluation, {len(missing)} of {len(patients)} are not "
            "there; does another version name them otherwise? give another output folder (--out)"
        )
    arm, run, budget, seed = who
    return [
        Score(arm, run, budget, seed, case, label, *_values(tables, case, i), patients[case])
        for case in tables["dice"]
        if case in patients
        for i, label in enumerate(classes)
    ]


def check_cases(folder: Path, cases: Sequence[str], classes: int) -> None:
    """Refuse an evaluation that left cases out.

    Raises:
        ValueError: With their names.
    """
    for name in _FILES.values():
        found = _read_table(folder / f"{name}_raw.csv", classes)
        missing = [case for case in cases if case not in found]
        if missing:
            raise ValueError(
                f"every case must have its scores, {len(missing)} of {len(cases)} have none in {name}_raw.csv "
                f"({', '.join(missing[:5])}); see the log of the evaluation"
            )


def write_table(path: Path, scores: Iterable[Score]) -> None:
    """Write scores as CSV."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [field.name for field in fields(Score)]
        writer.writerow(["class" if name == "label" else name for name in names])
        writer.writerows([_text(getattr(score, name)) for name in names] for score in scores)


def read_table(path: Path) -> tuple[Score, ...]:
    """Scores from a CSV of :func:`write_table`.

    Raises:
        FileNotFoundError: If there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no curve at {path}; `monai-cl curve CONFIG` measures one")
    with open(path, newline="", encoding="utf-8") as file:
        return tuple(_score(row) for row in csv.DictReader(file))


def _values(tables: Mapping[str, Mapping[str, Sequence[float]]], case: str, label: int) -> tuple[float, float, float]:
    dice, distance, hausdorff = (tables[metric][case][label] for metric in METRICS)
    return dice, distance, hausdorff


def _score(row: dict[str, str]) -> Score:
    dice, distance, hausdorff = (float(row[metric]) for metric in METRICS)
    who = (row["arm"], row["run"], int(row["budget"]), int(row["seed"]), row["case"], row["class"])
    return Score(*who, dice, distance, hausdorff, row.get("patient") or "")  # tables of 0.1.0 have no such column


def _read_table(path: Path, classes: int) -> dict[str, list[float]]:
    """Values of each class by case. MONAI writes names as they are, commas included: columns count from the right."""
    if not path.is_file():
        raise ValueError(f"the evaluation must write {path.name}, {path.parent} has none; is its bundle up to date?")
    lines = path.read_text(encoding="utf-8").splitlines()
    columns = len(lines[0].split(",")) - 2  # the name and the mean
    if columns != classes:
        raise ValueError(f"{path.name} must hold {classes} classes above background, got {columns}")
    rows = [line.rsplit(",", classes + 1) for line in lines[1:]]
    return {row[0]: [float(text) for text in row[1:-1]] for row in rows}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.6g}"
    return str(value)
