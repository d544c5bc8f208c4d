"""Inversion times at which a tissue gives no signal."""

import math

from monai_cl.qmri.constraints import ConstraintError, check_double_inversion, check_efficiency, check_inversion

_STEPS = 80  # halvings of an interval of seconds: far below the resolution of a double


def inversion_null(t1: float, *, tr: float, last_echo: float, efficiency: float = 1.0) -> float:
    r"""Inversion time that nulls a tissue in inversion recovery (FLAIR: fluid; STIR: fat).

    $$TI = T_1 \ln \frac{1 + e}{1 + e \, e^{-(TR - TL)/T_1}}$$

    Args:
        t1: Longitudinal relaxation time of the tissue in seconds.
        tr: Repetition time in seconds.
        last_echo: Time in seconds from excitation to the last echo, TL.
        efficiency: Inversion efficiency e in (0, 1].

    Returns:
        The inversion time in seconds.

    Raises:
        ConstraintError: If ``t1`` is not positive, or the null does not fit before the next inversion.

    Source:
        The zero of :func:`~monai_cl.qmri.inversion.inversion_recovery`.

    Example:
        >>> round(inversion_null(0.37, tr=1e3, last_echo=0.1), 4)   # a long TR leaves T1 ln 2
        0.2565
    """
    _check(t1, tr, last_echo, efficiency)
    remaining = math.exp(-(tr - last_echo) / t1)
    ti = t1 * (math.log1p(efficiency) - math.log1p(efficiency * remaining))
    check_inversion(tr=tr, ti=ti, last_echo=last_echo, efficiency=efficiency)
    return ti


def double_inversion_null(
    t1_long: float, t1_short: float, *, tr: float, last_echo: float, efficiency: float = 1.0
) -> tuple[float, float]:
    r"""Inversion times that null two tissues at once in double inversion recovery (fluid and white matter).

    For a given $TI_2$ the tissue with the long $T_1$ is nulled by

    $$TI_1 = -T_1 \ln \frac{(1 + e) e^{-TI_2/T_1} - 1 + e^2 e^{-(TR - TL)/T_1}}{e (1 + e) e^{-TI_2/T_1}}$$

    and $TI_2$ is found by bisection so that the other vanishes too.

    Args:
        t1_long: The longer longitudinal relaxation time in seconds.
        t1_short: The shorter one in seconds.
        tr: Repetition time in seconds.
        last_echo: Time in seconds from excitation to the last echo, TL.
        efficiency: Inversion efficiency e in (0, 1].

    Returns:
        ``(ti1, ti2)`` in seconds: between the inversions, and from the second to the excitation.

    Raises:
        ConstraintError: If the two times are not ordered, or the null does not fit into this TR.

    Source:
        The zero of :func:`~monai_cl.qmri.inversion.double_inversion_recovery`.

    Example:
        >>> ti1, ti2 = double_inversion_null(4.3, 0.86, tr=9.0, last_echo=0.25)
        >>> ti2 < ti1 < 9.0
        True
    """
    _check(t1_short, tr, last_echo, efficiency)
    if not t1_short < t1_long < math.inf:
        raise ConstraintError(f"t1_long must exceed t1_short, got {t1_long!r} and {t1_short!r}; exchange them")
    recovery = tr - last_echo
    low, high = 0.0, _longest_ti2(t1_long, recovery, efficiency)
    # The signal of the short T1 rises along the times that null the long one, from below zero to above it.
    for _ in range(_STEPS):
        ti2 = (low + high) / 2
        ti1 = _ti1_for(t1_long, ti2, recovery, efficiency)
        low, high = (low, ti2) if _longitudinal(t1_short, ti1, ti2, recovery, efficiency) > 0 else (ti2, high)
    check_double_inversion(tr=tr, ti1=ti1, ti2=ti2, last_echo=last_echo, efficiency=efficiency)
    return ti1, ti2


def _ti1_for(t1: float, ti2: float, recovery: float, e: float) -> float:
    """First interval that nulls ``t1`` for a given second one, below ``_longest_ti2``."""
    start = (1 + e) * math.exp(-ti2 / t1)
    return -t1 * math.log((start - 1 + e * e * math.exp(-recovery / t1)) / (e * start))


def _longest_ti2(t1: float, recovery: float, e: float) -> float:
    """Second interval at which the first would have to be infinite; a hair less, so that the logarithm exists."""
    return (1 - 1e-12) * t1 * (math.log1p(e) - math.log1p(-e * e * math.exp(-recovery / t1)))


def _longitudinal(t1: float, ti1: float, ti2: float, recovery: float, e: float) -> float:
    first = e * (1 + e) * math.exp(-(ti1 + ti2) / t1)
    return 1 - (1 + e) * math.exp(-ti2 / t1) + first - e * e * math.exp(-recovery / t1)


def _check(t1: float, tr: float, last_echo: float, efficiency: float) -> None:
    check_efficiency(efficiency)
    if not 0 < last_echo < tr < math.inf:
        raise ConstraintError(f"last_echo must be above 0 and below tr, got {last_echo!r} and {tr!r}; lengthen tr")
    if not 0 < t1 < math.inf:
        raise ConstraintError(f"t1 must be positive and finite (seconds), got {t1!r}")
