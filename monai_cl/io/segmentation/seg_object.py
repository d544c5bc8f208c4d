"""DICOM Segmentation objects: a mask on the grid of the series it is of, patient and study as that series names them.

A clinical object, with no pseudonym in it: it belongs where the series may be, and nowhere else.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.dicom.geometry import check_one_grid, stack
from monai_cl.io.dicom.series import headers_of
from monai_cl.io.dicom.slices import SliceHeader
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.lattice import by, check_same_lattice
from monai_cl.io.segmentation.codes import Code, Segment
from monai_cl.io.threads import without_warnings, without_warnings_of_dicom

KINDS = ("binary", "labelmap")
INSTALL = "DICOM SEG needs highdicom: pip install 'monai_cl[dicom-seg]'"
_LARGEST = 2**32 - 2  # bytes of pixel data that a length in DICOM can hold
_COLOURS = ((221, 130, 101), (90, 160, 215), (128, 174, 128), (241, 214, 145), (177, 122, 101), (200, 120, 200))
# Read from the source for geometry and references; a person's are copied afterwards, as they stand there.
_GEOMETRY = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("PositionReferenceIndicator", "Modality", "Rows", "Columns", "NumberOfFrames", "ImageType"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_PERSON = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_STUDY = ("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName")


@dataclass(frozen=True)
class Algorithm:
    """Identification of the network that made a mask.

    Args:
        name: Name of the bundle.
        version: Its version.
        parameters: Further facts, such as the hash of the weights.
    """

    name: str
    version: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def check_seg(segments: Sequence[Segment], kind: str) -> None:
    """Check, before any mask is made, that objects can be written.

    Raises:
        ModuleNotFoundError: If highdicom is not installed.
        ValueError: If the kind is unknown, or no segment is given.
    """
    try:
        import highdicom  # noqa: F401 - whether it is installed
    except ModuleNotFoundError:
        raise ModuleNotFoundError(INSTALL) from None
    if kind not in KINDS:
        raise ValueError(f"segmentation must be {' or '.join(KINDS)}, got {kind!r}")
    if not segments:
        raise ValueError("a DICOM SEG needs at least one class above background, got none")


def check_source(headers: Sequence[SliceHeader]) -> None:
    """Check that a SEG can refer to these slices.

    Raises:
        ValueError: If they are of several series, or without the identifiers that a SEG refers by.
    """
    first = headers[0]
    if len({header.series for header in headers}) > 1 or len({header.study for header in headers}) > 1:
        raise ValueError("a SEG must refer to one series, got slices of several; list each series as a scan of its own")
    if not first.series or not first.study or not all(header.sop_instance for header in headers):
        raise ValueError("a slice has no study, series or instance UID, by which a SEG could refer to it")
    if len({header.facts.get("frame_of_reference", "") for header in headers}) > 1:
        raise ValueError("a SEG must have one frame of reference, got slices of several; split the series")
    if not first.facts.get("frame_of_reference"):
        raise ValueError(
            "the series has no Frame of Reference UID, without which a viewer cannot place a SEG; ask the PACS for "
            "the series as the scanner sent it"
        )


def segmentation_of(
    mask: NDArray[Any],
    affine: NDArray[np.float64],
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    segments: Sequence[Segment],
    *,
    algorithm: Algorithm,
    kind: str = "binary",
) -> Any:
    """Make a Segmentation object of a mask, on the slices of its series and with its patient and study.

    All frames are kept, empty ones too, for viewers misplace segments where some are missing.

    Args:
        mask: Labels, three axes in any order.
        affine: From its voxels to RAS mm.
        source: The series: a file, a directory or a list of files.
        segments: Codes of the labels above 0.
        algorithm: Identification of the network.
        kind: ``binary``, a bit a voxel and segment, or ``labelmap``, a number a voxel (fewer viewers know it yet).

    Returns:
        A ``highdicom.seg.Segmentation``.

    Raises:
        ModuleNotFoundError: If highdicom is not installed.
        ValueError: If the series is no more that of the mask, cannot be referred to, or the object would be too large.
    """
    check_seg(segments, kind)
    try:
        headers = headers_of(source)
    except (OSError, ValueError) as error:  # their texts name paths
        raise ValueError(
            f"the series has changed since its mask was made, a file cannot be read any more ({type(error).__name__}); "
            "make the mask again"
        ) from None
    check_source(headers)
    try:
        ordered, grid = stack(headers)
        shape = (ordered[0].columns, ordered[0].rows, len(ordered))
        voxels = check_same_lattice(grid, shape, np.asarray(affine, np.float64), mask.shape).apply(np.asarray(mask))
    except UnusableImageError as error:
        raise ValueError(
            f"the series has changed since its mask was made, or the mask is of another: {error}; make the mask again"
        ) from None
    if voxels.max(initial=0) > len(segments):
        raise ValueError(f"labels must be 0 to {len(segments)}, the number of codes, got {int(voxels.max())}")
    planes = voxels.transpose(2, 1, 0)  # slices, rows, columns
    _check_size(planes.shape, len(segments), kind)
    if ordered[0].multi_frame:
        planes = planes[np.argsort([header.frame or 0 for header in ordered])]
    return _object(_read(ordered), ordered, np.ascontiguousarray(planes, np.uint16), segments, algorithm, kind)


def _check_size(shape: Sequence[int], count: int, kind: str) -> None:
    voxels = int(np.prod([int(size) for size in shape]))
    size = voxels * count // 8 if kind == "binary" else voxels * (1 if count < 256 else 2)
    if size > _LARGEST:
        raise ValueError(
            f"pixel data of a SEG must be below 4 GB, {count} segments of {by(shape)} voxels have {size / 1e9:.1f} GB; "
            "write a labelmap (`--segmentation labelmap`), or fewer classes"
        )


def _read(ordered: Sequence[SliceHeader]) -> list[Any]:
    """Data sets of the files, without pixels."""
    from pydicom import dcmread

    paths = list(dict.fromkeys(header.path for header in ordered))
    read = partial(dcmread, stop_before_pixels=True, force=True)
    try:
        # all of the first, whose patient and study are copied; of the others the tags of place and identity
        return [read(paths[0]), *(read(path, specific_tags=list(_GEOMETRY)) for path in paths[1:])]
    except OSError as error:
        raise ValueError(f"the series has changed since its mask was made: {error.strerror}; make it again") from None


def _object(
    files: Sequence[Any],
    ordered: Sequence[SliceHeader],
    planes: NDArray[np.uint16],
    segments: Sequence[Segment],
    algorithm: Algorithm,
    kind: str,
) -> Any:
    from highdicom.content import PixelMeasuresSequence, PlaneOrientationSequence
    from highdicom.seg import Segmentation
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

    orientation, spacing = check_one_grid(ordered)
    step = abs(ordered[0].slice_step) or 1.0
    software = version("monai_cl")
    # pydicom complains of malformed headers and quotes them, highdicom logs identifiers
    with without_warnings_of_dicom(), without_warnings(log="highdicom.base"):
        try:
            made = Segmentation(
                source_images=[_stand_in(file, nameless=True) for file in files],
                pixel_array=planes,
                segmentation_type=kind.upper(),
                segment_descriptions=[_description(segment, algorithm) for segment in segments],
                series_instance_uid=generate_uid(),
                series_number=_series_number(files[0]),
                sop_instance_uid=generate_uid(),
                instance_number=1,
                manufacturer="monai_cl",
                manufacturer_model_name=algorithm.name[:64],
                software_versions=[f"monai_cl {software}", f"bundle {algorithm.version}"[:64]],
                device_serial_number=algorithm.parameters.get("weights", "0")[:64],
                series_description=f"{algorithm.name[:45]} (research)",
                content_description="Made by a network; not for diagnosis",
                content_label="SEGMENTATION",
                transfer_syntax_uid=ExplicitVRLittleEndian if kind == "binary" else RLELossless,
                pixel_measures=PixelMeasuresSequence(spacing, step),
                plane_orientation=PlaneOrientationSequence("PATIENT", orientation),
                omit_empty_frames=False,
                specific_character_set=None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # their texts may quote header values
            raise ValueError(
                f"no SEG can refer to the series: highdicom refuses its headers ({type(error).__name__}); "
                "ask the PACS for the series as the scanner sent it"
            ) from None
        _name(made, files[0])
    return made


def _stand_in(file: Any, *, nameless: bool) -> Any:
    """Elements of a slice that highdicom needs; of the person nothing, for malformed values would stop it."""
    from pydicom import Dataset

    one = Dataset()
    for keyword in _GEOMETRY:
        if keyword in file:
            one[keyword] = file[keyword]
    if nameless:
        for keyword in (*_PERSON, *_STUDY):
            setattr(one, keyword, None)
    return one


def _name(made: Any, source: Any) -> None:
    """Copy patient and study of the source in its character set."""
    made.copy_patient_and_study_information(source)
    if "SpecificCharacterSet" in source:
        made["SpecificCharacterSet"] = source["SpecificCharacterSet"]


def _series_number(source: Any) -> int:
    try:
        number = int(source.SeriesNumber)
    except (AttributeError, TypeError, ValueError):
        number = 0
    return 1000 + number if 0 <= number < 2**30 else 1000


def _description(segment: Segment, algorithm: Algorithm) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    made = SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.name[:64],
        segmented_property_category=_coded(segment.category),
        segmented_property_type=_coded(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=algorithm.name[:64],
            family=codes.cid7162.ArtificialIntelligence,
            version=algorithm.version[:64],
            source="monai_cl",
            parameters=dict(algorithm.parameters) or None,
        ),
        display_color=CIELabColor.from_rgb(*_COLOURS[(segment.number - 1) % len(_COLOURS)]),
    )
    if segment.modifier is not None:
        item = made.SegmentedPropertyTypeCodeSequence[0]
        item.SegmentedPropertyTypeModifierCodeSequence = [_coded(segment.modifier)]
    return made


def _coded(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value=code.value, meaning=code.meaning, scheme_designator=code.scheme)


def save(made: Any, path: str | os.PathLike[str]) -> None:
    """Write an object, whose headers may hold malformed values of its source."""
    with without_warnings_of_dicom():
        made.save_as(Path(path), enforce_file_format=True)
