"""Running cells: each is a job that an executor of ``concurrent.futures`` takes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from monai_cl.engine.machine import hardware
from monai_cl.evaluation._cells import Cell
from monai_cl.evaluation._launch import Launch, environment
from monai_cl.evaluation._store import Store

_TAIL = 15  # lines of a log that are shown
_LOOK = 0.2  # seconds between looks at jobs that run


class CellError(RuntimeError):
    """A step of a cell failed."""


@dataclass(frozen=True)
class Done:
    """Outcome of a job: its seconds, and the machine that it ran on."""

    seconds: float
    host: str


@dataclass(frozen=True)
class Job:
    """Steps of a cell, runnable on any machine that reaches its folder.

    Attributes:
        steps: Title and arguments of each process, one after another.
        log: File of their output.
        launch: Runs one.
        settings: Settings that the result depends on.
        processes: Number of jobs at the same time.
        slot: Number of this one.
        threads: Threads of each step; its share of the cores when left out.
    """

    steps: tuple[tuple[str, tuple[str, ...]], ...]
    log: Path
    launch: Launch
    settings: dict[str, Any]
    processes: int = 1
    slot: int = 0
    threads: int | None = None

    def __call__(self) -> Done:
        """Run the steps.

        Raises:
            CellError: If one fails; its log has the details.
        """
        started = time.monotonic()
        for title, arguments in self.steps:
            code = self.launch(arguments, self.log, environment(self.processes, self.slot, self.threads))
            if code != 0:
                raise CellError(f"{title} ended with code {code}: {reason(self.log)}\n{tail(self.log)}")
        return Done(time.monotonic() - started, hardware())


class Doing(Protocol):
    """Interface by which a pool asks about cells."""

    def job(self, cell: Cell, slot: int) -> Callable[[], Any]:
        """The job of a cell that was claimed."""

    def finish(self, cell: Cell, job: Any, done: Any) -> None:
        """Write the record of a cell, given its job and what that returned."""

    def finished(self, cell: Cell) -> bool:
        """Return whether nothing is left to do for a cell."""


class Pool:
    """Do cells, each once and after those it needs; other pools may share the folder.

    Args:
        cells: Cells to run, the most valuable first.
        store: Where it is written down who works on what.
        work: Source of the job of each cell, and writer of its record.
        executor: Takes the jobs: threads, or anything with ``submit`` whose futures have ``done`` and ``result``.
        slots: Number of jobs at the same time.
        rank: Number of this pool; it begins with a share of its own.
        pools: Number of pools.
        poll: Seconds between looks at what other pools have done.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        store: Store,
        work: Doing,
        executor: Executor,
        *,
        slots: int = 1,
        rank: int = 0,
        pools: int = 1,
        poll: float = 1.0,
    ) -> None:
        own = [cell for index, cell in enumerate(cells) if index % pools == rank]
        self.cells = [*own, *(cell for index, cell in enumerate(cells) if index % pools != rank)]
        self.store, self.work, self.executor = store, work, executor
        self.slots, self.rank, self.poll = slots, rank, poll
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self._jobs: dict[Future[Any], tuple[Cell, int, Any]] = {}
        self._changed = threading.Event()
        self._looked = -poll

    @property
    def running(self) -> list[str]:
        """Names of the cells that are run here."""
        return [cell.folder for cell, *_ in self._jobs.values()]

    def run(self, *, stop: Callable[[], None] = lambda: None, watch: Callable[[], None] = lambda: None) -> None:
        """Work until every cell is done, has failed, or belongs to another pool.

        Args:
            stop: Called when this process is interrupted, to end the jobs.
            watch: Called a few times a second, to show how it goes.
        """
        with _terminated_as_interrupt():
            try:
                while self._turn():
                    watch()
                    self._changed.wait(_LOOK if self._jobs else min(self.poll, _LOOK))
                    self._changed.clear()
            except BaseException:
                stop()
                for future, (cell, *_) in self._jobs.items():
                    if not future.cancel():
                        with contextlib.suppress(Exception):
                            future.result()
                    self.store.release(cell)
                raise
        watch()

    def settled(self) -> bool:
        """Return whether every cell is done or has failed."""
        return len(self.done) + len(self.failed) == len(self.cells)

    def _turn(self) -> bool:
        """Take back jobs that have ended and hand out others; false when nothing is left for this pool."""
        ended = [future for future in self._jobs if future.done()]
        for future in ended:
            self._take_back(future)
        if not ended and (len(self._jobs) == self.slots or time.monotonic() - self._looked < self.poll):
            return True
        self._looked = time.monotonic()
        self._look()
        left = [cell for cell in self.cells if cell.folder not in self.done | self.failed.keys()]
        elsewhere = 0
        for cell in left:
            if len(self._jobs) == self.slots:
                break
            before = (*cell.needs, *cell.after)
            if cell.folder not in self.running and all(self._is_settled(folder) for folder in before):
                elsewhere += not self._hand_out(cell)
        return not (not left or (self.rank > 0 and elsewhere == len(left)))

    def _hand_out(self, cell: Cell) -> bool:
        """Claim a cell and submit its job; false where another pool has it."""
        if not self.store.claim(cell):
            return False
        if self.work.finished(cell):  # another pool has finished it since we looked
            self.store.release(cell)
            self._again()
            return True
        slot = min({*range(self.slots)} - {slot for _, slot, _ in self._jobs.values()})
        try:
            job = self.work.job(cell, slot)
            future = self.executor.submit(job)
        except Exception as error:  # whatever it is, the other cells go on
            self._fail(cell, error)
            self.store.release(cell)
            self._again()
            return True
        self._jobs[future] = cell, slot, job
        if hasattr(future, "add_done_callback"):
            future.add_done_callback(lambda _: self._changed.set())
        return True

    def _take_back(self, future: Future[Any]) -> None:
        cell, _, job = self._jobs[future]
        try:
            self.work.finish(cell, job, future.result())
            self.done.add(cell.folder)
        except Exception as error:
            self._fail(cell, error)
        del self._jobs[future]
        self.store.release(cell)

    def _fail(self, cell: Cell, error: Exception) -> None:
        self.failed[cell.folder] = str(error) or type(error).__name__
        self.store.fail(cell, self.failed[cell.folder])

    def _again(self) -> None:
        """Look once more without waiting."""
        self._looked = -self.poll
        self._changed.set()

    def _look(self) -> None:
        """See what is done or has failed, here or elsewhere."""
        for cell in self.cells:
            if self._is_settled(cell.folder) or cell.folder in self.running:
                continue
            if self.work.finished(cell):
                self.done.add(cell.folder)
            elif (why := self.store.failure(cell)) is not None:
                self.failed[cell.folder] = why
            elif broken := [folder for folder in cell.needs if folder in self.failed]:
                self.failed[cell.folder] = f"it needs {', '.join(broken)}, which failed"

    def _is_settled(self, folder: str) -> bool:
        return folder in self.done or folder in self.failed


def ranks() -> tuple[int, int]:
    """Rank of this process and number of processes, by ``torchrun`` or SLURM.

    Raises:
        ValueError: If their values are no such numbers.
    """
    for rank_name, size_name in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        rank, size = os.environ.get(rank_name), os.environ.get(size_name)
        if rank is None or size is None:
            continue
        if not (rank.isdigit() and size.isdigit() and int(rank) < int(size)):
            raise ValueError(f"{rank_name} must be below {size_name}, got {rank!r}, {size!r}; unset both to run alone")
        return int(rank), int(size)
    return 0, 1


def tail(log: Path) -> str:
    """The last lines of a log."""
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])


def reason(log: Path) -> str:
    """Reason for the end of the step that wrote a log: its line ``error: ...``, else its last line."""
    lines = [line for line in tail(log).splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else lines[-1] if lines else "it printed nothing"


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
