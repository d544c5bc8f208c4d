"""The time that the steps of a training take."""

import json
import time
from pathlib import Path

from ignite.engine import Engine, Events

from monai_cl._files import atomic_write


class StepTime:
    """Write how long the steps of a training took: ``steps`` and ``seconds`` of this process, ``step`` of ``total``.

    The clock runs from the start of an epoch to the end of its last step: neither start-up, nor preparing volumes, nor
    looks at validation volumes between epochs count. Use it on rank 0.

    Args:
        path: The JSON file, written at the end of each epoch.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._first = 0
        self._seconds = 0.0
        self._epoch = (0.0, 0.0)  # when it began, when its last step so far ended

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._tick)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._first = engine.state.iteration
        self._seconds = 0.0

    def _begin(self, engine: Engine) -> None:
        now = time.perf_counter()
        self._epoch = (now, now)

    def _tick(self, engine: Engine) -> None:
        self._epoch = (self._epoch[0], time.perf_counter())

    def _write(self, engine: Engine) -> None:
        state, (began, ended) = engine.state, self._epoch
        self._seconds += ended - began
        content = {
            "steps": state.iteration - self._first,
            "seconds": self._seconds,
            "step": state.iteration,
            "total": int((state.max_epochs or 1) * (state.epoch_length or 1)),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
