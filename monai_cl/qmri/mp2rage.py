"""Magnetisation-prepared gradient echoes at two inversion times (MP2RAGE) and their signed combination."""

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Kernel, Parameter, as_count, evaluate
from monai_cl.qmri._relaxation import RADIANS, faded, fading, per_steady_state, scaled, sines
from monai_cl.qmri._spoiled_train import after_inversion, cosine_power, pulses_before_centre, toward
from monai_cl.qmri.constraints import check_mp2rage


def mp2rage(
    pd: Tensor,
    t1: Tensor,
    t2_star: Tensor | None = None,
    *,
    tr: Parameter,
    ti1: Parameter,
    ti2: Parameter,
    echo_spacing: Parameter,
    te: Parameter,
    flip_angle1: Parameter,
    flip_angle2: Parameter,
    num_pulses: Parameter,
    efficiency: Parameter = 0.96,
    b1: Parameter = 1.0,
) -> Tensor:
    r"""Signed uniform image (UNI) of MP2RAGE in its steady state.

    $$UNI = \frac{I_1 I_2}{I_1^2 + I_2^2} \in [-\tfrac12, \tfrac12]$$

    with the images of :func:`mp2rage_images`. Proton density, $T_2^*$ and the receive field cancel.

    Args:
        pd: Proton density; it only marks voxels with signal.
        t1: Longitudinal relaxation time in seconds, broadcastable to ``pd``.
        t2_star: Cancels; where given, voxels in which it is not positive and finite are 0.
        tr: Time from inversion to inversion in seconds.
        ti1: Time from inversion to the middle of the first train in seconds.
        ti2: Time from inversion to the middle of the second train in seconds.
        echo_spacing: Time from pulse to pulse in seconds, TX.
        te: Echo time in seconds, at most ``echo_spacing``; it cancels too.
        flip_angle1: Excitation angle of the first train in degrees.
        flip_angle2: Excitation angle of the second train in degrees.
        num_pulses: Number of pulses in each train.
        efficiency: Share of the magnetisation that is inverted, in (0, 1].
        b1: Transmit field relative to nominal, number or map; it scales the flip angles, not the (adiabatic) inversion.

    Returns:
        Signed image of the broadcast shape; 0 where proton density is 0 or a time is not positive and finite.

    Raises:
        ConstraintError: If the trains do not fit between the inversion and the next one.

    Source:
        Marques et al., NeuroImage 49 (2010) 1271.

    Example:
        >>> protocol = dict(tr=6.0, ti1=0.8, ti2=2.7, echo_spacing=0.007, te=0.003, num_pulses=160)
        >>> t1 = torch.tensor([0.86, 1.45, 4.3])   # white > grey > fluid, which is negative
        >>> uni = mp2rage(torch.ones(3), t1, flip_angle1=4.0, flip_angle2=5.0, **protocol)
        >>> bool((uni.diff() < 0).all()), bool(uni[-1] < 0)
        (True, True)
    """
    parameters = _timing(tr, ti1, ti2, echo_spacing, te, flip_angle1, flip_angle2, num_pulses, efficiency)
    times = (t1,) if t2_star is None else (t1, t2_star)
    fields = (scaled(flip_angle1, b1), scaled(flip_angle2, b1))
    return evaluate(
        _uniform_kernel(len(times)), pd, times, fields=fields, parameters=parameters, prepare=_prepare,
        proportional=False,
    )  # fmt: skip


def mp2rage_images(
    pd: Tensor,
    t1: Tensor,
    t2_star: Tensor | None = None,
    *,
    tr: Parameter,
    ti1: Parameter,
    ti2: Parameter,
    echo_spacing: Parameter,
    te: Parameter,
    flip_angle1: Parameter,
    flip_angle2: Parameter,
    num_pulses: Parameter,
    efficiency: Parameter = 0.96,
    b1: Parameter = 1.0,
) -> tuple[Tensor, Tensor]:
    r"""Signed images of MP2RAGE at its two inversion times.

    An inversion, recovery for $TA = TI_1 - n\,TX/2$, $n$ pulses of angle $a_1$, recovery for
    $TB = TI_2 - TI_1 - n\,TX$, $n$ pulses of angle $a_2$, recovery for $TC = TR - TI_2 - n\,TX/2$. With
    $E = e^{-t/T_1}$, $x_i = \cos a_i\, e^{-TX/T_1}$, $M_i = (1 - e^{-TX/T_1})/(1 - x_i)$, the inversion efficiency $e$
    and the magnetisation $m_{ss}$ before the inversion, which reproduces itself,

    $$\begin{aligned}
    Z_1 &= 1 - E_A (1 + e\, m_{ss}), & I_1 &= \rho \sin a_1 \, [Z_1 x_1^m + M_1 (1 - x_1^m)] \, e^{-TE/T_2^*} \\
    Z_2 &= 1 - E_B + E_B [Z_1 x_1^n + M_1 (1 - x_1^n)], &
    I_2 &= \rho \sin a_2 \, [Z_2 x_2^{m'} + M_2 (1 - x_2^{m'})] \, e^{-TE/T_2^*}
    \end{aligned}$$

    with $m = \lfloor n/2 \rfloor - 1$ and $m' = \lfloor n/2 \rfloor$ pulses before the central one, as published, where
    $I_2$ is written backwards from $m_{ss}$ (the same value, but a division by $x_2^{m'}$).

    Args:
        pd: Proton density, any unit; the signal has the same unit.
        t1: Longitudinal relaxation time in seconds, broadcastable to ``pd``.
        t2_star: Effective transverse relaxation time in seconds; no decay where left out.
        tr: Time from inversion to inversion in seconds.
        ti1: Time from inversion to the middle of the first train in seconds.
        ti2: Time from inversion to the middle of the second train in seconds.
        echo_spacing: Time from pulse to pulse in seconds, TX.
        te: Echo time in seconds, at most ``echo_spacing``.
        flip_angle1: Excitation angle of the first train in degrees.
        flip_angle2: Excitation angle of the second train in degrees.
        num_pulses: Number of pulses in each train.
        efficiency: Share of the magnetisation that is inverted, in (0, 1].
        b1: Transmit field relative to nominal, number or map; it scales the flip angles, not the (adiabatic) inversion.

    Returns:
        The images at ``ti1`` and ``ti2``, each of the broadcast shape.

    Raises:
        ConstraintError: If the trains do not fit between the inversion and the next one.

    Source:
        Marques et al., NeuroImage 49 (2010) 1271.
    """
    parameters = _timing(tr, ti1, ti2, echo_spacing, te, flip_angle1, flip_angle2, num_pulses, efficiency)
    fields = (scaled(flip_angle1, b1), scaled(flip_angle2, b1))
    times = (t1,) if t2_star is None else (t1, t2_star)
    first, second = (
        evaluate(
            _image_kernel(which, len(times)),
            pd,
            times,
            fields=fields,
            parameters=(te, *parameters),
            prepare=_prepare_images,
        )
        for which in (0, 1)
    )
    return first, second


def uniform_image(first: Tensor, second: Tensor) -> Tensor:
    r"""Signed combination $I_1 I_2 / (I_1^2 + I_2^2)$ of two coherent images, 0 where both are 0.

    For partial volume mix the images of the tissues first and combine afterwards.

    Args:
        first: Signed image at the first inversion time.
        second: Signed image at the second, broadcastable to the first.

    Returns:
        Image in [-1/2, 1/2].
    """
    power = first.square() + second.square()
    return first * second / power.clamp_min(torch.finfo(power.dtype).tiny)


def _timing(
    tr: Parameter,
    ti1: Parameter,
    ti2: Parameter,
    echo_spacing: Parameter,
    te: Parameter,
    flip_angle1: Parameter,
    flip_angle2: Parameter,
    num_pulses: Parameter,
    efficiency: Parameter,
) -> tuple[Parameter, ...]:
    check_mp2rage(
        tr=tr, ti1=ti1, ti2=ti2, echo_spacing=echo_spacing, te=te, flip_angle1=flip_angle1, flip_angle2=flip_angle2,
        num_pulses=num_pulses, efficiency=efficiency,
    )  # fmt: skip
    num_pulses = as_count(num_pulses)
    train = num_pulses * echo_spacing
    ta, tb, tc = ti1 - train / 2, ti2 - ti1 - train, tr - ti2 - train / 2
    return (echo_spacing, num_pulses, *pulses_before_centre(num_pulses), ta, tb, tc, efficiency)


def _magnetisation(
    t1: Tensor,
    one: Tensor,
    spacing: Tensor,
    minus_per_efficiency: Tensor,
    train: Tensor,
    ta: Tensor,
    tb: Tensor,
    tc: Tensor,
    half1: Tensor,
    half2: Tensor,
    *pulses: Tensor,
) -> tuple[Tensor, Tensor]:
    """Transverse magnetisation relative to equilibrium after the central pulse of each train; see ``_prepare``."""
    sin1, cos1, versed1, all1, before1, sin2, cos2, versed2, all2, before2 = pulses
    target1 = per_steady_state(t1, spacing, cos1, versed1).reciprocal()
    target2 = per_steady_state(t1, spacing, cos2, versed2).reciprocal()
    left_a, left_b, left_c = faded(ta, t1), faded(tb, t1), faded(tc, t1)
    relaxed = faded(train, t1)
    left1, left2 = all1 * relaxed, all2 * relaxed
    # From no magnetisation at the inversion to the next one; the steady state follows from what is carried over.
    end = toward(toward(one - left_a, target1, left1), one, left_b)
    end = toward(toward(end, target2, left2), one, left_c)
    inverted = after_inversion(end, left_a * left1 * left_b * left2 * left_c, minus_per_efficiency)
    z1 = toward(inverted, one, left_a)
    z2 = toward(torch.lerp(target1, z1, left1), one, left_b)
    z1 = toward(z1, target1, before1 * faded(half1, t1))
    z2 = toward(z2, target2, before2 * faded(half2, t1))
    return sin1 * z1, sin2 * z2


def _prepare(
    angle1: Tensor,
    angle2: Tensor,
    spacing: Tensor,
    pulses: Tensor,
    before1: Tensor,
    before2: Tensor,
    ta: Tensor,
    tb: Tensor,
    tc: Tensor,
    efficiency: Tensor,
) -> tuple[Tensor, ...]:
    """Make what :func:`_magnetisation` takes after T1."""
    delays = (pulses * spacing, ta, tb, tc, before1 * spacing, before2 * spacing)
    trains: list[Tensor] = []
    for angle, before in ((angle1, before1), (angle2, before2)):
        _, cos, versed = sines(angle)
        trains += [torch.sin(angle * RADIANS), cos, versed, cosine_power(angle, pulses), cosine_power(angle, before)]
    return torch.ones_like(spacing), spacing, -1 / efficiency, *(fading(delay) for delay in delays), *trains


def _prepare_images(angle1: Tensor, angle2: Tensor, te: Tensor, *timing: Tensor) -> tuple[Tensor, ...]:
    return fading(te), *_prepare(angle1, angle2, *timing)


def _uniform_kernel(times: int) -> Kernel:
    def kernel(t1: Tensor, *rest: Tensor) -> tuple[Tensor]:
        return (uniform_image(*_magnetisation(t1, *rest[times - 1 :])),)

    return kernel


def _image_kernel(which: int, times: int) -> Kernel:
    def kernel(t1: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        t2_star, (te, *prepared) = rest[: times - 1], rest[times - 1 :]
        return _magnetisation(t1, *prepared)[which], *(faded(te, time) for time in t2_star)

    return kernel
