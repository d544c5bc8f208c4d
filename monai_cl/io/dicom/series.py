"""Slices of a series: those of a file, of a folder, or of a list of files."""

import os
from collections.abc import Sequence
from pathlib import Path

from monai_cl.io.dicom.checks import check_single_image
from monai_cl.io.dicom.headers import is_dicom, read_slice_headers
from monai_cl.io.dicom.slices import SliceHeader

_SUFFIXES = (".dcm", ".ima", ".dicom")


def headers_of(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[SliceHeader]:
    """Headers of the slices that a scan is made of.

    Args:
        source: A file, a directory with one series, or a list of files.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If a file cannot be read or is no DICOM picture; names it.
    """
    if not isinstance(source, (str, os.PathLike)):
        return [header for path in source for header in headers_of(path)]
    path = Path(source).expanduser()
    if path.is_dir():
        return slices_below(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not is_dicom(path):
        raise ValueError(f"{path} is no DICOM file")
    return slices_of(path)


def slices_of(path: Path) -> list[SliceHeader]:
    """Headers of a file that must hold pictures: one, or one a frame.

    Raises:
        ValueError: If it cannot be read, or holds no single picture.
    """
    headers = _read(path)
    try:
        check_single_image(headers[0])
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    return headers


def slices_below(folder: Path) -> list[SliceHeader]:
    """Headers of the images in a directory; DICOM objects without a picture (an index, a report) are passed over.

    Raises:
        ValueError: If none exists, or a file cannot be read.
    """
    headers = []
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        if is_dicom(path):
            result = _read(path)
            if result[0].rows and result[0].columns:
                headers += slices_of(path)
        elif path.suffix.lower() in _SUFFIXES:
            raise ValueError(
                f"cannot read {path}: named as DICOM but without a DICOM header; remove it or copy it again"
            )
    if not headers:
        raise ValueError(f"expected a directory with one DICOM image series, but {folder} holds no DICOM image")
    return headers


def _read(path: Path) -> list[SliceHeader]:
    try:
        return read_slice_headers(path)
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
