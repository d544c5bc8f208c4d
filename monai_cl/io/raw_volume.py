"""A volume as plain values in one file or several, as headers of NRRD and MetaImage describe it."""

import bz2
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.errors import UnusableImageError
from monai_cl.io.memory import check_memory
from monai_cl.io.streams import InflatedFile, open_regular, read_exactly

OUTSIDE = "outside the scanned folder"
PACKED = ("gzip", "zlib")
_MOST_INFLATED = 1032  # deflate makes no more of a byte
_LONGEST_NUMBER = 64  # bytes of a value that is written as text
_MOST_FILES = 100_000
_PATTERN = re.compile(r"(?P<format>[^%]*%0?\d{0,2}[du][^%]*?)\s+(?P<range>-?\d+\s+-?\d+\s+-?\d+)(\s+\d+)?\s*")


@dataclass(frozen=True, eq=False)
class RawVolume:
    """Place and encoding of the values of a volume.

    Args:
        shape: Voxels along the axes, the fastest first.
        affine: Voxel to mm in RAS, of the first three axes.
        components: Values of a voxel.
        dtype: Their type, with its byte order.
        encoding: ``raw``, ``gzip``, ``zlib``, ``bzip2``, ``text`` or ``hex``.
        files: The files with their values, one after the other.
        begin: Where they begin in each; -1 for values that end with the file.
        packed: Length of compressed data, where the header holds it.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    components: int
    dtype: np.dtype[np.generic]
    encoding: str
    files: tuple[Path, ...]
    begin: int = 0
    packed: int | None = None

    @property
    def unsigned(self) -> bool:
        """Return whether values cannot be negative."""
        return self.dtype.kind == "u"

    @property
    def length(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.components * self.dtype.itemsize

    def check(self) -> None:
        """Refuse files that are absent or hold less than is announced; compressed ones are read to the end."""
        self.check_claims()
        if self.encoding in PACKED:
            with self._open(self.files[0]) as stream:
                self._finish(stream)

    def check_claims(self) -> None:
        """Refuse files that are absent or too short for the announced values."""
        if not self.files or (len(self.files) > 1 and self.encoding in PACKED):
            raise UnusableImageError("unreadable", "values in one file, or uncompressed ones in several, are read")
        if not np.isfinite(self.affine).all() or abs(np.linalg.det(self.affine)) < 1e-12:
            raise UnusableImageError("invalid affine", "the affine is not finite or not invertible; repair the header")
        check_memory(self.shape if self.components == 1 else (*self.shape, self.components))
        sizes = [self._size(path) for path in self.files]
        expected = self.length // len(self.files)
        if self.encoding == "raw" and (short := [size for size in sizes if size < expected]):
            raise UnusableImageError("cut short", f"{short[0]} of {expected} bytes; copy the file again")
        if self.encoding in PACKED and sum(sizes) * _MOST_INFLATED < self.length:
            raise UnusableImageError("cut short", f"{sum(sizes)} bytes cannot hold {self.length}; copy it again")

    def values(self) -> NDArray[np.generic]:
        """Read all values in their shape; checksums of compressed values are verified.

        Raises:
            UnusableImageError: If bytes are missing or damaged.
        """
        flat = np.concatenate([self._values_in(path) for path in self.files])
        if flat.size < math.prod(self.shape):
            raise UnusableImageError("cut short", f"{flat.size} of {math.prod(self.shape)} values; copy the file again")
        volume: NDArray[np.generic] = flat.reshape(self.shape[::-1]).T
        return volume

    @contextmanager
    def plain(self) -> Iterator[tuple[BinaryIO | InflatedFile, int] | None]:
        """The one file with the values as they are, and where they begin; nothing where it takes more to read them."""
        if len(self.files) > 1 or self.encoding not in ("raw", *PACKED):
            yield None
            return
        with self._open(self.files[0]) as stream:
            yield stream, 0 if isinstance(stream, InflatedFile) else self._begin(self.files[0])

    def _begin(self, path: Path) -> int:
        return self.begin if self.begin >= 0 else path.stat().st_size - self.length // len(self.files)

    def _size(self, path: Path) -> int:
        if not path.is_file():
            raise UnusableImageError("unreadable", "the file with the voxels, which the header names, is absent")
        return path.stat().st_size - max(0, self.begin)

    @contextmanager
    def _open(self, path: Path) -> Iterator[BinaryIO | InflatedFile]:
        with open_regular(path) as file:
            if self.encoding in PACKED:
                end = None if self.packed is None else self.begin + self.packed
                yield InflatedFile(file, max(0, self.begin), end)
            else:
                yield file

    def _finish(self, stream: BinaryIO | InflatedFile) -> None:
        if isinstance(stream, InflatedFile) and (result := stream.finish(2 * self.length + (1 << 20))) < self.length:
            raise UnusableImageError("cut short", f"{result} of {self.length} bytes; copy the file again")

    def _values_in(self, path: Path) -> NDArray[np.generic]:
        expected = self.length // len(self.files)
        with self._open(path) as stream:
            if self.encoding in ("raw", *PACKED):
                if self.encoding == "raw":
                    stream.seek(self._begin(path))
                result = np.frombuffer(read_exactly(stream, expected), dtype=self.dtype)
                self._finish(stream)
                return result
            stream.seek(max(0, self.begin))
            text = stream.read(expected // self.dtype.itemsize * _LONGEST_NUMBER + 1) or b""
        return self._written(text, expected)

    def _written(self, text: bytes, expected: int) -> NDArray[np.generic]:
        """Values that are written as numbers, in hexadecimal, or by bzip2."""
        try:
            if self.encoding == "text":
                return np.array(text.split(), dtype=np.float64).astype(self.dtype)
            if self.encoding == "hex":
                return np.frombuffer(bytes.fromhex(text.decode("ascii"))[:expected], dtype=self.dtype)
            engine = bz2.BZ2Decompressor()
            raw = engine.decompress(text, max_length=expected + 1)
            if not engine.eof and len(raw) <= expected:
                raise EOFError
            return np.frombuffer(raw[:expected], dtype=self.dtype)
        except (ValueError, OSError, EOFError):
            raise UnusableImageError("unreadable", f"damaged {self.encoding} data; copy the file again") from None


def beside(header: Path, name: str, root: Path | None) -> Path:
    """A file that a header names, which has to lie in the folder of the header or below.

    Args:
        header: The header.
        name: Name of the file in the header.
        root: Folder that no link may lead out of.

    Raises:
        UnusableImageError: If it lies elsewhere.
    """
    folder = os.path.abspath(header.parent)
    place = os.path.normpath(os.path.join(folder, name))
    if "\0" in name or not is_below(place, [folder]) or place == folder:
        raise UnusableImageError(
            OUTSIDE, "the header names a file with its voxels that lies outside of its own folder; put it beside it"
        )
    if root is not None and not is_below(os.path.realpath(place), [os.path.realpath(root)]):
        raise UnusableImageError(OUTSIDE, "the file with the voxels is a link that leads there; copy it beside it")
    return Path(place)


def is_below(path: str, roots: Sequence[str]) -> bool:
    """Return whether a path without links is one of some folders or lies below one."""
    return any(path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


def listed(text: str) -> list[str]:
    """The names of a pattern with its range, as ``slice%03d.raw 1 20 1``; the text itself where it is none.

    Raises:
        UnusableImageError: If the range has no end.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        return [text]
    first, last, step = map(int, match["range"].split())
    if not step or not 0 < len(numbers := range(first, last + (1 if step > 0 else -1), step)) <= _MOST_FILES:
        raise UnusableImageError("unreadable", "a pattern of files without an end; repair the header")
    return [match["format"] % number for number in numbers]


def whole_numbers(text: str, count: int | None, *, low: int, high: int) -> tuple[int, ...]:
    """Whole numbers in a range.

    Raises:
        ValueError: If the text holds other values, or another number of them.
    """
    numbers = tuple(int(part) for part in text.split())
    if (count is not None and len(numbers) != count) or not all(low <= number <= high for number in numbers):
        raise ValueError(f"{count} whole numbers from {low} to {high} are needed")
    return numbers
