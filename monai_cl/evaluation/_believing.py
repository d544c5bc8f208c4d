"""One rule for what an interval may be called: a gain, a hint of one, or nothing shown."""

from __future__ import annotations

import math

ENOUGH = 5  # seeds, and pretraining runs, that are asked for before a difference is believed


def verdict(low: float, high: float, *, seeds: int, runs: int | None, clustered: bool = True) -> str:
    """What a paired difference may be called, in words.

    An interval that leaves out 0 is a ``gain`` (or a ``loss``) from five seeds with a pretraining run each and patients
    resampled as a whole; below that it is a ``hint``. Few seeds can agree by chance, one run may be a lucky one, and
    what is believed then often does not carry over to other seeds and other volumes.

    Args:
        low: Lower end of the interval.
        high: Upper end.
        seeds: Number of seeds that it covers.
        runs: Number of pretraining runs behind the arm; ``None`` where nothing was pretrained.
        clustered: Whether it is known which cases are of one patient.

    Returns:
        ``"gain"``, ``"loss"``, ``"no difference shown"``, ``"undefined"``, or ``"hint: ..."`` and ``"hint of a loss:
        ..."`` with what is asked for.

    Example:
        >>> verdict(0.01, 0.05, seeds=3, runs=3)
        'hint: 3 seeds; five and a run each are asked for before a gain is believed'
        >>> verdict(0.01, 0.05, seeds=5, runs=5), verdict(-0.01, 0.05, seeds=5, runs=5)
        ('gain', 'no difference shown')
    """
    if math.isnan(low) or math.isnan(high):
        return "undefined"
    if low <= 0 <= high:
        return "no difference shown"
    kind = "gain" if low > 0 else "loss"
    lacking = _lacking(seeds, runs, clustered)
    if not lacking:
        return kind
    return f"hint{'' if low > 0 else ' of a loss'}: {lacking}; {_asked(runs)} before a {kind} is believed"


def short(verdict: str) -> str:
    """The word that stands beside an interval; its reason stands below.

    Example:
        >>> short("hint: 3 seeds; five and a run each are asked for before a gain is believed"), short("gain")
        ('hint', 'gain')
    """
    word = verdict.partition(":")[0]
    return "" if word == "no difference shown" else word


def of_patients(cases: int, patients: int) -> str:
    """Numbers of cases and of patients, in words; ``patients`` is 0 where nobody knows.

    Example:
        >>> of_patients(20, 10), of_patients(1, 1), of_patients(20, 0)
        ('20 cases of 10 patients', '1 case of 1 patient', '20 cases (patients not known)')
    """
    said = f"{cases} case{'' if cases == 1 else 's'}"
    return f"{said} of {patients} patient{'' if patients == 1 else 's'}" if patients else f"{said} (patients not known)"


def _lacking(seeds: int, runs: int | None, clustered: bool) -> str:
    """What is too little, in words; empty where nothing is."""
    found = []
    if seeds < ENOUGH or (runs is not None and runs < min(seeds, ENOUGH)):
        behind = f" on {runs} pretraining run{'' if runs == 1 else 's'}" if runs is not None and runs < seeds else ""
        found.append(f"{seeds} seed{'' if seeds == 1 else 's'}{behind}")
    if not clustered:
        found.append("patients not known")
    return ", ".join(found)


def _asked(runs: int | None) -> str:
    return "five are asked for" if runs is None else "five and a run each are asked for"


__all__ = ["ENOUGH", "of_patients", "short", "verdict"]
