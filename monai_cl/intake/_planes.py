"""The middle plane of a volume in a file, in the memory that a picture of it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.streams import InflatedFile, read_exactly

_MOST = 1024  # pixels along an axis
_BLOCK = 1 << 22  # bytes


def middle_plane(
    stream: BinaryIO | InflatedFile, begin: int, shape: Sequence[int], dtype: np.dtype[np.generic]
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The middle plane along the last of three axes, at most 1024 pixels along each of the first two.

    Args:
        stream: The file, the first axis fastest.
        begin: Where its voxels begin.
        shape: Voxels along the three axes.
        dtype: Their type, with its byte order.

    Returns:
        The plane ``(x, y)``, and which one of so many voxels it holds along x and y.

    Raises:
        UnusableImageError: If the file ends early.
    """
    width, height, depth = (int(size) for size in shape)
    across, down = math.ceil(width / _MOST), math.ceil(height / _MOST)
    place = begin + depth // 2 * width * height * dtype.itemsize
    if across == down == 1:
        stream.seek(place)
        whole = np.frombuffer(read_exactly(stream, width * height * dtype.itemsize), dtype=dtype)
        return whole.reshape(height, width).T.astype(np.float32), (1, 1)
    rows = [_row(stream, place + row * width * dtype.itemsize, width, across, dtype) for row in range(0, height, down)]
    return np.stack(rows, axis=1), (across, down)


def _row(
    stream: BinaryIO | InflatedFile, place: int, width: int, step: int, dtype: np.dtype[np.generic]
) -> NDArray[np.float32]:
    """Each ``step``-th value of a row, read block by block."""
    block = max(1, _BLOCK // (step * dtype.itemsize)) * step  # values: a multiple of the step
    parts = []
    stream.seek(place)
    for start in range(0, width, block):
        count = min(block, width - start)
        values = np.frombuffer(read_exactly(stream, count * dtype.itemsize), dtype=dtype)
        parts.append(values[::step].astype(np.float32))
    return np.concatenate(parts)
