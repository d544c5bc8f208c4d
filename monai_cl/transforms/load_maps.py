"""Quantitative maps of one subject as the start of a chain of MONAI transforms."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import TransformBackends, convert_to_tensor

from monai_cl.io.maps.finding import maps_by_name
from monai_cl.io.maps.fractions import fractions_by_tissue
from monai_cl.qmri import from_weighted_rates, to_weighted_rates
from monai_cl.transforms.map_values import load_fractions, load_maps


class LoadMapsd(MapTransform):
    """Replace the files of a subject's quantitative maps by the maps, (M, X, Y, Z), in the units of ``monai_cl.qmri``.

    Args:
        keys: Keys of files: a folder of one subject, files by BIDS suffix, or a list of files with BIDS or hMRI names;
            see :func:`monai_cl.data.load_maps`.
        maps: Channels wanted, in this order; all of them when left out.
        units: Units by suffix, where sidecars have none or a wrong one.
        fractions: Names of tissues whose fractions follow the maps as further channels, as
            :class:`~monai_cl.transforms.RandMRContrast` takes them to mix partial volume.
        fractions_key: Key of their files (``sub-01_label-GM_probseg.nii.gz``), as :func:`monai_cl.data.map_items` gives
            them; it is dropped, whether they are wanted or not.
        allow_missing_keys: Skip keys that an item lacks.

    Raises:
        ValueError: If a map or a fraction is missing, unreadable or on another grid, or its unit is ambiguous.

    Example:
        >>> LoadMapsd("image", maps=["pd", "t1"])({"image": ["a_PDmap.nii.gz", "a_R1map.nii.gz"]})  # doctest: +SKIP
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self,
        keys: KeysCollection,
        maps: Sequence[str] | None = None,
        *,
        units: Mapping[str, str] | None = None,
        fractions: Sequence[str] = (),
        fractions_key: str = "fractions",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.maps = maps
        self.units = units
        self.fractions = tuple(fractions)
        self.fractions_key = fractions_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the maps under each key."""
        d = dict(data)
        files = d.pop(self.fractions_key, ())
        shares = fractions_by_tissue(files) if self.fractions else {}
        for key in self.key_iterator(d):
            source = maps_by_name(d[key]) if isinstance(d[key], list) else d[key]
            maps = load_maps(source, maps=self.maps, units=self.units)
            if self.fractions:
                channels = torch.cat([maps, load_fractions(shares, self.fractions, maps)])
                maps = MetaTensor(channels.as_subclass(torch.Tensor)).copy_meta_from(maps)
            d[key] = maps
        return d


class WeightedRatesd(MapTransform):
    """Bring maps into a form that may be interpolated, or back: see :func:`monai_cl.qmri.to_weighted_rates`.

    Args:
        keys: Keys of maps (M, *S).
        maps: Names of their channels.
        back: Whether to go back to maps.
        allow_missing_keys: Skip keys that an item lacks.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self, keys: KeysCollection, maps: Sequence[str], *, back: bool = False, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.maps = tuple(maps)
        self.back = back

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the maps under each key."""
        d = dict(data)
        convert = from_weighted_rates if self.back else to_weighted_rates
        for key in self.key_iterator(d):
            maps: MetaTensor = convert_to_tensor(d[key], track_meta=True)
            d[key] = MetaTensor(convert(maps.as_tensor(), self.maps)).copy_meta_from(maps)
        return d


LoadMapsD = LoadMapsDict = LoadMapsd
WeightedRatesD = WeightedRatesDict = WeightedRatesd
