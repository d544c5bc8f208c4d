"""What every equation is made of: decay, recovery and the sines of a flip angle, accurate in float32.

Powers of two, not of e: on a CPU ``exp2`` takes half the time of ``exp``, for the same digits.
"""

import math

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter

RADIANS = math.pi / 180
_LOG2_E = math.log2(math.e)


def decay(t: Tensor, time: Tensor) -> Tensor:
    """``exp(-t / T)``."""
    return faded(fading(t), time)


def fading(t: Tensor) -> Tensor:
    """What :func:`faded` takes for a delay ``t``: the power of two, times T."""
    return t * -_LOG2_E


def faded(power: Tensor, time: Tensor) -> Tensor:
    """``exp(-t / T)`` for ``power = fading(t)``."""
    return torch.div(power, time).exp2_()


def lost(t: Tensor, time: Tensor) -> Tensor:
    """``exp(-t / T) - 1``, minus the share recovered, accurate where T is much longer than t."""
    return shortfall(-t, time)


def shortfall(minus_t: Tensor, time: Tensor) -> Tensor:
    """:func:`lost` for a delay with the other sign."""
    return torch.div(minus_t, time).expm1_()


def sines(angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``sin a``, ``cos a`` and ``1 - cos a`` of an angle in degrees; the last is accurate for small angles."""
    radians = angle * RADIANS
    versed = 2 * torch.sin(radians / 2).square()
    return torch.sin(radians), 1 - versed, versed


def scaled(angle: Parameter, b1: Parameter) -> Parameter:
    """The angle that is played where the transmit field is ``b1`` times its nominal value."""
    return angle * b1


def is_number(value: object, expected: float) -> bool:
    """Whether a parameter is a plain number (not a tensor) of the expected value."""
    return isinstance(value, (int, float)) and value == expected
