"""Shares of classes that patches drawn anywhere in labelled volumes hold on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def shares_in_patches(
    volumes: Sequence[Mapping[str, Any]],
    size: Sequence[int],
    num_classes: int,
    *,
    slice_axis: int | None = None,
    ignore_index: int | None = None,
) -> list[float]:
    r"""Expected share of each class in a patch that is drawn uniformly from one of the volumes.

    A voxel $x$ lies in a patch of sides $p_a$ in a volume of sides $n_a$ with probability
    $\\prod_a c_a(x_a) / (n_a - p_a + 1)$, where $c_a$ counts the places of the patch along axis $a$ that cover it; so
    the middle of a volume counts more than its rim. Sides below those of the patch are padded with background.

    Args:
        volumes: Prepared volumes with ``label`` (1, X, Y, Z).
        size: Sides of the patch in voxels; two of them for slices.
        num_classes: Classes with the background.
        slice_axis: Axis of the slices, where the patch has two sides.
        ignore_index: Label of voxels that do not count.

    Returns:
        Shares of the voxels that count, which sum to 1; all 0 where none does.

    Raises:
        ValueError: If the patch has other dimensions than the volumes, and no ``slice_axis`` makes up for it.
    """
    sides = list(size)
    if slice_axis is not None and len(sides) == 2:
        sides.insert(slice_axis, 1)
    sums = np.zeros(num_classes)
    for index in range(len(volumes)):
        label = torch.as_tensor(volumes[index]["label"]).as_subclass(Tensor)[0].cpu().numpy()
        if label.ndim != len(sides):
            raise ValueError(f"size must have as many sides as the volumes, {label.ndim}, got {tuple(size)}")
        weights = np.ones(())
        for length, side in zip(label.shape, sides, strict=True):
            weights = np.multiply.outer(weights, _covered(length, side))
        counted = (label >= 0) & (label < num_classes)
        if ignore_index is not None:
            counted &= label != ignore_index
        sums += np.bincount(label[counted].astype(np.int64), weights[counted], minlength=num_classes)
        sums[0] += max(np.prod(sides) - weights.sum(), 0.0)  # padding
    result: list[float] = (sums / max(sums.sum(), 1e-12)).tolist()
    return result


def _covered(length: int, side: int) -> np.ndarray:
    """Probability of each voxel of an axis to be in the patch, (length,)."""
    if side >= length:
        return np.ones(length)
    places = length - side + 1
    at = np.arange(length)
    first, last = np.maximum(at - side + 1, 0), np.minimum(at, places - 1)
    covered: np.ndarray = (last - first + 1) / places
    return covered


__all__ = ["shares_in_patches"]
