"""Batches whose content is a function of the step: the same on any number of workers, and after any interruption."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from monai_cl.transforms.stored import takes_stored

Draw = tuple[int, int]  # which item, and the seed of its random transforms


class StepSampler(Sampler[list[Draw]]):
    """Batches of ``(item, seed)``, computed from the run's seed and the step alone.

    Within one pass over the items every batch has distinct items, in an order drawn for that pass; a remainder
    smaller than a batch waits for another pass's order. :attr:`start` is the step to begin with.

    Args:
        num_items: Number of items.
        batch_size: Items a batch.
        steps: Number of batches of the whole run.
        seed: Seed of the run.
        rank: This process's number; processes draw differently.

    Raises:
        ValueError: If a batch is larger than the data.
    """

    def __init__(self, num_items: int, batch_size: int, steps: int, *, seed: int = 0, rank: int = 0) -> None:
        if not 1 <= batch_size <= num_items:
            raise ValueError(
                f"batch_size must be between 1 and the number of volumes ({num_items}), got {batch_size}; "
                "use a smaller batch or more volumes"
            )
        self.num_items = num_items
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.rank = rank
        self.start = 0

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[list[Draw]]:
        per_pass = self.num_items // self.batch_size
        order, drawn_for = np.arange(self.num_items), -1
        for step in range(self.start, self.steps):
            number, batch = divmod(step, per_pass)
            if number != drawn_for:
                order, drawn_for = self._generator(0, number).permutation(self.num_items), number
            items = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            seeds = self._generator(1, step).integers(0, 2**32, size=self.batch_size)
            yield [(int(item), int(seed)) for item, seed in zip(items, seeds, strict=True)]

    def _generator(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.rank, purpose, number])


class ViewDataset(Dataset[dict[str, Any]]):
    """Views of prepared volumes; an index is ``(item, seed)``, and the same index always gives the same views.

    Args:
        volumes: Prepared items.
        transform: Random transform (``Randomizable``) of an item.
        keys: What of the result goes into a batch, beside ``case``.
    """

    def __init__(self, volumes: Dataset[dict[str, Any]], transform: Randomizable, *, keys: Sequence[str]) -> None:
        self.data = volumes  # MONAI's name for what a dataset draws from
        self.transform = transform
        self.keys = tuple(keys)

    def __getitem__(self, index: Draw) -> dict[str, Any]:
        item, seed = index
        volume = self._read(item)
        self.transform.set_random_state(seed=seed)
        views: Any = self.transform(volume)
        return {**{key: views[key] for key in self.keys}, "case": str(volume.get("case", item))}

    def _read(self, item: int) -> dict[str, Any]:
        """The item; a volume that is on disk stays there if the transform reads the boxes it needs."""
        stored = getattr(self.data, "stored", None) if takes_stored(self.transform) else None
        return dict(self.data[item] if stored is None else stored(item))


def view_loader(
    dataset: ViewDataset,
    num_volumes: int,
    *,
    batch_size: int,
    steps: int,
    seed: int = 0,
    rank: int = 0,
    num_workers: int = 0,
) -> DataLoader[dict[str, Any]]:
    """Loader of ``steps`` batches of views; set ``loader.batch_sampler.start`` to begin later.

    Args:
        dataset: Views of volumes.
        num_volumes: Number of volumes behind it.
        batch_size: Volumes a batch.
        steps: Batches of the whole run.
        seed: Seed of the run.
        rank: This process's number.
        num_workers: Worker processes.
    """
    return DataLoader(
        dataset,
        batch_sampler=StepSampler(num_volumes, batch_size, steps, seed=seed, rank=rank),
        num_workers=num_workers,
        collate_fn=default_collate,
        pin_memory=torch.cuda.is_available(),
        # a generator of its own: the global one belongs to the model, and its draws must not depend on the loader
        generator=torch.Generator().manual_seed(seed),
    )


def fixed_batches(dataset: ViewDataset, num_volumes: int, *, batch_size: int, seed: int = 0) -> list[dict[str, Any]]:
    """Batches of views of each volume, drawn once: what a probe looks at again and again.

    Args:
        dataset: Views of volumes.
        num_volumes: Number of volumes behind it.
        batch_size: Volumes a batch; the last one may be smaller.
        seed: Seed of the draws.
    """
    views = [dataset[item, seed + item] for item in range(num_volumes)]
    return [default_collate(views[i : i + batch_size]) for i in range(0, num_volumes, batch_size)]
