"""Headers of NRRD files (``.nrrd``, ``.nhdr``)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.errors import UnusableImageError
from monai_cl.io.raw_volume import RawVolume, beside, listed, whole_numbers

_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_TYPES = {
    "i1": "signed char,int8,int8_t", "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t", "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float", "f8": "double",
}  # fmt: skip
_TYPE_OF = {name: kind for kind, names in _TYPES.items() for name in names.split(",")}
_ENCODINGS = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2",
    "txt": "text", "text": "text", "ascii": "text", "hex": "hex",
}  # fmt: skip
_DOMAIN = ("domain", "space", "time", "???", "none", "")  # kinds of axes that are no components of a voxel
_FLIPS = {
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
_UNITS = {
    "m": "metres", "meter": "metres", "meters": "metres", "metre": "metres", "metres": "metres",
    "cm": "centimetres", "centimeter": "centimetres", "centimeters": "centimetres",
    "um": "micrometres", "\u00b5m": "micrometres", "\u03bcm": "micrometres", "micron": "micrometres",
    "microns": "micrometres", "micrometer": "micrometres", "micrometers": "micrometres",
    "nm": "nanometres", "in": "inches", "inch": "inches", "inches": "inches",
}  # fmt: skip  # another text may be anything, a name among them: it is neither shown nor taken for a unit


def read_nrrd(path: Path, start: bytes, root: Path | None) -> RawVolume:
    """The volume that a header describes, see :func:`~monai_cl.io.metaimage.read_metaimage`."""
    fields, begin, names = _fields(start)
    (dimension,) = whole_numbers(fields["dimension"], 1, low=1, high=16)
    sizes = whole_numbers(fields["sizes"], dimension, low=1, high=1 << 40)
    kind = _TYPE_OF[fields["type"].lower()]
    order = "<"
    if not kind.endswith("1") and fields["encoding"].lower() not in ("txt", "text", "ascii"):
        order = {"little": "<", "big": ">"}[fields["endian"].lower()]
    domain = _domain_axes(fields, dimension)
    _check_units(fields, domain)
    (skip,) = whole_numbers(fields.get("byte skip", fields.get("byteskip", "0")), 1, low=-1, high=1 << 40)
    (lines,) = whole_numbers(fields.get("line skip", fields.get("lineskip", "0")), 1, low=0, high=1 << 20)
    if lines:
        raise ValueError("lines before the values are not skipped")
    others = [size for axis, size in enumerate(sizes) if axis not in domain]
    return RawVolume(
        shape=tuple(sizes[axis] for axis in domain),
        affine=_affine(fields, domain),
        components=int(np.prod(others)) if others else 1,
        dtype=np.dtype(order + kind),
        encoding=_ENCODINGS[fields["encoding"].lower()],
        files=tuple(beside(path, name, root) for name in names) if names else (path,),
        begin=skip if names or skip < 0 else begin + skip,
    )


def names_in_nrrd(start: bytes) -> list[str]:
    """The files beside it that a header names."""
    return _fields(start)[2]


def _fields(start: bytes) -> tuple[dict[str, str], int, list[str]]:
    """Fields by name, where the values of a single file begin, and the files that a header names."""
    if _MAGIC.match(start) is None:
        raise ValueError("no NRRD file")
    end = re.search(rb"\r?\n\r?\n", start)
    head = start[: end.start()] if end else start
    lines = head.decode("utf-8", "surrogateescape").splitlines()[1:]
    fields: dict[str, str] = {}
    for number, line in enumerate(lines):
        name, colon, value = line.partition(":")
        if not colon or line.startswith("#") or value.startswith("="):
            continue
        fields[name.strip().lower()] = value.strip()
        if name.strip().lower() in ("data file", "datafile"):
            if value.split()[:1] == ["LIST"]:
                return fields, 0, [one.strip() for one in lines[number + 1 :] if one.strip()]
            return fields | _later(lines[number + 1 :]), 0, listed(value.strip())
    if end is None:
        raise ValueError("the header does not end")
    return fields, end.end(), []


def _later(lines: Sequence[str]) -> dict[str, str]:
    """Fields behind the one that names the file."""
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon and not value.startswith("=")}


def _vectors(text: str) -> list[NDArray[np.float64] | None]:
    """Vectors in brackets, ``none`` for axes that have no place in space."""
    result: list[NDArray[np.float64] | None] = []
    for part in re.findall(r"none|\([^)]*\)", text):
        result.append(None if part == "none" else np.array([float(one) for one in part[1:-1].split(",")]))
    return result


def _domain_axes(fields: Mapping[str, str], dimension: int) -> list[int]:
    kinds = fields.get("kinds", "").lower().split() or [""] * dimension
    directions = _vectors(fields.get("space directions", ""))
    if len(kinds) != dimension or (directions and len(directions) != dimension):
        raise ValueError("kinds and directions are needed for each axis")
    return [
        axis for axis in range(dimension) if kinds[axis] in _DOMAIN and (not directions or directions[axis] is not None)
    ]


def _check_units(fields: Mapping[str, str], domain: Sequence[int]) -> None:
    """Refuse lengths that are announced in another unit than mm."""
    if "space directions" in fields:
        units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    else:
        each = re.findall(r'"([^"]*)"', fields.get("units", ""))
        units = [each[axis] for axis in domain[:3] if axis < len(each)]
    for unit in units[:3]:
        if (name := _UNITS.get(unit.strip().lower())) is not None:
            detail = f"the header gives lengths in {name}, readers take them as mm; rewrite it"
            raise UnusableImageError("implausible units", detail)


def _affine(fields: Mapping[str, str], domain: Sequence[int]) -> NDArray[np.float64]:
    """Voxel to mm in RAS, of the first three axes."""
    affine, axes = np.eye(4), list(domain[:3])
    flips = np.array(_FLIPS.get(fields.get("space", "").lower(), (1, 1, 1)))
    if directions := _vectors(fields.get("space directions", "")):
        origin = _vectors(fields.get("space origin", ""))
        for column, axis in enumerate(axes):
            vector = directions[axis]
            affine[:3, column] = flips * (np.zeros(3) if vector is None else vector[:3])
        if origin and origin[0] is not None:
            affine[:3, 3] = flips * origin[0][:3]
    else:
        spacings = [float(part) for part in fields.get("spacings", "").split()] or [1.0] * (max(domain, default=0) + 1)
        for column, axis in enumerate(axes):
            affine[column, column] = spacings[axis] if np.isfinite(spacings[axis]) else 1.0
        mins = [float(part) for part in fields.get("axis mins", fields.get("axismins", "")).split()]
        for column, axis in enumerate(axes if mins else ()):
            affine[column, 3] = mins[axis] if np.isfinite(mins[axis]) else 0.0
    ras: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return ras
