"""The tables of scores that an evaluation step leaves, as MONAI writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from monai_cl.evaluation.records import METRICS, Score

FILES = {
    "dice": "val_mean_dice_raw.csv",
    "surface_distance": "val_surface_distance_raw.csv",
    "hausdorff_95": "val_hausdorff_95_raw.csv",
}
RawScores = dict[str, dict[str, float]]  # by case, then by class and "mean"


def read_raw(path: Path) -> RawScores:
    """Scores of a table of MONAI, NaN where one is not defined."""
    # MONAI writes names as they are, commas included: columns count from the right
    lines = path.read_text(encoding="utf-8").splitlines()
    columns = lines[0].split(",")[1:]
    rows = [line.rsplit(",", len(columns)) for line in lines[1:]]
    return {row[0]: {name: _number(text) for name, text in zip(columns, row[1:], strict=True)} for row in rows}


def read_scores(
    folder: Path, who: tuple[str, str, int, int], classes: Sequence[str], patients: Mapping[str, str]
) -> Iterator[Score]:
    """The scores that the evaluation step has left in a folder.

    Args:
        folder: The folder.
        who: Arm, run, budget and seed.
        classes: Names of the classes above background.
        patients: The patient of each case; others have no scores that count.

    Raises:
        ValueError: If a table is absent or does not belong to these classes, or a case is missing in it.
    """
    tables = {metric: _by_class(folder / file, len(classes)) for metric, file in FILES.items()}
    missing = [case for case in patients if any(case not in table for table in tables.values())]
    if missing:
        raise ValueError(
            f"the scores in {folder} must be of the cases of the evaluation, {len(missing)} of {len(patients)} are "
            "missing; does another version name them otherwise? give another output folder (--out)"
        )
    for case in (case for case in tables["dice"] if case in patients):
        for index, label in enumerate(classes):
            dice, distance, hausdorff = (tables[metric][case][index] for metric in METRICS)
            yield Score(*who, case, label, dice, distance, hausdorff, patients[case])


def check_cases(folder: Path, cases: Sequence[str], classes: int) -> None:
    """Refuse an evaluation that left cases out.

    Raises:
        ValueError: With their names.
    """
    for file in FILES.values():
        result = _by_class(folder / file, classes)
        missing = [case for case in cases if case not in result]
        if missing:
            raise ValueError(
                f"every case must have its scores, {len(missing)} of {len(cases)} have none in {file} "
                f"({', '.join(missing[:5])}); see the log of the evaluation"
            )


def _by_class(path: Path, classes: int) -> dict[str, list[float]]:
    """Values of each class by case."""
    if not path.is_file():
        raise ValueError(f"the evaluation must write {path.name}, {path.parent} has none; is its bundle up to date?")
    result = {case: [value for name, value in row.items() if name != "mean"] for case, row in read_raw(path).items()}
    wrong = next((row for row in result.values() if len(row) != classes), None)
    if wrong is not None:
        raise ValueError(f"{path.name} must hold {classes} classes above background, got {len(wrong)}")
    return result


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
