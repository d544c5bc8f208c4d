"""DICOM headers and the geometry of a stack of slices: what loading and scanning share.

Header values are taken from their raw bytes. pydicom's converters would warn about malformed values, and quote them;
a warning that quotes a header can carry a patient's name into a log.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from struct import unpack
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_cl.transforms._dicom_tags import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, Tags, read_tags

_SOP_CLASS, _SOP_INSTANCE, _IMAGE_TYPE, _MODALITY = 0x00080016, 0x00080018, 0x00080008, 0x00080060
_CHARSET, _NAME, _ID, _BIRTH = 0x00080005, 0x00100010, 0x00100020, 0x00100030
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_POSITION, _ORIENTATION, _PIXEL_SPACING = 0x00200032, 0x00200037, 0x00280030
_SAMPLES, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280008, 0x00280010, 0x00280011
_BITS, _SIGNED, _BURNED_IN = 0x00280100, 0x00280103, 0x00280301
_INTERCEPT, _SLOPE, _THICKNESS, _SPACING_BETWEEN = 0x00281052, 0x00281053, 0x00180050, 0x00180088
# What tells the kind of picture: never shown as it is, since free text can name a patient.
FACTS = {
    "body_part": 0x00180015,
    "series_description": 0x0008103E,
    "study_description": 0x00081030,
    "protocol": 0x00181030,
    "scanning_sequence": 0x00180020,
    "sequence_variant": 0x00180021,
    "angio": 0x00180025,
    "sequence_name": 0x00180024,
    "tr": 0x00180080,
    "te": 0x00180081,
    "ti": 0x00180082,
    "flip_angle": 0x00181314,
    "field_strength": 0x00180087,
    "kvp": 0x00180060,
    "contrast": 0x00180010,
    "b_value": 0x00189087,
}
# What tells who the patient is, and when: collected to be kept out of everything that is written.
PERSON_TAGS = {
    "names": (_NAME, 0x00101001, 0x00101005, 0x00101060, 0x00080090, 0x00081050, 0x00081060, 0x00081070, 0x00102297),
    "ids": (_ID, 0x00101000, 0x00080050, 0x00200010, 0x00380010, 0x00402016, 0x00402017),
    "dates": (_BIRTH, 0x00080020, 0x00080021, 0x00080022, 0x00080023, 0x0008002A, 0x00080012),
}
_WANTED = frozenset(
    {
        *(_SOP_CLASS, _SOP_INSTANCE, _IMAGE_TYPE, _MODALITY, _CHARSET, _STUDY, _SERIES, _POSITION, _ORIENTATION),
        *(_PIXEL_SPACING, _SAMPLES, _FRAMES, _ROWS, _COLUMNS, _BITS, _SIGNED, _BURNED_IN, _INTERCEPT, _SLOPE),
        *(_THICKNESS, _SPACING_BETWEEN, *FACTS.values(), *(tag for tags in PERSON_TAGS.values() for tag in tags)),
    }
)
_PIXEL_ELEMENTS = (0x0008, 0x0009, 0x0010)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# What the GDCM inside SimpleITK decodes: uncompressed, deflated, RLE, JPEG, JPEG-LS and JPEG 2000.
_JPEG = ("50", "51", "57", "70", "80", "81", "90", "91")
READABLE_SYNTAXES = frozenset(
    {IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, "1.2.840.10008.1.2.5"}
    | {f"1.2.840.10008.1.2.4.{number}" for number in _JPEG}
)
_ENHANCED = frozenset(f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1"))
_SLICES = _ENHANCED | {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"}
_NO_PICTURES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "RTIMAGE", "RTRECORD", "SR", "PR", "KO", "REG", "DOC", "ECG")


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
class Person:
    """What the header says of a person, raw: it is there to be recognised in paths and kept out of outputs."""

    names: tuple[bytes, ...] = field(repr=False)
    ids: tuple[bytes, ...] = field(repr=False)
    dates: tuple[bytes, ...] = field(repr=False)
    charset: str = ""


@dataclass(frozen=True)
class SliceHeader:
    """The header fields of one DICOM slice, a file or a frame of one, that grouping and geometry need.

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
    study: str = field(repr=False, default="")
    facts: Mapping[str, str] = field(repr=False, default_factory=dict)
    person: Person | None = field(repr=False, default=None)
    burned_in: bool = False
    frame: int | None = None
    slope: float = 1.0
    intercept: float = 0.0
    kind: str = ""

    @property
    def multi_frame(self) -> bool:
        """Whether the file holds frames with a geometry of their own."""
        return self.frames > 1 or self.sop_class in _ENHANCED

    @property
    def by_pydicom(self) -> bool:
        """Whether pydicom decodes it: frames, what SimpleITK does not know, and names of files it aborts on."""
        return self.frame is not None or self.transfer_syntax not in READABLE_SYNTAXES or not is_text(self.path)


def is_text(path: str | os.PathLike[str]) -> bool:
    """Whether the name of a file is UTF-8: SimpleITK ends the process on others."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


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
        UnusableImageError: If the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            tags = read_tags(stream, _WANTED)
            return _header(Path(path), tags, _pixel_state(stream, tags))
    except OSError:
        raise
    except Exception as error:  # pydicom raises many types, and their texts may quote header values
        raise UnusableImageError(
            "unreadable", f"not a DICOM file that pydicom reads ({type(error).__name__})"
        ) from None


def read_slice_headers(path: str | os.PathLike[str]) -> list[SliceHeader]:
    """The header of a single-frame file, or one header a frame of a multi-frame file.

    Args:
        path: A DICOM file.

    Raises:
        UnusableImageError: If the file cannot be read, or its frames carry no geometry.
    """
    header = read_slice_header(path)
    if not header.multi_frame or header.pixels != "complete" or header.modality in _NO_PICTURES:
        return [header]
    from monai_cl.transforms._multiframe import read_frames

    return read_frames(header)


def _header(path: Path, tags: Tags, pixels: str) -> SliceHeader:
    """Pick plain values out of raw data elements."""
    steps = tags.numbers(_SPACING_BETWEEN) + tags.numbers(_THICKNESS)
    intercept = tags.numbers(_INTERCEPT)
    return SliceHeader(
        path=path,
        sop_class=tags.text(_SOP_CLASS),
        modality=tags.text(_MODALITY).upper(),
        image_type=tuple(part.strip().upper() for part in tags.text(_IMAGE_TYPE).split("\\")),
        transfer_syntax=tags.syntax,
        rows=tags.integer(_ROWS),
        columns=tags.integer(_COLUMNS),
        frames=int((tags.numbers(_FRAMES) or (1.0,))[0]),
        samples=tags.integer(_SAMPLES, 1),
        position=tags.numbers(_POSITION),
        orientation=tags.numbers(_ORIENTATION),
        pixel_spacing=tags.numbers(_PIXEL_SPACING),
        slice_step=next((abs(step) for step in steps if step), 1.0),
        may_be_negative=tags.integer(_SIGNED) == 1 or any(c < 0 for c in intercept),
        pixels=pixels,
        series=tags.text(_SERIES),
        sop_instance=tags.text(_SOP_INSTANCE),
        patient=_patient(tags),
        study=tags.text(_STUDY),
        facts={name: text for name, tag in FACTS.items() if (text := tags.text(tag))},
        person=_person(tags),
        burned_in=tags.text(_BURNED_IN).upper() == "YES",
        slope=(tags.numbers(_SLOPE) or (1.0,))[0],
        intercept=(intercept or (0.0,))[0],
    )


def _person(tags: Tags) -> Person:
    found = {kind: tuple(tags.values[tag] for tag in of if tags.values.get(tag)) for kind, of in PERSON_TAGS.items()}
    return Person(**found, charset=tags.text(_CHARSET))


def _patient(tags: Tags) -> str:
    """Key under which files of one patient meet: the id, else name and birth date, else the study."""
    identity = tags.text(_ID)
    if identity:
        return f"id:{identity}"
    name = tags.text(_NAME)
    if name:
        return f"name:{name}:{tags.text(_BIRTH)}"
    return f"study:{tags.text(_STUDY) or tags.text(_SERIES)}"


def _pixel_state(stream: BinaryIO, tags: Tags) -> str:
    """Whether the pixel data reaches as far as the header says."""
    if not tags.integer(_ROWS) or not tags.integer(_COLUMNS):
        return "none"
    if tags.syntax == DEFLATED:  # the whole data set is compressed: only decoding tells
        return "complete"
    size = os.fstat(stream.fileno()).st_size
    stream.seek(tags.end)
    length = _pixel_length(stream, tags.syntax)
    if length is None:
        return "none"
    if length == _UNDEFINED_LENGTH:
        frames = int((tags.numbers(_FRAMES) or (1.0,))[0])
        return "complete" if _fragments(stream, size) >= frames else "cut short"
    missing = stream.tell() + length > size or length < _native_length(tags)
    return "cut short" if missing else "complete"


def _fragments(stream: BinaryIO, size: int) -> int:
    """Number of fragments of compressed pixel data, the table of offsets aside; 0 where the file ends among them."""
    count = -1
    while (head := stream.read(8))[:4] == _ITEM and len(head) == 8:
        count += 1
        if stream.seek(int(unpack("<L", head[4:])[0]), os.SEEK_CUR) > size:
            return 0
    return max(count, 0) if head[:4] == _SEQUENCE_END else 0


def _pixel_length(stream: BinaryIO, syntax: str) -> int | None:
    """Length field of the pixel data element, or ``None`` where the file has no such element."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    start = stream.read(8)
    if len(start) < 8:
        return None
    group, element = unpack(f"{order}HH", start[:4])
    if group != 0x7FE0 or element not in _PIXEL_ELEMENTS:
        return None
    if syntax == IMPLICIT:
        return int(unpack("<L", start[4:])[0])
    rest = stream.read(4)
    return int(unpack(f"{order}L", rest)[0]) if len(rest) == 4 else 0


def _native_length(tags: Tags) -> int:
    """Bytes of an uncompressed image; chroma-subsampled colour is smaller, so colour is not counted."""
    if tags.integer(_SAMPLES, 1) != 1:
        return 0
    frames = int((tags.numbers(_FRAMES) or (1.0,))[0])
    pixels = tags.integer(_ROWS) * tags.integer(_COLUMNS) * frames
    return pixels * tags.integer(_BITS, 16) // 8


def check_single_image(header: SliceHeader) -> None:
    """Check that a file holds pictures: not an index, a report, a segmentation or a header whose pixels are gone.

    Raises:
        UnusableImageError: If it does not.
    """
    if header.sop_class in _SLICES and not (header.rows and header.columns):
        raise UnusableImageError("cut short", "the file ends inside its header; copy it again")
    if header.modality in _NO_PICTURES or not (header.rows and header.columns):
        kind = f"modality {header.modality}" if header.modality in _NO_PICTURES else "no picture in it"
        raise UnusableImageError("DICOM object that is not an image", f"{kind}; it cannot be a slice of a volume")
    if header.pixels == "none":
        raise UnusableImageError("no pixel data", "the header announces a picture that is not there; export it again")


def check_pixels(headers: Iterable[SliceHeader]) -> None:
    """Check that the pixel data of every slice is complete and of a compression that is decoded here.

    Raises:
        UnusableImageError: At the first slice that is not.
    """
    for header in headers:
        name = header.path.name
        if header.pixels == "cut short":
            raise UnusableImageError("cut short", f"the pixel data of {name} ends early; copy the file again")
        if header.by_pydicom and not _pydicom_decodes(header.transfer_syntax):
            from pydicom.uid import UID

            kind = UID(header.transfer_syntax).name
            raise UnusableImageError(
                "unsupported compression",
                f"{name} is stored as {kind}; pip install 'monai_cl[dicom]', or decompress it first",
            )


@cache
def _pydicom_decodes(syntax: str) -> bool:
    """Whether the packages installed here decode a transfer syntax."""
    from pydicom.pixels import get_decoder

    if syntax == DEFLATED:
        syntax = EXPLICIT
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


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
    ordered = sorted(
        headers, key=lambda one: (float(normal @ np.array(one.position)), one.path.as_posix(), one.frame or 0)
    )
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
        _check_time(len(heights), len(heights) - count)
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


def _check_time(images: int, places: int) -> None:
    """Raise where every slice position holds the same number of images: echoes, phases, b-values or time points."""
    if images % places == 0:
        raise UnusableImageError(
            "4-D",
            f"{places} slice positions x {images // places} images each (echoes, phases or time points); "
            "split it into one series a volume",
        )


def tilt(affine: NDArray[np.float64]) -> float:
    """Angle in degrees between the step from slice to slice and the slice normal: 0 but for a tilted gantry."""
    step, normal = affine[:3, 2], np.cross(affine[:3, 0], affine[:3, 1])
    sine = np.linalg.norm(np.cross(step, normal)) / (np.linalg.norm(step) * np.linalg.norm(normal))
    return float(np.degrees(np.arcsin(min(1.0, sine))))
