"""Volumes prepared once, with faults counted instead of hidden."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.progress import track
from torch.utils.data import Dataset, IterableDataset

from monai_cl._cores import threads as allowed_threads
from monai_cl.data.cache.reading import check_prepared_by, open_item
from monai_cl.data.loading.faults import MAX_FAULTS, Faults, require_voxels
from monai_cl.datalist import CACHED
from monai_cl.transforms._labels import SAID
from monai_cl.transforms.stored import whole

logger = logging.getLogger(__name__)

Item = dict[str, Any]
Transform = Callable[[Item], Any] | None


class PreparedDataset(Dataset[dict[str, Any]]):
    """Run the deterministic part of a pipeline on every volume once and keep the results in memory.

    A volume that cannot be prepared is named in the log, counted and left out; when more than ``max_faults`` of them
    fail the run stops before it starts. The affine and the record of operations stay with each volume. Plain MONAI
    ``CacheDataset`` stops at the first fault and reports no other.

    Volumes of a cache (``monai-cl cache``) stay on disk: an item reads them whole, :meth:`stored` leaves it to the
    transform which boxes to read. They are prepared already; ``transform`` must be the recipe that did it.

    Args:
        data: Items as from :func:`monai_cl.datalist.load_datalist`; ``case`` names them.
        transform: Deterministic transform of an item; ``None`` takes items, or volumes of a cache, as they are.
        max_faults: Share of the items that may fail, in [0, 1].
        num_workers: Threads; this process's share of the cores when left out, at most ``OMP_NUM_THREADS``.
        rank: This process's number among ``world_size`` ones; each prepares every ``world_size``-th item.
        world_size: Number of processes.

    Raises:
        TooManyFaultsError: If more than ``max_faults`` of the items fail, or all do.
        ValueError: If no items are given, or a cache was prepared by another recipe.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Transform,
        *,
        max_faults: float = MAX_FAULTS,
        num_workers: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        mine = list(data)[rank::world_size]
        if not mine:
            raise ValueError(
                f"each of {world_size} processes needs at least one item, got {len(data)} items; "
                "look at the datalist and its sections"
            )
        self.data = mine  # MONAI's name for a dataset's items
        self.transform = transform
        check_prepared_by(mine, transform)
        self.fault_record = Faults(len(mine), max_faults)
        outcomes = self._prepare_all(mine, num_workers or allowed_threads(), show=rank == 0)
        self._volumes = [volume for volume in outcomes if volume is not None]
        self.fault_record.judge()
        _warn_of_rounded(self._volumes)

    @property
    def faults(self) -> list[tuple[str, str]]:
        """Name and reason of each item left out, by name."""
        return sorted(self.fault_record.found)

    def _prepare_all(self, items: list[dict[str, Any]], threads: int, *, show: bool) -> list[Any]:
        console = Console(stderr=True)
        with ThreadPoolExecutor(threads) as pool:
            work = pool.map(self._prepare, items)
            quiet = not (show and console.is_terminal)
            return list(
                track(work, "preparing volumes", total=len(items), console=console, transient=True, disable=quiet)
            )

    def _prepare(self, item: Item) -> Any:
        return self.fault_record.prepare(item, lambda one: _prepared(one, self.transform))

    def __len__(self) -> int:
        return len(self._volumes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return whole(self._volumes[index])

    def stored(self, index: int) -> dict[str, Any]:
        """The item as it is kept: with a :class:`~monai_cl.transforms.StoredVolume` where that is on disk."""
        return dict(self._volumes[index])


class PreparedStream(IterableDataset[dict[str, Any]]):
    """Prepare one volume after the other, for work that needs each once and no more than one in memory.

    Faults are handled as by :class:`PreparedDataset`; the run stops once their limit is exceeded.

    Args:
        data: Items; ``case`` names them.
        transform: Deterministic transform of an item.
        max_faults: Share of the items that may fail, in [0, 1].

    Raises:
        TooManyFaultsError: While iterating, if more than ``max_faults`` of the items fail, or all do.
        ValueError: If no items are given, or a cache was prepared by another recipe.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Transform, *, max_faults: float = MAX_FAULTS) -> None:
        if not data:
            raise ValueError("at least one item is needed, got none; look at the folder or datalist")
        self.data = list(data)
        check_prepared_by(self.data, transform)
        self.transform = transform
        self.max_faults = max_faults

    def __iter__(self) -> Iterator[dict[str, Any]]:
        faults = Faults(len(self.data), self.max_faults)
        for item in self.data:
            volume = faults.prepare(item, lambda one: whole(_prepared(one, self.transform)))
            if volume is None:
                faults.judge()
            else:
                yield volume


def _warn_of_rounded(volumes: Sequence[Item]) -> None:
    distances = [getattr(volume.get("label"), "meta", {}).get("rounded", 0.0) for volume in volumes]
    rounded = [distance for distance in distances if distance > SAID]
    if rounded:
        logger.warning(
            "labels of %d of %d volumes were no whole numbers, by up to %.3g, and were rounded",
            len(rounded), len(volumes), max(rounded),
        )  # fmt: skip


def _prepared(item: Item, transform: Transform) -> Any:
    if CACHED in item:
        return open_item(item)
    if transform is None:
        return item
    prepared = transform(item)
    require_voxels(prepared)
    return prepared
