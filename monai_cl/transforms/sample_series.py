"""Exactly k series of a study, whichever it has."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import TransformBackends
from torch import Tensor

SEQUENCES = "sequences"  # key of the names of a study's series
MAPS = "maps"  # key of its quantitative maps


class SampleSeriesd(Randomizable, MapTransform):
    r"""Draw exactly ``k`` series of a study.

    Of more series, ``k`` are drawn without replacement; of fewer, all are kept and topped up with replacement; of
    ``k``, all stay. Order is drawn too, so that no place stands for a sequence. The draw is the same for all keys.

    Args:
        keys: Keys of the series of a study: a mapping by name, a list, or a tensor (N, \*S) with one series a channel.
            Lists and tensors have their names under ``names_key``, which are drawn alike.
        k: Number of series.
        names_key: Key of the names of the series; where an item has none they are not named.
        allow_missing_keys: Skip keys that an item lacks.

    Raises:
        ValueError: If ``k`` is not positive, a study has no series, or keys and names differ in number.

    References:
        BrainMVP, arXiv 2410.10604.

    Example:
        >>> study = {"image": {"T1w": "a", "FLAIR": "b"}}
        >>> found = SampleSeriesd("image", k=4).set_random_state(seed=0)(study)
        >>> len(found["image"]), sorted(set(found["sequences"]))
        (4, ['FLAIR', 'T1w'])
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self, keys: KeysCollection, k: int = 4, *, names_key: str = SEQUENCES, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if k < 1:
            raise ValueError(f"k must be at least 1 series, got {k!r}")
        self.k = k
        self.names_key = names_key

    def randomize(self, data: int) -> list[int]:
        """Draw ``k`` of so many series, by their numbers."""
        if data < 1:
            raise ValueError("a study must have at least one series, got none; leave it out of the list")
        order = self.R.permutation(data)[: self.k]
        more = self.R.randint(data, size=max(self.k - data, 0))
        return [int(number) for number in (*order, *more)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw series; mappings become lists, with their names under ``names_key``."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        if not keys:
            return d
        names = [*d[keys[0]]] if isinstance(d[keys[0]], Mapping) else d.get(self.names_key)
        count = len(d[keys[0]])
        chosen = self.randomize(count)
        for key in keys:
            if len(d[key]) != count or (names is not None and len(names) != count):
                raise ValueError(
                    f"all keys of a study must have one number of series and a name for each, got {count} under "
                    f"{keys[0]!r}, {len(d[key])} under {key!r} and {len(names or ())} names"
                )
            d[key] = _taken(d[key], chosen, names)
        if names is not None:
            d[self.names_key] = [names[number] for number in chosen]
        return d


def _taken(series: Any, chosen: Sequence[int], names: Sequence[Any] | None) -> Any:
    if isinstance(series, Mapping):
        return [series[name] for name in (names[number] for number in chosen)] if names is not None else []
    if isinstance(series, MetaTensor):
        return MetaTensor(series.as_tensor()[list(chosen)]).copy_meta_from(series)
    if isinstance(series, (Tensor, np.ndarray)):
        return series[list(chosen)]
    return [series[number] for number in chosen]


SampleSeriesD = SampleSeriesDict = SampleSeriesd
