"""Magnetisation-prepared rapid gradient echo (MPRAGE, IR-FSPGR, 3-D TFE)."""

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter, as_count, evaluate
from monai_cl.qmri._relaxation import RADIANS, faded, fading, per_steady_state, scaled, sines
from monai_cl.qmri._spoiled_train import after_inversion, cosine_power, pulses_before_centre, toward
from monai_cl.qmri.constraints import check_mprage


def mprage(
    pd: Tensor,
    t1: Tensor,
    t2_star: Tensor,
    *,
    tr: Parameter,
    ti: Parameter,
    echo_spacing: Parameter,
    te: Parameter,
    flip_angle: Parameter,
    num_pulses: Parameter,
    efficiency: Parameter = 0.96,
    b1: Parameter = 1.0,
    signed: bool = False,
) -> Tensor:
    r"""MPRAGE in its steady state, at the centre of k-space.

    An inversion, recovery for $TA = TI - n\,TX/2$, $n$ pulses of angle $a$ at distance $TX$, recovery for
    $TD = TR - TI - n\,TX/2$. With $E_A = e^{-TA/T_1}$, $E_D = e^{-TD/T_1}$, $x = \cos a\, e^{-TX/T_1}$, the target of
    the train $M_x = (1 - e^{-TX/T_1})/(1 - x)$, the inversion efficiency $e$ and $m = \lfloor n/2 \rfloor - 1$ pulses
    before the central one,

    $$m_{ss} = \frac{[(1 - E_A) x^n + M_x (1 - x^n)] E_D + 1 - E_D}{1 + e\, x^n E_A E_D}, \qquad
    S = \rho \sin a \, \bigl| [1 - E_A (1 + e\, m_{ss})] x^m + M_x (1 - x^m) \bigr| \, e^{-TE/T_2^*}$$

    Args:
        pd: Proton density, any unit; the signal has the same unit.
        t1: Longitudinal relaxation time in seconds, broadcastable to ``pd``.
        t2_star: Effective transverse relaxation time in seconds.
        tr: Time from inversion to inversion in seconds.
        ti: Time from inversion to the middle of the train in seconds.
        echo_spacing: Time from pulse to pulse in seconds, TX.
        te: Echo time in seconds, at most ``echo_spacing``.
        flip_angle: Excitation angle in degrees.
        num_pulses: Number of pulses in the train.
        efficiency: Share of the magnetisation that is inverted, in (0, 1].
        b1: Transmit field relative to nominal, number or map; it scales the flip angle, not the (adiabatic) inversion.
        signed: Keep the sign of the magnetisation instead of the magnitude.

    Returns:
        Signal of the broadcast shape; 0 where a relaxation time is not positive and finite.

    Raises:
        ConstraintError: If the train does not fit between the inversion and the next one.

    Source:
        Mugler and Brookeman, MRM 15 (1990) 152; steady state after Marques et al., NeuroImage 49 (2010) 1271.

    Example:
        >>> t1, t2_star = torch.tensor([0.86, 1.45, 4.3]), torch.tensor([0.050, 0.062, 1.0])
        >>> protocol = dict(tr=2.3, ti=0.9, echo_spacing=0.007, te=0.003, flip_angle=9.0, num_pulses=176)
        >>> s = mprage(torch.tensor([0.69, 0.82, 1.0]), t1, t2_star, **protocol)   # white > grey > fluid
        >>> bool((s.diff() < 0).all())
        True
    """
    check_mprage(
        tr=tr, ti=ti, echo_spacing=echo_spacing, te=te, flip_angle=flip_angle, num_pulses=num_pulses,
        efficiency=efficiency,
    )  # fmt: skip
    num_pulses = as_count(num_pulses)
    half = num_pulses * echo_spacing / 2
    before, _ = pulses_before_centre(num_pulses)
    parameters = (echo_spacing, te, num_pulses, before, ti - half, tr - ti - half, efficiency)
    return evaluate(
        _kernel, pd, (t1, t2_star), fields=(scaled(flip_angle, b1),), parameters=parameters, prepare=_prepare,
        signed=signed,
    )  # fmt: skip


def _prepare(
    angle: Tensor,
    spacing: Tensor,
    te: Tensor,
    pulses: Tensor,
    before: Tensor,
    ta: Tensor,
    td: Tensor,
    efficiency: Tensor,
) -> tuple[Tensor, ...]:
    _, cos, versed = sines(angle)
    return (
        torch.ones_like(spacing), torch.sin(angle * RADIANS), spacing, cos, versed,
        cosine_power(angle, pulses), cosine_power(angle, before), -1 / efficiency,
        *(fading(delay) for delay in (te, ta, td, pulses * spacing, before * spacing)),
    )  # fmt: skip


def _kernel(
    t1: Tensor,
    t2_star: Tensor,
    one: Tensor,
    sin: Tensor,
    spacing: Tensor,
    cos: Tensor,
    versed: Tensor,
    left_pulses: Tensor,
    left_before: Tensor,
    minus_per_efficiency: Tensor,
    te: Tensor,
    ta: Tensor,
    td: Tensor,
    train: Tensor,
    half: Tensor,
) -> tuple[Tensor, Tensor]:
    target = per_steady_state(t1, spacing, cos, versed).reciprocal()
    left_a, left_d = faded(ta, t1), faded(td, t1)
    left_train = left_pulses * faded(train, t1)
    # From no magnetisation at the inversion to the next one; the steady state follows from what is carried over.
    end = toward(toward(one - left_a, target, left_train), one, left_d)
    inverted = after_inversion(end, left_train * left_a * left_d, minus_per_efficiency)
    mz = toward(toward(inverted, one, left_a), target, left_before * faded(half, t1))
    return sin * mz, faded(te, t2_star)
