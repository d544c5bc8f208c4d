"""Enhanced multi-frame DICOM: one header a frame, and the decoded frames of one file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from monai_cl.io.dicom.lookup import check_no_frame_table
from monai_cl.io.dicom.slices import SliceHeader
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.threads import without_warnings

_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")


def read_frames(header: SliceHeader) -> list[SliceHeader]:
    """Headers of the frames of a multi-frame file, from its functional groups.

    Position, orientation, pixel spacing, rescale and frame type of a frame come from its own functional group, else
    from the shared one, else from the top of the data set.

    Args:
        header: Header of the file; what frames do not say is taken from it.

    Raises:
        UnusableImageError: If pydicom cannot read the file, or it announces no frame or more than it describes.
    """
    from pydicom import dcmread

    if header.frames < 1:
        detail = f"at least one frame is needed, the header announces {header.frames}; export it again"
        raise UnusableImageError("unreadable", detail, header.person)
    try:
        with without_warnings():
            dataset = dcmread(header.path, stop_before_pixels=True, force=True, defer_size="1 MB")
            # frames that nothing describes are alike: the first one stands for all, however many are announced
            described = header.frames if dataset.get("PerFrameFunctionalGroupsSequence") else 1
            return [_frame(header, dataset, index) for index in range(described)]
    except UnusableImageError:
        raise
    except Exception as error:  # whatever pydicom finds wrong; its texts may quote header values
        raise UnusableImageError(
            "unreadable", f"frames of {header.path.name} cannot be told apart ({type(error).__name__})", header.person
        ) from None


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
    intercept = numbers("PixelValueTransformationSequence", "RescaleIntercept") or (header.intercept,)
    slope = numbers("PixelValueTransformationSequence", "RescaleSlope") or (header.slope,)
    kinds = [
        str(part).upper()
        for group in groups
        for name in _FRAME_TYPES
        for item in group.get(name) or ()
        for part in item.get("FrameType") or ()
    ]
    return dataclasses.replace(
        header,
        frame=index,
        # a position of the whole file is that of no frame among several
        position=numbers("PlanePositionSequence", "ImagePositionPatient") or (header.position * (header.frames == 1)),
        orientation=numbers("PlaneOrientationSequence", "ImageOrientationPatient") or header.orientation,
        pixel_spacing=numbers("PixelMeasuresSequence", "PixelSpacing") or header.pixel_spacing,
        slice_step=next((abs(step) for step in steps if step), header.slice_step),
        slope=slope[0],
        intercept=intercept[0],
        may_be_negative=header.may_be_negative or (intercept[0] < 0 and not header.value_table),
        image_type=tuple(kinds) or header.image_type,
        kind="\\".join(kinds),
    )


def _groups(dataset: Any, index: int) -> Iterator[Any]:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if per_frame:
        yield per_frame[index]
    yield from (dataset.get("SharedFunctionalGroupsSequence") or ())[:1]


def _is_many(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
