"""Versions of the packages and the hardware that a result rests on."""

import importlib.metadata
import os
import platform

import torch

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
    """The GPU, or else the processor and its cores."""
    cores = f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {cores}"
    return f"{cores}, threads of torch: {torch.get_num_threads()}"
