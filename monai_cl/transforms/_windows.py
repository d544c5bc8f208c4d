"""Windows of a canvas, mirrored and changed in intensity one by one, each written once."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

_Writer = Callable[[int, list[int], list[bool], float, float], None]


def cut_windows(
    canvas: Tensor,
    starts: np.ndarray,
    size: Sequence[int],
    *,
    flips: np.ndarray,
    scales: np.ndarray,
    shifts: np.ndarray,
) -> Tensor:
    """Windows of ``canvas`` (C, *M), mirrored and changed in intensity, as float32 (N, C, *size).

    Each view is written once, at its place in the result, and changed while it is still in the cache: half the time
    of a pass over all views for every change.

    Args:
        canvas: Where to cut.
        starts: First voxel of each window, (N, nd).
        size: Edge lengths of a window in voxels.
        flips: Whether to mirror along each axis, (N, nd).
        scales: Factor of each window, (N,).
        shifts: Offset of each window after the factor, (N,).
    """
    views = torch.empty((len(starts), canvas.shape[0], *size), device=canvas.device)
    write = _writer(canvas, views)
    factors, offsets = scales.astype(np.float32).tolist(), shifts.astype(np.float32).tolist()
    plan = zip(starts.tolist(), flips.tolist(), factors, offsets, strict=True)
    for n, (start, flip, factor, offset) in enumerate(plan):
        write(n, start, flip, factor, offset)
    return views


def _writer(canvas: Tensor, views: Tensor) -> _Writer:
    """Make what writes the window of ``canvas`` that starts somewhere to a place in ``views``, mirrored and changed."""
    if canvas.device.type == "cpu" and canvas.dtype != torch.bfloat16:
        return partial(_write_backwards, canvas, canvas.numpy(), views, views.numpy())
    return partial(_write, canvas, views)


def _write(
    canvas: Tensor, views: Tensor, n: int, start: list[int], flip: list[bool], factor: float, offset: float
) -> None:
    spans = (slice(first, first + length) for first, length in zip(start, views.shape[2:], strict=True))
    index = (slice(None), *spans)
    window, view = canvas[index], views[n]
    if any(flip):
        window = window.flip([axis + 1 for axis, mirrored in enumerate(flip) if mirrored])
    if window.dtype != view.dtype:  # changed in single precision
        window = view.copy_(window)
    if (factor, offset) != (1.0, 0.0):
        torch.mul(window, factor, out=view).add_(offset)
    elif window is not view:
        view.copy_(window)


def _write_backwards(
    canvas: Tensor, array: np.ndarray, views: Tensor, target: np.ndarray,
    n: int, start: list[int], flip: list[bool], factor: float, offset: float,
) -> None:  # fmt: skip
    """The same on a CPU with fewer copies: rows are read from the last to the first where a view is mirrored.

    Along the last axis that would be slow, voxel by voxel.
    """
    changed = (factor, offset) != (1.0, 0.0)
    if changed and not any(flip):
        _write(canvas, views, n, start, flip, factor, offset)
        return
    index: list[slice] = [slice(None)]
    for axis, (first, length) in enumerate(zip(start, views.shape[2:], strict=True)):
        if flip[axis] and axis < len(flip) - 1:
            index.append(slice(first + length - 1, first - 1 if first else None, -1))
        else:
            index.append(slice(first, first + length))
    np.copyto(target[n], array[tuple(index)])
    source = views[n].flip(-1) if flip[-1] else views[n]
    if changed:
        torch.mul(source, factor, out=views[n]).add_(offset)
    elif flip[-1]:
        views[n].copy_(source)
