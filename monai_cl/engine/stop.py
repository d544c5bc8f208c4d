"""Stopping cleanly when asked to."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

from ignite.engine import Events

from monai_cl import bundles
from monai_cl.data.loading.faults import Faults, TooManyFaultsError
from monai_cl.engine.checkpoint import Checkpoint
from monai_cl.engine.distributed import any_process, gather_objects
from monai_cl.engine.trainer import PretrainTrainer

logger = logging.getLogger(__name__)


class GracefulStop:
    """Handler of SIGTERM: finish the step, write a complete checkpoint, and end the run, in a bundle with code 143.

    The same command then goes on from there. With several processes all of them stop at the same step, whichever
    was signalled. The run also stops, with an error, when more volumes than allowed have become unreadable in its
    course.

    Args:
        checkpoint: The handler that writes.

    Raises:
        TooManyFaultsError: While running, once the checkpoint is written, if too many volumes are unreadable.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.requested = False
        self._previous: Any = None

    def attach(self, engine: PretrainTrainer) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._listen)
        engine.add_event_handler(Events.COMPLETED, self._restore)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _listen(self, engine: PretrainTrainer) -> None:
        if not engine.has_event_handler(self._check, Events.ITERATION_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._check)  # the last: the others count the step
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be caught
            self._previous = signal.signal(signal.SIGTERM, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def _check(self, engine: PretrainTrainer) -> None:
        faults = getattr(engine.data_loader, "faults", None)
        too_many = isinstance(faults, Faults) and faults.too_many
        if any_process(self.requested or too_many, engine.state.device):
            self.checkpoint.save(engine)
            self._refuse(engine, faults if too_many else None)
            logger.warning(
                "asked to stop: step %d of %d is in %s; the same command goes on from there",
                engine.state.iteration,
                engine.total_steps,
                self.checkpoint.path,
            )
            engine.terminate()
            bundles.stopped()

    def _refuse(self, engine: PretrainTrainer, faults: Faults | None) -> None:
        """Raise in every process if any has too many faults; the checkpoint is written by now."""
        result = [each for each in gather_objects(faults) if each is not None]
        if not result:
            return
        try:
            result[0].judge()
        except TooManyFaultsError as error:
            raise TooManyFaultsError(
                f"{error}\nstep {engine.state.iteration} of {engine.total_steps} is in {self.checkpoint.path}: once "
                "the files are mended, or more are allowed, the same command goes on from there"
            ) from None

    def _restore(self, engine: PretrainTrainer) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _fail(self, engine: PretrainTrainer, error: BaseException) -> None:
        self._restore(engine)  # the trainer raises the error when every handler has been called
