"""Header fields of one DICOM slice, and of the person it shows."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monai_cl.io.dicom.tags import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT

# What the GDCM inside SimpleITK decodes: uncompressed, deflated, RLE, JPEG, JPEG-LS and JPEG 2000.
_JPEG = ("50", "51", "57", "70", "80", "81", "90", "91")
UNCOMPRESSED = frozenset({IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN})
READABLE_SYNTAXES = frozenset(
    {*UNCOMPRESSED, "1.2.840.10008.1.2.5"} | {f"1.2.840.10008.1.2.4.{number}" for number in _JPEG}
)
ENHANCED = frozenset(f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1"))
NO_PICTURES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "RTIMAGE", "RTRECORD", "SR", "PR", "KO", "REG", "DOC", "ECG")


@dataclass(frozen=True)
class Person:
    """Raw header fields of a person, to recognise them in paths and keep them out of outputs."""

    names: tuple[bytes, ...] = field(repr=False)
    ids: tuple[bytes, ...] = field(repr=False)
    dates: tuple[bytes, ...] = field(repr=False)
    charset: str = ""


@dataclass(frozen=True)
class SliceHeader:
    """The header fields of one DICOM slice, a file or a frame of one, that grouping and geometry need.

    Identifying fields are kept out of ``repr``: they serve as keys for grouping and go nowhere else. ``bits`` are those
    allocated and stored, and the highest one of a value; ``rescale`` names what is stated of ``slope`` and
    ``intercept``, ``units`` those after it, ``scale`` is the private one of Philips MR; ``part`` is the number of a
    file in its concatenation, and that of all its files; ``time`` is that of the acquisition in s of the day.
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
    rescale: frozenset[str] = frozenset()
    slope: float = 1.0
    intercept: float = 0.0
    kind: str = ""
    photometric: str = ""
    value_table: str = ""
    units: str = ""
    scale: float | None = None
    padding: tuple[float, float] | None = None
    by_link: bool = False
    bits: tuple[int, int, int] = (16, 16, 15)
    concatenation: str = field(repr=False, default="")
    part: tuple[int, int] = (0, 0)
    time: float | None = None

    @property
    def has_place(self) -> bool:
        """Return whether position, orientation and pixel spacing are stated."""
        return (len(self.position), len(self.orientation), len(self.pixel_spacing)) == (3, 6, 2)

    @property
    def multi_frame(self) -> bool:
        """Return whether the file holds frames with a geometry of their own."""
        return self.frames > 1 or self.sop_class in ENHANCED

    @property
    def low_bit(self) -> int:
        """Lowest bit of a value: 0 but for values that lie above overlays or unused bits."""
        return self.bits[2] + 1 - self.bits[1]

    @property
    def by_pydicom(self) -> bool:
        """Return whether pydicom decodes it: all but slices in a compression that SimpleITK gives as they are."""
        return (
            self.frame is not None
            or self.transfer_syntax in UNCOMPRESSED  # needs no library in C, and takes less time
            or bool(self.value_table)
            or bool(self.low_bit)
            or self.transfer_syntax not in READABLE_SYNTAXES
            or self.photometric == "MONOCHROME1"  # how to show values, which stay what they are
            or not is_text(self.path)
        )


def is_text(path: str | os.PathLike[str]) -> bool:
    """Return whether the name of a file is UTF-8: SimpleITK ends the process on others."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
