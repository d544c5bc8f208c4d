"""Evaluate a signal equation on maps: masked voxels give 0 with finite gradients, large volumes go block by block.

An equation is a function ``kernel(*times, *fields, *parameters)`` of plain arithmetic that gives the signal of unit
proton density; what it computes from fields and parameters alone may stand in ``prepare``, to be done once. Here lives
what every equation needs besides: common type and device, unusable voxels, and blocks that fit the cache of a CPU core.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Parameter = float | Tensor  # an integer will do for a float
Slices = tuple[slice, ...]

SHORTEST_TIME = 1e-6  # s; no tissue comes near it, and exp(-t / T) has long underflowed
_FEW = 4096  # values of a field or parameter that are no map
BLOCK = 131072  # elements a thread: half a megabyte of float32 stays in the cache of a core


def as_count(number: Parameter) -> Parameter:
    """A number of pulses or echoes as a float: products of whole-number tensors with floats would be float32."""
    return number.double() if isinstance(number, Tensor) else number


def evaluate(
    kernel: Callable[..., Tensor],
    pd: Tensor,
    times: Sequence[Tensor],
    *,
    fields: Sequence[Parameter] = (),
    parameters: Sequence[Parameter] = (),
    prepare: Callable[..., tuple[Tensor, ...]] | None = None,
) -> Tensor:
    """``pd * kernel(*times, *fields, *parameters)`` with broadcasting.

    Where a time is not positive and finite, or proton density or a field is not finite, the signal is 0 and so is
    every gradient. Without gradients on a CPU the work is done block by block, which needs no memory beyond the
    result; otherwise the kernel runs once on whole tensors.

    Args:
        kernel: Elementwise arithmetic.
        pd: Proton density.
        times: Relaxation times in seconds.
        fields: Further quantities that may be maps: flip angle, saturation, off-resonance.
        parameters: Numbers or per-sample tensors of the protocol, already checked.
        prepare: What the kernel takes after the times is ``prepare(*fields, *parameters)``.

    Returns:
        Plain tensor of the broadcast shape; float32, or float64 where a map is.
    """
    maps = [torch.as_tensor(m).as_subclass(Tensor) for m in (pd, *times)]
    dtype, device = _dtype_of(maps), _device_of(maps)
    arguments = [_like(a, dtype, device) for a in (*maps, *fields, *parameters)]
    shape = torch.broadcast_shapes(*(a.shape for a in arguments))
    counts = len(times), len(fields)
    if prepare is not None and device.type == "cpu" and all(_few_and_finite(a) for a in arguments[1 + counts[0] :]):
        arguments[1 + counts[0] :], counts = prepare(*arguments[1 + counts[0] :]), (counts[0], 0)
    elif prepare is not None:
        kernel = _preparing(kernel, prepare, counts[0])
    records = torch.is_grad_enabled() and any(a.requires_grad for a in arguments)
    size = BLOCK * torch.get_num_threads()
    if records or device.type != "cpu" or math.prod(shape) <= size:
        density, *rest = _masked(arguments, *counts)
        return (density * kernel(*rest)).expand(shape)
    result = torch.empty(shape, dtype=dtype)
    arguments = [a.reshape(()) if a.numel() == 1 else a for a in arguments]  # numbers are broadcast faster without axes
    for block in _blocks(shape, size):
        _fill(result[block], kernel, [_narrow(a, block) if a.ndim else a for a in arguments], counts)
    return result


def _few_and_finite(value: Tensor) -> bool:
    return value.numel() <= _FEW and bool(value.detach().isfinite().all())


def _preparing(
    kernel: Callable[..., Tensor], prepare: Callable[..., tuple[Tensor, ...]], times: int
) -> Callable[..., Tensor]:
    """The kernel for fields that are maps: what it needs of them is prepared in every block."""

    def preparing(*arguments: Tensor) -> Tensor:
        return kernel(*arguments[:times], *prepare(*arguments[times:]))

    return preparing


def _fill(out: Tensor, kernel: Callable[..., Tensor], arguments: Sequence[Tensor], counts: tuple[int, int]) -> None:
    """Evaluate a block; masking costs as much as an exponential, so only where a value asks for it."""
    if all(_usable(time) for time in arguments[1 : 1 + counts[0]]):
        torch.mul(arguments[0].expand(out.shape), kernel(*arguments[1:]), out=out)
        if math.isfinite(float(out.sum())):
            return
    density, *rest = _masked(arguments, *counts)
    torch.mul(density.expand(out.shape), kernel(*rest), out=out)


def _dtype_of(maps: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(m.dtype == torch.float64 for m in maps) else torch.float32


def _device_of(maps: Sequence[Tensor]) -> torch.device:
    return next((m.device for m in maps if m.device.type != "cpu"), maps[0].device)


def _like(value: Parameter, dtype: torch.dtype, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value.as_subclass(Tensor).to(device=device, dtype=dtype)
    return torch.tensor(float(value), dtype=dtype, device=device)


def _masked(arguments: Sequence[Tensor], times: int, fields: int) -> list[Tensor]:
    """Replace unusable values by harmless ones and proton density there by zero."""
    # Signs and clamps instead of torch.where, which is ten times as slow on a CPU and would need both branches finite.
    pd = torch.nan_to_num(arguments[0], nan=0.0, posinf=0.0, neginf=0.0)
    clean = []
    for time in arguments[1 : 1 + times]:
        finite = torch.nan_to_num(time, nan=0.0, posinf=0.0, neginf=0.0)
        usable = finite.detach().clamp_min(0).sign()
        pd = pd * usable
        clean.append(finite.clamp_min(SHORTEST_TIME) + (1 - usable))  # 1 s where unusable: no underflow, no overflow
    for field in arguments[1 + times : 1 + times + fields]:
        pd = pd * field.detach().isfinite()
        clean.append(torch.nan_to_num(field, nan=0.0, posinf=0.0, neginf=0.0))
    return [pd, *clean, *arguments[1 + times + fields :]]


def _usable(time: Tensor) -> bool:
    """Whether every relaxation time is positive and finite; the sum, quicker than a maximum, is not otherwise."""
    return float(time.amin()) >= SHORTEST_TIME and math.isfinite(float(time.sum()))


def _blocks(shape: Sequence[int], size: int) -> Iterator[Slices]:
    """Slices that cover ``shape`` in row-major order with at most ``size`` elements each, or one row."""
    axis, inner = len(shape) - 1, 1
    while axis > 0 and inner * shape[axis] <= size:
        inner *= shape[axis]
        axis -= 1
    step = max(size // inner, 1)
    rest = [slice(None)] * (len(shape) - axis - 1)
    for lead in itertools.product(*(range(n) for n in shape[:axis])):
        for start in range(0, shape[axis], step):
            yield (*(slice(i, i + 1) for i in lead), slice(start, start + step), *rest)


def _narrow(tensor: Tensor, block: Slices) -> Tensor:
    """The part of ``tensor`` that meets a block of the broadcast shape; axes of length one stay whole."""
    own = block[len(block) - tensor.ndim :]
    part = tensor[tuple(s if n > 1 else slice(None) for s, n in zip(own, tensor.shape, strict=True))]
    return part.reshape(()) if part.numel() == 1 else part  # numbers are broadcast faster without axes
