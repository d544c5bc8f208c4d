"""Versions of the packages and the hardware that a result rests on, and the cores that a run may use."""

import functools
import importlib.metadata
import os
import platform
from pathlib import Path

import psutil
import torch

from monai_cl._cores import cores

_PACKAGES = ("monai_cl", "torch", "monai", "numpy", "pytorch-ignite", "nibabel", "pydicom", "SimpleITK")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


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
