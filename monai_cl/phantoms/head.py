"""Around the brain: skull with marrow, muscle and fat, as shells of random thickness."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms.deformation import sample
from monai_cl.phantoms.template import FIELD_OF_VIEW, HEAD_MARGIN, distance_outside, lattice, to_grid
from monai_cl.phantoms.volume import smooth_noise

_LATTICE_MM, _CORRELATION_MM, _WANDER = 12.0, 24.0, 0.15
_SKULL, _SCALP, _MUSCLE = (5.0, 8.0), (3.0, 6.0), (6.0, 11.0)  # mm; the muscle is that of the lowest part
_MARROW = (0.3, 0.7)  # from where to where in the skull
_MARROW_FAT = 0.7
_MUSCLE_FROM, _MUSCLE_FULL = 80.0, 20.0  # height in the template in mm where muscle begins, and where it is thickest


def add_head(
    rng: np.random.Generator, fractions: Mapping[str, Tensor], in_template: Tensor, spacing: float
) -> dict[str, Tensor]:
    """Put a head around a brain.

    From the inside out: a skull without signal with marrow in its middle, muscle in the lower half, fat with the skin.
    Their thickness differs between subjects and wanders over the head by about 15 %.

    Args:
        rng: Source of the draws; equal states give equal heads whatever the spacing.
        fractions: Shares of the tissues inside the skull, of shape ``(X, Y, Z)`` each.
        in_template: Where each voxel lies in the template, of shape ``(3, X, Y, Z)``, millimetres from the first corner
            of the brain's field of view.
        spacing: Voxel size in millimetres.

    Returns:
        The shares with those of ``fat`` and ``muscle`` after them.
    """
    map_, grid = distance_outside()
    distance = sample(map_, to_grid(in_template + grid.margin, grid.spacing))[0]
    extent = [length + 2 * HEAD_MARGIN for length in FIELD_OF_VIEW]
    noise = smooth_noise(rng, lattice(extent, _LATTICE_MM), _CORRELATION_MM / _LATTICE_MM)
    distance = distance * (1 + _WANDER * sample(noise[None], to_grid(in_template + HEAD_MARGIN, _LATTICE_MM))[0])
    skull, scalp, muscle = (float(rng.uniform(*limits)) for limits in (_SKULL, _SCALP, _MUSCLE))
    height = ((_MUSCLE_FROM - in_template[2]) / (_MUSCLE_FROM - _MUSCLE_FULL)).clamp(0, 1)
    surface = skull + muscle * height

    def shell(start: float | Tensor, end: float | Tensor) -> Tensor:
        """Share of the voxel, taken as an interval along the distance, between two surfaces."""
        near, far = distance - spacing / 2, distance + spacing / 2
        low, high = torch.as_tensor(start), torch.as_tensor(end)
        return (torch.minimum(far, high) - torch.maximum(near, low)).clamp(min=0) / spacing

    free = (1 - torch.stack(list(fractions.values())).sum(0)).clamp(0, 1)
    marrow = _MARROW_FAT * shell(_MARROW[0] * skull, _MARROW[1] * skull)
    fat = marrow + shell(surface, surface + scalp)
    return {**fractions, "fat": free * fat, "muscle": free * shell(skull, surface)}
