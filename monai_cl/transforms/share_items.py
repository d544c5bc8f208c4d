"""Sharing of a volume under several names, without a copy."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import TransformBackends, ensure_tuple


class ShareItemsd(MapTransform):
    """Give items a further name, so that one volume goes through two chains, as for crops of two kinds.

    Unlike MONAI's ``CopyItemsd`` nothing is copied, and a volume that stays on disk stays there: what comes after must
    not write into it. Transforms that crop do not.

    Args:
        keys: Keys of the items.
        names: Further name of each.
        allow_missing_keys: Skip keys that an item lacks.

    Raises:
        ValueError: If the numbers of names and keys differ, or a name is taken.

    Example:
        >>> found = ShareItemsd("image", "pair")({"image": 3})
        >>> found == {"image": 3, "pair": 3}
        True
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 - MONAI's contract
    takes_stored = True

    def __init__(self, keys: KeysCollection, names: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names: tuple[Hashable, ...] = ensure_tuple(names)
        if len(self.names) != len(self.keys):
            raise ValueError(f"names must have one entry for each key, got {len(self.names)} for {len(self.keys)}")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with the further names."""
        d = dict(data)
        for key, name in self.key_iterator(data, self.names):
            if name in d:
                raise ValueError(f"names must be new to the item, {name!r} is taken; choose another")
            d[name] = d[key]
        return d


ShareItemsD = ShareItemsDict = ShareItemsd
