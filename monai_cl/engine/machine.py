"""Versions of the packages and the hardware that a result rests on, and the cores that a run may use."""

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import platform
from pathlib import Path

import psutil
import torch

from monai_cl._cores import cores

_PACKAGES = ("monai_cl", "torch", "monai", "numpy", "pytorch-ignite", "nibabel", "pydicom", "SimpleITK")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    result = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result


def hardware() -> str:
    """The GPU, or else the threads of torch, and the processor with its cores."""
    number = cores()
    processor = f"{number} core{'' if number == 1 else 's'} of {_processor()}, {platform.system()} {platform.machine()}"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {processor}"
    return f"{processor}, threads of torch: {torch.get_num_threads()}"


def physical_cores() -> int:
    """Physical cores that this process may use."""
    usable, logical = cores(), os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    return max(1, min(usable, round(usable * physical / logical)))


@functools.cache
def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, up to 32 MB a block, for the next step to take.

    glibc gives the end of its heap back to the system and asks for it again, page by page, at each step: about a tenth
    of the time of a step of small crops on a CPU. Nothing happens where the environment already sets these limits
    (``MALLOC_TRIM_THRESHOLD_``), and with other libraries.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no such function, or no library of the process
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
