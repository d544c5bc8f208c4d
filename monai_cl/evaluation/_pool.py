"""Several workers, here and in other processes, that take cells until none is left."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import FrameType

from monai_cl.evaluation._plan import Cell
from monai_cl.evaluation._store import Store

Do = Callable[[Cell, int], None]
_RENEW_SECONDS = 30.0


class Pool:
    """Do cells, each once and after those it needs, in ``processes`` threads; other pools may share the folder.

    Args:
        cells: What to do, what is worth most first.
        store: Where it is written down who works on what.
        do: Does a cell and writes its record; called with the cell and the number of the worker.
        processes: Number of workers.
        rank: Number of this pool; it begins with a share of its own.
        pools: Number of pools.
        poll: Seconds between looks at what other pools have done.
        finished: Tells whether nothing is left to do for a cell; that it has a record, when left out.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        store: Store,
        do: Do,
        *,
        processes: int = 1,
        rank: int = 0,
        pools: int = 1,
        poll: float = 1.0,
        finished: Callable[[Cell], bool] | None = None,
    ) -> None:
        own = [cell for index, cell in enumerate(cells) if index % pools == rank]
        self.cells = [*own, *(cell for index, cell in enumerate(cells) if index % pools != rank)]
        self.store = store
        self.do = do
        self.processes = processes
        self.rank = rank
        self.poll = poll
        self.finished = finished or (lambda cell: store.record(cell) is not None)
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.running: dict[str, Cell] = {}
        self._stopped = False
        self._changed = threading.Condition()

    def run(self, *, stop: Callable[[], None] = lambda: None, watch: Callable[[], None] = lambda: None) -> None:
        """Work until every cell is done, has failed, or is in the hands of another pool that this one need not await.

        Args:
            stop: Called when this process is interrupted, to end what the workers wait for.
            watch: Called a few times a second, to show how it goes.
        """
        with ThreadPoolExecutor(self.processes) as executor, _terminated_as_interrupt():
            futures = [executor.submit(self._work, worker) for worker in range(self.processes)]
            try:
                renewed = time.monotonic()
                while wait(futures, timeout=0.2).not_done:
                    watch()
                    if time.monotonic() - renewed > _RENEW_SECONDS:
                        self.store.renew()
                        renewed = time.monotonic()
            except BaseException:
                self._stopped = True
                stop()
                raise
        watch()
        for future in futures:
            future.result()

    def settled(self) -> bool:
        """Whether every cell is done or has failed."""
        return len(self.done) + len(self.failed) == len(self.cells)

    def _work(self, worker: int) -> None:
        while (cell := self._take()) is not None:
            reason = None
            try:
                self.do(cell, worker)
            except Exception as error:  # whatever it is, the other cells go on
                reason = str(error) or type(error).__name__
            with self._changed:
                if reason is None:
                    self.done.add(cell.folder)
                elif not self._stopped:
                    self.store.fail(cell, reason)
                    self.failed[cell.folder] = reason
                self.store.release(cell)
                self.running.pop(cell.folder)
                self._changed.notify_all()

    def _take(self) -> Cell | None:
        """The next cell that can be done, claimed; ``None`` when there is nothing left for this pool."""
        with self._changed:
            while not self._stopped:
                self._look()
                open_ = [cell for cell in self.cells if cell.folder not in self.done | self.failed.keys()]
                for cell in open_:
                    if cell.folder not in self.running and self._is_ready(cell) and self.store.claim(cell):
                        if not self.finished(cell):
                            self.running[cell.folder] = cell
                            return cell
                        self.store.release(cell)  # another pool has finished it since we looked
                if not open_ or (self.rank > 0 and all(self.store.claimed(cell) for cell in open_)):
                    return None
                self._changed.wait(self.poll)
        return None

    def _look(self) -> None:
        """See what is done or has failed, here or elsewhere."""
        for cell in self.cells:
            if cell.folder in self.done or cell.folder in self.failed or cell.folder in self.running:
                continue
            if self.finished(cell):
                self.done.add(cell.folder)
            elif (reason := self.store.failure(cell)) is not None:
                self.failed[cell.folder] = reason
            elif broken := [folder for folder in cell.needs if folder in self.failed and not cell.gets]:
                self.failed[cell.folder] = f"it needs {', '.join(broken)}, which failed"

    def _is_ready(self, cell: Cell) -> bool:
        return all(folder in self.done or folder in self.failed for folder in cell.needs)


def ranks() -> tuple[int, int]:
    """Number of this process and how many there are, as ``torchrun`` or SLURM say.

    Raises:
        ValueError: If what they say is no such numbers.
    """
    for rank_name, size_name in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        rank, size = os.environ.get(rank_name), os.environ.get(size_name)
        if rank is None or size is None:
            continue
        if not (rank.isdigit() and size.isdigit() and int(rank) < int(size)):
            raise ValueError(f"{rank_name} must be below {size_name}, got {rank!r}, {size!r}; unset both to run alone")
        return int(rank), int(size)
    return 0, 1


@contextlib.contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, with which clusters end a job, do what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
