"""Headers of MetaImage files (``.mha``, ``.mhd``)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.errors import UnusableImageError
from monai_cl.io.raw_volume import RawVolume, beside, listed, whole_numbers

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_LAST = "ElementDataFile"  # the values of a single file begin behind this line


def read_metaimage(path: Path, start: bytes, root: Path | None) -> RawVolume:
    """The volume that a header describes.

    Args:
        path: The file.
        start: Its first bytes, the whole header among them.
        root: Folder that no link may lead out of.

    Raises:
        UnusableImageError: If a file with voxels lies elsewhere, or values are stored scaled.
        Exception: If a field is absent or none of its kind.
    """
    fields, begin, rest = _fields(start)
    _check_unscaled(fields)
    axes = whole_numbers(fields["NDims"], 1, low=1, high=9)[0]
    shape = whole_numbers(fields["DimSize"], axes, low=1, high=1 << 40)
    (components,) = whole_numbers(fields.get("ElementNumberOfChannels", "1"), 1, low=1, high=1 << 16)
    (skip,) = whole_numbers(fields.get("HeaderSize", "0"), 1, low=-1, high=1 << 40)
    order = ">" if _is_true(fields, "ElementByteOrderMSB") or _is_true(fields, "BinaryDataByteOrderMSB") else "<"
    dtype = np.dtype(order + _TYPES[fields["ElementType"].removesuffix("_ARRAY")])
    packed = int(fields["CompressedDataSize"]) if fields.get("CompressedDataSize", "").isdigit() else None
    encoding = "zlib" if _is_true(fields, "CompressedData") else "raw"
    if fields.get("BinaryData", "True").lower() not in ("true", "1"):
        encoding = "text"
    named = fields[_LAST]
    local = named.upper() == "LOCAL"
    names = [] if local else rest if named.split()[0].upper() == "LIST" else listed(named)
    return RawVolume(
        shape=shape,
        affine=_affine(fields, axes),
        components=components,
        dtype=dtype,
        encoding=encoding,
        files=(path,) if local else tuple(beside(path, name, root) for name in names),
        begin=begin if local else skip,
        packed=packed or None,
    )


def names_in_metaimage(start: bytes) -> list[str]:
    """The files beside it that a header names."""
    fields, _, rest = _fields(start)
    named = fields[_LAST]
    return rest if named.split()[0].upper() == "LIST" else [] if named.upper() == "LOCAL" else listed(named)


def _fields(start: bytes) -> tuple[dict[str, str], int, list[str]]:
    """Fields by name, the place behind the last of them, and the lines that follow it."""
    fields: dict[str, str] = {}
    place = 0
    for line in start.split(b"\n"):
        place += len(line) + 1
        name, _, value = line.decode("utf-8", "surrogateescape").partition("=")
        fields[name.strip()] = value.strip()
        if name.strip() == _LAST:
            rest = start[place:].decode("utf-8", "surrogateescape").splitlines()
            return fields, place, [one.strip() for one in rest if one.strip()]
    raise ValueError("the header ends early")


def _check_unscaled(fields: Mapping[str, str]) -> None:
    """Refuse stored values that a slope and an offset lead to others: ITK reads the stored ones."""
    slope = float(fields.get("ElementToIntensityFunctionSlope", "1"))
    offset = float(fields.get("ElementToIntensityFunctionOffset", "0"))
    if (slope, offset) != (1, 0):
        detail = (
            f"ElementToIntensityFunction has the slope {slope:g} and the offset {offset:g}, which readers leave out; "
            "write the values themselves, with 1 and 0 there"
        )
        raise UnusableImageError("scaled values", detail)


def _is_true(fields: Mapping[str, str], name: str) -> bool:
    return fields.get(name, "").lower() in ("true", "1")


def _affine(fields: Mapping[str, str], axes: int) -> NDArray[np.float64]:
    """Affine in RAS from origin, directions (a row an axis) and spacing in LPS, of the first three axes."""
    origin = _numbers(fields, ("Offset", "Position", "Origin"), axes, np.zeros(axes))
    rows = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), axes * axes, np.eye(axes).ravel())
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), axes, np.ones(axes))
    affine, used = np.eye(4), min(axes, 3)
    affine[:used, :used] = (rows.reshape(axes, axes).T * spacing)[:used, :used]
    affine[:used, 3] = origin[:used]
    ras: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return ras


def _numbers(
    fields: Mapping[str, str], names: tuple[str, ...], count: int, otherwise: NDArray[np.float64]
) -> NDArray[np.float64]:
    for name in names:
        if name in fields:
            values = np.array([float(part) for part in fields[name].split()])
            if len(values) != count:
                raise ValueError(f"{name} needs {count} numbers")
            return values
    return otherwise
