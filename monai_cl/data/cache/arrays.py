"""Arrays as files of which boxes can be read: memory-mapped ``.npy``, or compressed blosc2."""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl._files import atomic_write

_CHUNK = 1 << 24  # bytes written at a time
# of blosc2: a box opens whole chunks and decompresses whole blocks
_CHUNKS, _BLOCKS = 128, 32


@dataclass(frozen=True)
class NpyArray:
    """A ``.npy`` file; a read maps it into memory and touches the pages of the box alone."""

    path: Path
    shape: tuple[int, ...]
    dtype: str

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """A view of the file, private to the reader; OSError or ValueError if the file is not as it was written."""
        # opened for each read: a file that was cut short since is an error here, where pages of a mapping
        # kept open would end the process, and thousands of volumes need no open files
        mapped = np.load(self.path, mmap_mode="c", allow_pickle=False)
        _check(self, mapped.shape, mapped.dtype)
        return np.asarray(mapped[box])

    @staticmethod
    def write(array: NDArray[Any], path: Path) -> None:
        """Write ``array`` to ``path``, whole or not at all."""
        contiguous = np.ascontiguousarray(array)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            header = np.lib.format.header_data_from_array_1_0(contiguous)
            np.lib.format.write_array_header_1_0(file, header)
            # not numpy's own writing, which hides the reason when a disk is full
            data = contiguous.reshape(-1).view(np.uint8).data
            for start in range(0, len(data), _CHUNK):
                file.write(data[start : start + _CHUNK])


@dataclass(frozen=True)
class Blosc2Array:
    """A ``.b2nd`` file: about a third fewer bytes, ten times the time to read a box."""

    path: Path
    shape: tuple[int, ...]
    dtype: str

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """The values of the box; OSError or ValueError if the file is not as it was written."""
        blosc2 = _blosc2()
        try:
            opened = blosc2.open(str(self.path), mode="r")
        except RuntimeError as error:
            raise OSError(f"{self.path} is not a blosc2 array; it may be cut short") from error
        _check(self, opened.shape, opened.dtype)
        try:
            values: NDArray[Any] = opened[box]
        except RuntimeError as error:
            raise OSError(f"{self.path} cannot be decompressed; it may be damaged") from error
        return values

    @staticmethod
    def write(array: NDArray[Any], path: Path) -> None:
        """Write ``array`` to ``path``, whole or not at all."""
        blosc2 = _blosc2()
        contiguous = np.ascontiguousarray(array)
        chunks = (1, *(min(_CHUNKS, n) for n in array.shape[1:]))
        blocks = (1, *(min(_BLOCKS, n) for n in array.shape[1:]))
        # one thread: the bytes must not depend on the machine
        settings = {"codec": blosc2.Codec.ZSTD, "clevel": 3, "nthreads": 1}
        packed = blosc2.asarray(contiguous, chunks=chunks, blocks=blocks, cparams=settings)
        with atomic_write(path) as temporary:
            temporary.write_bytes(packed.to_cframe())


Array = type[NpyArray] | type[Blosc2Array]
STORAGE: dict[str, tuple[Array, str]] = {"npy": (NpyArray, ".npy"), "blosc2": (Blosc2Array, ".b2nd")}


def array_class(storage: str) -> tuple[Array, str]:
    """Class and file suffix of a storage; raise an error if its library is absent.

    Raises:
        ValueError: If no such kind exists.
        ModuleNotFoundError: If its library is not installed; names the extra.
    """
    if storage not in STORAGE:
        raise ValueError(f"storage must be one of {', '.join(STORAGE)}, got {storage!r}")
    if storage == "blosc2":
        _blosc2()
    return STORAGE[storage]


def megabytes(shape: Sequence[int], dtype: str) -> float:
    """Size of an array before any compression."""
    return math.prod(shape) * np.dtype(dtype).itemsize / 1e6


def _check(expected: NpyArray | Blosc2Array, shape: Sequence[int], dtype: Any) -> None:
    if tuple(shape) != expected.shape or np.dtype(dtype) != np.dtype(expected.dtype):
        raise ValueError(
            f"{expected.path} must hold {expected.shape} {expected.dtype} as when it was written, got {tuple(shape)} "
            f"{dtype}; run `monai-cl cache` again"
        )


def _blosc2() -> ModuleType:
    try:
        return importlib.import_module("blosc2")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("blosc2 caches need blosc2: pip install 'monai-cl[cache]'") from None
