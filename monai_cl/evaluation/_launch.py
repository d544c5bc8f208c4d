"""Starting the steps as processes of their own, and stopping them with this one."""

from __future__ import annotations

import os
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import psutil

from monai_cl.evaluation._steps import command, in_words

# torch, and what multiplies matrices and resamples beside it: each starts as many threads as there are cores otherwise
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_TAIL = 15  # lines of a log that are shown
# a step is a run of its own, whatever launched this process
_NOT_HANDED_ON = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


class Launch(Protocol):
    """Runs the interpreter with arguments, what it says going to the end of a log; returns its exit code."""

    def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Run and wait."""


class Running(Protocol):
    """A step that runs."""

    def terminate(self) -> None:
        """Ask it to stop; a pretraining writes a checkpoint first."""


R = TypeVar("R", bound=Running)


class Launcher(ABC, Generic[R]):
    """Launches steps; :meth:`stop` ends those that run and lets no other start."""

    def __init__(self) -> None:
        self._running: set[R] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Run a step and wait for it."""
        with self._lock:
            if self.stopped:
                return -1
            step = self._start(arguments, log, environment)
            self._running.add(step)
        try:
            return self._wait(step)
        finally:
            with self._lock:
                self._running.discard(step)

    @abstractmethod
    def _start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> R:
        """Start a step whose command, and what it says, go to the end of the log."""

    @abstractmethod
    def _wait(self, step: R) -> int:
        """Exit code of a step, once it has ended."""

    def stop(self) -> None:
        """Ask the running steps to stop."""
        with self._lock:
            self.stopped = True
            for step in self._running:
                step.terminate()


class Processes(Launcher["subprocess.Popen[bytes]"]):
    """Launch steps as processes of their own."""

    def _start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with open(log, "ab", buffering=0) as file:
            file.write(heading(arguments))
            return subprocess.Popen(command(arguments), stdout=file, stderr=subprocess.STDOUT, env=dict(environment))

    def _wait(self, step: subprocess.Popen[bytes]) -> int:
        return step.wait()


def heading(arguments: Sequence[str]) -> bytes:
    """What a log says before a step: its command."""
    return f"$ {in_words(arguments)}\n".encode()


def environment(processes: int, worker: int, threads: int | None = None) -> dict[str, str]:
    """Environment of a step: its share of the cores and, where there are several GPUs, one of them.

    Args:
        processes: Number of steps at the same time.
        worker: Number of this one.
        threads: Threads of a step; its share of the physical cores when left out.
    """
    siblings = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    place = int(os.environ.get("LOCAL_RANK", 0)) * processes + worker
    count = str(threads or share(processes * siblings))
    kept = {key: value for key, value in os.environ.items() if key not in _NOT_HANDED_ON}
    kept = {key: value for key, value in kept.items() if not key.startswith("TORCHELASTIC_")}
    gpus = _gpus()
    chosen = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if len(gpus) > 1 else {}
    return {**kept, **dict.fromkeys(THREAD_VARIABLES, count), **chosen}


def share(steps: int) -> int:
    """Threads of each of several steps: physical cores, shared out, and no more than ``OMP_NUM_THREADS`` says.

    Two threads on one physical core wait for each other in the dense arithmetic of a training step.
    """
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    most = int(said) if said.isdigit() and int(said) > 0 else None
    own = max(1, physical_cores() // steps)
    return own if most is None else min(own, most)


def cores() -> int:
    """Cores that this process may use, two for a physical one that runs two threads."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def physical_cores() -> int:
    """Physical cores that this process may use."""
    usable, logical = cores(), os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    return max(1, min(usable, round(usable * physical / logical)))


def tail(log: Path) -> str:
    """The last lines of a log."""
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])


def reason(log: Path) -> str:
    """Why the step that wrote a log ended: its line ``error: ...``, else its last line."""
    lines = [line for line in tail(log).splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return told[-1] if told else lines[-1] if lines else "it said nothing"


def _gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part for part in named.split(",") if part.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]
