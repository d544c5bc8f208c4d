"""A curve on the screen: every difference with its interval, and beside it what must be known to read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monai_cl.evaluation.results import COMPUTE, STEPS, TWIN, Curve, Estimate
from monai_cl.report._headline import headline
from monai_cl.report._label_curve import curve_warnings
from monai_cl.report.curve_picture import curve_in_words, draw_curve, in_points


def show_curve(curve: Curve, folder: Path, console: Console) -> None:
    """Print a curve with its caveats, draw its picture into a folder, and end with the sentence its report opens with.

    Args:
        curve: The curve.
        folder: Where ``curve.png`` goes.
        console: Where to print.
    """
    console.print(curve_in_words(curve), markup=False, highlight=False)
    table = differences_table(curve)
    if table.row_count:
        console.print(table)
    for warning in curve_warnings(curve):
        console.print(f"- {warning}", markup=False, highlight=False)
    console.print(f"wrote {draw_curve(curve, folder / 'curve.png')} and tables beside it", markup=False)
    if opening := headline(curve):
        console.print(opening, markup=False, highlight=False)


def differences_table(curve: Curve) -> Table:
    """The paired differences in Dice points, each with what must be known beside it."""
    table = Table("arm less reference", "labels", "Dice points", "what it carries", title="paired differences")
    for arm in curve.arms:
        for comparison in (STEPS, COMPUTE, TWIN):
            for result in curve.differences(arm.name, comparison=comparison):
                names = f"{result.arm} less {result.reference}"
                remark = "; ".join(caveats(curve, result))
                table.add_row(Text(names, overflow="fold"), str(result.budget), Text(in_points(result)), Text(remark))
    return table


def caveats(curve: Curve, found: Estimate) -> Iterator[str]:
    """Remarks beside a difference: its verdict, its limits, and whether the reference had converged.

    Args:
        curve: The curve.
        found: A difference of it.
    """
    yield found.verdict
    yield from found.notes
    if check := curve.unconverged(found):
        word = "not converged" if check.converged is False else "perhaps not converged"
        yield f"{check.arm} is {word}: a part may be faster convergence"


__all__ = ["caveats", "differences_table", "show_curve"]
