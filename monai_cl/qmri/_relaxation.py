"""Terms of every equation: decay, recovery and the sines of a flip angle, accurate in float32.

Powers of two, not of e: on a CPU ``exp2`` takes half the time of ``exp``, for the same digits.
"""

import math

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter, at_least_single, spare

RADIANS = math.pi / 180
_LOG2_E = math.log2(math.e)


def decay(t: Tensor, time: Tensor) -> Tensor:
    """``exp(-t / T)``."""
    return faded(fading(t), time)


def fading(t: Tensor) -> Tensor:
    """Argument of :func:`faded` for a delay ``t``: the power of two, times T."""
    return t * -_LOG2_E


def faded(power: Tensor, time: Tensor) -> Tensor:
    """``exp(-t / T)`` for ``power = fading(t)``."""
    return torch.div(power, time).exp2_()


def lost(t: Tensor, time: Tensor) -> Tensor:
    """``exp(-t / T) - 1``, minus the share recovered, accurate where T is much longer than t."""
    return torch.div(-t, time).expm1_()


def plus(total: Tensor, weight: Tensor, values: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``total + weight * values``."""
    if weight.ndim or weight.requires_grad or not weight.is_cpu:
        return torch.addcmul(total, weight, values, out=out)
    # addcmul takes four times as long where two of its arguments are numbers
    return torch.add(total, values, alpha=weight.item(), out=out)


def per_steady_state(t1: Tensor, tr: Tensor, cos: Tensor, opposing: Tensor) -> Tensor:
    r"""Reciprocal of the magnetisation that pulses TR apart keep: $\cos a + d / (1 - e^{-TR/T_1})$.

    Args:
        t1: Longitudinal relaxation time.
        tr: Distance of the pulses.
        cos: Cosine of the flip angle.
        opposing: d, what a pulse takes away: 1 minus the cosine, plus s / (1 - s) for a further saturation s.
    """
    if _far_below(tr, t1):
        # 1 / (1 - exp(-x)) = 1 / x + 1 / 2 + x / 12 ..., in a quarter of the time of expm1
        total = plus(cos + opposing / 2, opposing / tr, t1)
        return torch.addcdiv(total, opposing * tr / 12, t1, out=spare(total))
    return cos - opposing / lost(tr, t1)


def _far_below(t: Tensor, time: Tensor) -> bool:
    """Return whether t / T is so small that float32 does not see the next term of the series, (t / T)^3 / 720."""
    if time.dtype != torch.float32 or time.device.type != "cpu" or not time.numel():
        return False
    return bool(t.detach().amax().item() < 0.1 * time.detach().amin().item())


def sines(angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``sin a``, ``cos a`` and ``1 - cos a`` of an angle in degrees; the last is accurate for small angles."""
    radians = angle * RADIANS
    versed = 2 * torch.sin(radians / 2).square()
    return torch.sin(radians), 1 - versed, versed


def scaled(angle: Parameter, b1: Parameter) -> Parameter:
    """The angle that is played where the transmit field is ``b1`` times its nominal value."""
    return at_least_single(angle) * at_least_single(b1)


def is_number(value: object, expected: float) -> bool:
    """Return whether a parameter is a plain number (not a tensor) of the expected value."""
    return isinstance(value, (int, float)) and value == expected
