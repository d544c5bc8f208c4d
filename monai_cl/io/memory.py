"""Sizes that a header announces, against what a machine can hold."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from monai_cl.io.errors import UnusableImageError

TOO_LARGE = "larger than memory"
_VALUE = 4  # bytes: volumes are float32
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@cache
def memory() -> int:
    """Bytes that this process may use in all: those of the machine, or of its container."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for file in _CGROUP_LIMITS:
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):
            continue
    return min(limits)


def check_memory(shape: Sequence[int]) -> None:
    """Refuse a volume whose values cannot be in memory at all."""
    needed = math.prod(int(size) for size in shape) * _VALUE
    if needed > memory():
        raise UnusableImageError(
            TOO_LARGE,
            f"{' x '.join(map(str, shape))} voxels take {needed / 1e9:.4g} GB, this machine has "
            f"{memory() / 1e9:.4g} GB; crop or resample it elsewhere, or repair the header",
        )
