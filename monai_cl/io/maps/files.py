"""Files of maps and of tissue fractions: which lie below a folder, their grid, their values, and the unit stated."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl._files import read_json
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.grid import Grid, read_grid
from monai_cl.io.nifti import closing_stream, finish, open_nifti
from monai_cl.io.suffixes import NIFTI, stem


def files_below(folder: Path, end: str = "") -> list[Path]:
    """NIfTI files at any depth whose names end on ``end`` before the suffix, sorted."""
    return sorted(p for suffix in NIFTI for p in folder.rglob(f"*{end}{suffix}") if p.is_file())


def grid_of(path: str | os.PathLike[str], shown: str) -> Grid:
    """Grid of a file, named in errors by ``shown``.

    Raises:
        ValueError: If the file is unreadable, cut short or no volume.
    """
    try:
        return read_grid(path, to_the_end=False)  # reading the values does
    except UnusableImageError as error:
        raise ValueError(f"cannot use {shown}: {error}") from None


def values_of(path: str | os.PathLike[str], shown: str) -> NDArray[np.float32]:
    """Values of a file, named in errors by ``shown``; axes beyond the third are dropped.

    Raises:
        ValueError: If they cannot be read.
    """
    try:
        image = open_nifti(Path(path))
        with closing_stream(image):
            raw: Any = np.asarray(image.dataobj, dtype=np.float32)
            finish(image)
    except UnusableImageError as error:
        raise ValueError(f"cannot use {shown}: {error}") from None
    except Exception as error:  # nibabel raises many types
        raise ValueError(f"cannot read {shown} ({type(error).__name__}); copy it again") from None
    values: NDArray[np.float32] = raw.reshape(raw.shape[:3])
    return values


def stated_unit(path: Path, suffix: str, shown: str) -> str:
    """The unit a sidecar states; an empty text where none does.

    Args:
        path: The map.
        suffix: Its kind.
        shown: Name of the file in errors.

    Raises:
        ValueError: If a sidecar cannot be read.
    """
    for sidecar in _sidecars(path, suffix):
        try:
            content = read_json(sidecar)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read the sidecar of {shown} ({type(error).__name__}); repair it") from None
        for keys in (("Units",), ("history", "output", "units")):
            value: Any = content
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if isinstance(value, str):
                return value
    return ""


def _sidecars(path: Path, suffix: str) -> list[Path]:
    """The file's own sidecar, then those it inherits: of fewer entities, in its folder and above up to the dataset."""
    own = path.with_name(f"{stem(path)}.json")
    candidates = [own]
    entities = set(stem(path).split("_"))
    for folder in list(path.parents)[:4]:
        shared = [p for p in folder.glob(f"*{suffix}.json") if p != own and set(p.stem.split("_")) <= entities]
        candidates += sorted(shared, key=lambda p: -len(p.stem.split("_")))
        if (folder / "dataset_description.json").exists():
            break
    return [p for p in candidates if p.is_file()]
