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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from monai_cl._lazy import stated_imports
from monai_cl.evaluation._launch import THREAD_VARIABLES, Launcher, Processes, heading
from monai_cl.evaluation._steps import PROGRAM

_WARM = ("monai.bundle", "monai.engines", "monai.handlers", "monai.inferers", "monai.networks.nets", "monai.transforms")
_OWN = ("data", "engine", "losses", "methods", "recipes", "transforms", "weights")


class Forks(Launcher[ForkServerProcess]):
    """Launch steps as forks of a warm server.

    Only without a GPU: a driver that was initialised before a fork does not work after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._context = multiprocessing.get_context("forkserver")
        packages = [f"monai_cl.{name}" for name in _OWN]
        parts = dict.fromkeys(module for package in packages for module in stated_imports(package).values())
        self._context.set_forkserver_preload([*_WARM, *packages, *parts])

    def _start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> ForkServerProcess:
        step = self._context.Process(target=run_step, args=(list(arguments), str(log), dict(environment)))
        # the first start brings up the server, whose imports read these variables once for all forks
        with _environ({name: environment[name] for name in THREAD_VARIABLES if name in environment}):
            step.start()
        return step

    def _wait(self, step: ForkServerProcess) -> int:
        step.join()
        return step.exitcode if step.exitcode is not None else -1


@contextmanager
def _environ(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for as long as a block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run_step(arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """Be ``python`` with these arguments, what it says going to the end of a log."""
    with open(log, "ab", buffering=0) as file:
        file.write(heading(arguments))
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    os.environ.clear()
    os.environ.update(environment)

    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))  # the variable is read at the import only
    module, rest = arguments[1], list(arguments[2:])
    sys.argv = [PROGRAM, *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """A curve that was killed has its steps done again: those that it left behind would be in the way."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def quickest() -> Processes | Forks:
    """Forks where they are safe (Linux without a GPU), processes elsewhere."""
    import torch

    if sys.platform == "linux" and not torch.cuda.is_available():
        return Forks()
    return Processes()
