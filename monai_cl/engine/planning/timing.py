"""Times of a loader and of a trainer, alone and together, and the memory they take."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from ignite.engine import Engine, Events

_INTERVAL = 0.25  # s between looks at the memory


def time_loader(loader: Iterable[Any], *, steps: int, seconds: float) -> tuple[float, float, Any]:
    """Seconds until the first batch, seconds a batch from then on, and a batch.

    Args:
        loader: Its workers are started and stopped.
        steps: Batches to measure, at most.
        seconds: Stop once this long has been measured.
    """
    begin = time.perf_counter()
    iterator = iter(loader)
    batch = next(iterator)
    first = time.perf_counter()
    # what workers have prepared ahead until now is no measure of their pace
    ahead = 1 + getattr(loader, "num_workers", 0) * (getattr(loader, "prefetch_factor", None) or 0)
    stamps = [first]
    for count, _ in enumerate(iterator, 1):
        stamps.append(time.perf_counter())
        if count >= steps + ahead or stamps[-1] - first > seconds:
            break
    used = stamps[min(ahead, len(stamps) - 2) :] if len(stamps) > 1 else [begin, first]
    return first - begin, (used[-1] - used[0]) / (len(used) - 1), batch


def time_trainer(trainer: Any, batches: Iterable[Any], *, steps: int, seconds: float) -> float:
    """Seconds a step of a trainer on ``batches``; the first two steps, which also warm up, are not counted.

    Args:
        trainer: A trainer without handlers; it trains.
        batches: Its data.
        steps: Steps to measure, at most.
        seconds: Stop once this long has been measured.
    """
    stamps: list[float] = []

    def stamp(engine: Engine) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())
        if stamps[-1] - stamps[0] > seconds and len(stamps) > 3:
            engine.terminate()

    handle = trainer.add_event_handler(Events.ITERATION_COMPLETED, stamp)
    trainer.data_loader = batches
    trainer.state.epoch_length, trainer.state.max_epochs = steps + 2, 1
    trainer.state.iteration = trainer.state.epoch = 0
    try:
        trainer.run()
    finally:
        handle.remove()
    used = stamps[1:] if len(stamps) > 2 else stamps
    return (used[-1] - used[0]) / max(len(used) - 1, 1)


class PeakMemory:
    """Highest main memory of this process and its children, in MB; pages that they share count once where known."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._done = threading.Event()

    @contextmanager
    def watch(self) -> Iterator[PeakMemory]:
        """Look while the block runs."""
        self._look()
        thread = threading.Thread(target=self._loop, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._look()
            self._done.set()
            thread.join()

    def _loop(self) -> None:
        while not self._done.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        me = psutil.Process()
        self.peak = max(self.peak, sum(_memory(process) for process in [me, *me.children(recursive=True)]))


def _memory(process: psutil.Process) -> float:
    try:
        full = process.memory_full_info()
        return float(getattr(full, "pss", full.uss)) / 1e6
    except psutil.AccessDenied:
        return float(process.memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0
