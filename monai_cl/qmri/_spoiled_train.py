r"""Trains of small excitations between inversions: what MPRAGE and MP2RAGE share.

Everything that happens between two inversions moves the longitudinal magnetisation towards a target and leaves a share
of the distance: free recovery towards 1 leaves $e^{-t/T_1}$, and $n$ pulses with perfect spoiling at distance $TX$,
with $x = \cos a \, e^{-TX/T_1}$, move towards $(1 - e^{-TX/T_1})/(1 - x)$ and leave $x^n$.
"""

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter, spare
from monai_cl.qmri._relaxation import sines


def toward(mz: Tensor, target: Tensor, kept: Tensor) -> Tensor:
    """Magnetisation on its way to ``target`` when the share ``kept`` of the distance is left; overwrites ``mz``."""
    return torch.lerp(target, mz, kept, out=spare(mz, target, kept))


def after_inversion(mz: Tensor, carried: Tensor, minus_per_efficiency: Tensor) -> Tensor:
    r"""Magnetisation after the inversion in the steady state; overwrites its arguments.

    The magnetisation before the inversion is ``mz`` and the share ``carried`` of that after the one before, so
    that $m = -e\,(m_z + c\,m) = m_z / (-1/e - c)$.
    """
    divisor = torch.sub(minus_per_efficiency, carried, out=spare(carried, minus_per_efficiency))
    return torch.div(mz, divisor, out=spare(mz, divisor))


def cosine_power(angle: Tensor, pulses: Tensor) -> Tensor:
    """Share of the magnetisation along the field that a number of pulses alone leave."""
    return torch.pow(sines(angle)[1], pulses)


def pulses_before_centre(num_pulses: Parameter) -> tuple[Parameter, Parameter]:
    """Pulses played before the one at the centre of k-space: in the first (or only) train, and in a second one."""
    half = num_pulses // 2
    first = (half - 1).clamp_min(0) if isinstance(half, Tensor) else max(half - 1, 0)
    return first, half
