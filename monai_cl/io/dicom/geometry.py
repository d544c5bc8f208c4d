"""Geometry of a stack of slices."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.dicom.checks import check_concatenation, check_one_picture
from monai_cl.io.dicom.slices import SliceHeader
from monai_cl.io.errors import UnusableImageError
from monai_cl.privacy.quoting import Quoting

Values = tuple[float, ...]


def stack(headers: Sequence[SliceHeader]) -> tuple[list[SliceHeader], NDArray[np.float64]]:
    r"""Sort the slices of one series and work out where their voxels lie.

    With $r, c$ the direction cosines along a row and down a column, $s_x, s_y$ the spacing between columns and rows (of
    several roundings of one value, the one with most decimals) and
    $p_0, p_{n-1}$ the positions of the outer slices, voxel $(i, j, k)$ lies at
    $p_0 + i\, s_x\, r + j\, s_y\, c + k\, (p_{n-1} - p_0) / (n - 1)$.

    Args:
        headers: Slices of one series, in any order.

    Returns:
        The slices along the slice normal, and the 4 x 4 matrix from voxel ``(column, row, slice)`` to mm in RAS.

    Raises:
        UnusableImageError: If sizes, directions, echoes or b-values are mixed, tags are missing, or slices missing,
            doubled or uneven.
    """
    orientation, spacing = check_one_grid(headers)
    check_concatenation(headers)
    first = headers[0]
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    ordered = sorted(
        headers, key=lambda one: (float(normal @ np.array(one.position)), one.path.as_posix(), one.frame or 0)
    )
    positions = np.array([header.position for header in ordered])
    check_even(positions, normal)
    check_one_picture(ordered)
    lps = np.eye(4)
    lps[:3, 0] = row * spacing[1]
    lps[:3, 1] = column * spacing[0]
    lps[:3, 2] = (positions[-1] - positions[0]) / (len(ordered) - 1) if len(ordered) > 1 else normal * first.slice_step
    lps[:3, 3] = positions[0]
    return ordered, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def check_one_grid(headers: Sequence[SliceHeader]) -> tuple[Values, Values]:
    """Check that all slices are grey and share matrix size, pixel spacing and a valid orientation.

    Slices of one series may hold one value in several roundings, as 0.703125 and 0.7031.

    Returns:
        Orientation and pixel spacing in the most precise rounding of the slices.

    Raises:
        UnusableImageError: If they do not.
    """
    sizes = sorted({(header.columns, header.rows) for header in headers})
    if len(sizes) > 1:
        listed = ", ".join(f"{columns} x {rows}" for columns, rows in sizes)
        raise UnusableImageError("mixed image sizes", f"one series holds images of {listed}; split it")
    for header in headers:
        if header.samples != 1:
            detail = f"{{}} has {header.samples} samples per pixel, only grey images are read"
            raise UnusableImageError("colour image", Quoting(detail, header.path.name))
        if header.photometric == "PALETTE COLOR":
            detail = "{} holds numbers of a palette, only grey images are read"
            raise UnusableImageError("colour image", Quoting(detail, header.path.name))
        if header.photometric not in ("", "MONOCHROME1", "MONOCHROME2"):  # a name may stand in its place
            detail = "{} has one value a pixel and a PhotometricInterpretation of another kind; write MONOCHROME2 there"
            raise UnusableImageError("invalid photometric interpretation", Quoting(detail, header.path.name))
        if not header.has_place:
            detail = "{} lacks a valid image position, orientation or pixel spacing"
            raise UnusableImageError("no geometry tags", Quoting(detail, header.path.name))
    orientation = _agreed("orientations", [header.orientation for header in headers], noise=1e-4, rounding=5e-3)
    spacings = [header.pixel_spacing for header in headers]
    size = max(map(max, spacings))
    spacing = _agreed("pixel spacings", spacings, noise=2e-4 * size, rounding=5e-3 * size)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column), 1 + abs(row @ column)])
    if np.abs(lengths - 1).max() > 1e-2 or min(spacing) <= 0:
        detail = "{} has directions that are not orthonormal or a spacing <= 0"
        raise UnusableImageError("invalid geometry tags", Quoting(detail, headers[0].path.name))
    return orientation, spacing


def _agreed(name: str, values: Sequence[Values], *, noise: float, rounding: float) -> Values:
    """The value with most decimals, of which all others are roundings.

    Args:
        name: Name of the values.
        values: One a slice.
        noise: Difference that means nothing.
        rounding: Largest difference of a value that was rounded to its decimals.

    Raises:
        UnusableImageError: If values differ by more.
    """
    counts = Counter(values)
    best = max(counts, key=lambda one: (_decimals(one), counts[one], one))
    for other in counts:
        apart = np.abs(np.array(other) - np.array(best)).max()
        last = 0.501 * 10.0 ** -_decimals(other)  # half a unit of the last decimal, and what a float adds
        if apart > max(noise, min(rounding, last)):
            listed = " and ".join("\\".join(f"{part:g}" for part in one) for one in (best, other))
            raise UnusableImageError(f"mixed {name}", f"one series holds images of several {name}, {listed}; split it")
    return best


def _decimals(values: Values) -> int:
    """Decimals of the number that has most of them."""
    return max(-int(Decimal(repr(value)).normalize().as_tuple().exponent) for value in values)


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
    result = (
        f"the usual step is {usual:.2f} mm, but {listed}{more}" if gaps else "the slices do not lie evenly on one line"
    )
    raise UnusableImageError("missing or unevenly spaced slices", f"{result}; complete or split the series")


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
