"""Conventional spin echo."""

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter, evaluate
from monai_cl.qmri._preparation import prepared, recovered
from monai_cl.qmri._relaxation import decay, faded, fading, is_number, scaled, sines
from monai_cl.qmri.constraints import check_spin_echo


def spin_echo(pd: Tensor, t1: Tensor, t2: Tensor, *, tr: Parameter, te: Parameter, b1: Parameter = 1.0) -> Tensor:
    r"""Spin echo, refocused at TE/2, transverse magnetisation spoiled before the next excitation.

    $$S = \rho \, (1 - 2 e^{-(TR - TE/2)/T_1} + e^{-TR/T_1}) \, e^{-TE/T_2}$$

    for 90 and 180 degree pulses. With a transmit field $b_1$ the angles are $a = 90 b_1$ and $b = 180 b_1$ and

    $$S = \rho \sin a \sin^2\tfrac{b}{2} \,
    \frac{1 - (1 - \cos b) e^{-(TR - TE/2)/T_1} - \cos b \, e^{-TR/T_1}}{1 - \cos a \cos b \, e^{-TR/T_1}} \,
    e^{-TE/T_2}$$

    Args:
        pd: Proton density, any unit; the signal has the same unit.
        t1: Longitudinal relaxation time in seconds, broadcastable to ``pd``.
        t2: Transverse relaxation time in seconds.
        tr: Repetition time in seconds.
        te: Echo time in seconds, below ``tr``.
        b1: Transmit field relative to nominal, number or map; it scales both pulses.

    Returns:
        Magnitude of the broadcast shape; 0 where a relaxation time is not positive and finite.

    Raises:
        ConstraintError: If ``te`` is not below ``tr`` or a time is not positive.

    Source:
        Bloch equations; for other angles DiIorio et al., Magn. Reson. Imaging 13 (1995) 39 (citation unverified,
        the formula is derived and tested here).

    Example:
        >>> one = torch.ones(())
        >>> bool(spin_echo(one, one, 0.1 * one, tr=2.0, te=0.01) > spin_echo(one, one, 0.1 * one, tr=2.0, te=0.1))
        True
    """
    check_spin_echo(tr=tr, te=te)
    if is_number(b1, 1):
        return evaluate(_nominal, pd, (t1, t2), parameters=(tr, te), prepare=_prepare)
    return evaluate(_scaled, pd, (t1, t2), fields=(scaled(90.0, b1),), parameters=(tr, te))


def _prepare(tr: Tensor, te: Tensor) -> tuple[Tensor, ...]:
    return fading(te), *prepared((torch.full_like(tr, 2.0), torch.full_like(tr, -1.0), tr - te / 2, tr))


def _nominal(t1: Tensor, t2: Tensor, te: Tensor, *terms: Tensor) -> tuple[Tensor, Tensor]:
    return recovered(t1, *terms), faded(te, t2)


def _scaled(t1: Tensor, t2: Tensor, angle: Tensor, tr: Tensor, te: Tensor) -> tuple[Tensor, Tensor]:
    sin, cos, _ = sines(angle)
    _, cos_refocus, versed_refocus = sines(2 * angle)
    mz = recovered(t1, *prepared((versed_refocus, cos_refocus, tr - te / 2, tr)))
    mz = mz / (1 - cos * cos_refocus * decay(tr, t1))
    return (sin.abs() * versed_refocus / 2) * mz, decay(te, t2)
