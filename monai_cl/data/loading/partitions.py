"""Slices and slabs by their relative position in the volume, and batches of volumes x partitions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from monai_cl.datalist import Item, subject_of


class PartitionDraw(NamedTuple):
    """Draw of one slab of one volume.

    Attributes:
        volume: Index of the volume.
        start: First slice of the slab.
        partition: Partition that the slab is in.
        seed: Seed of its random transforms.
    """

    volume: int
    start: int
    partition: int
    seed: int


def partition_of(start: int, depth: int, n_parts: int, *, slab: int = 1) -> int:
    """Partition of the slab that begins at a slice: ``floor(n_parts * start / number of starts)``.

    Every start is in exactly one partition, in order; sizes differ by one at most. With fewer starts than partitions
    some are empty.

    Args:
        start: First slice, 0 to ``depth - slab``.
        depth: Slices of the volume.
        n_parts: Number of partitions.
        slab: Slices of a slab; 1 for slices.

    Raises:
        ValueError: If the slab does not lie in the volume, or ``n_parts`` is not positive.

    Example:
        >>> [partition_of(i, 10, 4) for i in range(10)]
        [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    """
    starts = _starts(depth, n_parts, slab)
    if not 0 <= start < starts:
        raise ValueError(f"start must be between 0 and {starts - 1} (depth {depth}, slab {slab}), got {start}")
    return n_parts * start // starts


def partition_starts(
    depth: int, n_parts: int, *, slab: int = 1, among: Sequence[int] | None = None
) -> list[Sequence[int]]:
    """Starts of the slabs of each partition; see :func:`partition_of`.

    Args:
        depth: Slices of the volume.
        n_parts: Number of partitions.
        slab: Slices of a slab.
        among: Starts to choose from, rising; all where left out. Partitions do not depend on them.

    Example:
        >>> partition_starts(3, 2), partition_starts(9, 3, among=[0, 2, 8])
        ([range(0, 2), range(2, 3)], [[0, 2], [], [8]])
    """
    starts = _starts(depth, n_parts, slab)
    bounds = [-(-part * starts // n_parts) for part in range(n_parts + 1)]
    parts = [range(low, high) for low, high in pairwise(bounds)]
    if among is None or among == range(starts):
        return list(parts)
    return [[start for start in among if start in part] for part in parts]


def relative_position(start: int, depth: int, *, slab: int = 1) -> float:
    """Centre of a slab as a share of the volume, between 0 and 1.

    Example:
        >>> relative_position(1, 10)
        0.15
    """
    return (start + slab / 2) / depth


def positioned_items(
    items: Iterable[Mapping[str, Any]], depths: Sequence[int], n_parts: int, *, slab: int = 1
) -> list[Item]:
    """Items with their positions, one for each slab of each volume.

    Args:
        items: Items of a datalist, one a volume.
        depths: Slices of each volume along the body.
        n_parts: Number of partitions.
        slab: Slices of a slab.

    Returns:
        Copies of the items with ``"subject"``, ``"volume"`` (index), ``"start"``, ``"position"`` and ``"partition"``.

    Raises:
        ValueError: If the number of depths differs from that of items, or a volume is thinner than a slab.
    """
    items = list(items)
    _check_lengths("depths", len(depths), len(items))
    return [
        {
            **item,
            "subject": subject_of(item),
            "volume": volume,
            "start": start,
            "position": relative_position(start, depth, slab=slab),
            "partition": partition,
        }
        for volume, (item, depth) in enumerate(zip(items, depths, strict=True))
        for partition, starts in enumerate(partition_starts(depth, n_parts, slab=slab))
        for start in starts
    ]


class PartitionBatchSampler(Sampler[list[PartitionDraw]]):
    """Batches of one slab of each partition of some volumes, all of different patients, also across processes.

    A pass takes patients in an order drawn for it; one with several volumes gives them in turn, pass by pass. A rest
    smaller than a batch waits for another pass's order. Every process draws the same order and takes
    its own part, and a batch follows from the seed and its number alone.

    Args:
        volumes_per_batch: Volumes of a batch of one process.
        n_parts: Number of partitions; one that is empty, in a volume of few slices, gives no slab.
        depths: Slices of each volume along the body.
        subjects: Patient of each volume; by default each is one of its own.
        slab: Slices of a slab, 1 for slices.
        starts: First slices of each volume that may be drawn, such as :attr:`monai_cl.data.SliceDataset.starts`; all
            where left out.
        steps: Batches of the whole run, beginning at :attr:`start`; by default one pass, chosen by :meth:`set_epoch`.
        seed: Seed of the run.
        rank: This process's number.
        num_replicas: Number of processes.

    Raises:
        ValueError: If a batch needs more patients than given, a volume is thinner than a slab, or lengths differ.

    Example:
        >>> sampler = PartitionBatchSampler(2, 4, depths=[10, 12, 9])
        >>> [[draw.partition for draw in batch] for batch in sampler]
        [[0, 1, 2, 3, 0, 1, 2, 3]]
    """

    def __init__(
        self,
        volumes_per_batch: int,
        n_parts: int,
        *,
        depths: Sequence[int],
        subjects: Sequence[str] | None = None,
        slab: int = 1,
        starts: Sequence[Sequence[int]] | None = None,
        steps: int | None = None,
        seed: int = 0,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        if subjects is not None:
            _check_lengths("subjects", len(subjects), len(depths))
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank must be between 0 and {num_replicas - 1}, got {rank}")
        if starts is not None:
            _check_lengths("starts", len(starts), len(depths))
        self._starts = [
            partition_starts(depth, n_parts, slab=slab, among=None if starts is None else starts[volume])
            for volume, depth in enumerate(depths)
        ]
        groups: dict[str, list[int]] = {}
        for volume in range(len(depths)):
            groups.setdefault(str(volume if subjects is None else subjects[volume]), []).append(volume)
        self._groups = list(groups.values())
        together = volumes_per_batch * num_replicas
        if not 1 <= together <= len(self._groups):
            raise ValueError(
                f"volumes_per_batch x num_replicas must be between 1 and the number of patients "
                f"({len(self._groups)}), got {volumes_per_batch} x {num_replicas}; use fewer volumes a batch"
            )
        self.volumes_per_batch = volumes_per_batch
        self.n_parts = n_parts
        self.steps = steps
        self.seed = seed
        self.rank = rank
        self.num_replicas = num_replicas
        self.epoch = 0
        self.start = 0

    @property
    def per_pass(self) -> int:
        """Batches of one pass over the patients."""
        return len(self._groups) // (self.volumes_per_batch * self.num_replicas)

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass that the next iteration gives, where ``steps`` is not set."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.per_pass if self.steps is None else max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[list[PartitionDraw]]:
        first = self.epoch * self.per_pass if self.steps is None else self.start
        for step in range(first, first + len(self)):
            yield self.batch(step)

    def batch(self, step: int) -> list[PartitionDraw]:
        """The batch of a step, volume by volume, each in order of partitions."""
        number, within = divmod(step, self.per_pass)
        order = np.random.default_rng([self.seed, 0, number]).permutation(len(self._groups))
        begin = (within * self.num_replicas + self.rank) * self.volumes_per_batch
        draw = np.random.default_rng([self.seed, 1, step, self.rank])
        result = []
        for group in order[begin : begin + self.volumes_per_batch]:
            volume = self._groups[group][number % len(self._groups[group])]
            for partition, starts in enumerate(self._starts[volume]):
                if starts:
                    start, seed = starts[int(draw.integers(len(starts)))], int(draw.integers(2**32))
                    result.append(PartitionDraw(volume, start, partition, seed))
        return result


def _starts(depth: int, n_parts: int, slab: int) -> int:
    if n_parts < 1 or slab < 1:
        raise ValueError(f"n_parts and slab must be at least 1, got {n_parts} and {slab}")
    if depth < slab:
        raise ValueError(f"a volume of {depth} slices holds no slab of {slab}; use thinner slabs or leave it out")
    return depth - slab + 1


def _check_lengths(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{name} must have one value for each volume ({expected}), got {found}")
