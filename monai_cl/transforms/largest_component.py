r"""Largest connected component of each class: by SciPy on a CPU, by hooking and jumping of pointers on a device.

On a device nothing is copied to the CPU. Each voxel points at a voxel of its component, itself at first. In a round it
looks at what its neighbours of the same class point at, passes the smallest such index to the voxel that it pointed at,
and then points where that one points. Rounds grow with the logarithm of a component's length; at the end all voxels of
a component point at its first one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

_ROUNDS = 4  # between looks at the device, each of which waits for it


def keep_largest(labels: Tensor, classes: Sequence[int], connectivity: int | None = 1) -> Tensor:
    r"""Labels (B, 1, \*S) in which all but the largest connected component of some classes is background.

    Of components of one size the first is kept, a class that is missing changes nothing. Labels of a CPU are looked
    at by SciPy, those of another device there; the result is the same.

    Args:
        labels: Class of each voxel.
        classes: The classes.
        connectivity: Axes along which neighbours may differ at once; None for all.

    Raises:
        ValueError: If ``connectivity`` is above the number of axes.
    """
    axes = labels.ndim - 2
    if connectivity is not None and connectivity > axes:
        raise ValueError(f"connectivity must be at most {axes}, the number of spatial axes, got {connectivity!r}")
    structure = ndimage.generate_binary_structure(axes, connectivity or axes)
    return on_cpu(labels, classes, structure) if labels.device.type == "cpu" else on_device(labels, classes, structure)


def on_cpu(labels: Tensor, classes: Sequence[int], structure: np.ndarray) -> Tensor:
    """The same by SciPy, with neighbours given by a structuring element."""
    kept = labels.numpy().copy()
    for image in kept[:, 0]:
        for one in classes:
            image[_but_largest(image == one, structure)] = 0
    return torch.from_numpy(kept)


def on_device(labels: Tensor, classes: Sequence[int], structure: np.ndarray) -> Tensor:
    """The same by whole tensors, where they are."""
    if not classes or not labels.numel():
        return labels.clone()
    chosen = torch.isin(labels[:, 0], torch.as_tensor(list(classes), device=labels.device))
    first = _first_of_component(labels[:, 0], chosen, structure)
    size = torch.zeros_like(first).scatter_add_(0, first, torch.ones_like(first))
    # of an image and a class: by size, then by place, the first one first
    rank = size * len(first) + (len(first) - 1 - torch.arange(len(first), device=first.device))
    known = labels.flatten().long().clamp(min=0)
    image = torch.arange(len(labels), device=first.device).repeat_interleave(labels[0].numel())
    group = image * (max(classes) + 1) + known.clamp(max=max(classes))
    marked = torch.where(chosen.flatten(), rank, -1)
    best = torch.full((len(labels) * (max(classes) + 1),), -1, device=first.device, dtype=torch.long)
    best.scatter_reduce_(0, group, marked, "amax")
    dropped = chosen.flatten() & (rank[first] != best[group])
    return labels.masked_fill(dropped.view_as(labels), 0)


def _first_of_component(labels: Tensor, chosen: Tensor, structure: np.ndarray) -> Tensor:
    """Flat index of the first voxel of each voxel's component, (N,); of voxels that are not chosen their own."""
    pairs = [_pair(labels, chosen, offset) for offset in _half_of(structure)]
    first = torch.arange(labels.numel(), device=labels.device)
    while True:
        before = first
        for _ in range(_ROUNDS):
            first = _hook_and_jump(first, labels.shape, pairs)
        if torch.equal(first, before):
            return first


_Pair = tuple[tuple[slice, ...], tuple[slice, ...], Tensor]


def _hook_and_jump(first: Tensor, shape: Sequence[int], pairs: Sequence[_Pair]) -> Tensor:
    grid = first.view(*shape)
    result = grid.clone()
    for here, there, alike in pairs:
        mine, other = grid[here], grid[there]
        result[here] = torch.where(alike, torch.minimum(result[here], other), result[here])
        result[there] = torch.where(alike, torch.minimum(result[there], mine), result[there])
    hooked = result.flatten().scatter_reduce(0, first, result.flatten(), "amin")
    return hooked[hooked]


def _pair(labels: Tensor, chosen: Tensor, offset: Sequence[int]) -> _Pair:
    """Voxels that have a neighbour at an offset, those neighbours, and which pairs of them are of one component."""
    sides = list(zip(offset, labels.shape[1:], strict=True))
    here = (slice(None), *(slice(max(-step, 0), side - max(step, 0)) for step, side in sides))
    there = (slice(None), *(slice(max(step, 0), side - max(-step, 0)) for step, side in sides))
    return here, there, (labels[here] == labels[there]) & chosen[here]


def _half_of(structure: np.ndarray) -> list[tuple[int, ...]]:
    """Offsets of neighbours, one of each two opposite ones."""
    offsets = [tuple(int(o) - 1 for o in place) for place in np.argwhere(structure)]
    return [offset for offset in offsets if offset > (0,) * structure.ndim]


def _but_largest(mask: np.ndarray, structure: np.ndarray) -> np.ndarray:
    components, number = ndimage.label(mask, structure)
    if number < 2:
        return np.zeros_like(mask)
    sizes = np.bincount(components.ravel())[1:]
    return np.asarray(mask & (components != 1 + sizes.argmax()))
