"""NIfTI files through nibabel: what a header claims is checked, and compressed voxels are read to their checksum."""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_cl.io.errors import UnusableImageError
from monai_cl.io.streams import InflatedFile, open_regular

_START = 544  # bytes of the longer header, and the mark of extensions
_LONGEST_HEADER = 1 << 26  # bytes before the voxels, extensions included
_GZIP = b"\x1f\x8b"
_MOST_INFLATED = 1032  # deflate makes no more of a byte


def open_nifti(path: Path) -> Any:
    """The image that nibabel makes of a header; compressed voxels come from a stream that :func:`finish` checks.

    Raises:
        UnusableImageError: If the file is not regular, or its header is longer than any.
        Exception: Any error of nibabel where it cannot read the header.
    """
    import nibabel
    from nibabel.fileholders import FileHolder

    packed = _is_packed(path)
    if not packed and not path.name.lower().endswith(".nii"):  # a compression of its own kind
        with open_regular(path):
            return nibabel.load(path)
    with open_regular(path) as file:
        start = b"" if packed else file.read(_START)
    inflated = InflatedFile(open(path, "rb"), closes=True) if packed else None  # noqa: SIM115 - closing_stream closes it
    try:
        start = inflated.peek(_START) if inflated else start
        if start[:2] == _GZIP:
            raise UnusableImageError("unreadable", "compressed, in spite of its name; add .gz to it")
        kind = nibabel.Nifti2Image if _number(start, 0, 4) == 540 else nibabel.Nifti1Image
        _check_length(start)
        holder = FileHolder(fileobj=inflated, filename=str(path))
        return kind.from_file_map({"header": holder, "image": holder})
    except BaseException:
        if inflated:
            inflated.close()
        raise


def check_complete(path: Path, image: Any) -> None:
    """Compare the length of a file with its header; for a compressed file, as far as its length is known.

    Raises:
        UnusableImageError: If it is too short.
    """
    expected, result = length_of(image), path.stat().st_size
    if _is_packed(path):
        result *= _MOST_INFLATED
    elif not path.name.lower().endswith(".nii"):
        return
    if result < expected:
        raise UnusableImageError("cut short", f"{result} of {expected} bytes; copy the file again")


def finish(image: Any) -> None:
    """Read what is left of a compressed file: its checksum, its length.

    Raises:
        UnusableImageError: If it is damaged, or not as long as its header announces.
    """
    stream, expected = image.file_map["image"].fileobj, length_of(image)
    if isinstance(stream, InflatedFile):
        result = stream.finish(2 * expected + _LONGEST_HEADER - stream.tell())
        if result < expected:
            raise UnusableImageError("cut short", f"{result} of {expected} bytes; copy the file again")


@contextmanager
def closing_stream(image: Any) -> Iterator[None]:
    """Close the stream of a compressed file at the end."""
    try:
        yield
    finally:
        stream = image.file_map["image"].fileobj
        if isinstance(stream, InflatedFile):
            stream.close()


def length_of(image: Any) -> int:
    """Bytes of header and voxels."""
    return int(image.dataobj.offset) + math.prod(map(int, image.shape)) * int(image.get_data_dtype().itemsize)


def check_real(image: Any) -> None:
    """Refuse voxels that are complex numbers, of which reading would keep the real part alone."""
    dtype = image.get_data_dtype()
    if dtype.kind == "c":
        raise UnusableImageError("complex values", f"voxels of type {dtype}, only real ones are read; save magnitudes")


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".nii.gz")


def _number(start: bytes, place: int, length: int) -> int:
    """A whole number in the byte order of the header."""
    little = int.from_bytes(start[:4], "little") in (348, 540)
    return int.from_bytes(start[place : place + length], "little" if little else "big", signed=True)


def _check_length(start: bytes) -> None:
    """Check where voxels begin before anybody reads as far."""
    if _number(start, 0, 4) == 540:
        begin, single, first = float(_number(start, 168, 8)), start[4:8] == b"n+2\0", 544
    else:
        little = int.from_bytes(start[:4], "little") == 348
        begin = struct.unpack("<f" if little else ">f", start[108:112].ljust(4, b"\0"))[0]
        single, first = start[344:348] == b"n+1\0", 352
    if begin == 0 and single:  # nibabel would take the header for voxels
        raise UnusableImageError("unreadable", f"voxels begin at byte 0, inside the header; write {first} there")
    if not -1 <= begin <= _LONGEST_HEADER:
        raise UnusableImageError(
            "unreadable", f"a header of at most {_LONGEST_HEADER >> 20} MB is read, it announces {begin:.4g} bytes"
        )
