"""Starting the steps from a process that has imported everything: a step then begins in a tenth of a second.

Importing torch, MONAI and ignite takes longer than a small fine-tuning's evaluation, and a curve does it hundreds of
times. A server imports once and forks for each step; what runs in the fork is the same ``python -m monai.bundle run``.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from monai_cl.evaluation._launch import Processes
from monai_cl.evaluation._steps import in_words

_WARM = ("monai.bundle", "monai.engines", "monai.handlers", "monai.inferers", "monai.networks.nets", "monai.transforms")
_OWN = ("data", "engine", "evaluation.handlers", "losses", "methods", "recipes", "report", "transforms", "weights")
_PROGRAM = "monai/bundle/__main__.py"


class Forks:
    """Launch steps as forks of a warm server; :meth:`stop` ends those that run and lets no other start.

    Only without a GPU: a driver that was initialised before a fork does not work after it.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*_WARM, *(f"monai_cl.{name}" for name in _OWN)])
        self._running: set[ForkServerProcess] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Run a step and wait for it."""
        with self._lock:
            if self.stopped:
                return -1
            process = self._context.Process(target=run_step, args=(list(arguments), str(log), dict(environment)))
            process.start()
            self._running.add(process)
        try:
            process.join()
        finally:
            with self._lock:
                self._running.discard(process)
        return process.exitcode if process.exitcode is not None else -1

    def stop(self) -> None:
        """Ask the running steps to stop; a pretraining writes a checkpoint first."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                process.terminate()


def run_step(arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """Be ``python`` with these arguments, what it says going to the end of a log."""
    with open(log, "ab", buffering=0) as file:
        file.write(f"$ {in_words(arguments)}\n".encode())
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    os.environ.clear()
    os.environ.update(environment)

    import torch

    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))  # the variable is read at the import only
    module, rest = arguments[1], list(arguments[2:])
    sys.argv = [_PROGRAM, *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise SystemExit(1) from None


def quickest() -> Processes | Forks:
    """Forks where they are safe (Linux without a GPU), processes elsewhere."""
    import torch

    if sys.platform == "linux" and not torch.cuda.is_available():
        return Forks()
    return Processes()
