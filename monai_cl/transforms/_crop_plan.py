"""Plan of the views of a volume: what is drawn, and where their windows lie."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from monai_cl.transforms._view_changes import ViewChanges


@dataclass(frozen=True)
class CropPlan:
    """Everything drawn for one volume: applying it draws nothing more.

    Attributes:
        padding: Voxels added before and after each axis, (nd, 2).
        canvas_start: First voxel of the canvas in the padded volume, (nd,).
        crop_starts: First voxel of each crop in the canvas, (S, nd).
        flips: Whether a view is mirrored along each axis, (S + K, nd), crops first.
        scales: Intensity factor of each view, (S + K,).
        shifts: Intensity offset of each view, (S + K,).
        changes: Turns, blur, bias and noise of each view; None without.
    """

    padding: np.ndarray
    canvas_start: np.ndarray
    crop_starts: np.ndarray
    flips: np.ndarray
    scales: np.ndarray
    shifts: np.ndarray
    changes: ViewChanges | None = None


def window_centers(starts: np.ndarray, sizes: np.ndarray, affine: Tensor | None) -> Tensor:
    """Centres of windows in mm, (N, nd): voxel i covers [i - 1/2, i + 1/2) in the affine's sense."""
    index = starts + (sizes - 1) / 2
    if affine is None:
        return torch.as_tensor(index, dtype=torch.float32)
    nd, a = index.shape[1], np.asarray(affine, dtype=np.float64)
    matrix, origin = a[:-1, :nd], a[:-1, -1]
    if matrix[nd:].any():  # a plane or line aslant to the first axes of the world: along its own ones
        own, _ = np.linalg.qr(matrix)
        left, _, right = np.linalg.svd(own[:nd].T)
        own = own @ left @ right  # those nearest to the first axes of the world, so that a small tilt changes little
        matrix, origin = own.T @ matrix, own.T @ origin
    return torch.as_tensor(index @ matrix[:nd].T + origin[:nd], dtype=torch.float32)


def places_alone(plan: CropPlan) -> CropPlan:
    """The plan without what changes intensities."""
    n, kept = len(plan.scales), plan.changes
    if kept is not None:
        none = np.zeros(n)
        kept = replace(kept, blurs=none, biases=np.zeros_like(kept.biases), noises=none)
    return replace(plan, scales=np.ones(n), shifts=np.zeros(n), changes=kept)


def with_other_noise(plan: CropPlan, number: int) -> CropPlan:
    """The plan for another image of the same places; the first one, number 0, has the noise as it was drawn."""
    if plan.changes is None or number == 0:
        return plan
    seed = (plan.changes.seed + number * len(plan.scales)) % 2**32
    return replace(plan, changes=replace(plan.changes, seed=seed))
