"""Names that differences deserve: a gain, a loss, a hint, or none shown."""

import math

ENOUGH = 5  # seeds, and pretraining runs, that are asked for before a difference is believed


def verdict(
    low: float, high: float, *, seeds: int, runs: int | None, clustered: bool = True, smaller_is_better: bool = False
) -> str:
    """Name that a paired difference deserves, in words.

    An interval that leaves out 0 is a ``gain`` (or a ``loss``) from five seeds with a pretraining run each and patients
    resampled as a whole; below that it is a ``hint``. Few seeds can agree by chance, one run may be a lucky one, and
    what is believed then often does not carry over to other seeds and other volumes.

    Args:
        low: Lower end of the interval.
        high: Upper end.
        seeds: Number of seeds that it covers.
        runs: Number of pretraining runs behind the arm; ``None`` where nothing was pretrained.
        clustered: Whether it is known which cases are of one patient.
        smaller_is_better: For a distance: an interval below 0 is then the gain.

    Returns:
        ``"gain"``, ``"loss"``, ``"no difference shown"``, ``"undefined"``, or ``"hint: ..."`` and ``"hint of a loss:
        ..."`` with what is asked for.

    Example:
        >>> verdict(0.01, 0.05, seeds=3, runs=3)
        'hint: 3 seeds; five and a run each are asked for before a gain is believed'
        >>> verdict(0.01, 0.05, seeds=5, runs=5), verdict(-0.01, 0.05, seeds=5, runs=5)
        ('gain', 'no difference shown')
        >>> verdict(-2.1, -0.4, seeds=5, runs=5, smaller_is_better=True)
        'gain'
    """
    if math.isnan(low) or math.isnan(high):
        return "undefined"
    if low <= 0 <= high:
        return "no difference shown"
    kind = "gain" if (high < 0 if smaller_is_better else low > 0) else "loss"
    lacking = _lacking(seeds, runs, clustered)
    if not lacking:
        return kind
    return f"hint{'' if kind == 'gain' else ' of a loss'}: {lacking}; {_asked(runs)} before a {kind} is believed"


def short(verdict: str) -> str:
    """The word that stands beside an interval; its reason stands below.

    Example:
        >>> short("hint: 3 seeds; five and a run each are asked for before a gain is believed"), short("gain")
        ('hint', 'gain')
    """
    word = verdict.partition(":")[0]
    return "" if word == "no difference shown" else word


def _lacking(seeds: int, runs: int | None, clustered: bool) -> str:
    """Evidence that is lacking, in words; empty where none is."""
    result = []
    if seeds < ENOUGH or (runs is not None and runs < min(seeds, ENOUGH)):
        behind = f" on {runs} pretraining run{'' if runs == 1 else 's'}" if runs is not None and runs < seeds else ""
        result.append(f"{seeds} seed{'' if seeds == 1 else 's'}{behind}")
    if not clustered:
        result.append("patients not known")
    return ", ".join(result)


def _asked(runs: int | None) -> str:
    return "five are asked for" if runs is None else "five and a run each are asked for"
