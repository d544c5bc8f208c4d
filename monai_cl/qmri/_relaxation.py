"""What every equation is made of: decay, recovery and the sines of a flip angle, accurate in float32."""

import math

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter

RADIANS = math.pi / 180


def decay(t: Tensor, time: Tensor) -> Tensor:
    """``exp(-t / T)``."""
    return torch.exp(torch.div(-t, time))


def lost(t: Tensor, time: Tensor) -> Tensor:
    """``exp(-t / T) - 1``, minus the share recovered, accurate where T is much longer than t."""
    return torch.expm1(torch.div(-t, time))


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
