"""Dictionary form of the views for volume contrast."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple

from monai_cl.transforms._crop_plan import CropPlan, with_other_noise
from monai_cl.transforms.volume_contrast_crops import VolumeContrastCrops


class VolumeContrastCropsd(Randomizable, MapTransform):
    """Dictionary form of :class:`VolumeContrastCrops`: each key's volume is replaced by its dictionary of views.

    All keys share one plan, so their crops lie at the same places and change alike, each with noise of its own; they
    must have the same spatial shape. Views are float32.

    Args:
        keys: Keys of channel-first volumes.
        grid: As in :class:`VolumeContrastCrops`, which takes all further arguments.
        crop_size: Edge lengths of a random crop in voxels.
        num_crops: Random crops a volume.
        intensity_keys: Those of them whose intensities are changed, all when left out: leave label maps out.
        allow_missing_keys: Skip keys that an item lacks.
        **kwargs: Further arguments of :class:`VolumeContrastCrops`.

    Raises:
        ValueError: If ``intensity_keys`` are not among ``keys``, or volumes differ in shape.
    """

    backend = VolumeContrastCrops.backend
    takes_stored = True

    def __init__(
        self,
        keys: KeysCollection,
        grid: Sequence[int],
        crop_size: Sequence[int],
        num_crops: int = 2,
        *,
        intensity_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.intensity_keys = self.keys if intensity_keys is None else ensure_tuple(intensity_keys)
        if unknown := set(self.intensity_keys) - set(self.keys):
            raise ValueError(f"intensity_keys must be among keys {self.keys}, got {sorted(map(str, unknown))}")
        self.crops = VolumeContrastCrops(grid, crop_size, num_crops, **kwargs)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "VolumeContrastCropsd":
        """Seed this transform and the array transform it owns."""
        super().set_random_state(seed, state)
        self.crops.set_random_state(seed, state)
        return self

    def randomize(self, data: Sequence[int]) -> CropPlan:
        """Draw one plan for all keys."""
        return self.crops.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key's volume by its views."""
        d = dict(data)
        present = list(self.key_iterator(d))
        if not present:
            return d
        shape = tuple(d[present[0]].shape[1:])
        for key in present:
            if tuple(d[key].shape[1:]) != shape:
                raise ValueError(
                    f"all keys must have one spatial shape, got {shape} for {present[0]!r} and "
                    f"{tuple(d[key].shape[1:])} for {key!r}; resample them to one grid first"
                )
        plan = self.randomize(shape)
        for place, key in enumerate(present):
            own = with_other_noise(plan, place)
            d[key] = self.crops.apply(d[key], own, intensities=key in self.intensity_keys)
        return d


VolumeContrastCropsD = VolumeContrastCropsDict = VolumeContrastCropsd
