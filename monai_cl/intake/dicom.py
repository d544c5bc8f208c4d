"""DICOM files grouped into series, each kept as one volume or left out with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from monai_cl.intake._findings import Findings
from monai_cl.intake._slice_store import SliceStore, series_name
from monai_cl.intake.description import Description, describe
from monai_cl.io.dicom import SliceHeader, check_one_grid, check_pixels, stack, stacks_of, tilt
from monai_cl.io.dicom.lookup import shown_units
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.grid import Grid, check_spacing
from monai_cl.privacy.quoting import Quoting

MODALITIES = ("CT", "MR")
MIN_SLICES = 3
ONE_SERIES_A_SLICE = "one series a slice"
PADDED = (
    "the header names a padding value: voxels that hold it become air (-1024 HU) in CT, the lowest other value in MR"
)
SEVERAL_FRAMES = "slices of several frames of reference: their places are those of one volume only by chance"
SCALED_APART = "Philips MR with another scale in some slices: one signal has other values in them"
IN_PASSES = (
    "parts of the stack were acquired 10 s or more apart, one behind the other: perhaps phases of a contrast agent, or "
    "stations of the table"
)
_SAME_SCALE = 1.01  # by which scales of slices may differ
_MAX_TILT = 0.3  # degrees
_PAUSE, _STANDS_OUT, _MOST_PASSES = 10.0, 5, 4  # seconds, and times the usual step from slice to slice
_LOCALISERS = ("LOCALIZER", "LOCALISER", "SCOUT", "SURVIEW", "TOPOGRAM")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CAPTURE = "secondary capture"  # reason


@dataclass(frozen=True)
class Series:
    """DICOM series that is a volume.

    Args:
        image: Its directory, its multi-frame file, or the list of its files along the slice normal; relative to the
            scanned folder.
        modality: ``CT`` or ``MR``.
        grid: Where its voxels lie.
        patient: Key that series of one patient share. It identifies a person: never write it.
        description: Kind of picture.
        remarks: Notes on its values.
    """

    image: str | list[str]
    modality: str
    grid: Grid
    patient: str = field(repr=False)
    description: Description
    remarks: tuple[str, ...] = ()

    @property
    def first(self) -> str:
        """The directory, or the first file."""
        return self.image if isinstance(self.image, str) else self.image[0]


class _TooFewSlicesError(UnusableImageError):
    """A series that is good but for its number of slices."""

    def __init__(self, count: int) -> None:
        super().__init__("too few slices", f"{MIN_SLICES} slices are needed at least, it has {count}")


def find_series(
    store: SliceStore, *, keep_derived: bool = False, keep_tilted: bool = False, stack_series: bool = False
) -> tuple[list[Series], Findings]:
    r"""Group slices by series and decide, from tags alone, which series are volumes.

    Args:
        store: Headers whose ``path`` is relative to the scanned folder.
        keep_derived: Whether series with an ImageType ``DERIVED``, or stored as secondary captures, are kept.
        keep_tilted: Whether series of a tilted gantry are kept, with their sheared affine.
        stack_series: Whether series of one slice each that stack into a volume are kept as one.

    Returns:
        The kept series in order of their paths, and what was left out or is worth a note.
    """
    findings = Findings()
    kept, singles = [], []
    for files in store.series():
        image = _name(files, store)
        try:
            kept.append(_judge(files, image, keep_derived, keep_tilted))
        except UnusableImageError as error:
            if isinstance(error, _TooFewSlicesError) and len(files) == 1 and files[0].study:
                singles.append(files[0])
            elif series := _without_captures(files, store, keep_derived, keep_tilted, findings):
                kept.append(series)
            else:
                _leave_out(files, image, error, findings)
    for group in stacks_of(singles):
        if len(group) < MIN_SLICES:
            for one in group:
                _leave_out([one], _name([one], store), _TooFewSlicesError(1), findings)
        elif (series := _stacked(group, keep_tilted, stack_series, findings)) is not None:
            kept.append(series)
    return sorted(kept, key=lambda series: series.first), findings


def _without_captures(
    files: Sequence[SliceHeader], store: SliceStore, keep_derived: bool, keep_tilted: bool, findings: Findings
) -> Series | None:
    """The volume of a series among whose slices are pictures of screens, which are left out; else ``None``."""
    captures: list[SliceHeader] = []
    rest: list[SliceHeader] = []
    for header in files:
        (captures if _is_capture(header) and not header.has_place else rest).append(header)
    if not captures or not rest:
        return None
    try:
        series = _judge(rest, _name(rest, store), keep_derived, keep_tilted)
    except UnusableImageError:
        return None
    detail = "pictures of a screen or a paper among the slices of a series, which is kept without them"
    _leave_out(
        captures, [header.path.as_posix() for header in captures], UnusableImageError(_CAPTURE, detail), findings
    )
    return series


def _leave_out(
    files: Sequence[SliceHeader], image: str | list[str], error: UnusableImageError, findings: Findings
) -> None:
    paths = [image] if isinstance(image, str) else image
    mentions = {header.path.as_posix() for header in files if header.path.name in error.detail.quotes}
    count = len({header.path for header in files})
    name = series_name(files[0])
    findings.leave_out(paths, error.reason, error.detail, sorted(mentions), series=name, files=count)


def _stacked(files: list[SliceHeader], keep_tilted: bool, wanted: bool, findings: Findings) -> Series | None:
    """The volume of series of one slice each, where they are one and it is wanted; else they are left out as one."""
    many = Quoting(f"{len(files)} series of one slice each, of one study and alike in all else")
    try:
        series = _volume(files, [header.path.as_posix() for header in files], keep_tilted)
        shape, step = series.grid.shape, series.grid.spacing[2]
        error = UnusableImageError(
            ONE_SERIES_A_SLICE,
            f"{many}, stack into one volume of {shape[0]} x {shape[1]} x {shape[2]} voxels, a slice every {step:.4g} mm"
            "; scan with --stack-series to keep it",
        )
    except UnusableImageError as fault:
        error = UnusableImageError(ONE_SERIES_A_SLICE, Quoting("{}, are no volume either: {}", many, fault.message))
    else:
        if wanted:
            findings.note(f"stacked from {ONE_SERIES_A_SLICE}", series.first)
            return series
    _leave_out(files, [header.path.as_posix() for header in files], error, findings)
    return None


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
    if len(files) < MIN_SLICES:
        raise _TooFewSlicesError(len(files))
    return _volume(files, paths, keep_tilted)


def _volume(files: Sequence[SliceHeader], paths: str | list[str], keep_tilted: bool) -> Series:
    """The volume that slices stack into, or the first reason against it."""
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
            "--keep-tilted to keep it: recipes that set a spacing resample it upright",
        )
    description = describe(first.modality, first.sop_class, first.image_type, first.facts)
    return Series(image, first.modality, grid, first.patient, description, _remarks(ordered))


def _remarks(files: Sequence[SliceHeader]) -> tuple[str, ...]:
    """Remarks on the units of values, and on voxels outside of the picture, from headers."""
    first = files[0]
    remarks = []
    if first.value_table and first.modality == "CT" and first.value_table != "HU":
        units = shown_units(first.value_table)
        remarks.append(f"CT with a Modality LUT that gives other units ({units}) than Hounsfield")
    others = [header.units for header in files if header.units not in ("", "HU", "US")]  # US is unspecified
    if others and first.modality == "CT" and not first.value_table:
        remarks.append(f"CT with a rescale to other units ({shown_units(others[0])}) than Hounsfield")
    if first.value_table and any((header.slope, header.intercept) != (1, 0) for header in files):
        remarks.append("Modality LUT beside a rescale: the table is applied, the rescale is not")
    scales = [header.slope * header.scale for header in files if header.scale is not None]
    if first.modality == "MR" and scales and max(scales) > _SAME_SCALE * min(scales):
        remarks.append(SCALED_APART)
    if any(header.padding for header in files):
        remarks.append(PADDED)
    if len({header.facts.get("frame_of_reference", "") for header in files}) > 1:
        remarks.append(SEVERAL_FRAMES)
    if _in_passes([header.time for header in files]):
        remarks.append(IN_PASSES)
    return tuple(remarks)


def _in_passes(times: Sequence[float | None]) -> bool:
    """Return whether sorted slices fall into a few parts with a pause of acquisition between neighbours.

    Slices of interleaved packages do not: there, the time changes as much from most slices to the next.
    """
    known = np.array([time for time in times if time is not None])
    if len(known) < len(times):
        return False
    steps = np.abs(np.diff(known))
    steps = np.minimum(steps, 86400 - steps)  # over midnight
    pauses = np.flatnonzero(steps >= max(_PAUSE, _STANDS_OUT * float(np.median(steps))))
    parts = sorted(np.split(known, pauses + 1), key=lambda part: float(part[0]))
    apart = all(one.max() < other.min() for one, other in pairwise(parts))
    return 1 < len(parts) <= _MOST_PASSES and apart and min(map(len, parts)) > 1


def _check_kind(files: Sequence[SliceHeader], keep_derived: bool) -> None:
    """Check that a series is an acquired CT or MR stack."""
    first = files[0]
    if all(any(word in kind for kind in header.image_type for word in _LOCALISERS) for header in files):
        raise UnusableImageError("localiser", Quoting("ImageType is {}", _image_type(first)))
    if "MOSAIC" in first.image_type:
        detail = "each file holds the slices of a volume side by side; convert it, as with dcm2niix"
        raise UnusableImageError("mosaic", detail)
    check_pixels(files)
    captured = _is_capture(first)
    if captured:
        _check_capture(files)
    if first.modality not in MODALITIES:
        raise UnusableImageError("modality is not CT or MR", Quoting("modality is {}", first.modality or "missing"))
    _check_frame_kinds(files)
    check_one_grid(files)
    if any(header.burned_in for header in files):
        raise UnusableImageError("text burned into the picture", "it may show the patient's name; mask it first")
    derived = [header for header in files if captured or header.image_type[0] == "DERIVED"]
    if derived and not keep_derived:
        raise _derived(
            derived[0], captured, "" if len(derived) == len(files) else f" in {len(derived)} of {len(files)}"
        )


def _is_capture(header: SliceHeader) -> bool:
    return header.sop_class.startswith(_SECONDARY_CAPTURE)


def _check_capture(files: Sequence[SliceHeader]) -> None:
    """Check that files of the class of secondary captures are grey slices of a known place, as computed maps are."""
    for header in files:
        if header.samples != 1 or not header.photometric.startswith("MONOCHROME"):
            lacking = "{} is in colour"
        elif not header.has_place:
            lacking = "{} has no position, orientation or pixel spacing"
        else:
            continue
        raise UnusableImageError(
            _CAPTURE,
            Quoting(f"a picture of a screen or a paper, not a slice of a scan: {lacking}", header.path.name),
        )


def _derived(first: SliceHeader, captured: bool, share: str) -> UnusableImageError:
    """The error about a series that was computed from another one, or holds images that were."""
    secondary = captured or first.image_type[1:2] == ("SECONDARY",)
    kind = f"ImageType is {{}}{share}"
    if captured:
        kind = f"stored as a secondary capture, though with the geometry and grey values of a series; {kind}"
    detail = (
        f"{kind}: computed from other images, perhaps of another region or person; scan with --keep-derived to keep it"
    )
    reason = "derived secondary image" if secondary else "derived image"
    return UnusableImageError(reason, Quoting(detail, _image_type(first) or "missing"))


def _check_frame_kinds(files: Sequence[SliceHeader]) -> None:
    """Refuse a multi-frame file with several pictures of one place, such as a magnitude image and a field map."""
    kinds = sorted({header.kind for header in files})
    if len(kinds) > 1:
        detail = f"frames of {len(kinds)} kinds in one file ({{}}); export each as a series of its own"
        raise UnusableImageError("4-D", Quoting(detail, "; ".join(kind or "missing" for kind in kinds)))


def _image_type(header: SliceHeader) -> str:
    return "\\".join(header.image_type)
