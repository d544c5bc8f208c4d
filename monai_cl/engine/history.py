"""The losses of a run, step by step, in a file that anything can plot."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from monai_cl._files import atomic_write
from monai_cl.engine.progress import scalars
from monai_cl.engine.selftrainer import SelfTrainer
from monai_cl.engine.trainer import PretrainTrainer


class History:
    """Average the named losses over ``every`` steps and keep them in a CSV (``step``, then a column a name).

    The last row of a run may average fewer. Rows, and the steps of the row that is not yet full, are part of the
    checkpoint: a resumed run ends with the bytes of one that was never stopped. Use it on rank 0, after the checkpoint
    handler.

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
        keep_in_checkpoint(engine, self.path.name, self._state)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._sums.clear()
        kept = kept_in_checkpoint(engine, self.path.name)
        if kept is None:  # a new run, or a checkpoint of a version that kept none
            self._rows = read_history(self.path, until=engine.state.iteration)
        else:
            self._rows = parse_rows(kept["rows"])
            self._sums.update({name: list(values) for name, values in kept["sums"].items()})

    def _state(self) -> dict[str, Any]:
        return {"rows": format_rows(self._rows), "sums": {name: list(values) for name, values in self._sums.items()}}

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


def keep_in_checkpoint(engine: Engine, name: str, state: Callable[[], dict[str, Any]]) -> None:
    """Let a trainer's checkpoint hold what ``state`` gives, plain values, under a name; other engines keep nothing."""
    if isinstance(engine, PretrainTrainer | SelfTrainer):
        engine.states[name] = state


def kept_in_checkpoint(engine: Engine, name: str) -> dict[str, Any] | None:
    """Content of the checkpoint that a trainer goes on from under a name; ``None`` where it holds nothing."""
    return engine.resumed.get(name) if isinstance(engine, PretrainTrainer | SelfTrainer) else None


def format_rows(rows: Sequence[Mapping[str, float]]) -> str:
    """Rows as CSV, a column a name."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def parse_rows(text: str) -> list[dict[str, float]]:
    """Rows of :func:`format_rows`; a whole number stays one."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [{name: _number(value) for name, value in row.items() if value} for row in rows]


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def write_history(path: str | Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write rows with a ``step`` as CSV, whole or not at all; no rows, no file."""
    if not rows:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        file.write(format_rows(rows))


def read_history(path: str | Path, *, until: float = math.inf) -> list[dict[str, float]]:
    """Read the rows of a :class:`History` file up to the step ``until``; empty without a file or before any step."""
    if until <= 0 or not Path(path).exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in parse_rows(file.read()) if row["step"] <= until]
