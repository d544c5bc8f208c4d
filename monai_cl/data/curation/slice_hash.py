"""Difference hashes of slices: 64 bits that change little where a picture changes little."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIDE = 8
Hashes = NDArray[np.uint64]


def to_grey(slices: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale each slice by its own minimum and maximum to 0..255; a uniform slice becomes 0.

    Args:
        slices: ``(n, rows, columns)``.
    """
    values = np.nan_to_num(slices.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)
    low = values.min(axis=(1, 2), keepdims=True)
    span = values.max(axis=(1, 2), keepdims=True) - low
    grey: NDArray[np.uint8] = ((values - low) / np.where(span > 0, span, 1) * 255).astype(np.uint8)
    return grey


def difference_hash(grey: NDArray[np.uint8]) -> Hashes:
    """Difference hash of grey slices.

    Each slice is resized to 9 columns and 8 rows with Pillow's Lanczos filter; a bit marks whether a pixel is brighter
    than its left neighbour. Row by row, the first bit is the highest. The same as ``imagehash.dhash(image, 8)``.

    Args:
        grey: ``(n, rows, columns)``, see :func:`to_grey`.

    Returns:
        ``(n,)`` numbers of 64 bits.

    Reference:
        N. Krawetz, "Kind of like that" (2013); used for CT in "Less is More" (selective reduction of CT data for
        self-supervised pretraining).

    Example:
        >>> ramp = np.tile(np.arange(90, dtype=np.uint8), (1, 80, 1))
        >>> hex(int(difference_hash(ramp)[0]))
        '0xffffffffffffffff'
    """
    from PIL import Image

    bits = np.empty((len(grey), _SIDE * _SIDE), dtype=np.uint8)
    for index, plane in enumerate(grey):
        small = np.asarray(
            Image.fromarray(np.ascontiguousarray(plane)).resize((_SIDE + 1, _SIDE), Image.Resampling.LANCZOS)
        )
        bits[index] = (small[:, 1:] > small[:, :-1]).ravel()
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def hamming(one: Hashes | np.uint64, others: Hashes) -> NDArray[np.uint8]:
    """Number of bits in which hashes differ.

    Example:
        >>> hamming(np.uint64(0b1011), np.array([0b1011, 0b0000], dtype=np.uint64)).tolist()
        [0, 3]
    """
    different = np.atleast_1d(np.bitwise_xor(one, others)).astype(np.uint64)
    bits = np.unpackbits(different.view(np.uint8).reshape(*different.shape, 8), axis=-1)
    count: NDArray[np.uint8] = bits.sum(-1, dtype=np.uint8)
    return count
