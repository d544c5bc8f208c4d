"""DICOM files grouped into series, each kept as one volume or left out with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from monai_cl.data._findings import Findings, Grid
from monai_cl.transforms._dicom import (
    SliceHeader,
    UnusableImageError,
    check_one_grid,
    check_pixels,
    check_single_image,
    stack,
)

MODALITIES = ("CT", "MR")
MIN_SLICES = 3
_LOCALISERS = ("LOCALIZER", "LOCALISER", "SCOUT", "SURVIEW", "TOPOGRAM")


@dataclass(frozen=True)
class Series:
    """One DICOM series that is a volume.

    Args:
        image: Its directory, or the list of its files along the slice normal; relative to the scanned folder.
        modality: ``CT`` or ``MR``.
        grid: Where its voxels lie.
        patient: Key that series of one patient share. It identifies a person: never write it.
    """

    image: str | list[str]
    modality: str
    grid: Grid
    patient: str = field(repr=False)

    @property
    def first(self) -> str:
        """The directory, or the first file."""
        return self.image if isinstance(self.image, str) else self.image[0]


def find_series(
    headers: Iterable[SliceHeader], *, damaged: Collection[str] = (), keep_derived: bool = False
) -> tuple[list[Series], Findings]:
    r"""Group slices by series and decide, from tags alone, which series are volumes.

    Args:
        headers: Headers whose ``path`` is relative to the scanned folder.
        damaged: Files that look like DICOM and could not be read: their directories are more than one series.
        keep_derived: Whether series marked ``DERIVED\SECONDARY`` are kept.

    Returns:
        The kept series in order of their paths, and what was left out or is worth a note.
    """
    findings = Findings()
    ordered = sorted(headers, key=lambda header: header.path.as_posix())
    in_directory = Counter(header.path.parent for header in ordered)
    in_directory.update(Path(path).parent for path in damaged)
    kept = []
    for files in _group(_drop_copies(_drop_non_images(ordered, findings), findings)):
        paths = _name(files, in_directory)
        try:
            kept.append(_judge(files, paths, keep_derived))
        except UnusableImageError as error:
            findings.leave_out([paths] if isinstance(paths, str) else paths, error.reason, error.detail)
    return sorted(kept, key=lambda series: series.first), findings


def pseudonyms(series: Iterable[Series], taken: Collection[str] = ()) -> dict[str, str]:
    """Number the patients ``sub-0001``, ``sub-0002``, ... in order of appearance.

    Args:
        series: Series in the order of the datalist.
        taken: Names that other items already use.

    Returns:
        From patient key to pseudonym.
    """
    free = (name for number in count(1) if (name := f"sub-{number:04d}") not in taken)
    names: dict[str, str] = {}
    for one in series:
        if one.patient not in names:
            names[one.patient] = next(free)
    return names


def _drop_non_images(headers: Iterable[SliceHeader], findings: Findings) -> list[SliceHeader]:
    """Leave out each file that is no slice: it says nothing about the series it is filed under."""
    slices = []
    for header in headers:
        try:
            check_single_image(header)
            slices.append(header)
        except UnusableImageError as error:
            findings.leave_out([header.path.as_posix()], error.reason, error.detail)
    return slices


def _drop_copies(headers: Iterable[SliceHeader], findings: Findings) -> list[SliceHeader]:
    """Keep the first file of each image; a copy elsewhere would double a slice or a whole series."""
    first: dict[tuple[object, ...], SliceHeader] = {}
    for header in headers:
        # The position belongs to the key: careless anonymisation gives one identifier to all slices.
        key = (header.sop_instance or header.path, header.series, header.position, header.orientation)
        original = first.setdefault(key, header)
        if original is not header:
            findings.leave_out(
                [header.path.as_posix()], "copy of another file", f"same image as {original.path.as_posix()}"
            )
    return list(first.values())


def _group(headers: Iterable[SliceHeader]) -> list[list[SliceHeader]]:
    """Slices by series; files without a series identifier meet by directory."""
    groups: dict[str, list[SliceHeader]] = {}
    for header in headers:
        groups.setdefault(header.series or f"directory {header.path.parent}", []).append(header)
    return list(groups.values())


def _name(files: Sequence[SliceHeader], in_directory: Counter[Path]) -> str | list[str]:
    """The directory where the series has it to itself, else the files."""
    parents = {header.path.parent for header in files}
    parent = files[0].path.parent
    if len(parents) == 1 and in_directory[parent] == len(files):
        return parent.as_posix()
    return [header.path.as_posix() for header in files]


def _judge(files: Sequence[SliceHeader], paths: str | list[str], keep_derived: bool) -> Series:
    """Turn the slices of one series into a volume, or raise the first reason against it."""
    _check_kind(files, keep_derived)
    ordered, affine = stack(files)
    first = ordered[0]
    image = paths if isinstance(paths, str) else [header.path.as_posix() for header in ordered]
    shape = (first.columns, first.rows, len(ordered))
    grid = Grid(shape, affine, any(header.may_be_negative for header in ordered))
    return Series(image, first.modality, grid, first.patient)


def _check_kind(files: Sequence[SliceHeader], keep_derived: bool) -> None:
    """Check that a series is an acquired CT or MR stack."""
    first = files[0]
    if all(any(word in kind for kind in header.image_type for word in _LOCALISERS) for header in files):
        raise UnusableImageError("localiser", f"ImageType is {_image_type(first)}")
    check_pixels(files)
    check_one_grid(files)
    if first.modality not in MODALITIES:
        raise UnusableImageError("modality is not CT or MR", f"modality is {first.modality or 'missing'}")
    if first.image_type[:2] == ("DERIVED", "SECONDARY") and not keep_derived:
        raise UnusableImageError(
            "derived secondary image",
            f"ImageType is {_image_type(first)}: computed from other images, perhaps of another region or person; "
            "scan with keep_derived to keep it",
        )
    if len(files) < MIN_SLICES:
        raise UnusableImageError("too few slices", f"{len(files)} slices, at least {MIN_SLICES} are needed")


def _image_type(header: SliceHeader) -> str:
    return "\\".join(header.image_type)
