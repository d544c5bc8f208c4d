"""Volumes prepared once, with faults counted instead of hidden."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.progress import track
from torch.utils.data import Dataset, IterableDataset

logger = logging.getLogger(__name__)


class TooManyFaultsError(RuntimeError):
    """More volumes than allowed could not be prepared."""


class _Faults:
    """Items that could not be prepared, and the limit to their number."""

    def __init__(self, total: int, max_faults: float) -> None:
        if not 0 <= max_faults <= 1:
            raise ValueError(f"max_faults must be between 0 and 1, got {max_faults!r}")
        self.total = total
        self.max_faults = max_faults
        self.found: list[tuple[str, str]] = []

    def prepare(self, item: dict[str, Any], transform: Callable[[dict[str, Any]], Any]) -> Any:
        """The prepared item, or ``None`` once its fault is noted."""
        try:
            return transform(dict(item))
        except Exception as error:  # whatever a reader may throw at a broken file
            cause = error.__cause__ or error  # MONAI wraps the reason in one that names only the transform
            case = str(item.get("case", item.get("image")))
            self.found.append((case, f"{type(cause).__name__}: {cause}"))
            logger.warning("left out %s: %s", *self.found[-1])
            return None

    def judge(self) -> None:
        """Raise if there are more than allowed, or nothing is left."""
        if len(self.found) > self.max_faults * self.total or len(self.found) == self.total:
            listed = "\n".join(f"  {case}: {reason}" for case, reason in sorted(self.found)[:10])
            raise TooManyFaultsError(
                f"at most {100 * self.max_faults:g} % of the volumes may fail (max_faults), got {len(self.found)} of "
                f"{self.total}; mend or remove these files, or allow more:\n{listed}"
            )


class PreparedDataset(Dataset[dict[str, Any]]):
    """Run the deterministic part of a pipeline on every volume once and keep the results in memory.

    A volume that cannot be prepared is named in the log, counted and left out; when more than ``max_faults`` of them
    fail the run stops before it starts. The affine and the record of operations stay with each volume. Plain MONAI
    ``CacheDataset`` stops at the first fault and says nothing of the others.

    Args:
        data: Items as from :func:`monai_cl.data.load_datalist`; ``case`` names them.
        transform: Deterministic transform of an item.
        max_faults: Share of the items that may fail, in [0, 1].
        num_workers: Threads; as many as there are cores when left out.
        rank: This process's number among ``world_size`` ones; each prepares every ``world_size``-th item.
        world_size: Number of processes.

    Raises:
        TooManyFaultsError: If more than ``max_faults`` of the items fail, or all do.
        ValueError: If there are no items.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Callable[[dict[str, Any]], Any],
        *,
        max_faults: float = 0.05,
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
        self._faults = _Faults(len(mine), max_faults)
        outcomes = self._prepare_all(mine, num_workers or os.cpu_count() or 1, show=rank == 0)
        self._volumes = [volume for volume in outcomes if volume is not None]
        self._faults.judge()

    @property
    def faults(self) -> list[tuple[str, str]]:
        """Name and reason of each item left out, by name."""
        return sorted(self._faults.found)

    def _prepare_all(self, items: list[dict[str, Any]], threads: int, *, show: bool) -> list[Any]:
        console = Console(stderr=True)
        with ThreadPoolExecutor(threads) as pool:
            work = pool.map(lambda item: self._faults.prepare(item, self.transform), items)
            quiet = not (show and console.is_terminal)
            return list(
                track(work, "preparing volumes", total=len(items), console=console, transient=True, disable=quiet)
            )

    def __len__(self) -> int:
        return len(self._volumes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._volumes[index])


class PreparedStream(IterableDataset[dict[str, Any]]):
    """Prepare one volume after the other, for work that needs each once and no more than one in memory.

    Faults are handled as by :class:`PreparedDataset`; the run stops as soon as there are too many.

    Args:
        data: Items; ``case`` names them.
        transform: Deterministic transform of an item.
        max_faults: Share of the items that may fail, in [0, 1].

    Raises:
        TooManyFaultsError: While iterating, if more than ``max_faults`` of the items fail, or all do.
        ValueError: If there are no items.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Callable[[dict[str, Any]], Any],
        *,
        max_faults: float = 0.05,
    ) -> None:
        if not data:
            raise ValueError("there must be at least one item, got none; look at the folder or datalist")
        self.data = list(data)
        self.transform = transform
        self.max_faults = max_faults

    def __iter__(self) -> Iterator[dict[str, Any]]:
        faults = _Faults(len(self.data), self.max_faults)
        for item in self.data:
            volume = faults.prepare(item, self.transform)
            if volume is None:
                faults.judge()
            else:
                yield volume
