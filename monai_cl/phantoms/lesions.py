"""Lesions of white matter: spots of random size in the template, carried along by the deformation of the subject."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from monai_cl.phantoms.deformation import sample
from monai_cl.phantoms.template import FIELD_OF_VIEW, full_template, lattice, to_grid
from monai_cl.phantoms.volume import smooth_noise

LESION = "white_matter_lesion"
MOST_LESIONS = 500  # about a quarter of the white matter
_RADII = (1.5, 7.0)  # mm, drawn on a logarithmic scale: many small ones
_ELONGATION = 1.6  # largest ratio of a half axis to the radius
_ROUGHNESS, _ROUGHNESS_MM, _LATTICE_MM = 0.25, 3.0, 3.0
_WHITE = 0.9  # least share of white matter in the template at the middle of a lesion


def add_lesions(
    rng: np.random.Generator, fractions: Mapping[str, Tensor], in_template: Tensor, number: int, spacing: float
) -> dict[str, Tensor]:
    """Turn the white and grey matter in some spots into lesion.

    A lesion is a rough ellipsoid of 1.5 to 7 mm radius around a random point of pure white matter in the template.

    Args:
        rng: Source of the draws; equal states give equal lesions whatever the spacing.
        fractions: Shares of the tissues, of shape ``(X, Y, Z)`` each.
        in_template: Where each voxel lies in the template, of shape ``(3, X, Y, Z)``, millimetres from the first corner
            of the brain's field of view.
        number: Number of lesions.
        spacing: Voxel size in millimetres, the width of their edges.

    Returns:
        The shares with those of ``white_matter_lesion`` after them.
    """
    candidates = (full_template()[0][1] > _WHITE).nonzero()
    rough = smooth_noise(rng, lattice(FIELD_OF_VIEW, _LATTICE_MM), _ROUGHNESS_MM / _LATTICE_MM)
    wander = 1 + _ROUGHNESS * sample(rough[None], to_grid(in_template, _LATTICE_MM))[0]
    inside = torch.zeros(in_template.shape[1:])
    for _ in range(number):
        centre = candidates[int(rng.integers(len(candidates)))].float() + 0.5
        radius = math.exp(rng.uniform(math.log(_RADII[0]), math.log(_RADII[1])))
        half_axes = radius * torch.from_numpy(_ELONGATION ** rng.uniform(-1, 1, 3)).float()
        offset = (in_template - centre.reshape(3, 1, 1, 1)) / half_axes.reshape(3, 1, 1, 1)
        outside = (offset.square().sum(0).sqrt() * wander - 1) * radius  # mm beyond the surface, about
        inside = torch.maximum(inside, (0.5 - outside / max(spacing, 1.0)).clamp(0, 1))
    result = dict(fractions)
    result[LESION] = inside * (fractions["white_matter"] + fractions["grey_matter"])
    for name in ("grey_matter", "white_matter"):
        result[name] = fractions[name] * (1 - inside)
    return result
