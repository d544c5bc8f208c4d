"""Names that differences deserve: a gain, a loss, a hint, or none shown."""

import math
from collections.abc import Iterator

ENOUGH = 5  # seeds, and pretraining runs, that are asked for before a difference is believed


def verdict(
    low: float,
    high: float,
    *,
    seeds: int,
    runs: int | None,
    clustered: bool = True,
    patients: int | None = None,
    smaller_is_better: bool = False,
) -> str:
    """Name that a paired difference deserves, in words.

    An interval that leaves out 0 is a ``gain`` (or a ``loss``) from five seeds with a pretraining run each and patients
    resampled as a whole; below that it is a ``hint``. Few seeds can agree by chance, one run may be a lucky one, the
    volumes of a single patient show nothing of others, and what is believed then often does not carry over to other
    seeds and other volumes.

    Args:
        low: Lower end of the interval.
        high: Upper end.
        seeds: Number of seeds that it covers.
        runs: Number of pretraining runs behind the arm; ``None`` where nothing was pretrained.
        clustered: Whether it is known which cases are of one patient.
        patients: Number of patients that it covers, where it is known.
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
    lacking = dict(_lacking(seeds, runs, clustered, patients))
    if not lacking:
        return kind
    has, asked = ", ".join(lacking), ", and ".join(lacking.values())
    return f"hint{'' if kind == 'gain' else ' of a loss'}: {has}; {asked} are asked for before a {kind} is believed"


def short(verdict: str) -> str:
    """The word that stands beside an interval; its reason stands below.

    Example:
        >>> short("hint: 3 seeds; five and a run each are asked for before a gain is believed"), short("gain")
        ('hint', 'gain')
    """
    word = verdict.partition(":")[0]
    return "" if word == "no difference shown" else word


def _lacking(seeds: int, runs: int | None, clustered: bool, patients: int | None) -> Iterator[tuple[str, str]]:
    """Evidence that falls short, and what is asked for in its place, in words."""
    if seeds < ENOUGH or (runs is not None and runs < min(seeds, ENOUGH)):
        behind = f" on {runs} pretraining run{'' if runs == 1 else 's'}" if runs is not None and runs < seeds else ""
        yield f"{seeds} seed{'' if seeds == 1 else 's'}{behind}", "five" if runs is None else "five and a run each"
    if not clustered:
        yield "patients not known", "the patients of the cases"
    elif patients == 1:
        yield "1 patient", "several patients"
