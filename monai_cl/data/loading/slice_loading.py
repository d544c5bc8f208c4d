"""Batches of slices or slabs: volumes x partitions, each volume of another patient."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from monai_cl.data.loading.faults import Faults, TooManyFaultsError, unreadable
from monai_cl.data.loading.partitions import PartitionBatchSampler, PartitionDraw, partition_starts
from monai_cl.data.loading.sampling import FAULTS, Fault, ViewLoader, collate_views
from monai_cl.data.loading.slices import SliceDataset


class ReadableSlices(Dataset[dict[str, Any]]):
    """Batches of a :class:`SliceDataset` in which no volume is one that cannot be read.

    A volume that fails when its turn comes, as one of a cache whose file was damaged, gives its place in the batch to
    one of a patient who is not in it, in an order that follows from the seed; the slice is drawn anew from the same
    partition there. The batch names it under ``faults``.

    Args:
        slices: Slices of volumes.
        n_parts: Number of partitions.
    """

    def __init__(self, slices: SliceDataset, n_parts: int) -> None:
        self.slices = slices
        self.n_parts = n_parts
        self._unreadable: dict[int, Fault] = {}

    def __getitems__(self, draws: Sequence[PartitionDraw]) -> list[dict[str, Any]]:
        """Items of a batch, each with the faults met on the way."""
        subjects = self.slices.subjects
        patients = {subjects[draw.volume] for draw in draws}
        instead: dict[int, int] = {}  # volume that failed -> volume in its place
        faults: list[Fault] = []
        batch = []
        for draw in draws:
            for candidate in self._candidates(draw, instead):
                if candidate not in (draw.volume, instead.get(draw.volume)) and subjects[candidate] in patients:
                    continue
                item = self._read(self._moved(draw, candidate), faults)
                if item is not None:
                    if candidate != draw.volume:
                        instead[draw.volume] = candidate
                        patients.add(subjects[candidate])
                    batch.append(item)
                    break
            else:
                listed = "\n".join(f"  {case}: {reason}" for case, reason in dict(faults).items())
                raise TooManyFaultsError(
                    f"a batch needs {len(patients)} patients with a volume that can be read, fewer are left; mend "
                    f"these files:\n{listed}"
                )
        return [{**item, FAULTS: faults} for item in batch]

    def _candidates(self, draw: PartitionDraw, instead: dict[int, int]) -> Iterator[int]:
        """The volume drawn, or what took its place before, and others that have this partition."""
        yield instead.get(draw.volume, draw.volume)
        order = np.random.default_rng([draw.seed, draw.volume]).permutation(len(self.slices)).tolist()
        yield from (other for other in order if other != draw.volume and self._starts(other, draw.partition))

    def _starts(self, volume: int, partition: int) -> Sequence[int]:
        slices = self.slices
        return partition_starts(slices.depths[volume], self.n_parts, slab=slices.slab, among=slices.starts[volume])[
            partition
        ]

    def _moved(self, draw: PartitionDraw, volume: int) -> PartitionDraw:
        if volume == draw.volume:
            return draw
        starts = self._starts(volume, draw.partition)
        start = starts[int(np.random.default_rng([draw.seed, volume]).integers(len(starts)))]
        return PartitionDraw(volume, start, draw.partition, draw.seed)

    def _read(self, draw: PartitionDraw, faults: list[Fault]) -> dict[str, Any] | None:
        if draw.volume not in self._unreadable:
            try:
                return self.slices[draw]
            except Exception as error:
                reason = unreadable(error)
                if reason is None:
                    raise
                self._unreadable[draw.volume] = (self.slices.case(draw.volume), reason)
        faults.append(self._unreadable[draw.volume])
        return None


def slice_loader(
    dataset: SliceDataset,
    volumes_per_batch: int,
    n_parts: int,
    *,
    steps: int,
    seed: int = 0,
    rank: int = 0,
    num_replicas: int = 1,
    num_workers: int = 0,
) -> ViewLoader:
    """Loader of ``steps`` batches of volumes x partitions; set ``loader.batch_sampler.start`` to begin later.

    Volumes that turn out to be unreadable are named, replaced and counted as by :func:`monai_cl.data.view_loader`.

    Args:
        dataset: Slices or slabs of volumes.
        volumes_per_batch: Volumes of a batch of one process, each of another patient.
        n_parts: Slices of each, one of each partition.
        steps: Batches of the whole run.
        seed: Seed of the run.
        rank: This process's number.
        num_replicas: Processes that hold the same volumes and share the patients of a batch; 1 where each has volumes
            of its own.
        num_workers: Worker processes.
    """
    shared = num_replicas > 1
    sampler = _sampler(
        dataset,
        volumes_per_batch,
        n_parts,
        steps=steps,
        seed=seed if shared or rank == 0 else int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]),
        rank=rank if shared else 0,
        num_replicas=num_replicas,
    )
    return ViewLoader(
        ReadableSlices(dataset, n_parts),
        faults=getattr(dataset.data, "fault_record", None) or Faults(len(dataset)),
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),  # the global one belongs to the model
    )


def fixed_slice_batches(
    dataset: SliceDataset, volumes_per_batch: int, n_parts: int, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Batches of one pass over the patients, drawn once: what a probe looks at again and again."""
    count = min(volumes_per_batch, len(set(dataset.subjects)))
    return [collate_views([dataset[draw] for draw in batch]) for batch in _sampler(dataset, count, n_parts, seed=seed)]


def _sampler(dataset: SliceDataset, volumes_per_batch: int, n_parts: int, **run: Any) -> PartitionBatchSampler:
    return PartitionBatchSampler(
        volumes_per_batch, n_parts, depths=dataset.depths, subjects=dataset.subjects, slab=dataset.slab,
        starts=dataset.starts, **run,
    )  # fmt: skip
