"""DICOM headers and the geometry of a stack of slices: what loading and scanning share.

Header values are taken from their raw bytes. pydicom's converters would warn about malformed values, and quote them;
a warning that quotes a header can carry a patient's name into a log.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import unpack
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_TAGS = {
    "sop_class": 0x00080016,
    "sop_instance": 0x00080018,
    "image_type": 0x00080008,
    "modality": 0x00080060,
    "patient_name": 0x00100010,
    "patient_id": 0x00100020,
    "birth_date": 0x00100030,
    "study": 0x0020000D,
    "series": 0x0020000E,
    "position": 0x00200032,
    "orientation": 0x00200037,
    "samples": 0x00280002,
    "frames": 0x00280008,
    "rows": 0x00280010,
    "columns": 0x00280011,
    "pixel_spacing": 0x00280030,
    "bits": 0x00280100,
    "signed": 0x00280103,
    "intercept": 0x00281052,
    "thickness": 0x00180050,
    "spacing_between": 0x00180088,
}
_PIXEL_ELEMENTS = (0x0008, 0x0009, 0x0010)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"
# What the GDCM inside SimpleITK decodes: uncompressed, deflated, RLE, JPEG, JPEG-LS and JPEG 2000.
_JPEG = ("50", "51", "57", "70", "80", "81", "90", "91")
READABLE_SYNTAXES = frozenset(
    {_IMPLICIT, "1.2.840.10008.1.2.1", _DEFLATED, _BIG_ENDIAN, "1.2.840.10008.1.2.5"}
    | {f"1.2.840.10008.1.2.4.{number}" for number in _JPEG}
)


class UnusableImageError(ValueError):
    """An input that cannot be read as one 3-D volume.

    Args:
        reason: Short category, the same for every input of that kind.
        detail: What came and what to do about it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True)
class SliceHeader:
    """The header fields of one DICOM file that grouping and geometry need.

    Identifying fields are kept out of ``repr``: they serve as keys for grouping and go nowhere else.
    """

    path: Path
    sop_class: str
    modality: str
    image_type: tuple[str, ...]
    transfer_syntax: str
    rows: int
    columns: int
    frames: int
    samples: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    slice_step: float
    may_be_negative: bool
    pixels: str
    series: str = field(repr=False)
    sop_instance: str = field(repr=False)
    patient: str = field(repr=False)


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file carries the ``DICM`` mark after its 128-byte preamble."""
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_slice_header(path: str | os.PathLike[str]) -> SliceHeader:
    """Read the header of one DICOM file and check that its pixel data is all there.

    Args:
        path: A DICOM file.

    Returns:
        The header; ``pixels`` is ``"complete"``, ``"cut short"`` or ``"none"``.

    Raises:
        UnusableImageError: If pydicom cannot read the file.
    """
    from pydicom import dcmread

    try:
        with open(path, "rb") as stream:
            dataset = dcmread(stream, stop_before_pixels=True, specific_tags=list(_TAGS.values()))
            syntax = str(dataset.file_meta.get("TransferSyntaxUID", _IMPLICIT))
            values = {name: dataset.get_item(tag) for name, tag in _TAGS.items() if tag in dataset}
            return _header(Path(path), values, syntax, _pixel_state(stream, values, syntax))
    except Exception as error:  # pydicom raises many types, and their texts may quote header values
        raise UnusableImageError(
            "unreadable", f"not a DICOM file that pydicom reads ({type(error).__name__})"
        ) from None


def _header(path: Path, values: dict[str, Any], syntax: str, pixels: str) -> SliceHeader:
    """Pick plain values out of raw data elements."""
    steps = _numbers(values.get("spacing_between")) + _numbers(values.get("thickness"))
    return SliceHeader(
        path=path,
        sop_class=_text(values.get("sop_class")),
        modality=_text(values.get("modality")).upper(),
        image_type=tuple(part.strip().upper() for part in _text(values.get("image_type")).split("\\")),
        transfer_syntax=syntax,
        rows=_integer(values.get("rows")),
        columns=_integer(values.get("columns")),
        frames=int((_numbers(values.get("frames")) or (1.0,))[0]),
        samples=_integer(values.get("samples"), 1),
        position=_numbers(values.get("position")),
        orientation=_numbers(values.get("orientation")),
        pixel_spacing=_numbers(values.get("pixel_spacing")),
        slice_step=next((abs(step) for step in steps if step), 1.0),
        may_be_negative=_integer(values.get("signed")) == 1 or any(c < 0 for c in _numbers(values.get("intercept"))),
        pixels=pixels,
        series=_text(values.get("series")),
        sop_instance=_text(values.get("sop_instance")),
        patient=_patient(values),
    )


def _patient(values: dict[str, Any]) -> str:
    """Key under which files of one patient meet: the id, else name and birth date, else the study."""
    identity = _text(values.get("patient_id"))
    if identity:
        return f"id:{identity}"
    name = _text(values.get("patient_name"))
    if name:
        return f"name:{name}:{_text(values.get('birth_date'))}"
    return f"study:{_text(values.get('study')) or _text(values.get('series'))}"


def _text(element: Any) -> str:
    value = getattr(element, "value", None)
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0\t\r\n")


def _numbers(element: Any) -> tuple[float, ...]:
    """Decimal strings as floats; anything malformed gives an empty tuple, which the geometry check reports."""
    try:
        numbers = tuple(float(part) for part in _text(element).split("\\") if part.strip())
    except ValueError:
        return ()
    return numbers if np.isfinite(numbers).all() else ()


def _integer(element: Any, default: int = 0) -> int:
    value = getattr(element, "value", None)
    if not isinstance(value, bytes) or len(value) < 2:
        return default
    return int.from_bytes(value[:2], "little" if element.is_little_endian else "big")


def _pixel_state(stream: BinaryIO, values: dict[str, Any], syntax: str) -> str:
    """Whether the pixel data, at whose element the stream stands, reaches as far as the header says."""
    if not _integer(values.get("rows")) or not _integer(values.get("columns")):
        return "none"
    if syntax == _DEFLATED:  # the whole data set is compressed: only decoding tells
        return "complete"
    size = os.fstat(stream.fileno()).st_size
    length = _pixel_length(stream, syntax)
    if length is None:
        return "none"
    if length == _UNDEFINED_LENGTH:
        stream.seek(max(stream.tell(), size - 4096))
        return "complete" if _SEQUENCE_END in stream.read() else "cut short"
    missing = stream.tell() + length > size or length < _native_length(values)
    return "cut short" if missing else "complete"


def _pixel_length(stream: BinaryIO, syntax: str) -> int | None:
    """Length field of the pixel data element, or ``None`` where the file has no such element."""
    order = ">" if syntax == _BIG_ENDIAN else "<"
    start = stream.read(8)
    if len(start) < 8:
        return None
    group, element = unpack(f"{order}HH", start[:4])
    if group != 0x7FE0 or element not in _PIXEL_ELEMENTS:
        return None
    if syntax == _IMPLICIT:
        return int(unpack("<L", start[4:])[0])
    rest = stream.read(4)
    return int(unpack(f"{order}L", rest)[0]) if len(rest) == 4 else 0


def _native_length(values: dict[str, Any]) -> int:
    """Bytes of an uncompressed image; chroma-subsampled colour is smaller, so colour is not counted."""
    if _integer(values.get("samples"), 1) != 1:
        return 0
    frames = int((_numbers(values.get("frames")) or (1.0,))[0])
    pixels = _integer(values.get("rows")) * _integer(values.get("columns")) * frames
    return pixels * _integer(values.get("bits"), 16) // 8


def check_single_image(header: SliceHeader) -> None:
    """Check that a file is one slice: not an object without picture, not a multi-frame image.

    Raises:
        UnusableImageError: If it is something else.
    """
    if header.modality in ("SEG", "RTDOSE", "RTSTRUCT", "SR", "PR", "KO") or header.pixels == "none":
        kind = "no pixel data" if header.pixels == "none" else f"modality {header.modality}"
        raise UnusableImageError("DICOM object that is not an image", f"{kind}; it cannot be a slice of a volume")
    if header.frames > 1 or (not header.position and header.sop_class in _ENHANCED):
        raise UnusableImageError(
            "enhanced multi-frame DICOM is not read yet",
            f"{header.frames} frames in one file; convert it to NIfTI first",
        )


_ENHANCED = frozenset(f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1"))


def check_pixels(headers: Iterable[SliceHeader]) -> None:
    """Check that the pixel data of every slice is complete and of a compression SimpleITK decodes.

    Raises:
        UnusableImageError: At the first slice that is not.
    """
    for header in headers:
        name = header.path.name
        if header.pixels == "cut short":
            raise UnusableImageError("cut short", f"the pixel data of {name} ends early; copy the file again")
        if header.transfer_syntax not in READABLE_SYNTAXES:
            from pydicom.uid import UID

            kind = UID(header.transfer_syntax).name
            raise UnusableImageError("unsupported compression", f"{name} is stored as {kind}; decompress it first")


def stack(headers: Sequence[SliceHeader]) -> tuple[list[SliceHeader], NDArray[np.float64]]:
    r"""Sort the slices of one series and work out where their voxels lie.

    With $r, c$ the direction cosines along a row and down a column, $s_x, s_y$ the spacing between columns and rows and
    $p_0, p_{n-1}$ the positions of the outer slices, voxel $(i, j, k)$ lies at
    $p_0 + i\, s_x\, r + j\, s_y\, c + k\, (p_{n-1} - p_0) / (n - 1)$.

    Args:
        headers: Slices of one series, in any order.

    Returns:
        The slices along the slice normal, and the 4 x 4 matrix from voxel ``(column, row, slice)`` to mm in RAS.

    Raises:
        UnusableImageError: If sizes or directions are mixed, tags are missing, or slices missing, doubled or uneven.
    """
    check_one_grid(headers)
    first = headers[0]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    ordered = sorted(headers, key=lambda header: (float(normal @ np.array(header.position)), header.path.as_posix()))
    positions = np.array([header.position for header in ordered])
    check_even(positions, normal)
    lps = np.eye(4)
    lps[:3, 0] = row * first.pixel_spacing[1]
    lps[:3, 1] = column * first.pixel_spacing[0]
    lps[:3, 2] = (positions[-1] - positions[0]) / (len(ordered) - 1) if len(ordered) > 1 else normal * first.slice_step
    lps[:3, 3] = positions[0]
    return ordered, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def check_one_grid(headers: Sequence[SliceHeader]) -> None:
    """Check that all slices are grey and share matrix size, pixel spacing and a valid orientation.

    Raises:
        UnusableImageError: If they do not.
    """
    sizes = sorted({(header.columns, header.rows) for header in headers})
    if len(sizes) > 1:
        listed = ", ".join(f"{columns} x {rows}" for columns, rows in sizes)
        raise UnusableImageError("mixed image sizes", f"one series holds images of {listed}; split it")
    for header in headers:
        if header.samples != 1:
            raise UnusableImageError(
                "colour image", f"{header.path.name} has {header.samples} samples per pixel, only grey images are read"
            )
        if (len(header.position), len(header.orientation), len(header.pixel_spacing)) != (3, 6, 2):
            raise UnusableImageError(
                "no geometry tags", f"{header.path.name} lacks a valid image position, orientation or pixel spacing"
            )
    first = headers[0]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column), 1 + abs(row @ column)])
    if np.abs(lengths - 1).max() > 1e-2 or min(first.pixel_spacing) <= 0:
        raise UnusableImageError(
            "invalid geometry tags", f"{first.path.name} has directions that are not orthonormal or a spacing <= 0"
        )
    for name, values, tolerance in (
        ("orientations", [header.orientation for header in headers], 1e-4),
        ("pixel spacings", [header.pixel_spacing for header in headers], 1e-5),
    ):
        if np.abs(np.array(values) - np.array(values[0])).max() > tolerance:
            raise UnusableImageError(f"mixed {name}", f"one series holds images of several {name}; split it")


def check_even(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """Check that sorted slice positions lie evenly on one line.

    Headers rounded to 0.1 mm are forgiven: up to 0.1 mm, at most a fifth of the step, or 1 % of the step off the line.

    Args:
        positions: ``(n, 3)`` in mm, sorted along ``normal``.
        normal: Unit vector across the slices.

    Raises:
        UnusableImageError: Naming the gaps in mm along the normal.
    """
    if len(positions) < 2:
        return
    heights = positions @ normal
    steps = np.diff(heights)
    usual = float(np.median(steps))
    if steps.min() < 1e-3:
        count = int((steps < 1e-3).sum())
        raise UnusableImageError(
            "several images at one position",
            f"{count + 1} or more images share a slice position (copies, echoes or time points); split the series",
        )
    even = np.linspace(positions[0], positions[-1], len(positions))
    tolerance = max(min(0.1, 0.2 * usual), 0.01 * usual)
    if np.linalg.norm(positions - even, axis=1).max() <= tolerance:
        return
    # Gaps stand out from the median step; a slow drift or a bend of the stack does not.
    gaps = [index for index, step in enumerate(steps) if abs(step - usual) > tolerance]
    listed = "; ".join(f"{steps[k]:.2f} mm between {heights[k]:.2f} and {heights[k + 1]:.2f} mm" for k in gaps[:5])
    more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
    found = (
        f"the usual step is {usual:.2f} mm, but {listed}{more}" if gaps else "the slices do not lie evenly on one line"
    )
    raise UnusableImageError("missing or unevenly spaced slices", f"{found}; complete or split the series")
