"""NRRD and MetaImage volumes through SimpleITK: the header alone, or values with their affine."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.transforms._dicom import UnusableImageError, is_text
from monai_cl.transforms._threads import read_with_itk

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
_MAX_HEADER = 1 << 16


@dataclass(frozen=True)
class ItkHeader:
    """Shape, affine (voxel to mm in RAS) and kind of the values of a file."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    components: int
    unsigned: bool


def is_itk(path: str | os.PathLike[str]) -> bool:
    """Whether a file is named as NRRD or MetaImage."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def read_itk_header(path: Path) -> ItkHeader:
    """Read the header of a file and check that the values it announces are there.

    Raises:
        UnusableImageError: If it is unreadable or cut short.
    """
    if not is_text(path):
        raise UnusableImageError("unreadable", "SimpleITK needs a name in UTF-8; rename the file")
    if path.stat().st_size == 0:
        raise UnusableImageError("zero bytes", "the file is empty; copy it again")
    reader = _reader(path)
    try:
        read_with_itk(path.suffix.lower(), reader.ReadImageInformation)
    except RuntimeError:
        raise UnusableImageError("unreadable", f"not a {path.suffix[1:].upper()} file that SimpleITK reads") from None
    shape = tuple(int(size) for size in reader.GetSize())
    import SimpleITK as sitk

    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    affine = _affine(reader.GetOrigin(), reader.GetDirection(), reader.GetSpacing()) if len(shape) == 3 else np.eye(4)
    header = ItkHeader(shape, affine, int(reader.GetNumberOfComponents()), "unsigned" in kind)
    _check_complete(path, header, kind)
    return header


def read_itk(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Values ``(1, *S)`` as float32 and the affine in RAS mm.

    Raises:
        ValueError: If the file cannot be read as one grey 3-D volume.
    """
    import SimpleITK as sitk

    header = read_itk_header(path)
    if len(header.shape) != 3 or header.components != 1:
        raise ValueError(f"expected one grey 3-D volume, got {header.shape} with {header.components} values a voxel")
    reader = _reader(path)
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = read_with_itk(f"values of {path.suffix.lower()}", reader.Execute)
    except RuntimeError:
        raise ValueError("SimpleITK cannot decode it; the file may be damaged or cut short") from None
    values: NDArray[np.float32] = np.ascontiguousarray(sitk.GetArrayFromImage(image).T[np.newaxis])
    return values, header.affine


def _reader(path: Path) -> Any:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK would print header lines
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    return reader


def _affine(origin: Any, direction: Any, spacing: Any) -> NDArray[np.float64]:
    """From ITK's LPS origin, directions and spacing to RAS."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(direction).reshape(3, 3) * np.array(spacing)
    affine[:3, 3] = origin
    ras: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return ras


_BYTES = {"8-bit": 1, "16-bit": 2, "32-bit": 4, "64-bit": 8}


def _check_complete(path: Path, header: ItkHeader, kind: str) -> None:
    """Compare what lies behind the header of a single file with what the header announces."""
    size = next((count for name, count in _BYTES.items() if name in kind), 0)
    expected = int(np.prod(header.shape)) * header.components * size
    with open(path, "rb") as stream:
        start = stream.read(_MAX_HEADER)
    if path.suffix.lower() == ".nrrd":
        end = re.search(rb"\r?\n\r?\n", start)
        packed = re.search(rb"(?mi)^encoding:\s*(gzip|gz)\s*$", start[: end.end() if end else 0])
        plain = re.search(rb"(?mi)^encoding:\s*raw\s*$", start[: end.end() if end else 0])
        single = end is not None and not re.search(rb"(?mi)^data ?file:", start[: end.end()])
    elif path.suffix.lower() == ".mha":
        end = re.search(rb"(?mi)^ElementDataFile\s*=\s*LOCAL\s*?\n", start)
        packed = re.search(rb"(?mi)^CompressedData\s*=\s*True", start[: end.end() if end else 0])
        plain, single = None if packed else end, end is not None
    else:
        return
    if end is None or not single:
        return
    found = path.stat().st_size - end.end()
    if plain is None and packed is not None:
        found = _inflated(path, end.end(), expected)
    elif plain is None:
        return
    if found < expected:
        raise UnusableImageError("cut short", f"{found} of {expected} bytes; copy the file again")


def _inflated(path: Path, start: int, expected: int) -> int:
    """How many bytes a gzip or zlib stream holds; its length field is looked at first, where there is one."""
    with open(path, "rb") as stream:
        stream.seek(start)
        head = stream.read(2)
        stream.seek(-4, os.SEEK_END)
        if head == b"\x1f\x8b" and int.from_bytes(stream.read(4), "little") == expected % (1 << 32):
            return expected
        stream.seek(start)
        engine, size = zlib.decompressobj(47), 0  # 47: zlib or gzip by its own mark
        try:
            while block := stream.read(1 << 16):
                size += len(engine.decompress(block))
        except zlib.error:
            return min(size, expected - 1)
    return size + len(engine.flush())
