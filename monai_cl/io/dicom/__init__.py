"""DICOM headers and the geometry of a stack of slices: what loading and scanning share."""

from monai_cl.io.dicom.checks import check_pixels, check_single_image
from monai_cl.io.dicom.geometry import check_even, check_one_grid, stack, tilt
from monai_cl.io.dicom.headers import FACTS, PERSON_TAGS, is_dicom, read_slice_header, read_slice_headers
from monai_cl.io.dicom.single_slices import is_one_stack, stacks_of
from monai_cl.io.dicom.slices import READABLE_SYNTAXES, Person, SliceHeader, is_text
from monai_cl.io.errors import UnusableImageError

__all__ = [
    "FACTS",
    "PERSON_TAGS",
    "READABLE_SYNTAXES",
    "Person",
    "SliceHeader",
    "UnusableImageError",
    "check_even",
    "check_one_grid",
    "check_pixels",
    "check_single_image",
    "is_dicom",
    "is_one_stack",
    "is_text",
    "read_slice_header",
    "read_slice_headers",
    "stack",
    "stacks_of",
    "tilt",
]
