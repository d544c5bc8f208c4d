"""Batches whose content is a function of the step: the same on any number of workers, and after any interruption."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable
from monai.utils import convert_to_tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from monai_cl.data.loading.drawing import BatchDraw, field_of
from monai_cl.data.loading.faults import Faults, TooManyFaultsError, unreadable
from monai_cl.transforms.stored import takes_stored

Draw = tuple[int, int]  # which item, and the seed of its random transforms
Fault = tuple[str, str]  # name and reason
FAULTS = "faults"  # key of a batch, until the loader has counted them


class StepSampler(Sampler[list[Draw]]):
    """Batches of ``(item, seed)``, computed from the run's seed and the step alone.

    Within one pass over the items every batch has distinct items, in an order drawn for that pass; a remainder
    smaller than a batch waits for another pass's order. Weights or groups replace passes: each batch is
    drawn anew, see :class:`monai_cl.data.BatchDraw`. :attr:`start` is the step to begin with.

    Args:
        num_items: Number of items.
        batch_size: Items a batch.
        steps: Number of batches of the whole run.
        seed: Seed of the run.
        rank: This process's number; processes draw differently.
        weights: Relative probability of each item.
        groups: Group of each item; a batch is drawn from one.

    Raises:
        ValueError: If a batch is larger than the data, or than every group.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        steps: int,
        *,
        seed: int = 0,
        rank: int = 0,
        weights: Sequence[float] | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> None:
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
        drawn = weights is not None or groups is not None
        self._draw = BatchDraw(num_items, batch_size, weights=weights, groups=groups) if drawn else None

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step, items in self._items():
            seeds = self._generator(1, step).integers(0, 2**32, size=self.batch_size)
            yield [(int(item), int(seed)) for item, seed in zip(items, seeds, strict=True)]

    def _items(self) -> Iterator[tuple[int, np.ndarray]]:
        per_pass = self.num_items // self.batch_size
        order, drawn_for = np.arange(self.num_items), -1
        for step in range(self.start, self.steps):
            if self._draw is not None:
                yield step, self._draw(self._generator(2, step))
                continue
            number, batch = divmod(step, per_pass)
            if number != drawn_for:
                order, drawn_for = self._generator(0, number).permutation(self.num_items), number
            yield step, order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _generator(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.rank, purpose, number])


class ViewDataset(Dataset[dict[str, Any]]):
    """Views of prepared volumes; an index is ``(item, seed)``, and the same index always gives the same views.

    In a batch, a volume that cannot be read when its turn comes is left out: the batch names it under ``faults``, and
    the next volume that is not in it, in an order that follows from the seed, takes the place, so that batches keep
    their size on every process. With groups, it is one of the same group.

    Args:
        volumes: Prepared items.
        transform: Random transform (``Randomizable``) of an item.
        keys: Entries of the result that go into a batch, beside ``case``.
        group_key: Field of the datalist by whose value volumes may share a batch, as a body region; it goes into
            the batch. None: all may.

    Raises:
        ValueError: If a volume lacks ``group_key``.
    """

    def __init__(
        self,
        volumes: Dataset[dict[str, Any]],
        transform: Randomizable,
        *,
        keys: Sequence[str],
        group_key: str | None = None,
    ) -> None:
        self.data = volumes  # MONAI's name for what a dataset draws from
        self.transform = transform
        self.keys = tuple(keys) if group_key is None else (*keys, group_key)
        self.groups = None if group_key is None else field_of(volumes, group_key)
        self._unreadable: dict[int, Fault] = {}

    def __getitem__(self, index: Draw) -> dict[str, Any]:
        item, seed = index
        volume = self._read(item)
        self.transform.set_random_state(seed=seed)
        views: Any = self.transform(volume)
        return {**{key: views[key] for key in self.keys}, "case": str(volume.get("case", item))}

    def __getitems__(self, indices: Sequence[Draw]) -> list[dict[str, Any]]:
        """Views of a batch; each of its items carries the faults met on the way."""
        taken = {item for item, _ in indices}
        faults: list[Fault] = []
        batch = [self._views(item, seed, taken, faults) for item, seed in indices]
        return [{**views, FAULTS: faults} for views in batch]

    def _views(self, item: int, seed: int, taken: set[int], faults: list[Fault]) -> dict[str, Any]:
        for candidate in self._candidates(item, seed):
            if candidate != item and candidate in taken:
                continue
            try:
                if candidate not in self._unreadable:
                    views = self[candidate, seed]
                    taken.add(candidate)
                    return views
            except Exception as error:
                reason = unreadable(error)
                if reason is None:
                    raise
                self._unreadable[candidate] = (self._name(candidate), reason)
            faults.append(self._unreadable[candidate])
        listed = "\n".join(f"  {case}: {reason}" for case, reason in dict(faults).items())
        raise TooManyFaultsError(
            f"a batch needs {len(taken)} volumes that can be read, fewer are left; mend these files:\n{listed}"
        )

    def _candidates(self, item: int, seed: int) -> Iterator[int]:
        """The item drawn, and those that may take its place."""
        yield item
        order = np.random.default_rng([seed, item]).permutation(len(self.data)).tolist()  # type: ignore[arg-type]
        yield from (other for other in order if self.groups is None or self.groups[other] == self.groups[item])

    def _name(self, item: int) -> str:
        stored = getattr(self.data, "stored", None)
        return str(stored(item).get("case", item)) if stored is not None else str(item)

    def _read(self, item: int) -> dict[str, Any]:
        """Read an item; a stored volume stays on disk if the transform reads boxes of it."""
        stored = getattr(self.data, "stored", None) if takes_stored(self.transform) else None
        return dict(self.data[item] if stored is None else stored(item))


class ViewLoader(DataLoader[dict[str, Any]]):
    """Loader that counts unreadable volumes and stops above the limit.

    It gives the batch in which the limit is passed, so that a handler may save the run (see
    :class:`monai_cl.engine.GracefulStop`), and raises ``TooManyFaultsError`` in the place of the next one.

    Args:
        dataset: Views of volumes, whose batches list unreadable volumes under ``faults``.
        faults: Volumes left out so far, and their limit.
        **kwargs: Further arguments of ``torch.utils.data.DataLoader``.
    """

    def __init__(self, dataset: Dataset[dict[str, Any]], *, faults: Faults, **kwargs: Any) -> None:
        super().__init__(dataset, collate_fn=_collate, **kwargs)
        self.faults = faults

    def __iter__(self) -> Any:
        """Batches."""
        for batch in super().__iter__():
            for case, reason in batch.pop(FAULTS):
                self.faults.add(case, reason)
            yield batch
            if self.faults.too_many:
                self.faults.judge()


def _collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    batch = collate_views([{key: value for key, value in one.items() if key != FAULTS} for one in samples])
    return {**batch, FAULTS: samples[0][FAULTS]}


def collate_views(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of plain tensors: places are in ``coords``, and the metadata of several volumes need not fit together."""
    plain = [
        {key: convert_to_tensor(v, track_meta=False) if isinstance(v, MetaTensor) else v for key, v in one.items()}
        for one in samples
    ]
    batch: dict[str, Any] = default_collate(plain)
    return batch


def view_loader(
    dataset: ViewDataset,
    num_volumes: int,
    *,
    batch_size: int,
    steps: int,
    seed: int = 0,
    rank: int = 0,
    num_workers: int = 0,
    weights: Sequence[float] | None = None,
    sampler: StepSampler | None = None,
) -> ViewLoader:
    """Loader of ``steps`` batches of views; set ``loader.batch_sampler.start`` to begin later.

    Args:
        dataset: Views of volumes; what these left out, and their limit, counts on here.
        num_volumes: Number of volumes behind it.
        batch_size: Volumes a batch.
        steps: Batches of the whole run.
        seed: Seed of the run.
        rank: This process's number.
        num_workers: Worker processes.
        weights: Relative probability of each volume, as from :func:`monai_cl.data.source_weights`.
        sampler: Draws the batches in place of the one that is made of the settings above.
    """
    if sampler is None:
        sampler = StepSampler(
            num_volumes, batch_size, steps, seed=seed, rank=rank, weights=weights, groups=dataset.groups
        )
    return ViewLoader(
        dataset,
        faults=getattr(dataset.data, "fault_record", None) or Faults(num_volumes),
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        # a generator of its own: the global one belongs to the model, and its draws must not depend on the loader
        generator=torch.Generator().manual_seed(seed),
    )


def fixed_batches(
    dataset: ViewDataset, num_volumes: int, *, batch_size: int, seed: int = 0, draws: int = 1
) -> list[dict[str, Any]]:
    """Batches of views of each volume, drawn once: what a probe looks at again and again.

    Args:
        dataset: Views of volumes.
        num_volumes: Number of volumes behind it.
        batch_size: Volumes a batch; the last one may be smaller.
        seed: Seed of the draws.
        draws: How often each volume is drawn from, where a single draw shows little of it.
    """
    views = [dataset[item, seed + item + num_volumes * draw] for draw in range(draws) for item in range(num_volumes)]
    return [collate_views(views[i : i + batch_size]) for i in range(0, len(views), batch_size)]
