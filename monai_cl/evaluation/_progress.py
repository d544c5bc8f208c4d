"""Progress of a curve, and the time left: a bar in a terminal, elsewhere a line for each run and one a minute."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from monai_cl.engine.planning.flight_plan import duration
from monai_cl.evaluation._cells import PRETRAIN, Cell
from monai_cl.evaluation._plan import Plan
from monai_cl.evaluation._running import Pool
from monai_cl.evaluation._store import Store, read_json
from monai_cl.evaluation._work import EVALUATION, EVALUATIONS

EVERY = 60.0  # seconds between lines of text
_LOOK = 5.0  # seconds between forecasts for the bar


class Forecast:
    """Time that the runs of a plan still take, from those that are finished.

    A run takes what finished ones of its kind took: pretrainings of the arm, fine-tunings of that role and number of
    steps. As long as a kind has none, the nearest does, scaled by its steps; without any no time is shown. A network
    that only lacks an evaluation takes what others took that were evaluated after their training.

    Args:
        plan: The plan.
        store: Where the records are.
        epochs: Epochs of a fine-tuning, 0 where they are not known yet.
    """

    def __init__(self, plan: Plan, store: Store, epochs: Callable[[Cell], int]) -> None:
        self._plan = plan
        self._store = store
        self._epochs = epochs
        self._known: dict[str, float] = {}
        self._trained: set[str] | None = None  # before this start; read once, for records lie on disk
        self._evaluated: list[float] = []

    def seconds(self, done: set[str], failed: set[str], workers: int) -> float | None:
        """Seconds until the last run is done, or ``None`` where nothing is known yet."""
        if self._trained is None:
            cells = (cell for cell in self._plan.cells if cell.role != PRETRAIN and cell.folder not in done)
            self._trained = {cell.folder for cell in cells if self._store.record(cell) is not None}
        self._learn(done)
        left = [cell for cell in self._plan.cells if cell.folder not in done | failed]
        result = [self._one(cell) for cell in left]
        known = [each for each in result if each is not None]
        if not known:
            return None if left else 0.0
        # a run of a kind that none is known of takes as long as the others do
        total = sum(known) * len(result) / len(known)
        return max(total / max(workers, 1), max(known))

    def _learn(self, done: set[str]) -> None:
        for cell in self._plan.cells:
            if cell.folder in done and cell.folder not in self._known:
                record = self._store.record(cell) or {}
                self._known[cell.folder] = float(record.get("seconds", 0.0))
                self._evaluated += self._later(cell, str(record.get("finished", "")))

    def _later(self, cell: Cell, finished: str) -> list[float]:
        """Seconds of the evaluations that a network had after its training."""
        paths = (self._store.folder(cell) / EVALUATIONS).glob(f"*/{EVALUATION}")
        contents = [read_json(path) or {} for path in paths]
        return [float(each["seconds"]) for each in contents if str(each.get("finished", "")) > finished]

    def _one(self, cell: Cell) -> float | None:
        if self._trained is not None and cell.folder in self._trained:
            return _mean(self._evaluated)
        finished = [other for other in self._plan.cells if other.folder in self._known]
        if cell.role == PRETRAIN:
            same = [self._known[other.folder] for other in finished if other.role == PRETRAIN and other.arm == cell.arm]
            return _mean(same or [self._known[other.folder] for other in finished if other.role == PRETRAIN])
        paces: dict[bool, list[float]] = defaultdict(list)
        for other in finished:
            if other.role != PRETRAIN and self._epochs(other):
                paces[other.role == cell.role].append(self._known[other.folder] / self._epochs(other))
        pace, epochs = _mean(paces[True] or paces[False]), self._epochs(cell)
        return None if pace is None or not epochs else pace * epochs


@contextmanager
def progress(
    plan: Plan, pool: Pool, forecast: Forecast, console: Console, *, workers: int
) -> Iterator[Callable[[], None]]:
    """Show how far a pool is, whenever what is yielded is called.

    Args:
        plan: The plan.
        pool: The pool that works on it.
        forecast: Estimate of the time that is left.
        console: Where to show it.
        workers: Number of runs at the same time, in all processes.
    """
    if not console.is_terminal:
        yield Lines(plan, pool, forecast, console, workers=workers)
        return
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(plan.cells))
        looked, left = -_LOOK, ""

        def update() -> None:
            nonlocal looked, left
            failed = f"{len(pool.failed)} failed  " if pool.failed else ""
            if time.monotonic() - looked >= _LOOK:
                looked = time.monotonic()
                left = left_in_words(forecast.seconds(set(pool.done), set(pool.failed), workers))
            text = f"{left}  {failed}{', '.join(pool.running)}".replace("[", r"\[")
            bar.update(task, completed=len(pool.done) + len(pool.failed), description=text)

        yield update


class Lines:
    """Plain text: a line when a run is done or has failed, and each minute how many are and how long it still takes."""

    def __init__(self, plan: Plan, pool: Pool, forecast: Forecast, console: Console, *, workers: int) -> None:
        self._plan, self._pool, self._forecast, self._console = plan, pool, forecast, console
        self._workers = workers
        self._said: set[str] = set()
        self._last = time.monotonic()

    def __call__(self) -> None:
        """Print new progress."""
        for name in [name for name in (*self._pool.done, *self._pool.failed) if name not in self._said]:
            self._said.add(name)
            state = f"failed: {first_line(self._pool.failed[name])}" if name in self._pool.failed else "done"
            self._print(f"{len(self._said)}/{len(self._plan.cells)} {name} {state}")
        if time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            left = left_in_words(self._forecast.seconds(set(self._pool.done), set(self._pool.failed), self._workers))
            running = ", ".join(self._pool.running) or "nothing here"
            so_far = f"{len(self._said)}/{len(self._plan.cells)} runs"
            self._print(f"{time.strftime('%H:%M')} {so_far}, {left}; at {running}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def left_in_words(seconds: float | None) -> str:
    """Time that is left.

    Example:
        >>> left_in_words(5400), left_in_words(None)
        ('about 1.5 h left', 'time left not known yet')
    """
    return "time left not known yet" if seconds is None else f"about {duration(seconds)} left"


def first_line(text: str) -> str:
    """First line of a text; empty for an empty text."""
    return text.splitlines()[0] if text else ""


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


__all__ = ["Forecast", "first_line", "left_in_words", "progress"]
