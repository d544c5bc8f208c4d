"""Errors of points looked for in other sequences, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_cl.evaluation.sequence_invariance import Invariance

NEAR_MM = 5.0


def table(results: Sequence[Invariance]) -> str:
    """The results as a table in Markdown."""
    lines = [
        f"| features | median error, mm | found within {NEAR_MM:g} mm, % | less {results[0].name} |",
        "|---|---|---|---|",
    ]
    for place, r in enumerate(results):
        median = f"{r.median:.1f} [{r.median_interval[0]:.1f}, {r.median_interval[1]:.1f}]"
        near = f"{100 * r.near:.1f} [{100 * r.near_interval[0]:.1f}, {100 * r.near_interval[1]:.1f}]"
        gain = f"{100 * r.gain:+.1f} [{100 * r.gain_interval[0]:+.1f}, {100 * r.gain_interval[1]:+.1f}]"
        lines.append(f"| {r.name} | {median} | {near} | {gain if place else ''} |")
    return "\n".join(lines)


def by_sequences(pairs: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """Mean over patients and both ways of the median error and the share within 5 mm, by pair of sequences.

    Args:
        pairs: As in :class:`Invariance`.

    Example:
        >>> by_sequences({"one: T1 -> T2": (30.0, 0.25), "one: T2 -> T1": (40.0, 0.5), "two: T1 -> T2": (20.0, 0.0)})
        {'T1, T2': (30.0, 0.25)}
    """
    result: dict[str, list[Sequence[float]]] = {}
    for name, measured in pairs.items():
        ends = name.rsplit(": ", 1)[1].split(" -> ")
        known = ", ".join(reversed(ends))
        result.setdefault(known if known in result else ", ".join(ends), []).append(measured)
    return {name: (fmean(m for m, _ in each), fmean(n for _, n in each)) for name, each in result.items()}


def rows_by_sequences(measured: Sequence[Mapping[str, Sequence[float]]]) -> list[tuple[str, ...]]:
    """Rows of a table by pair of sequences: its name, and the values of :func:`by_sequences` as text."""
    by_pair = [by_sequences(pairs) for pairs in measured]
    return [(name, *(f"{one[name][0]:.1f} mm, {100 * one[name][1]:.0f} %" for one in by_pair)) for name in by_pair[0]]


def table_by_sequences(results: Sequence[Invariance]) -> str:
    """Table in Markdown of each pair of sequences: median error in mm, share within 5 mm in per cent."""
    lines = [f"| sequences | {' | '.join(r.name for r in results)} |", f"|---{'|---' * len(results)}|"]
    lines += [f"| {' | '.join(row)} |" for row in rows_by_sequences([r.pairs for r in results])]
    return "\n".join(lines)
