"""Spoiled gradient echo: T1-weighted, proton-density-weighted, MT-weighted and T2*-weighted images."""

import math

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter, evaluate, spare
from monai_cl.qmri._relaxation import faded, fading, per_steady_state, scaled, sines
from monai_cl.qmri.constraints import check_gradient_echo


def spoiled_gradient_echo(
    pd: Tensor,
    t1: Tensor,
    t2_star: Tensor,
    *,
    tr: Parameter,
    te: Parameter,
    flip_angle: Parameter,
    b1: Parameter = 1.0,
    mtsat: Parameter = 0.0,
) -> Tensor:
    r"""Steady state of a gradient echo with perfect spoiling (FLASH, SPGR).

    With $E_1 = e^{-TR/T_1}$, $q = 1 - \delta$ ($\delta$ the magnetisation transfer saturation) and $a$ the flip angle,

    $$S = \rho \sin a \, \frac{q (1 - E_1)}{1 - q E_1 \cos a} \, e^{-TE/T_2^*}$$

    largest at the Ernst angle $\cos a = q E_1$. A long TR and TE give the T2*-weighted gradient echo.

    Args:
        pd: Proton density, any unit; the signal has the same unit.
        t1: Longitudinal relaxation time in seconds, broadcastable to ``pd``.
        t2_star: Effective transverse relaxation time in seconds.
        tr: Repetition time in seconds.
        te: Echo time in seconds, below ``tr``.
        flip_angle: Excitation angle in degrees.
        b1: Transmit field relative to nominal, number or map; it scales the flip angle.
        mtsat: Saturation by the MT pulse as a fraction (0.0175, not 1.75 %); 0 is a sequence without MT pulse. Below 0,
            where noise of a measurement puts voxels of a map, it counts as 0: no pulse adds magnetisation.

    Returns:
        Magnitude of the broadcast shape; 0 where a relaxation time is not positive and finite.

    Raises:
        ConstraintError: If the timing cannot be played out.
        ValueError: If ``mtsat`` reaches 1, or is a number below 0.

    Source:
        Ernst and Anderson, Rev. Sci. Instrum. 37 (1966) 93; with saturation Helms et al., MRM 60 (2008) 1396.

    Example:
        >>> import torch
        >>> tissue = torch.tensor([0.86, 1.45, 4.3])   # T1 of white matter, grey matter, fluid
        >>> s = spoiled_gradient_echo(torch.ones(3), tissue, 0.05 * torch.ones(3), tr=0.02, te=0.004, flip_angle=25.0)
        >>> bool((s.diff() < 0).all())
        True
    """
    check_gradient_echo(tr=tr, te=te, flip_angle=flip_angle)
    _check_fraction(mtsat)
    fields = (scaled(flip_angle, b1), mtsat)
    return evaluate(_kernel, pd, (t1, t2_star), fields=fields, parameters=(tr, te), prepare=_prepare)


def _prepare(angle: Tensor, mtsat: Tensor, tr: Tensor, te: Tensor) -> tuple[Tensor, ...]:
    sin, cos, versed = sines(angle)
    saturated = mtsat.clamp_min(0)  # below, the divisor of the steady state passes through 0
    return sin.abs(), cos, versed + saturated / (1 - saturated), tr, fading(te)


def _kernel(
    t1: Tensor, t2_star: Tensor, sin: Tensor, cos: Tensor, opposing: Tensor, tr: Tensor, te: Tensor
) -> tuple[Tensor, Tensor]:
    per_magnetisation = per_steady_state(t1, tr, cos, opposing)
    return torch.div(sin, per_magnetisation, out=spare(per_magnetisation, sin)), faded(te, t2_star)


def _check_fraction(mtsat: Parameter) -> None:
    if not isinstance(mtsat, Tensor):
        if mtsat < 0:
            raise ValueError(f"mtsat must be at least 0, got {mtsat!r}; 0 is a sequence without MT pulse")
        largest = mtsat
    elif mtsat.numel() == 0:
        return
    else:
        largest = float(mtsat.detach().amax())
        if math.isnan(largest):  # somewhere; those voxels will be dark, the others still have to be fractions
            largest = float(mtsat.detach().nan_to_num(nan=0.0).amax())
    if largest >= 1:
        raise ValueError(f"mtsat must be a fraction below 1, got up to {largest:.4g}; divide percent units by 100")
