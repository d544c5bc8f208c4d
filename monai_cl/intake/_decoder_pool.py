"""Decoding in processes of their own: damaged data that ends a library in C ends no scan."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from queue import Empty, LifoQueue
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.dicom import SliceHeader, decoder_process
from monai_cl.io.dicom.decoding import IN_PROCESS
from monai_cl.io.dicom.slices import UNCOMPRESSED

_SECONDS = 120.0  # for one file


class DecoderDiedError(ValueError):
    """Pixel data on which the decoding process ended, or did not come back."""


class DecoderPool:
    """Decoding processes, started when they are first needed and again where one has ended; for use by threads.

    Files that need no library in C are decoded in this process.

    Args:
        most: Number of processes at a time.
        seconds: Time for one file, after which its process is ended.
    """

    def __init__(self, most: int, *, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._idle: LifoQueue[subprocess.Popen[bytes]] = LifoQueue()
        self._places = threading.Semaphore(max(1, most))

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        while True:
            try:
                _end(self._idle.get_nowait())
            except Empty:
                return

    def frames(self, header: SliceHeader, index: int | None = None) -> NDArray[Any]:
        """Stored values by pydicom.

        Raises:
            ValueError: If they cannot be decoded.
        """
        if header.transfer_syntax in UNCOMPRESSED:
            return IN_PROCESS.frames(header, index)
        bits = header.low_bit, header.bits[2]
        result = self._ask({"how": "frames", "path": str(header.path), "index": index, "bits": bits})
        if result is None:
            raise ValueError(f"cannot decode the pixel data of {header.path}; the file may be damaged")
        return result

    def rescaled(self, header: SliceHeader) -> NDArray[np.float32] | None:
        """A slice by SimpleITK; nothing where it refuses the file."""
        result = self._ask({"how": "slice", "path": str(header.path)})
        return None if result is None else result[0]

    def _ask(self, request: dict[str, Any]) -> NDArray[Any] | None:
        with self._places:
            try:
                process = self._idle.get_nowait()
                if process.poll() is not None:
                    _end(process)
                    raise Empty
            except Empty:
                process = _start()
            clock = threading.Timer(self._seconds, process.kill)
            clock.start()
            try:
                result = _exchange(process, request)
            except (OSError, ValueError):
                _end(process)
                raise DecoderDiedError(
                    f"the decoder ended on {request['path']}, or took longer than {self._seconds:g} s"
                ) from None
            except BaseException:
                _end(process)
                raise
            finally:
                clock.cancel()
            self._idle.put(process)
            return result


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, os.fspath(decoder_process.__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"},
    )


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any]) -> NDArray[Any] | None:
    """Send a request and read the answer; ValueError where it ends early."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("a decoder needs both pipes")
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    head = json.loads(process.stdout.readline())
    if "error" in head:
        return None
    kind = np.dtype(head["dtype"])
    raw = process.stdout.read(math.prod(head["shape"]) * kind.itemsize)
    result: NDArray[Any] = np.frombuffer(raw, dtype=kind).reshape(head["shape"])
    return result


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
