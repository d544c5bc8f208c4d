"""Weights of draws and groups of batches, by fields of the datalist."""

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_cl._words import suggestion

logger = logging.getLogger(__name__)


def field_of(volumes: Any, key: str) -> list[Hashable]:
    """Value of a field of each prepared volume, as text where it is no number.

    Args:
        volumes: A :class:`monai_cl.data.PreparedDataset`, or any dataset of dictionaries.
        key: Field of the datalist.

    Raises:
        ValueError: If a volume lacks it.
    """
    read = getattr(volumes, "stored", volumes.__getitem__)  # what is on disk stays there
    items = [read(index) for index in range(len(volumes))]
    without = [str(item.get("case", index)) for index, item in enumerate(items) if item.get(key) is None]
    if without:
        raise ValueError(
            f"each volume needs the field {key!r} in the datalist, {len(without)} of {len(items)} have none, such as "
            f"{', '.join(without[:5])}; add it to their entries"
        )
    return [item[key] if isinstance(item[key], int) else str(item[key]) for item in items]


def source_weights(
    volumes: Any,
    weights: Mapping[str, float] | None,
    *,
    key: str = "source",
    among: Sequence[Mapping[str, Any]] | None = None,
) -> list[float] | None:
    r"""Probability of each volume, :math:`p_i = w_{s(i)} / (n_{s(i)} \sum_s w_s)`, or ``None`` without weights.

    A source's volumes share its weight: with weights 1 and 2 the second is drawn twice as often as the first, however
    many volumes each has. As no volume is twice in a batch, a source gives a batch no more than it has.

    Args:
        volumes: Prepared volumes; where several processes share them, each weighs its own part.
        weights: Weight of each source by its name in the datalist, relative to the others.
        key: Field of the datalist that names the source.
        among: All items of the run, of which these volumes are this process's readable part: a source that is named
            must be one of theirs. The volumes themselves when left out.

    Raises:
        ValueError: If a weight is not positive, a name is unknown, or a source of the volumes has no weight.
    """
    if not weights:
        return None
    sources = [str(source) for source in field_of(volumes, key)]
    given = {str(name): weight for name, weight in weights.items()}
    counts = Counter(sources)
    known = counts if among is None else Counter(str(item.get(key)) for item in among)
    for name, weight in given.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not (number and 0 < weight < float("inf")):
            raise ValueError(
                f"source_weights must be positive numbers, got {weight!r} for {name!r}; to leave a source out, take "
                "its entries out of the datalist"
            )
        if name not in known:
            hint = suggestion(name, known, form="did you mean {!r}? ")
            raise ValueError(
                f"source_weights names {name!r}, no volume has it as {key!r}; {hint}known are {_list(known)}"
            )
    missing = {name: count for name, count in counts.items() if name not in given}
    if missing:
        raise ValueError(f"source_weights must name every source, it lacks {_list(missing)}; give each a weight")
    total = sum(given.values())
    return [given[source] / (counts[source] * total) for source in sources]


class BatchDraw:
    """Distinct items of a batch, by their weights and out of one group.

    An item is in a batch with the probability ``batch_size`` times its share of the weights. Since none is twice in a
    batch that is 1 at most: what a very heavy item has beyond is shared out to the others, and the log reports it.

    Args:
        num_items: Number of items.
        batch_size: Items a batch.
        weights: Relative probability of each item, all alike when left out.
        groups: Group of each item: a batch is drawn from one group, each as often as its items weigh together.
            Groups smaller than a batch are left out, and the log names them.

    Raises:
        ValueError: If the numbers of items disagree, no group is large enough for a batch, a weight is no number of at
            least 0, or fewer items of a group than a batch have one above 0.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        *,
        weights: Sequence[float] | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> None:
        for name, values in (("weights", weights), ("groups", groups)):
            if values is not None and len(values) != num_items:
                raise ValueError(f"{name} must have one entry for each of {num_items} items, got {len(values)}")
        self.batch_size = batch_size
        share = np.ones(num_items) if weights is None else np.asarray(weights, dtype=float)
        _, names = np.unique([""] * num_items if groups is None else list(map(str, groups)), return_inverse=True)
        members = [np.flatnonzero(names == name) for name in range(names.max() + 1)]
        self._members = [each for each in members if len(each) >= batch_size]
        if groups is not None:
            self._log_groups_left_out(members, groups)
        self._check_weights(share)
        self._within = [_inclusion(share[each], batch_size) for each in self._members]
        if any((share[each] * batch_size > share[each].sum() * (1 + 1e-9)).any() for each in self._members):
            logger.warning(
                "weights ask for some volumes more than once a batch of %d; they are in every batch, and their source "
                "is drawn less often than asked for: use a smaller batch, or weights that differ less",
                batch_size,
            )
        whole = np.array([share[each].sum() for each in self._members])
        self._which = whole / whole.sum()

    def _check_weights(self, weights: np.ndarray) -> None:
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError("weights must be numbers of at least 0; leave out of the datalist what is not to be drawn")
        fewest = min(int((weights[each] > 0).sum()) for each in self._members)
        if fewest < self.batch_size:
            raise ValueError(
                f"at least {self.batch_size} items, as many as a batch, must have a weight above 0, got {fewest}; use "
                "a smaller batch_size or more weights"
            )

    def __call__(self, generator: np.random.Generator) -> np.ndarray:
        """Items of one batch."""
        number = generator.choice(len(self._members), p=self._which)
        members, within = self._members[number], self._within[number]
        if np.ptp(within) == 0:
            return generator.choice(members, self.batch_size, replace=False, p=within / within.sum())
        return np.asarray(members[_systematic(within, self.batch_size, generator)])

    def _log_groups_left_out(self, members: list[np.ndarray], groups: Sequence[Hashable]) -> None:
        small = {str(groups[each[0]]): len(each) for each in members if len(each) < self.batch_size}
        if len(small) == len(members):
            raise ValueError(
                f"a batch of {self.batch_size} volumes is drawn from one group, and none is as large: {_list(small)}; "
                "use a smaller batch_size or fewer groups"
            )
        if small:
            logger.warning(
                "groups with fewer volumes than a batch of %d are not drawn: %s", self.batch_size, _list(small)
            )


def _inclusion(weights: np.ndarray, count: int) -> np.ndarray:
    """Probability of each of N items to be among ``count`` distinct ones: in proportion to its weight, 1 at most."""
    full = np.zeros(len(weights), dtype=bool)
    while True:
        rest = np.where(full, 0.0, weights)
        chance = np.where(full, 1.0, (count - full.sum()) * rest / max(rest.sum(), np.finfo(float).tiny))
        beyond = (chance > 1) & ~full
        if not beyond.any():
            return np.asarray(chance)
        full |= beyond


def _systematic(chance: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Exactly ``count`` distinct items, each with its probability (Madow's systematic sampling, in random order).

    Items are laid end to end, as long as they are probable; marks at equal distances of 1 from a random start each
    fall on another one.
    """
    order = generator.permutation(len(chance))
    ends = np.cumsum(chance[order])
    marks = generator.random() + np.arange(count)
    result = np.searchsorted(ends * (count / ends[-1]), marks, side="right")
    return np.asarray(generator.permutation(order[result]))


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
