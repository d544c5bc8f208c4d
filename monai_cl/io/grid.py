"""The grid of a volume, read from its header: NIfTI, NRRD and MetaImage, complete, in 3-D and in mm."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.errors import UnusableImageError
from monai_cl.io.itk import read_itk_header
from monai_cl.io.lattice import by, check_same_lattice
from monai_cl.io.memory import check_memory
from monai_cl.io.nifti import check_complete, check_real, closing_stream, finish, open_nifti

_UNITS = {1: "meter", 2: "mm", 3: "micron"}  # other codes mean nothing
_SMALLEST, _LARGEST = 0.02, 30.0  # mm a voxel side: micro-CT of a biopsy to the coarsest scout
_EXTENT = (2.0, 3000.0)  # mm of the longest side
_FARTHEST = 1e5  # mm of a voxel from the origin: headers hold places in single precision, a hundredth of a mm there
_REASON = "implausible units"
_FLATTEST = 1e-3  # volume of a voxel, by that of a box of its sides
_MAX_SHEAR = 0.3  # degrees
SHEARED = "axes are not at right angles: recipes that set a spacing resample it upright"
NO_ORIENTATION = "neither sform nor qform in the header: left and right are a guess"
TWO_PLACES = "sform and qform of the header disagree: the sform is taken, other programs take the qform"


@dataclass(frozen=True, eq=False)
class Grid:
    """Lattice of the voxels of a volume.

    Args:
        shape: Voxels along the three axes.
        affine: ``(4, 4)``, voxel to mm in RAS.
        may_be_negative: Whether its type and scaling can hold values below 0, as Hounsfield units need.
        remarks: Notes on its header.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    may_be_negative: bool = True
    remarks: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel sides in mm."""
        sides = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(sides[0]), float(sides[1]), float(sides[2])

    @property
    def is_uninformative(self) -> bool:
        """Return whether the affine is the identity on a stack of few slices, from a tool that knew no spacing."""
        return bool(np.array_equal(self.affine, np.eye(4))) and 4 * min(self.shape) <= max(self.shape)


def read_grid(path: str | os.PathLike[str], *, to_the_end: bool = True) -> Grid:
    """Read the header of a NIfTI file and check that the announced voxels are present.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file.
        to_the_end: Whether to read compressed data to its end for its checksum and length.

    Returns:
        Shape and affine of the volume; trailing axes of length 1 are dropped.

    Raises:
        UnusableImageError: If the file is unreadable, cut short, or not one grey 3-D volume.
    """
    source = Path(path)
    try:
        if source.stat().st_size == 0:
            raise UnusableImageError("zero bytes", "the file is empty; copy it again")
        image = open_nifti(source)
    except EOFError:
        raise UnusableImageError("cut short", "the file ends inside the header; copy it again") from None
    except UnusableImageError:
        raise
    except Exception as error:  # nibabel and the file system raise many types
        raise UnusableImageError(
            "unreadable", f"not a NIfTI file that nibabel reads ({type(error).__name__})"
        ) from None
    with closing_stream(image):
        grid = _grid(source, image)
        if to_the_end:
            finish(image)
    return grid


def _grid(source: Path, image: Any) -> Grid:
    """The grid of a header that can be one of a volume."""
    shape = _volume_shape(tuple(int(size) for size in image.shape))
    if image.get_data_dtype().names:
        raise UnusableImageError("colour image", f"voxels of type {image.get_data_dtype()}, only grey images are read")
    check_real(image)
    affine = np.asarray(image.affine, dtype=np.float64)
    _check_affine(affine)
    check_complete(source, image)
    check_memory(shape)
    intercept = image.dataobj.inter
    remarks = tuple(_remarks(image.header, shape, affine))
    grid = Grid(shape, affine, image.get_data_dtype().kind != "u" or intercept < 0, remarks)
    check_unit_name(_UNITS.get(int(image.header["xyzt_units"]) % 8, "unknown"))
    check_spacing(grid)
    return grid


def _remarks(header: Any, shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Iterator[str]:
    """Notes on the places in a NIfTI header."""
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        yield NO_ORIENTATION
    elif sform and qform:
        try:
            check_same_lattice(affine, shape, header.get_qform(), shape)
        except Exception:  # another place, or a quaternion that is none
            yield TWO_PLACES
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(unit.T @ unit - np.eye(3)).max() > np.sin(np.radians(_MAX_SHEAR)):
        yield SHEARED


def read_itk_grid(path: str | os.PathLike[str], *, root: Path | None = None) -> Grid:
    """Read the header of an NRRD or MetaImage file and check that the announced voxels are present.

    Args:
        path: The file.
        root: Folder that no link of a file with voxels may lead out of.

    Raises:
        UnusableImageError: If the file is unreadable, cut short, or not one grey 3-D volume.
    """
    header = read_itk_header(Path(path), root=root)
    if header.components != 1:
        raise UnusableImageError("colour image", f"{header.components} values a voxel, only grey images are read")
    grid = Grid(_volume_shape(header.shape), header.affine, not header.unsigned)
    _check_affine(grid.affine)
    check_spacing(grid)
    return grid


def check_same_grid(image: Grid, label: Grid) -> None:
    """Refuse a label that does not lie on the voxels of its image, see :func:`check_same_lattice`."""
    check_same_lattice(image.affine, image.shape, label.affine, label.shape)


def on_one_grid(one: Grid, other: Grid) -> bool:
    """Return whether two volumes pass :func:`check_same_grid`."""
    try:
        check_same_grid(one, other)
    except UnusableImageError:
        return False
    return True


def _check_affine(affine: NDArray[np.float64]) -> None:
    """Refuse an affine that is not finite, or whose axes span no space, whatever the voxel sides."""
    with np.errstate(all="ignore"):
        volume = np.linalg.det(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    if not np.isfinite(affine).all() or not abs(volume) > _FLATTEST:
        raise UnusableImageError("invalid affine", "the affine is not finite or not invertible; repair the header")


def _volume_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if not shape or min(shape) <= 0:
        raise UnusableImageError("empty header", f"dimensions {by(shape) or 'none'}")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise UnusableImageError("4-D", f"{by(shape)} voxels; split it into 3-D files")
    if len(shape) < 3 or 1 in shape:
        raise UnusableImageError("2-D", f"{by(shape)} voxels, a volume is needed")
    if min(shape) < 3:
        raise UnusableImageError("too few slices", f"{by(shape)} voxels, at least 3 along each axis are needed")
    return shape[0], shape[1], shape[2]


def check_spacing(grid: Grid) -> None:
    """Refuse voxels or a volume of a size that no scan of a person has, and one far from the origin."""
    away = float(np.abs(grid.affine[:3, 3]).max())
    if away > _FARTHEST:
        detail = f"the first voxel lies {away:.4g} mm from the origin, {_FARTHEST:g} mm are allowed; repair the header"
        raise UnusableImageError("implausible place", detail)
    sides = grid.spacing
    extent = max(side * count for side, count in zip(sides, grid.shape, strict=True))
    if min(sides) >= _SMALLEST and max(sides) <= _LARGEST and _EXTENT[0] <= extent <= _EXTENT[1]:
        return
    guess = {True: "metres", False: "micrometres"}[extent < 10] if not _EXTENT[0] <= extent <= _EXTENT[1] else ""
    raise UnusableImageError(
        _REASON,
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
        raise UnusableImageError(_REASON, f"the header gives lengths in {unit}, readers take them as mm; rewrite it")
