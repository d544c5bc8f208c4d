"""Suffixes of volume files."""

import os

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")


def is_nifti(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is named as NIfTI."""
    return os.fspath(path).lower().endswith(NIFTI)


def is_itk(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is named as NRRD or MetaImage."""
    return os.fspath(path).lower().endswith(ITK)


def stem(path: str | os.PathLike[str]) -> str:
    """Name of a file without folder and without the suffix of a volume file (NIfTI, NRRD, MetaImage)."""
    name = os.path.basename(os.fspath(path))
    return next((name[: -len(suffix)] for suffix in (*NIFTI, *ITK) if name.lower().endswith(suffix)), name)
