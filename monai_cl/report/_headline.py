"""The sentence that a report opens with: what helped, by how much, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator

from monai_cl.evaluation.records import COMPUTE, STEPS, TWIN, Curve, CurveArm, Interval, of_patients
from monai_cl.evaluation.verdicts import short
from monai_cl.report.curve_picture import in_points


def headline(curve: Curve) -> str:
    """Sentence on the arm that helped most, by how much, with its interval; or that none did.

    At equal compute where an arm was compared so, else at equal steps. A gain goes before a hint, and of those the one
    whose interval begins highest is reported, without either the largest difference, with the number of comparisons it
    is the best of, and how many of them have intervals above and below 0. Where the reference was not trained until
    more steps change nothing, a second sentence has what twice the steps gave it. Empty if no comparison was made.
    """
    result = [(arm, each) for arm in curve.arms for each in _comparisons(curve, arm)]
    result = [(arm, each) for arm, each in result if not math.isnan(each.estimate)]
    if not result:
        return ""
    words = {
        kind: [pair for pair in result if short(pair[1].verdict) == kind]
        for kind in ("gain", "hint", "loss", "hint of a loss")
    }
    chosen = words["gain"] or words["hint"] or result
    shown = bool(words["gain"] or words["hint"])
    arm, best = max(chosen, key=lambda pair: pair[1].low if shown else pair[1].estimate)
    measured = _measured(curve, arm, best)
    above, below = len(words["gain"] + words["hint"]), len(words["loss"] + words["hint of a loss"])
    under = f" and {below} below" if below else ""
    among = f"the best of {len(result)} comparisons, {above} of which have intervals above 0{under}"
    tail = f" ({among})" if result[1:] else ""
    if words["gain"]:
        return f"{_capital(arm.title)} helped: {measured}{tail}.{_longer(curve, best)}"
    if words["hint"]:
        return (
            f"{_capital(arm.title)} may have helped, which is a {best.verdict}: {measured}{tail}.{_longer(curve, best)}"
        )
    if below == len(result):
        hint = next((each.verdict for _, each in words["hint of a loss"]), "")
        lost = f"may have lost, which is a {hint}" if hint else "lost"
        return f"Nothing helped, every arm {lost}: least did {arm.title}, {measured}."
    return f"No gain was shown: the most was that of {arm.title}, {measured}{tail}."


def _comparisons(curve: Curve, arm: CurveArm) -> Iterator[Interval]:
    """Differences of an arm at each budget: to its twin, at equal compute if measured, else at equal steps.

    Nothing of a twin itself: its network, rather than its start, is another than that of the reference.
    """
    if any(each.comparison == TWIN and each.reference == arm.name for each in curve.estimates):
        return
    if result := curve.differences(arm.name, comparison=TWIN):
        yield from result
        return
    alike = {each.budget: each for each in curve.differences(arm.name, comparison=STEPS)}
    alike |= {each.budget: each for each in curve.differences(arm.name, comparison=COMPUTE)}
    yield from alike.values()


def _measured(curve: Curve, arm: CurveArm, found: Interval) -> str:
    other = curve.arm(str(curve.record["reference"]) if found.comparison == COMPUTE else found.reference).title
    labels = f"{found.budget} labelled volume{'s' * (found.budget != 1)}"
    seeds = f"{found.seeds} seed{'s' * (found.seeds != 1)}"
    return (
        f"{in_points(found)} Dice points over {other} with {labels} at {found.comparison}, "
        f"{100 * found.confidence:g} % interval over {of_patients(found.cases, found.patients)} and {seeds}"
    )


def _longer(curve: Curve, found: Interval) -> str:
    """Sentence on a reference that twice the steps changed, or may have; empty at equal compute."""
    check = curve.unconverged(found)
    if check is None:
        return ""
    other = curve.arm(found.reference).title
    gave = in_points(check.difference)
    return f" Twice the steps alone gave {other} {gave}: a part of the gain may be faster convergence."


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


__all__ = ["headline"]
