"""Evaluate a signal equation on maps: masked voxels give 0 with finite gradients, large volumes go block by block.

An equation is a function ``kernel(*times, *fields, *parameters)`` of plain arithmetic that gives the factors of the
signal of unit proton density, such as magnetisation and decay; what it computes from fields and parameters alone may
stand in ``prepare``, to be done once. Here lives what every equation needs besides: common type and device, unusable
voxels, and blocks that fit the cache of a CPU core.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

Parameter = float | Tensor  # an integer will do for a float
Kernel = Callable[..., tuple[Tensor, ...]]

SHORTEST_TIME = 1e-6  # s; no tissue comes near it, and exp(-t / T) has long underflowed
_FEW = 4096  # values of a field or parameter that are no map
BLOCK = 131072  # elements a thread: half a megabyte of float32 stays in the cache of a core


def as_count(number: Parameter) -> Parameter:
    """A number of pulses or echoes as a float: products of whole-number tensors with floats would be float32."""
    return number.double() if isinstance(number, Tensor) else number


def at_least_single(value: Parameter) -> Parameter:
    """A field in half precision as float32, so that what is computed of it before the kernel has digits enough."""
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def spare(values: Tensor, *others: Tensor) -> Tensor | None:
    """Choose ``out`` where ``values`` are not needed afterwards: themselves, if no gradient needs them."""
    fits = not torch.is_grad_enabled() and all(other.shape in ((), values.shape) for other in others)
    return values if fits else None


def evaluate(
    kernel: Kernel,
    pd: Tensor,
    times: Sequence[Tensor],
    *,
    fields: Sequence[Parameter] = (),
    parameters: Sequence[Parameter] = (),
    prepare: Callable[..., tuple[Tensor, ...]] | None = None,
    signed: bool = True,
    proportional: bool = True,
) -> Tensor:
    """``pd`` times the product of ``kernel(*times, *fields, *parameters)``, or its magnitude, with broadcasting.

    Where a time is not positive and finite, or proton density or a field is not finite, the signal is 0 and so is
    every gradient. Without gradients on a CPU the work is done block by block, which needs no memory beyond the
    result; otherwise the kernel runs once on whole tensors.

    Args:
        kernel: Elementwise arithmetic.
        pd: Proton density.
        times: Relaxation times in seconds.
        fields: Further quantities that may be maps: flip angle, saturation, off-resonance.
        parameters: Numbers or per-sample tensors of the protocol, already checked.
        prepare: Arguments of the kernel after the times, as ``prepare(*fields, *parameters)``.
        signed: Keep the sign of the product instead of the magnitude.
        proportional: Multiply by proton density; otherwise it only marks voxels with signal.

    Returns:
        Plain tensor of the broadcast shape; float32, or float64 where a map is.
    """
    maps = [torch.as_tensor(m) for m in (pd, *times)]
    dtype, device = _dtype_of(maps), _device_of(maps)
    arguments = _tensors((*maps, *fields, *parameters), dtype, device)
    shape = torch.broadcast_tensors(*arguments)[0].shape
    counts = len(times), len(fields)
    if prepare is not None and device.type == "cpu" and all(map(_few_and_finite, (*fields, *parameters))):
        arguments[1 + counts[0] :], counts = prepare(*arguments[1 + counts[0] :]), (counts[0], 0)
    elif prepare is not None:
        kernel = _preparing(kernel, prepare, counts[0])
    finish = functools.partial(_signal, signed=signed, proportional=proportional)
    records = torch.is_grad_enabled() and any(a.requires_grad for a in arguments)
    if records or device.type != "cpu" or math.prod(shape) <= BLOCK:
        density, *rest = _masked(arguments, *counts)
        return finish(density, kernel(*rest)).expand(shape)
    result = torch.empty(shape, dtype=dtype)
    with torch.inference_mode():
        for out, parts in _blocks(result, arguments, BLOCK * torch.get_num_threads()):
            _fill(out, kernel, finish, parts, counts)
    return result


def _few_and_finite(value: Parameter) -> bool:
    if not isinstance(value, Tensor):
        return math.isfinite(value)
    return value.numel() <= _FEW and bool(value.detach().isfinite().all())


def _preparing(kernel: Kernel, prepare: Callable[..., tuple[Tensor, ...]], times: int) -> Kernel:
    """The kernel for fields that are maps: what it needs of them is prepared in every block."""

    def preparing(*arguments: Tensor) -> tuple[Tensor, ...]:
        return kernel(*arguments[:times], *prepare(*arguments[times:]))

    return preparing


def _fill(
    out: Tensor, kernel: Kernel, finish: Callable[..., Tensor], arguments: Sequence[Tensor], counts: tuple[int, int]
) -> None:
    """Evaluate a block; masking costs as much as an exponential, so only where a value asks for it."""
    if all(_usable(time) for time in arguments[1 : 1 + counts[0]]):
        finish(arguments[0], kernel(*arguments[1:]), out=out)
        if math.isfinite(out.sum().item()):
            return
    density, *rest = _masked(arguments, *counts)
    finish(density, kernel(*rest), out=out)


def _signal(
    density: Tensor, factors: Sequence[Tensor], *, signed: bool, proportional: bool, out: Tensor | None = None
) -> Tensor:
    """Product of the factors and proton density, in the memory of ``out`` where it is given."""
    product, *more = factors
    if out is not None and product.shape != out.shape:
        product = product.expand(out.shape)
    for factor in more:
        product = torch.mul(product, factor, out=out)
    if not signed:
        product = torch.abs(product, out=out)
    return torch.mul(product, density if proportional else density.detach().sign().abs(), out=out)


def _dtype_of(maps: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(m.dtype == torch.float64 for m in maps) else torch.float32


def _device_of(maps: Sequence[Tensor]) -> torch.device:
    return next((m.device for m in maps if m.device.type != "cpu"), maps[0].device)


def _tensors(values: Sequence[Parameter], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Convert all values to plain tensors of one type on one device; numbers move together."""
    numbers = [float(v) for v in values if not isinstance(v, Tensor)]
    moved = iter(torch.tensor(numbers, dtype=dtype, device=device).unbind())
    return [
        v.as_subclass(Tensor).to(device=device, dtype=dtype) if isinstance(v, Tensor) else next(moved) for v in values
    ]


def _masked(arguments: Sequence[Tensor], times: int, fields: int) -> list[Tensor]:
    """Replace unusable values by harmless ones, with proton density 0."""
    # Arithmetic with a mask of floats instead of torch.where, which is ten times as slow on a CPU.
    pd = _finite(arguments[0])
    clean = []
    for time in arguments[1 : 1 + times]:
        time = _finite(time)
        missing = torch.lt(time.detach(), SHORTEST_TIME, out=torch.empty_like(time))
        pd = torch.addcmul(pd, pd, missing, value=-1)
        # 1 s where missing: no underflow, no overflow
        clean.append(torch.maximum(time, missing, out=spare(missing, time)))
    for field in arguments[1 + times : 1 + times + fields]:
        pd = pd * field.detach().isfinite()
        clean.append(_finite(field))
    return [pd, *clean, *arguments[1 + times + fields :]]


def _finite(values: Tensor) -> Tensor:
    if values.device.type == "cpu" and math.isfinite(values.detach().sum().item()):
        return values  # asking takes less than half of the time; on a GPU it would wait
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _usable(time: Tensor) -> bool:
    """Return whether every relaxation time is positive and finite; a sum is quicker than a maximum."""
    return time.amin().item() >= SHORTEST_TIME and math.isfinite(time.sum().item())


def _blocks(result: Tensor, arguments: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Parts of ``result`` with at most ``size`` elements, or one row, and the arguments that meet each of them."""
    shape = result.shape
    axis, inner = len(shape) - 1, 1
    while axis > 0 and inner * shape[axis] <= size:
        inner *= shape[axis]
        axis -= 1
    step = max(size // inner, 1)
    for lead in itertools.product(*(range(n) for n in shape[:axis])):
        parts = (_parts(a, lead, len(shape), step) if a.ndim else itertools.repeat(a) for a in arguments)
        yield from zip(result[lead].split(step), zip(*parts, strict=False), strict=False)


def _parts(tensor: Tensor, lead: Sequence[int], ndim: int, step: int) -> Iterable[Tensor]:
    """A tensor that is broadcast to ``ndim`` axes, at a place along the first ones, in steps along the next."""
    tensor = tensor.reshape((1,) * (ndim - tensor.ndim) + tensor.shape)
    tensor = tensor[tuple(i if n > 1 else 0 for i, n in zip(lead, tensor.shape, strict=False))]
    if tensor.numel() == 1:  # numbers are broadcast faster without axes
        return itertools.repeat(tensor.reshape(()))
    if len(tensor) == 1:
        return itertools.repeat(tensor)
    parts = tensor.split(step)
    return parts if parts[0].numel() > 1 else [part.reshape(()) for part in parts]
