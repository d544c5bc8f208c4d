"""DICOM files grouped into series, each kept as one volume or left out with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from monai_cl.data.intake._findings import Findings, Grid
from monai_cl.data.intake.description import Description, describe
from monai_cl.data.intake.units import check_spacing
from monai_cl.data.loading._slice_store import SliceStore, series_name
from monai_cl.transforms._dicom import (
    SliceHeader,
    UnusableImageError,
    check_one_grid,
    check_pixels,
    stack,
    tilt,
)

MODALITIES = ("CT", "MR")
MIN_SLICES = 3
_MAX_TILT = 0.3  # degrees
_LOCALISERS = ("LOCALIZER", "LOCALISER", "SCOUT", "SURVIEW", "TOPOGRAM")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Series:
    """One DICOM series that is a volume.

    Args:
        image: Its directory, its multi-frame file, or the list of its files along the slice normal; relative to the
            scanned folder.
        modality: ``CT`` or ``MR``.
        grid: Where its voxels lie.
        patient: Key that series of one patient share. It identifies a person: never write it.
        description: What kind of picture it is.
    """

    image: str | list[str]
    modality: str
    grid: Grid
    patient: str = field(repr=False)
    description: Description

    @property
    def first(self) -> str:
        """The directory, or the first file."""
        return self.image if isinstance(self.image, str) else self.image[0]


def find_series(
    store: SliceStore, *, keep_derived: bool = False, keep_tilted: bool = False
) -> tuple[list[Series], Findings]:
    r"""Group slices by series and decide, from tags alone, which series are volumes.

    Args:
        store: Headers whose ``path`` is relative to the scanned folder.
        keep_derived: Whether series with an ImageType ``DERIVED`` are kept.
        keep_tilted: Whether series of a tilted gantry are kept, with their sheared affine.

    Returns:
        The kept series in order of their paths, and what was left out or is worth a note.
    """
    findings = Findings()
    kept = []
    for files in store.series():
        image = _name(files, store)
        try:
            kept.append(_judge(files, image, keep_derived, keep_tilted))
        except UnusableImageError as error:
            paths = [image] if isinstance(image, str) else image
            mentions = {header.path.as_posix() for header in files if header.path.name in error.detail}
            count = len({header.path for header in files})
            name = series_name(files[0])
            findings.leave_out(paths, error.reason, error.detail, sorted(mentions), series=name, files=count)
    return sorted(kept, key=lambda series: series.first), findings


def _name(files: Sequence[SliceHeader], store: SliceStore) -> str | list[str]:
    """The directory where the series has it to itself, else the file or files."""
    paths = list(dict.fromkeys(header.path.as_posix() for header in files))
    parents = {header.path.parent.as_posix() for header in files}
    parent = min(parents)
    if len(paths) == 1 and files[0].frame is not None:
        return paths[0]
    if len(parents) == 1 and store.files_in(parent) == len(paths):
        return parent
    return paths


def _judge(files: Sequence[SliceHeader], paths: str | list[str], keep_derived: bool, keep_tilted: bool) -> Series:
    """Turn the slices of one series into a volume, or raise the first reason against it."""
    _check_kind(files, keep_derived)
    ordered, affine = stack(files)
    first = ordered[0]
    in_order = list(dict.fromkeys(header.path.as_posix() for header in ordered))
    image = paths if isinstance(paths, str) else in_order
    shape = (first.columns, first.rows, len(ordered))
    grid = Grid(shape, affine, any(header.may_be_negative for header in ordered))
    check_spacing(grid)
    angle = tilt(affine)
    if angle > _MAX_TILT and not keep_tilted:
        raise UnusableImageError(
            "gantry tilt",
            f"slices are shifted against each other, by {angle:.1f} degrees from the slice normal; scan with "
            "keep_tilted to keep it: recipes that set a spacing resample it upright",
        )
    description = describe(first.modality, first.sop_class, first.image_type, first.facts)
    return Series(image, first.modality, grid, first.patient, description)


def _check_kind(files: Sequence[SliceHeader], keep_derived: bool) -> None:
    """Check that a series is an acquired CT or MR stack."""
    first = files[0]
    if all(any(word in kind for kind in header.image_type for word in _LOCALISERS) for header in files):
        raise UnusableImageError("localiser", f"ImageType is {_image_type(first)}")
    check_pixels(files)
    if first.modality not in MODALITIES:
        raise UnusableImageError("modality is not CT or MR", f"modality is {first.modality or 'missing'}")
    _check_frame_kinds(files)
    check_one_grid(files)
    if first.sop_class.startswith(_SECONDARY_CAPTURE):
        raise UnusableImageError("secondary capture", "a picture of a screen or a paper, not a slice of a scan")
    if any(header.burned_in for header in files):
        raise UnusableImageError("text burned into the picture", "it may show the patient's name; mask it first")
    if first.image_type[0] == "DERIVED" and not keep_derived:
        reason = "derived secondary image" if first.image_type[1:2] == ("SECONDARY",) else "derived image"
        raise UnusableImageError(
            reason,
            f"ImageType is {_image_type(first)}: computed from other images, perhaps of another region or person; "
            "scan with keep_derived to keep it",
        )
    if len(files) < MIN_SLICES:
        raise UnusableImageError("too few slices", f"{MIN_SLICES} slices are needed at least, it has {len(files)}")


def _check_frame_kinds(files: Sequence[SliceHeader]) -> None:
    """One multi-frame file can hold several pictures of the same place, as a magnitude image and a field map."""
    kinds = sorted({header.kind for header in files})
    if len(kinds) > 1:
        raise UnusableImageError(
            "4-D", f"frames of {len(kinds)} kinds in one file ({'; '.join(kinds)}); export each as a series of its own"
        )


def _image_type(header: SliceHeader) -> str:
    return "\\".join(header.image_type)
