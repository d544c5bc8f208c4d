"""The losses of a run, step by step, in a file that anything can plot."""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ignite.engine import Engine, Events

from monai_cl._files import atomic_write
from monai_cl.engine.progress import scalars


class History:
    """Average the named losses over ``every`` steps and keep them in a CSV (``step``, then a column a name).

    The last row of a run may average fewer. A resumed run drops the rows after the step it goes on from. Use it on
    rank 0, after the checkpoint handler.

    Args:
        path: The CSV file.
        every: Steps a row.
    """

    def __init__(self, path: str | Path, *, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every!r}")
        self.path = Path(path)
        self.every = every
        self._rows: list[dict[str, float]] = []
        self._sums: dict[str, list[float]] = defaultdict(list)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._rows = read_history(self.path, until=engine.state.iteration)

    def _collect(self, engine: Engine) -> None:
        for name, value in scalars(engine.state.output).items():
            self._sums[name].append(value)
        if engine.state.iteration % self.every == 0:
            self._close_row(engine)

    def _close_row(self, engine: Engine) -> None:
        means = {name: math.fsum(values) / len(values) for name, values in self._sums.items()}
        self._rows.append({"step": engine.state.iteration, **means})
        self._sums.clear()

    def _finish(self, engine: Engine) -> None:
        state = engine.state
        if self._sums and state.iteration >= state.max_epochs * state.epoch_length:  # not for a run that was stopped
            self._close_row(engine)
        self._write(engine)

    def _write(self, engine: Engine) -> None:
        write_history(self.path, self._rows)


def write_history(path: str | Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write rows with a ``step`` as CSV, whole or not at all; no rows, no file."""
    if not rows:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: str | Path, *, until: float = math.inf) -> list[dict[str, float]]:
    """Rows of a :class:`History` file up to the step ``until``; none where there is no file, or before any step."""
    if until <= 0 or not Path(path).exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in rows if row["step"] <= until]
