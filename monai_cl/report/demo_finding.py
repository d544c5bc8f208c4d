"""Closing sentence of the demo: what helped, by how much, with its spread over draws of the labels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monai_cl.evaluation.verdicts import ENOUGH
from monai_cl.report.tables import rounded


@dataclass(frozen=True)
class Gain:
    """Differences of one arm to another, draw by draw, in Dice points.

    Attributes:
        over: Name of the other arm.
        each: A difference a draw of the labels.
    """

    over: str
    each: tuple[float, ...]

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float], *, over: str) -> Gain:
        """Differences of Dice values of the same draws."""
        return cls(over, tuple(100 * (a - b) for a, b in zip(ours, theirs, strict=True)))

    @property
    def mean(self) -> float:
        """Mean over draws."""
        return statistics.fmean(self.each)

    @property
    def spread(self) -> float:
        """Standard deviation over draws, n - 1 below; NaN for a single one."""
        return statistics.stdev(self.each) if len(self.each) > 1 else math.nan

    @property
    def shown(self) -> bool:
        """Return whether all draws gained, and by more on average than they differ."""
        return min(self.each) > 0 and self.mean > self.spread

    @property
    def lost(self) -> bool:
        """Return whether all draws lost, and by more on average than they differ."""
        return max(self.each) < 0 and -self.mean > self.spread


def finding(what: str, gains: Sequence[Gain]) -> str:
    """Sentence on whether something helped over all that it was compared with, which is a hint at most.

    Args:
        what: Subject of the sentence.
        gains: Differences to the others, of the same draws.

    Example:
        >>> finding("Pretraining", [Gain("scratch", (2.0, 2.5, 3.0))])
        'Pretraining may have helped (a hint: 3 draws of the labels): +2.5 Dice points over scratch (spread 0.5: +2.0, +2.5, +3.0).'
        >>> finding("Pretraining", [Gain("scratch", (2.0, -2.5, 3.0))])
        'No gain is shown for pretraining: +0.8 Dice points over scratch (spread 2.9: +2.0, -2.5, +3.0).'
    """  # noqa: E501
    draws = len(gains[0].each)
    measured = " and ".join(map(_measured, gains))
    subject = what[0].lower() + what[1:]  # within a sentence
    if draws == 1:
        return f"One draw of the labels has no spread and shows nothing: {measured}, for {subject}."
    # however many draws: one pretraining run is behind them, and no interval goes over patients
    hint = f"a hint: {draws} draws of the labels{' on one pretraining run' * (draws >= ENOUGH)}"
    if all(gain.shown for gain in gains):
        return f"{what} may have helped ({hint}): {measured}."
    if all(gain.lost for gain in gains):
        return f"{what} did not help and may have lost ({hint}): {measured}."
    if ahead := [gain.over for gain in gains if gain.shown]:
        rest = [gain.over for gain in gains if not gain.shown]
        return f"{what} was ahead of {' and '.join(ahead)}, which is not shown for {' and '.join(rest)}: {measured}."
    return f"No gain is shown for {subject}: {measured}."


def _measured(gain: Gain) -> str:
    if len(gain.each) == 1:
        return f"{_points(gain.mean)} Dice points over {gain.over}"
    spread, each = rounded(gain.spread, 1), ", ".join(map(_points, gain.each))
    return f"{_points(gain.mean)} Dice points over {gain.over} (spread {spread}: {each})"


def _points(value: float) -> str:
    return rounded(value, 1, sign="+")


def gains_of(dice: Mapping[str, Sequence[float]], ours: str) -> list[Gain]:
    """Differences of an arm to all others, in their order."""
    return [Gain.of(dice[ours], values, over=name) for name, values in dice.items() if name != ours]


__all__ = ["Gain", "finding", "gains_of"]
