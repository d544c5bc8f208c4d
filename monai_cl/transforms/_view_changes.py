"""Changes of views that are more than indexing: quarter turns, blur, bias fields, noise; all views in one step each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_ORDER = 3  # of the polynomial of a bias field
_REACH = 3.0  # standard deviations that a blur looks to each side


@dataclass(frozen=True)
class ViewChanges:
    """Changes drawn for each of N views; nothing is done where a number is 0.

    Attributes:
        turns: Quarter turns in the plane of the first two axes, (N,).
        blurs: Standard deviations of the Gaussian in voxels, (N,).
        biases: Coefficients of the terms of the logarithm of the field, (N, terms), see :func:`field_terms`.
        noises: Standard deviations of the noise, (N,).
        seed: Of the noise.
    """

    turns: np.ndarray
    blurs: np.ndarray
    biases: np.ndarray
    noises: np.ndarray
    seed: int

    def part(self, which: slice) -> "ViewChanges":
        """Changes of some of the views; their noise is another one than that of views before them."""
        start = which.start or 0
        return ViewChanges(
            self.turns[which], self.blurs[which], self.biases[which], self.noises[which], (self.seed + start) % 2**32
        )


def changed(views: Tensor, changes: ViewChanges) -> Tensor:
    """Views (N, C, *S) turned, then blurred, then with a field, then with noise, as in a scanner; in place."""
    for quarter in range(1, 4):
        at = _where(changes.turns == quarter, views)
        if len(at):
            views[at] = torch.rot90(views[at], quarter, (2, 3))
    at = _where(changes.blurs > 0, views)
    if len(at):
        views[at] = _blurred(views[at], changes.blurs[changes.blurs > 0])
    biased = changes.biases.any(axis=1)
    at = _where(biased, views)
    if len(at):
        views[at] *= _fields(changes.biases[biased], views)
    at = _where(changes.noises > 0, views)
    if len(at):
        generator = torch.Generator().manual_seed(changes.seed)  # of the CPU, whose numbers no device changes
        noise = torch.randn(views[at].shape, generator=generator).to(views.device)
        views[at] += noise * _each(changes.noises[changes.noises > 0], views)
    return views


def field_terms(spatial_dims: int) -> list[tuple[int, ...]]:
    """Powers along the axes of the terms of a bias field: all of order 1 to 3."""
    powers = product(range(_ORDER + 1), repeat=spatial_dims)
    return [term for term in powers if 0 < sum(term) <= _ORDER]


def _where(chosen: np.ndarray | np.bool_, like: Tensor) -> Tensor:
    return torch.as_tensor(np.flatnonzero(chosen), device=like.device)


def _each(values: np.ndarray, like: Tensor) -> Tensor:
    """A number for each view, to multiply views with."""
    column = torch.as_tensor(values, dtype=like.dtype, device=like.device)
    return column.reshape(-1, *[1] * (like.ndim - 1))


def _fields(coefficients: np.ndarray, views: Tensor) -> Tensor:
    """Fields (N, 1, *S): exponentials of polynomials of the place, which is -1 to 1 along each axis."""
    size: Sequence[int] = views.shape[2:]
    axes = [torch.linspace(-1, 1, n, dtype=views.dtype, device=views.device) for n in size]
    terms = []
    for powers in field_terms(len(size)):
        term = views.new_ones(())
        for axis, power in zip(axes, powers, strict=True):
            term = term[..., None] * axis**power
        terms.append(term)
    weights = torch.as_tensor(coefficients, dtype=views.dtype, device=views.device)
    return torch.einsum("nt,t...->n...", weights, torch.stack(terms)).exp()[:, None]


def _blurred(views: Tensor, sigmas: np.ndarray) -> Tensor:
    """Views (N, C, *S), each with a Gaussian of its own, one axis after the other; the border goes on as it ends."""
    n, channels = views.shape[:2]
    reach = math.ceil(_REACH * float(sigmas.max()))
    offsets = torch.arange(-reach, reach + 1, dtype=views.dtype, device=views.device)
    kernels = torch.exp(
        -0.5 * (offsets / torch.as_tensor(sigmas, dtype=views.dtype, device=views.device)[:, None]) ** 2
    )
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)  # (N * C, taps)
    for axis in range(2, views.ndim):
        rows = views.movedim(axis, -1)  # (N, C, others, S_axis)
        shape = rows.shape
        flat = rows.reshape(n * channels, -1, shape[-1]).transpose(0, 1)  # each view and channel is a group
        padded = F.pad(flat, (reach, reach), mode="replicate")
        flat = F.conv1d(padded, kernels[:, None], groups=n * channels).transpose(0, 1)
        views = flat.reshape(shape).movedim(-1, axis)
    return views
