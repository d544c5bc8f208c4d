"""Whether the lengths of a header can be millimetres of a human body."""

from __future__ import annotations

from monai_cl.data.intake._findings import Grid
from monai_cl.transforms._dicom import UnusableImageError

_SMALLEST, _LARGEST = 0.02, 30.0  # mm a voxel side: micro-CT of a biopsy to the coarsest scout
_EXTENT = (2.0, 3000.0)  # mm of the longest side
REASON = "implausible units"


def check_spacing(grid: Grid) -> None:
    """Check that voxels and the volume have sizes that scans of people have.

    Raises:
        UnusableImageError: If they have not.
    """
    sides = grid.spacing
    extent = max(side * count for side, count in zip(sides, grid.shape, strict=True))
    if min(sides) >= _SMALLEST and max(sides) <= _LARGEST and _EXTENT[0] <= extent <= _EXTENT[1]:
        return
    guess = {True: "metres", False: "micrometres"}[extent < 10] if not _EXTENT[0] <= extent <= _EXTENT[1] else ""
    raise UnusableImageError(
        REASON,
        f"voxels of {' x '.join(f'{side:.4g}' for side in sides)} mm and a volume of {extent:.4g} mm"
        + (f"; perhaps {guess}" if guess else "")
        + "; repair the header",
    )


def check_unit_name(unit: str) -> None:
    """Check the unit that a NIfTI header names.

    Raises:
        UnusableImageError: If it is not millimetres, or none.
    """
    if unit not in ("mm", "unknown"):
        raise UnusableImageError(REASON, f"the header gives lengths in {unit}, readers take them as mm; rewrite it")
