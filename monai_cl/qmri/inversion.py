"""Inversion recovery with one or two inversions and mono-exponential decay during the readout."""

from torch import Tensor

from monai_cl.qmri._elementwise import Parameter, evaluate
from monai_cl.qmri._preparation import double_inversion_terms, inversion_terms, prepared, recovered
from monai_cl.qmri._relaxation import faded, fading
from monai_cl.qmri.constraints import check_double_inversion, check_echo_within_train, check_inversion


def inversion_recovery(
    pd: Tensor,
    t1: Tensor,
    t2: Tensor,
    *,
    tr: Parameter,
    ti: Parameter,
    te: Parameter,
    efficiency: Parameter = 1.0,
    last_echo: Parameter | None = None,
    signed: bool = False,
) -> Tensor:
    r"""Inversion recovery spin echo (FLAIR, STIR) with mono-exponential decay during the readout.

    With the inversion efficiency $e$ and the readout time $TL$ from excitation to the last echo, which leaves no
    longitudinal magnetisation,

    $$S = \rho \, | 1 - (1 + e) e^{-TI/T_1} + e \, e^{-(TR - TL)/T_1} | \, e^{-TE/T_2}$$

    The refocusing pulse is lumped into $TL$, which costs about 2e-5 of $\rho$ in a spin echo.
    :func:`~monai_cl.qmri.fast_spin_echo.fast_spin_echo` with ``ti`` has a real echo train instead of the exponential.

    Args:
        pd: Proton density, any unit; the signal has the same unit.
        t1: Longitudinal relaxation time in seconds, broadcastable to ``pd``.
        t2: Transverse relaxation time in seconds.
        tr: Repetition time in seconds, from inversion to inversion.
        ti: Inversion time in seconds, from inversion to excitation.
        te: Effective echo time in seconds.
        efficiency: Share of the magnetisation that is inverted, in (0, 1].
        last_echo: Time in seconds from excitation to the last echo; ``te`` when left out.
        signed: Keep the sign of the longitudinal magnetisation instead of the magnitude.

    Returns:
        Signal of the broadcast shape; 0 where a relaxation time is not positive and finite.

    Raises:
        ConstraintError: If ``ti + last_echo`` is not below ``tr``, or ``te`` lies after ``last_echo``.

    Source:
        Bydder and Young, J. Comput. Assist. Tomogr. 9 (1985) 659 (citation unverified; the formula is tested here).

    Example:
        >>> import torch
        >>> one = torch.ones(())
        >>> from monai_cl.qmri.nulls import inversion_null
        >>> ti = inversion_null(4.3, tr=9.0, last_echo=0.2)
        >>> bool(inversion_recovery(one, 4.3 * one, 2.0 * one, tr=9.0, ti=ti, te=0.1, last_echo=0.2) < 1e-6)
        True
    """
    readout = te if last_echo is None else last_echo
    check_echo_within_train(te=te, last_echo=readout)
    check_inversion(tr=tr, ti=ti, last_echo=readout, efficiency=efficiency)
    terms = inversion_terms(tr - readout, ti, efficiency)
    return evaluate(_kernel, pd, (t1, t2), parameters=(te, *terms), prepare=_prepare, signed=signed)


def double_inversion_recovery(
    pd: Tensor,
    t1: Tensor,
    t2: Tensor,
    *,
    tr: Parameter,
    ti1: Parameter,
    ti2: Parameter,
    te: Parameter,
    efficiency: Parameter = 1.0,
    last_echo: Parameter | None = None,
    signed: bool = False,
) -> Tensor:
    r"""Double inversion recovery spin echo (DIR) with mono-exponential decay during the readout.

    $$S = \rho \, | 1 - (1 + e) e^{-TI_2/T_1} + e (1 + e) e^{-(TI_1 + TI_2)/T_1} - e^2 e^{-(TR - TL)/T_1} | \,
    e^{-TE/T_2}$$

    Args:
        pd: Proton density, any unit; the signal has the same unit.
        t1: Longitudinal relaxation time in seconds, broadcastable to ``pd``.
        t2: Transverse relaxation time in seconds.
        tr: Repetition time in seconds, from first inversion to first inversion.
        ti1: Time in seconds from the first to the second inversion.
        ti2: Time in seconds from the second inversion to the excitation, below ``ti1``.
        te: Effective echo time in seconds.
        efficiency: Share of the magnetisation that each pulse inverts, in (0, 1].
        last_echo: Time in seconds from excitation to the last echo; ``te`` when left out.
        signed: Keep the sign of the longitudinal magnetisation instead of the magnitude.

    Returns:
        Signal of the broadcast shape; 0 where a relaxation time is not positive and finite.

    Raises:
        ConstraintError: If ``ti2`` is not below ``ti1``, ``ti1 + ti2 + last_echo`` not below ``tr``, or ``te`` lies
            after ``last_echo``.

    Source:
        Redpath and Smith, Br. J. Radiol. 67 (1994) 1258 (citation unverified; the formula is tested here).
    """
    readout = te if last_echo is None else last_echo
    check_echo_within_train(te=te, last_echo=readout)
    check_double_inversion(tr=tr, ti1=ti1, ti2=ti2, last_echo=readout, efficiency=efficiency)
    terms = double_inversion_terms(tr - readout, ti1, ti2, efficiency)
    return evaluate(_kernel, pd, (t1, t2), parameters=(te, *terms), prepare=_prepare, signed=signed)


def _prepare(te: Tensor, *terms: Tensor) -> tuple[Tensor, ...]:
    return (fading(te), *prepared(terms))


def _kernel(t1: Tensor, t2: Tensor, te: Tensor, *terms: Tensor) -> tuple[Tensor, Tensor]:
    return recovered(t1, *terms), faded(te, t2)
