"""Reading the header of a DICOM file, and of each frame of a multi-frame one.

Header values are taken from their raw bytes. pydicom's converters would warn about malformed values, and quote them;
a warning that quotes a header can carry a patient's name into a log.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from struct import unpack
from typing import Any, Literal

from monai_cl.io.dicom.lookup import LUT_DESCRIPTOR, MODALITY_LUT, check_no_frame_table, read_table, type_of
from monai_cl.io.dicom.pixels import BITS, COLUMNS, FRAMES, HIGH_BIT, ROWS, SAMPLES, STORED_BITS, pixel_state
from monai_cl.io.dicom.slices import NO_PICTURES, Person, SliceHeader
from monai_cl.io.dicom.tags import BIG_ENDIAN, Tags, read_tags, starts_with_data_set
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.threads import without_warnings_of_dicom
from monai_cl.privacy.quoting import Quoting

_SOP_CLASS, _SOP_INSTANCE, _IMAGE_TYPE, _MODALITY = 0x00080016, 0x00080018, 0x00080008, 0x00080060
_CHARSET, _NAME, _ID, _BIRTH = 0x00080005, 0x00100010, 0x00100020, 0x00100030
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_POSITION, _ORIENTATION, _PIXEL_SPACING = 0x00200032, 0x00200037, 0x00280030
_SIGNED, _BURNED_IN, _PHOTOMETRIC = 0x00280103, 0x00280301, 0x00280004
_PADDING, _PADDING_LIMIT = 0x00280120, 0x00280121
_ACQUISITION_TIME, _CONTENT_TIME = 0x00080032, 0x00080033
_CONCATENATION, _PART, _PARTS = 0x00209161, 0x00209162, 0x00209163
_INTERCEPT, _SLOPE, _UNITS = 0x00281052, 0x00281053, 0x00281054
_PHILIPS, _PHILIPS_SCALE, _PHILIPS_BLOCK = 0x20050010, 0x2005100E, "Philips MR Imaging DD 001"
_PHILIPS_FRAME = 0x2005140F  # private sequence of a frame that holds its scale
_THICKNESS, _SPACING_BETWEEN = 0x00180050, 0x00180088
# Tags of the kind of picture: never shown as they are, since free text can name a patient.
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
    "echo_number": 0x00180086,
    "frame_of_reference": 0x00200052,
    "instance_number": 0x00200013,
    "series_number": 0x00200011,
    "temporal_position": 0x00200100,
}
_DOUBLES = ("b_value",)  # stored in binary
# Tags of the patient and of dates: collected to be kept out of everything that is written.
PERSON_TAGS = {
    "names": (
        *(_NAME, 0x00101001, 0x00101005, 0x00101060, 0x00102297),
        *(0x00080090, 0x0008009C, 0x00081048, 0x00081050, 0x00081060, 0x00081070, 0x00321032),  # physicians
    ),
    "ids": (_ID, 0x00101000, 0x00080050, 0x00200010, 0x00380010, 0x00401001, 0x00402016, 0x00402017),
    "dates": (_BIRTH, 0x00080020, 0x00080021, 0x00080022, 0x00080023, 0x0008002A, 0x00080012),
}
# Ids under which other hospitals know the patient: sequence and element of its items.
OTHER_IDS = {0x00101002: _ID}
_INSIDE = {**OTHER_IDS, MODALITY_LUT: LUT_DESCRIPTOR}
WANTED = frozenset(
    {
        *(_SOP_CLASS, _SOP_INSTANCE, _IMAGE_TYPE, _MODALITY, _CHARSET, _STUDY, _SERIES, _POSITION, _ORIENTATION),
        *(_PIXEL_SPACING, SAMPLES, FRAMES, ROWS, COLUMNS, BITS, STORED_BITS, HIGH_BIT),
        *(_SIGNED, _BURNED_IN, _PHOTOMETRIC, _CONCATENATION, _PART, _PARTS),
        *(_ACQUISITION_TIME, _CONTENT_TIME),
        *(_PADDING, _PADDING_LIMIT, _INTERCEPT, _SLOPE, _UNITS, _THICKNESS, _SPACING_BETWEEN),
        *(_PHILIPS, _PHILIPS_SCALE),
        *FACTS.values(),
        *(tag for tags in PERSON_TAGS.values() for tag in tags),
    }
)
_FRAME_FACTS = {  # sequence and element of a functional group
    "te": ("MREchoSequence", "EffectiveEchoTime"),
    "b_value": ("MRDiffusionSequence", "DiffusionBValue"),
    "temporal_position": ("FrameContentSequence", "TemporalPositionIndex"),
}
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Return whether a file has the ``DICM`` mark after its 128-byte preamble, or starts with a data set."""
    with open(path, "rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or starts_with_data_set(start)


def read_slice_header(path: str | os.PathLike[str]) -> SliceHeader:
    """Read the header of a DICOM file and check that its pixel data is complete.

    Args:
        path: A DICOM file.

    Returns:
        The header; ``pixels`` is ``"complete"``, ``"cut short"`` or ``"none"``.

    Raises:
        UnusableImageError: If the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            tags = read_tags(stream, WANTED, inside=_INSIDE)
            header = _header(Path(path), tags, pixel_state(stream, tags))
        return header if MODALITY_LUT not in tags.values else _with_table(header)
    except (OSError, UnusableImageError):
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
    if not header.multi_frame or header.pixels != "complete" or header.modality in NO_PICTURES:
        return [header]
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
        rows=tags.integer(ROWS),
        columns=tags.integer(COLUMNS),
        frames=int((tags.numbers(FRAMES) or (1.0,))[0]),
        samples=tags.integer(SAMPLES, 1),
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
        facts={name: text for name in FACTS if (text := _fact(tags, name))},
        person=_person(tags),
        burned_in=tags.text(_BURNED_IN).upper() == "YES",
        rescale=frozenset(name for name, tag in (("slope", _SLOPE), ("intercept", _INTERCEPT)) if tags.text(tag)),
        slope=_number(tags, _SLOPE, 1.0),
        intercept=_number(tags, _INTERCEPT, 0.0),
        photometric=tags.text(_PHOTOMETRIC).upper(),
        padding=_padding(tags),
        units=tags.text(_UNITS).upper(),
        scale=_scale(tags),
        bits=_bits(tags),
        concatenation=tags.text(_CONCATENATION),
        part=(tags.integer(_PART), tags.integer(_PARTS)),
        time=_seconds(tags.text(_ACQUISITION_TIME) or tags.text(_CONTENT_TIME)),
    )


def _number(tags: Tags, tag: int, absent: float) -> float:
    """The one number of an element, ``absent`` where it is empty, NaN where it holds anything else."""
    numbers = tags.numbers(tag)
    return numbers[0] if len(numbers) == 1 else math.nan if tags.text(tag) else absent


def _with_table(header: SliceHeader) -> SliceHeader:
    """The header of a file whose values come from a table, which holds no negative ones."""
    with without_warnings_of_dicom():
        kind = type_of(read_table(header.path))
    return replace(header, value_table=kind, may_be_negative=False) if kind else header


def _padding(tags: Tags) -> tuple[float, float] | None:
    """Lowest and highest stored value of padding; ``None`` where the header announces none."""
    signed = tags.integer(_SIGNED) == 1
    order: Literal["little", "big"] = "little" if tags.little_endian else "big"
    ends = [
        float(int.from_bytes(value[:2], order, signed=signed))
        for tag in (_PADDING, _PADDING_LIMIT)
        if len(value := tags.values.get(tag, b"")) >= 2
    ]
    return (min(ends), max(ends)) if tags.values.get(_PADDING) and ends else None


def _seconds(text: str) -> float | None:
    """Seconds since midnight of a time of the form ``HHMMSS.F``, with colons in old files."""
    match = re.fullmatch(r"(\d\d):?(\d\d):?(\d\d(?:\.\d*)?)", text)
    return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3]) if match else None


def _bits(tags: Tags) -> tuple[int, int, int]:
    """Bits allocated and stored, and the highest one, as far as the header states them."""
    allocated = tags.integer(BITS, 16)
    stored = tags.integer(STORED_BITS, allocated)
    return allocated, stored, tags.integer(HIGH_BIT, stored - 1)


def _scale(tags: Tags) -> float | None:
    """Scale of the values of Philips MR: the signal is the rescaled value by slope and scale."""
    value = tags.values.get(_PHILIPS_SCALE, b"")
    if len(value) != 4 or tags.text(_PHILIPS) != _PHILIPS_BLOCK:
        return None
    return _usable_scale(float(unpack("<f" if tags.little_endian else ">f", value)[0]))


def _scale_of_frame(groups: Sequence[Any], *, little_endian: bool) -> float | None:
    """Scale of a frame of enhanced Philips MR, from its private sequence."""
    elements = (group.get(_PHILIPS_FRAME) for group in groups)
    for item in (item for element in elements if element is not None and element.VR == "SQ" for item in element.value):
        block, scale = item.get(_PHILIPS), item.get(_PHILIPS_SCALE)
        if block is None or scale is None or str(block.value).strip() != _PHILIPS_BLOCK:
            continue
        value = scale.value  # bytes where the file states no type
        if isinstance(value, bytes) and len(value) == 4:
            value = unpack("<f" if little_endian else ">f", value)[0]
        if isinstance(value, float):
            return _usable_scale(value)
    return None


def _usable_scale(value: float) -> float | None:
    return value if math.isfinite(value) and value > 0 else None


def _fact(tags: Tags, name: str) -> str:
    value = tags.values.get(FACTS[name], b"")
    if name in _DOUBLES and len(value) == 8:
        return f"{unpack('<d' if tags.little_endian else '>d', value)[0]:g}"
    return tags.text(FACTS[name])


def _person(tags: Tags) -> Person:
    result = {kind: tuple(tags.values[tag] for tag in of if tags.values.get(tag)) for kind, of in PERSON_TAGS.items()}
    others = tuple(part for tag in OTHER_IDS for part in tags.values.get(tag, b"").split(b"\\") if part)
    return Person(names=result["names"], ids=result["ids"] + others, dates=result["dates"], charset=tags.text(_CHARSET))


def _patient(tags: Tags) -> str:
    """Key under which files of one patient meet: the id, else name and birth date, else the study."""
    identity = tags.text(_ID)
    if identity:
        return f"id:{identity}"
    name = tags.text(_NAME)
    if name:
        return f"name:{name}:{tags.text(_BIRTH)}"
    return f"study:{tags.text(_STUDY) or tags.text(_SERIES)}"


def read_frames(header: SliceHeader) -> list[SliceHeader]:
    """Headers of the frames of a multi-frame file, from its functional groups.

    Position, orientation, pixel spacing, rescale and frame type of a frame come from its own functional group, else
    from the shared one, else from the top of the data set.

    Args:
        header: Header of the file; values that frames lack are taken from it.

    Raises:
        UnusableImageError: If pydicom cannot read the file, or it announces no frame or more than it describes.
    """
    from pydicom import dcmread

    if header.frames < 1:
        detail = f"at least one frame is needed, the header announces {header.frames}; export it again"
        raise UnusableImageError("unreadable", detail, header.person)
    try:
        with without_warnings_of_dicom():
            dataset = dcmread(header.path, stop_before_pixels=True, force=True, defer_size="1 MB")
            described = len(dataset.get("PerFrameFunctionalGroupsSequence") or ())
            if described not in (0, header.frames):
                detail = f"the header announces {header.frames} frames and describes {described}; export it again"
                raise UnusableImageError("unreadable", detail, header.person)
            # frames that nothing describes are alike: the first one stands for all, however many are announced
            return [_frame(header, dataset, index) for index in range(described or 1)]
    except UnusableImageError:
        raise
    except Exception as error:  # whatever pydicom finds wrong; its texts may quote header values
        detail = Quoting(f"frames of {{}} cannot be separated ({type(error).__name__})", header.path.name)
        raise UnusableImageError("unreadable", detail, header.person) from None


def _frame(header: SliceHeader, dataset: Any, index: int) -> SliceHeader:
    groups = list(_groups(dataset, index))
    check_no_frame_table(groups)

    def numbers(sequence: str, name: str) -> tuple[float, ...]:
        for group in groups:
            for item in group.get(sequence) or ():
                if item.get(name) is not None:
                    value = item.get(name)
                    return tuple(float(part) for part in (value if _is_many(value) else (value,)))
        return ()

    steps = numbers("PixelMeasuresSequence", "SpacingBetweenSlices") + numbers(
        "PixelMeasuresSequence", "SliceThickness"
    )
    own_intercept = numbers("PixelValueTransformationSequence", "RescaleIntercept")
    own_slope = numbers("PixelValueTransformationSequence", "RescaleSlope")
    intercept, slope = own_intercept or (header.intercept,), own_slope or (header.slope,)
    units = [
        str(item.get("RescaleType") or "").upper()
        for group in groups
        for item in group.get("PixelValueTransformationSequence") or ()
    ]
    kinds = [
        str(part).upper()
        for group in groups
        for name in _FRAME_TYPES
        for item in group.get(name) or ()
        for part in _parts(item.get("FrameType"))
    ]
    return replace(
        header,
        frame=index,
        # a position of the whole file is that of no frame among several
        position=numbers("PlanePositionSequence", "ImagePositionPatient") or (header.position * (header.frames == 1)),
        orientation=numbers("PlaneOrientationSequence", "ImageOrientationPatient") or header.orientation,
        pixel_spacing=numbers("PixelMeasuresSequence", "PixelSpacing") or header.pixel_spacing,
        slice_step=next((abs(step) for step in steps if step), header.slice_step),
        rescale=header.rescale | {name for name, own in (("slope", own_slope), ("intercept", own_intercept)) if own},
        slope=slope[0],
        intercept=intercept[0],
        units=next(filter(None, units), header.units),
        scale=_scale_of_frame(groups, little_endian=header.transfer_syntax != BIG_ENDIAN) or header.scale,
        may_be_negative=header.may_be_negative or (intercept[0] < 0 and not header.value_table),
        image_type=tuple(kinds) or header.image_type,
        kind="\\".join(kinds),
        facts={
            **header.facts,
            **{name: f"{value[0]:g}" for name, place in _FRAME_FACTS.items() if (value := numbers(*place))},
        },
    )


def _groups(dataset: Any, index: int) -> Iterator[Any]:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if per_frame:
        yield per_frame[index]
    yield from (dataset.get("SharedFunctionalGroupsSequence") or ())[:1]


def _parts(value: Any) -> tuple[Any, ...]:
    """Values of an element of one or several; none where it is empty."""
    return tuple(value) if _is_many(value) else (value,) if value else ()


def _is_many(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
