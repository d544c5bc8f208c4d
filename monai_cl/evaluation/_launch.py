"""Starting the steps of a cell as processes, or as forks of a process that has imported everything, and ending them.

Importing torch, MONAI and ignite takes longer than a small fine-tuning's evaluation, and a curve does it hundreds of
times. A server imports once and forks for each step; what runs in the fork is the same ``python -m monai.bundle run``.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from monai_cl._lazy import stated_imports
from monai_cl.engine.machine import physical_cores
from monai_cl.evaluation._steps import PROGRAM, command, in_words

# Runs the interpreter with arguments, its output appended to a log; returns its exit code
Launch = Callable[[Sequence[str], Path, Mapping[str, str]], int]

# torch, and the libraries of matrices and resampling beside it: each starts one thread per core otherwise
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
# threads that wait for each other sleep: where cores are busy, spinning made steps twelve times as long
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
# a step is a run of its own, whatever launched this process
_NOT_HANDED_ON = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_WARM = ("monai.bundle", "monai.engines", "monai.handlers", "monai.inferers", "monai.networks.nets", "monai.transforms")
_OWN = ("data", "engine", "losses", "methods", "recipes", "transforms", "weights")


def run_process(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
    """Run a step as a process and wait for it: a function, so that it can be sent to another machine."""
    return Processes()(arguments, log, environment)


class Processes:
    """Launch steps as processes of their own; :meth:`stop` ends those that run and lets no other start."""

    def __init__(self) -> None:
        self._running: set[Any] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Run a step and wait for it."""
        with self._lock:
            if self.stopped:
                return -1
            with open(log, "ab", buffering=0) as file:
                file.write(f"$ {in_words(arguments)}\n".encode())
            step = self._start(arguments, log, environment)
            self._running.add(step)
        try:
            return self._wait(step)
        finally:
            with self._lock:
                self._running.discard(step)

    def stop(self) -> None:
        """Ask the running steps to stop; a pretraining writes a checkpoint first."""
        with self._lock:
            self.stopped = True
            for step in self._running:
                step.terminate()

    def _start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Any:
        with open(log, "ab", buffering=0) as file:
            return subprocess.Popen(command(arguments), stdout=file, stderr=subprocess.STDOUT, env=dict(environment))

    def _wait(self, step: Any) -> int:
        return int(step.wait())


class Forks(Processes):
    """Launch steps as forks of a warm server.

    Only without a GPU: a driver that was initialised before a fork does not work after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        packages = [f"monai_cl.{name}" for name in _OWN]
        parts = dict.fromkeys(module for package in packages for module in stated_imports(package).values())
        self._context.set_forkserver_preload([*_WARM, *packages, *parts])

    def _start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Any:
        step = self._context.Process(target=run_step, args=(list(arguments), str(log), dict(environment)))
        # the first start brings up the server, whose imports read these variables once for all forks
        with _environ({name: environment[name] for name in (*THREAD_VARIABLES, *_WAITING) if name in environment}):
            step.start()
        return step

    def _wait(self, step: Any) -> int:
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
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def run_step(arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """Run ``python`` with these arguments in this process, its output appended to a log."""
    with open(log, "ab", buffering=0) as file:
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
        sys.excepthook(*sys.exc_info())  # a bundle puts one in that ends with the reason
        sys.stderr.flush()
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """A curve that was killed has its steps done again: those that it left behind would be in the way."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def quickest() -> Processes:
    """Forks where they are safe (Linux without a GPU), processes elsewhere."""
    import torch

    return Forks() if sys.platform == "linux" and not torch.cuda.is_available() else Processes()


def environment(processes: int, slot: int, threads: int | None = None) -> dict[str, str]:
    """Environment of a step: its share of the cores and, with several GPUs, one of them.

    Args:
        processes: Number of steps at the same time.
        slot: Number of this one.
        threads: Threads of a step; its share of the physical cores when left out.
    """
    siblings = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    place = int(os.environ.get("LOCAL_RANK", 0)) * processes + slot
    count = str(threads or share(processes * siblings))
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in _NOT_HANDED_ON and not key.startswith("TORCHELASTIC_")
    }
    gpus = _gpus()
    chosen = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if len(gpus) > 1 else {}
    return {**_WAITING, **kept, **dict.fromkeys(THREAD_VARIABLES, count), **chosen}


def share(steps: int) -> int:
    """Threads of each of several steps: a share of the physical cores, limited by ``OMP_NUM_THREADS``.

    Two threads on one physical core wait for each other in the dense arithmetic of a training step.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    own = max(1, physical_cores() // steps)
    return min(own, int(limit)) if limit.isdigit() and int(limit) > 0 else own


def _gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part for part in named.split(",") if part.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]
