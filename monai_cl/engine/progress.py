"""Progress of a run in one line."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor

logger = logging.getLogger(__name__)


class ProgressLine:
    """A progress bar with the named losses in a terminal, a log line an epoch elsewhere.

    Works on any ignite engine: the trainers and the evaluators alike. Use it on rank 0.

    Args:
        title: Name of the activity.
        names: Named losses and metrics of the engine to show, in this order, as far as they exist; all
            when left out.
    """

    _shared: ClassVar[Progress | None] = None  # a validation inside a training adds its line to the training's

    def __init__(self, title: str, names: Sequence[str] | None = None) -> None:
        self.title = title
        self.names = names
        self._progress: Progress | None = None
        self._owner = False
        self._since = (0.0, 0)

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._log)
        engine.add_event_handler(Events.COMPLETED, self._stop)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        console = Console(stderr=True)
        self._since = (time.perf_counter(), engine.state.iteration)
        if not console.is_terminal:
            return
        self._owner = ProgressLine._shared is None
        if ProgressLine._shared is None:
            ProgressLine._shared = _bars(console)
            ProgressLine._shared.start()
        self._progress = ProgressLine._shared
        self._task = self._progress.add_task(self.title, total=_total(engine) or None, losses="")

    def _update(self, engine: Engine) -> None:
        if self._progress is not None:
            done = engine.state.iteration
            self._progress.update(self._task, completed=done, losses=describe(engine.state.output, self.names))

    def _log(self, engine: Engine) -> None:
        if self._progress is None:
            then, step = self._since
            pace = (time.perf_counter() - then) / max(engine.state.iteration - step, 1)
            shown = [describe(values, self.names) for values in (engine.state.output, engine.state.metrics)]
            parts = (*shown, f"{pace:.2f} s/step")
            text = "  ".join(part for part in parts if part)
            logger.info("%s %d/%d %s", self.title, engine.state.iteration, _total(engine), text)

    def _stop(self, engine: Engine) -> None:
        if self._progress is None:
            return
        if self._owner:
            self._progress.stop()
            ProgressLine._shared = None
        else:
            self._progress.remove_task(self._task)
        self._progress = None

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._stop(engine)
        raise error


def _bars(console: Console) -> Progress:
    # the losses take what the others leave, and are cut short rather than the bar
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=24, table_column=Column(min_width=24)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[losses]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
        console=console,
        expand=True,
    )


def describe(output: Any, names: Sequence[str] | None = None) -> str:
    """Named scalars of an engine's output in one line: those of ``names`` that it has, or all."""
    values = scalars(output)
    chosen = values if names is None else {name: values[name] for name in names if name in values}
    return "  ".join(f"{name} {value:.4g}" for name, value in chosen.items())


def scalars(output: Any) -> dict[str, float]:
    """The 0-dim entries of an engine's output as numbers; of its first item where MONAI has decollated it."""
    if isinstance(output, list) and output:
        output = output[0]  # every item carries the loss of its batch
    if not isinstance(output, Mapping):
        return {}
    values = {str(k): v for k, v in output.items()}
    return {
        k: float(v) for k, v in values.items() if isinstance(v, float) or (isinstance(v, Tensor) and v.numel() == 1)
    }


def _total(engine: Engine) -> int:
    # an evaluator's max_epochs is the epoch of the trainer that calls it, not a number of passes
    epochs = 1 if isinstance(engine, Evaluator) else engine.state.max_epochs or 1
    return int((engine.state.epoch_length or engine.state.iteration) * epochs)
