"""Timings and angles that a scanner can play out; all else is a :class:`ConstraintError` before any arithmetic."""

import math

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter

ROUNDING = 1e-9  # s; two timings closer than this count as equal


class ConstraintError(ValueError):
    """A protocol that cannot be played out."""


def check_gradient_echo(*, tr: Parameter, te: Parameter, flip_angle: Parameter) -> None:
    """Require 0 < TE < TR and 0 < flip angle <= 180."""
    _positive(tr=tr, te=te)
    _angle("flip_angle", flip_angle)
    _below("te", te, "tr", tr, "shorten the echo time or lengthen the repetition time")


def check_spin_echo(*, tr: Parameter, te: Parameter) -> None:
    """Require 0 < TE < TR."""
    _positive(tr=tr, te=te)
    _below("te", te, "tr", tr, "shorten the echo time or lengthen the repetition time")


def check_refocusing_train(*, echo_spacing: Parameter, train_length: Parameter, refocusing_angle: Parameter) -> None:
    """Require a positive echo spacing, a whole number of echoes and 0 < refocusing angle <= 180."""
    _positive(echo_spacing=echo_spacing)
    _count("train_length", train_length)
    _angle("refocusing_angle", refocusing_angle)


def check_fast_spin_echo(
    *,
    tr: Parameter,
    echo_spacing: Parameter,
    train_length: Parameter,
    effective_echo: Parameter,
    refocusing_angle: Parameter,
) -> None:
    """Require 1 <= effective echo <= train length, a train shorter than TR, and 0 < refocusing angle <= 180."""
    _positive(tr=tr)
    check_refocusing_train(echo_spacing=echo_spacing, train_length=train_length, refocusing_angle=refocusing_angle)
    _count("effective_echo", effective_echo)
    _at_most("effective_echo", effective_echo, "train_length", train_length, "count echoes from 1", 0.0)
    _below(
        "train_length * echo_spacing", train_length * echo_spacing, "tr", tr,
        "shorten the echo train or lengthen the repetition time",
    )  # fmt: skip


def check_inversion(*, tr: Parameter, ti: Parameter, last_echo: Parameter, efficiency: Parameter) -> None:
    """Require TI + TL < TR, where TL is the time from excitation to the end of the readout."""
    _positive(tr=tr, ti=ti, last_echo=last_echo)
    check_efficiency(efficiency)
    _below("ti + last_echo", ti + last_echo, "tr", tr, "lengthen the repetition time or shorten ti or the echo train")


def check_double_inversion(
    *, tr: Parameter, ti1: Parameter, ti2: Parameter, last_echo: Parameter, efficiency: Parameter
) -> None:
    """Require TI2 < TI1 and TI1 + TI2 + TL < TR."""
    _positive(tr=tr, ti1=ti1, ti2=ti2, last_echo=last_echo)
    check_efficiency(efficiency)
    _below("ti2", ti2, "ti1", ti1, "ti1 separates the inversions, ti2 the second inversion and the excitation")
    _below("ti1 + ti2 + last_echo", ti1 + ti2 + last_echo, "tr", tr, "lengthen the repetition time")


def check_echo_within_train(*, te: Parameter, last_echo: Parameter) -> None:
    """Require the effective echo time to lie within the echo train."""
    _positive(te=te, last_echo=last_echo)
    _at_most("te", te, "last_echo", last_echo, "last_echo is the time from excitation to the last echo")


def check_mprage(
    *,
    tr: Parameter,
    ti: Parameter,
    echo_spacing: Parameter,
    te: Parameter,
    flip_angle: Parameter,
    num_pulses: Parameter,
    efficiency: Parameter,
) -> None:
    """Require TE <= TX and a train of n pulses that fits around TI: TI >= n TX / 2 and TR - TI >= n TX / 2."""
    _check_train(tr, echo_spacing, te, num_pulses, efficiency)
    _positive(ti=ti)
    _angle("flip_angle", flip_angle)
    half = num_pulses * echo_spacing / 2
    _at_most("num_pulses * echo_spacing / 2", half, "ti", ti, "use fewer pulses or a longer inversion time")
    _at_most("num_pulses * echo_spacing / 2", half, "tr - ti", tr - ti, "use fewer pulses or a longer repetition time")


def check_mp2rage(
    *,
    tr: Parameter,
    ti1: Parameter,
    ti2: Parameter,
    echo_spacing: Parameter,
    te: Parameter,
    flip_angle1: Parameter,
    flip_angle2: Parameter,
    num_pulses: Parameter,
    efficiency: Parameter,
) -> None:
    """Require TE <= TX, TI1 >= n TX / 2, TI2 - TI1 >= n TX and TR - TI2 >= n TX / 2."""
    _check_train(tr, echo_spacing, te, num_pulses, efficiency)
    _positive(ti1=ti1, ti2=ti2)
    _angle("flip_angle1", flip_angle1)
    _angle("flip_angle2", flip_angle2)
    train = num_pulses * echo_spacing
    _at_most("num_pulses * echo_spacing / 2", train / 2, "ti1", ti1, "use fewer pulses or a longer ti1")
    _at_most("num_pulses * echo_spacing", train, "ti2 - ti1", ti2 - ti1, "use fewer pulses or a longer ti2")
    _at_most("num_pulses * echo_spacing / 2", train / 2, "tr - ti2", tr - ti2, "use fewer pulses or a longer tr")


def check_efficiency(efficiency: Parameter) -> None:
    """Require an inversion efficiency in (0, 1]."""
    if not _holds((efficiency > 0) & (efficiency <= 1)):
        raise ConstraintError(f"efficiency must be in (0, 1] (1 is a perfect inversion), got {_show(efficiency)}")


def _check_train(
    tr: Parameter, echo_spacing: Parameter, te: Parameter, num_pulses: Parameter, efficiency: Parameter
) -> None:
    _positive(tr=tr, echo_spacing=echo_spacing, te=te)
    _count("num_pulses", num_pulses)
    check_efficiency(efficiency)
    _at_most("te", te, "echo_spacing", echo_spacing, "the echo falls before the next pulse of the train")


def _positive(**values: Parameter) -> None:
    for name, value in values.items():
        if not _holds((value > 0) & (value < math.inf)):
            raise ConstraintError(f"{name} must be positive and finite (seconds), got {_show(value)}")


def _angle(name: str, value: Parameter) -> None:
    if not _holds((value > 0) & (value <= 180)):
        raise ConstraintError(f"{name} must be above 0 and at most 180 degrees, got {_show(value)}")


def _count(name: str, value: Parameter) -> None:
    if not _holds((value >= 1) & (value < math.inf) & (value % 1 == 0)):
        raise ConstraintError(f"{name} must be a whole number of at least 1, got {_show(value)}")


def _below(name: str, value: Parameter, limit_name: str, limit: Parameter, remedy: str) -> None:
    if not _holds(value < limit):
        raise ConstraintError(f"{name} must be below {limit_name}, got {_show(value)} and {_show(limit)}; {remedy}")


def _at_most(
    name: str, value: Parameter, limit_name: str, limit: Parameter, remedy: str, slack: float = ROUNDING
) -> None:
    if not _holds(value <= limit + (slack + _rounding(value, limit))):
        raise ConstraintError(f"{name} must be at most {limit_name}, got {_show(value)} and {_show(limit)}; {remedy}")


def _rounding(*values: Parameter) -> float:
    """Margin that the precision of tensors leaves open, so that they may meet a limit exactly as numbers may."""
    tensors = [v.detach() for v in values if isinstance(v, Tensor) and v.is_floating_point() and v.numel()]
    return max((4 * torch.finfo(v.dtype).eps * float(v.abs().max()) for v in tensors), default=0.0)


def _holds(condition: bool | Tensor) -> bool:
    return bool(condition.all()) if isinstance(condition, Tensor) else bool(condition)


def _show(value: Parameter) -> str:
    if not isinstance(value, Tensor):
        return f"{value:.6g}"
    shown = ", ".join(f"{v:.6g}" for v in value.flatten()[:4].tolist())
    return f"[{shown}{', ...' if value.numel() > 4 else ''}]"
