"""Susceptibility-weighted imaging: a gradient echo whose phase darkens veins and iron."""

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter, at_least_single
from monai_cl.qmri.gradient_echo import spoiled_gradient_echo


def susceptibility_weighted(
    pd: Tensor,
    t1: Tensor,
    t2_star: Tensor,
    *,
    tr: Parameter,
    te: Parameter,
    flip_angle: Parameter,
    off_resonance: Parameter = 0.0,
    mask_power: int = 4,
    b1: Parameter = 1.0,
) -> Tensor:
    r"""Gradient echo magnitude times a power of a phase mask.

    With the phase $\varphi = 2 \pi \, \Delta f \, TE$, wrapped to $(-\pi, \pi]$, of the local field offset,

    $$S = S_{GRE} \, h^p, \qquad h = 1 - \varphi/\pi \text{ for } \varphi > 0, \quad 1 \text{ otherwise,}$$

    so a paramagnetic source ($\Delta f > 0$: veins, iron) is darkened, whatever sign a scanner gives its phase.

    Args:
        pd: Proton density, any unit; the signal has the same unit.
        t1: Longitudinal relaxation time in seconds, broadcastable to ``pd``.
        t2_star: Effective transverse relaxation time in seconds.
        tr: Repetition time in seconds.
        te: Echo time in seconds, below ``tr``.
        flip_angle: Excitation angle in degrees.
        off_resonance: Local field offset in Hz with the background field removed, number or map.
        mask_power: How often the mask is multiplied in; 4 is usual.
        b1: Transmit field relative to nominal, number or map.

    Returns:
        Magnitude of the broadcast shape; 0 where a relaxation time is not positive and finite.

    Raises:
        ConstraintError: If the timing cannot be played out.
        ValueError: If ``mask_power`` is negative.

    Source:
        Haacke et al., MRM 52 (2004) 612.

    Example:
        >>> tissue = [torch.tensor(v) for v in (1.0, 1.4, 0.06)]
        >>> protocol = dict(tr=0.03, te=0.02, flip_angle=15.0)
        >>> vein = susceptibility_weighted(*tissue, off_resonance=12.5, **protocol)   # a quarter turn at TE
        >>> round(float(vein / susceptibility_weighted(*tissue, **protocol)), 4)
        0.0625
    """
    if mask_power < 0:
        raise ValueError(f"mask_power must be at least 0, got {mask_power!r}")
    magnitude = spoiled_gradient_echo(pd, t1, t2_star, tr=tr, te=te, flip_angle=flip_angle, b1=b1)
    return magnitude * _phase_mask(off_resonance, te).to(magnitude) ** mask_power


def _phase_mask(off_resonance: Parameter, te: Parameter) -> Tensor:
    product = at_least_single(off_resonance) * te
    turns = product if isinstance(product, Tensor) else torch.tensor(product, dtype=torch.float64)
    turns = turns - torch.ceil(turns - 0.5)  # (-1/2, 1/2]
    return 1 - 2 * turns.clamp_min(0).nan_to_num(nan=0.5)
