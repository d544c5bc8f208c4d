"""Headers of NIfTI, NRRD and MetaImage files: is this one complete 3-D volume, and where does it lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from monai_cl.data.intake._findings import Grid
from monai_cl.data.intake.units import check_spacing, check_unit_name
from monai_cl.transforms._claims import check_memory
from monai_cl.transforms._dicom import UnusableImageError
from monai_cl.transforms._itk import SUFFIXES as ITK_SUFFIXES
from monai_cl.transforms._itk import read_itk_header
from monai_cl.transforms._lattice import check_same_lattice
from monai_cl.transforms._nifti import check_complete, check_real, closing_stream, finish, open_nifti

SUFFIXES = (".nii.gz", ".nii")
_UNITS = {1: "meter", 2: "mm", 3: "micron"}  # other codes mean nothing


def is_nifti(path: str | os.PathLike[str]) -> bool:
    """Whether a file is named as NIfTI."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def stem(path: str | os.PathLike[str]) -> str:
    """Name of a file without folder and without the suffix of a volume file (NIfTI, NRRD, MetaImage)."""
    name = os.path.basename(os.fspath(path))
    known = (*SUFFIXES, *ITK_SUFFIXES)
    return next((name[: -len(suffix)] for suffix in known if name.lower().endswith(suffix)), name)


def read_grid(path: str | os.PathLike[str], *, to_the_end: bool = True) -> Grid:
    """Read the header of a NIfTI file and check that the voxels it announces are there.

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
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise UnusableImageError("invalid affine", "the affine is not finite or not invertible; repair the header")
    check_complete(source, image)
    check_memory(shape)
    intercept = image.dataobj.inter
    grid = Grid(shape, affine, image.get_data_dtype().kind != "u" or intercept < 0)
    check_unit_name(_UNITS.get(int(image.header["xyzt_units"]) % 8, "unknown"))
    check_spacing(grid)
    return grid


def read_itk_grid(path: str | os.PathLike[str], *, root: Path | None = None) -> Grid:
    """Read the header of an NRRD or MetaImage file and check that the voxels it announces are there.

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
    check_spacing(grid)
    return grid


def check_same_grid(image: Grid, label: Grid) -> None:
    """Check that a label lies on the voxels of its image, see :func:`check_same_lattice`.

    Raises:
        UnusableImageError: If it does not.
    """
    check_same_lattice(image.affine, image.shape, label.affine, label.shape)


def _volume_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if not shape or min(shape) <= 0:
        raise UnusableImageError("empty header", f"dimensions {_by(shape) or 'none'}")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise UnusableImageError("4-D", f"{_by(shape)} voxels; split it into 3-D files")
    if len(shape) < 3 or 1 in shape:
        raise UnusableImageError("2-D", f"{_by(shape)} voxels, a volume is needed")
    if min(shape) < 3:
        raise UnusableImageError("too few slices", f"{_by(shape)} voxels, at least 3 along each axis are needed")
    return shape[0], shape[1], shape[2]


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
