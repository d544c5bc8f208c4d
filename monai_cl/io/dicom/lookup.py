"""The Modality LUT: a table from stored values to those of a modality, in the place of slope and intercept."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.errors import UnusableImageError
from monai_cl.io.threads import without_warnings_of_dicom

MODALITY_LUT, LUT_DESCRIPTOR = 0x00283000, 0x00283002
UNUSABLE = "lookup table that cannot be applied"
_UNITS = ("OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT")
_NEEDED = ("ModalityLUTSequence", "PixelRepresentation", "BitsAllocated")


def read_table(path: str | os.PathLike[str]) -> Any:
    """The elements of a file that :func:`apply_table` needs.

    Raises:
        UnusableImageError: If the table is not one that a picture can be looked up in.
    """
    from pydicom import dcmread

    try:
        with without_warnings_of_dicom():
            dataset: Any = dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_NEEDED))
            apply_table(np.zeros((1, 1), dtype=np.int32), dataset)
    except Exception as error:  # whatever pydicom finds wrong; its texts may quote header values
        raise UnusableImageError(
            UNUSABLE, f"the Modality LUT is damaged ({type(error).__name__}); export the series with rescaled values"
        ) from None
    return dataset


def type_of(dataset: Any) -> str:
    """Units of a lookup table: ``HU``, ``OD``, ``US`` for unspecified; ``None`` without a table."""
    if not dataset.get("ModalityLUTSequence"):
        return ""
    return str(dataset.ModalityLUTSequence[0].get("ModalityLUTType", "") or "US").strip().upper()


def shown_units(kind: str) -> str:
    """Units of a table in messages: a defined term of DICOM PS3.3 C.11.1.1.2, since a name may stand in their place.

    Example:
        >>> shown_units("US"), shown_units("DOE^JANE")
        ('US', 'no defined term')
    """
    return kind if kind in _UNITS else "no defined term"


def apply_table(stored: NDArray[Any], dataset: Any) -> NDArray[np.float32]:
    """Values of a table."""
    from pydicom.pixels import apply_modality_lut

    # in more bits than a stored value has: the first value that is mapped is taken off
    values = apply_modality_lut(stored.astype(np.int32), dataset)
    return np.asarray(values, dtype=np.float32)


def check_no_frame_table(groups: list[Any]) -> None:
    """Refuse a frame with a table of its own, which no standard class of images has."""
    for group in groups:
        inner = list(group.get("PixelValueTransformationSequence") or ())
        if any(one.get("ModalityLUTSequence") for one in (group, *inner)):
            raise UnusableImageError(
                UNUSABLE, "frames with a Modality LUT of their own; export the series with rescaled values"
            )
