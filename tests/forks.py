"""Programs and functions in processes of their own, forked from a process that has imported torch and MONAI.

Importing these takes longer than what most tests run. A fork has the command line, environment, folder, output, exit
code, last words and handlers of exit that a new interpreter would have, and ends by the same signals.
"""

import atexit
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing

from monai_cl.evaluation._launch import Forks, run_step

SECONDS = 600.0  # a limit for what hangs, not for what is slow


class Fork:
    """``python -m MODULE ...`` in a fork, its output appended to a file; used as a :class:`subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], log: Path, folder: Path, environment: Mapping[str, str]) -> None:
        given = (list(arguments), str(log), str(folder), dict(environment))
        self._process = _server().Process(target=_run_module, args=given)
        with pytest.MonkeyPatch.context() as patch:  # the server reads it once, for all forks
            patch.setenv("OMP_NUM_THREADS", "1")
            self._process.start()

    def poll(self) -> int | None:
        """Exit code, negative after a signal, or none while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Exit code, once the fork has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0)
        return self._process.exitcode

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()


class Pair:
    """The same command in two forks, with the environment that ``torchrun --nproc_per_node=2`` gives its processes."""

    def __init__(self, arguments: Sequence[str], log: Path, folder: Path, environment: Mapping[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        of_both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        of_each = ({"RANK": rank, "LOCAL_RANK": rank} for rank in "01")
        self._forks = [Fork(arguments, log, folder, {**environment, **of_both, **own}) for own in of_each]

    def wait(self, timeout: float | None = None) -> int:
        """Exit code of the first that has failed, or 0."""
        return next((code for code in [fork.wait(timeout) for fork in self._forks] if code), 0)

    def kill(self) -> None:
        """Send SIGKILL to both."""
        for fork in self._forks:
            fork.kill()


def in_two_processes(function: Callable[..., None], *arguments: Any) -> None:
    """Call ``function(rank, *arguments)`` in two processes; one that raises ends both, and raises here."""
    _server()
    torch.multiprocessing.start_processes(function, args=arguments, nprocs=2, start_method="forkserver")


@cache
def _server() -> ForkServerContext:
    Forks()  # names what the server imports
    return multiprocessing.get_context("forkserver")


def _run_module(arguments: list[str], log: str, folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    sys.path.insert(0, folder)
    try:
        run_step(arguments, log, environment)
    finally:
        atexit._run_exitfuncs()
        sys.stderr.flush()
