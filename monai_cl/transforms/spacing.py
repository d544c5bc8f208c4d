"""Resampling to a voxel size that leaves the other keys of an item alone."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Spacingd


class KeyedSpacingd(Spacingd):
    """MONAI's ``Spacingd``, shown nothing of an item but its own keys.

    MONAI 1.6.0 and 1.6.1 take every key that begins with ``image_`` for a dictionary of metadata of ``image``, and stop
    at an item that has ``image_path`` as in MONAI Label, or ``image_id`` as in many datalists, if the image is NIfTI.
    Same arguments, same voxels, same inverse.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample the volumes at the keys; everything else of the item goes on as it is."""
        own: dict[Hashable, torch.Tensor] = {key: data[key] for key in self.key_iterator(data)}
        return {**data, **super().__call__(own, lazy)}


KeyedSpacingD = KeyedSpacingDict = KeyedSpacingd
