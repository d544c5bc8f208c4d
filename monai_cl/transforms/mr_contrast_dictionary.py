"""Dictionary form of the simulation of MR contrasts."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor

from monai_cl.qmri import Family, Protocol
from monai_cl.transforms.mr_contrast import MAPS, RandMRContrast
from monai_cl.transforms.mr_record import MRRecord


class RandMRContrastd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandMRContrast`: the maps under each key are replaced by a simulated image.

    All keys share one record, so maps of one subject on several grids give the same contrast. For two contrasts of one
    subject copy the maps and use the transform once a key.

    Args:
        keys: Keys of maps (M, *S).
        sequences: As in :class:`RandMRContrast`, which takes all further arguments.
        maps: Names of the channels.
        fractions_key: Key of tissue fractions (T, *S), where they are apart from the maps; the names of the tissues
            are given by ``fractions``.
        allow_missing_keys: Skip keys that an item lacks.
        **kwargs: Further arguments of :class:`RandMRContrast`.

    Raises:
        ValueError: As :class:`RandMRContrast`, and if ``fractions_key`` comes without ``fractions``.
        KeyError: If an item lacks a key.

    Example:
        >>> transform = RandMRContrastd("maps", ["t1w_se"]).set_random_state(seed=0)
        >>> transform({"maps": torch.ones(5, 4, 4, 4)})["maps"].shape
        torch.Size([1, 4, 4, 4])
    """

    backend = RandMRContrast.backend

    def __init__(
        self,
        keys: KeysCollection,
        sequences: Sequence[str | Family | Protocol] | None = None,
        maps: Sequence[str] = MAPS,
        *,
        fractions_key: str | None = None,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.contrast = RandMRContrast(sequences, maps, **kwargs)
        self.fractions_key = fractions_key
        if fractions_key is not None and not self.contrast.fractions:
            raise ValueError(f"fractions must name the tissues under fractions_key {fractions_key!r}, got none")

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandMRContrastd":
        """Seed this transform and the array transform it owns."""
        super().set_random_state(seed, state)
        self.contrast.set_random_state(seed, state)
        return self

    def randomize(self, data: Sequence[int]) -> MRRecord:
        """Draw one record for all keys."""
        return self.contrast.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the maps under each key by an image."""
        d = dict(data)
        present = list(self.key_iterator(d))
        if not present:
            return d
        record = self.randomize(tuple(d[present[0]].shape[1:]))
        for key in present:
            d[key] = self.contrast.apply(self._joined(d, key), record)
        return d

    def _joined(self, d: Mapping[Hashable, Any], key: Hashable) -> Any:
        if self.fractions_key is None:
            return d[key]
        maps, fractions = (convert_to_tensor(d[k], track_meta=False) for k in (key, self.fractions_key))
        if maps.shape[1:] != fractions.shape[1:]:
            raise ValueError(
                f"{key!r} and {self.fractions_key!r} must have one spatial shape, got {tuple(maps.shape[1:])} and "
                f"{tuple(fractions.shape[1:])}; resample them to one grid first"
            )
        joined = torch.cat([maps, fractions.to(maps)])
        return MetaTensor(joined).copy_meta_from(d[key]) if isinstance(d[key], MetaTensor) else joined


RandMRContrastD = RandMRContrastDict = RandMRContrastd
