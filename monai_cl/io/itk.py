"""NRRD and MetaImage volumes: the header alone, or values with their affine.

They are read here and not by ITK, which ends the process on some headers and follows those that name files anywhere.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_cl.io.errors import UnusableImageError
from monai_cl.io.metaimage import names_in_metaimage, read_metaimage
from monai_cl.io.nrrd import names_in_nrrd, read_nrrd
from monai_cl.io.raw_volume import RawVolume, beside
from monai_cl.io.streams import open_regular

_MAX_HEADER = 1 << 20


def read_itk_header(path: Path, *, root: Path | None = None, to_the_end: bool = True) -> RawVolume:
    """Read the header of a file and check that the announced values are present.

    Args:
        path: The file.
        root: Folder that no link of a file with voxels may lead out of.
        to_the_end: Whether to check sizes, and to read compressed data to its end for its checksum.

    Raises:
        UnusableImageError: If it is unreadable, cut short, or its voxels lie outside of its folder.
    """
    if path.stat().st_size == 0:
        raise UnusableImageError("zero bytes", "the file is empty; copy it again")
    with open_regular(path) as stream:
        start = stream.read(_MAX_HEADER)
    try:
        volume = (read_nrrd if _is_nrrd(path) else read_metaimage)(path, start, root)
    except UnusableImageError:
        raise
    except Exception as error:  # a field that is absent, or none of its kind
        raise UnusableImageError(
            "unreadable", f"not a {path.suffix[1:].upper()} header that is read here ({type(error).__name__})"
        ) from None
    if to_the_end:
        volume.check()
    return volume


def read_itk(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Values ``(1, *S)`` as float32 and the affine in RAS mm.

    Raises:
        ValueError: If the file cannot be read as one grey 3-D volume.
    """
    volume = read_itk_header(path, to_the_end=False)
    if len(volume.shape) != 3 or volume.components != 1:
        raise ValueError(f"expected one grey 3-D volume, got {volume.shape} with {volume.components} values a voxel")
    volume.check_claims()
    values: NDArray[np.float32] = np.ascontiguousarray(volume.values()[np.newaxis], dtype=np.float32)
    return values, volume.affine


def partners(path: Path) -> list[Path]:
    """The files with voxels that a header names and that lie in its folder or below; none of a damaged header."""
    with open_regular(path) as stream:
        start = stream.read(_MAX_HEADER)
    try:
        names = (names_in_nrrd if _is_nrrd(path) else names_in_metaimage)(start)
        return [beside(path, name, None) for name in names]
    except Exception:  # the reader's own error follows
        return []


def _is_nrrd(path: Path) -> bool:
    return path.suffix.lower() in (".nrrd", ".nhdr")
