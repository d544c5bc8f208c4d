"""Tissue fractions beside quantitative maps: BIDS files ``label-GM_probseg`` and what they hold."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_cl.data.intake._hidden_paths import shown
from monai_cl.data.intake.nifti import stem
from monai_cl.data.maps.files import files_below, grid_of, values_of
from monai_cl.data.maps.kinds import case_of
from monai_cl.data.maps.names import MapNames

logger = logging.getLogger(__name__)

# Labels of BIDS for the tissues of monai_cl.qmri.TISSUES, in the order of the channels.
LABELS = {"WM": "white_matter", "GM": "grey_matter", "CSF": "csf", "FAT": "fat", "MUSCLE": "muscle"}
FRACTION_TISSUES = tuple(LABELS.values())
_FILE = re.compile(r"(?P<entities>.+)_label-(?P<label>[A-Za-z]+)_probseg")
_ROUNDING = 1e-3


def find_fractions(
    folder: str | os.PathLike[str], maps: Mapping[str, Mapping[str, Path]]
) -> dict[str, dict[str, Path]]:
    """Find the tissue fractions below a folder that belong to quantitative maps.

    Args:
        folder: As for :func:`find_maps`; segmentations may lie in ``derivatives``.
        maps: What it found.

    Returns:
        For each subject and session with maps, the files named ``label-WM_probseg``, ``GM``, ``CSF``, ``FAT`` or
        ``MUSCLE`` by tissue (``white_matter``, ...). Other labels, such as ``L`` for lesions of any kind, are passed
        over: what fractions leave of a voxel keeps the signal of its maps, see
        :class:`~monai_cl.transforms.RandMRContrast`. Files in another space (``space-MNI152...``) than the maps are
        passed over, and so is, with a warning, a tissue of which a subject has several files.

    Source:
        BIDS specification, imaging derivatives: probabilistic segmentations and common image-derived labels.
    """
    names = MapNames(Path(folder))
    spaces = {case: {_entity(path, "space") for path in files.values()} for case, files in maps.items()}
    found: dict[str, dict[str, list[Path]]] = {case: {} for case in maps}
    for path in files_below(Path(folder), "_probseg"):
        tissue, case = _tissue(path), case_of(stem(path))
        if tissue is None or case not in maps or _entity(path, "space") not in spaces[case]:
            continue
        found[case].setdefault(tissue, []).append(path)
    several = [paths for files in found.values() for paths in files.values() if len(paths) > 1]
    if several:
        logger.warning(
            "left out %d tissue fractions of which a subject has several files, such as %s and %s; keep those on the "
            "grid of the maps",
            len(several), *(names.file(path).shown for path in several[0][:2]),
        )  # fmt: skip
    return {
        case: {t: files[t][0] for t in FRACTION_TISSUES if len(files.get(t, ())) == 1} for case, files in found.items()
    }


def fractions_by_tissue(paths: Sequence[str]) -> dict[str, str]:
    """The files of one subject by tissue, told by their names.

    Raises:
        ValueError: If a name says nothing of a tissue, or two files hold one tissue.
    """
    found: dict[str, str] = {}
    for path in paths:
        tissue = _tissue(path)
        if tissue is None or tissue in found:
            raise ValueError(
                f"fractions must be files that end on _label-LABEL_probseg, one for each LABEL of {tuple(LABELS)}, got "
                f"{shown(path)}"
            )
        found[tissue] = path
    return found


def load_fractions(files: Mapping[str, str | os.PathLike[str]], tissues: Sequence[str], like: Any) -> Tensor:
    """Read tissue fractions on the grid of maps.

    Args:
        files: Files by tissue.
        tissues: Which of them, in the order of the channels.
        like: Maps (M, X, Y, Z) with an affine, on whose grid the fractions must lie.

    Returns:
        Fractions (T, X, Y, Z), float32, between 0 and 1; 0 where a file holds no number.

    Raises:
        ValueError: If a tissue is missing, or a file is unreadable, on another grid or holds no fractions.
    """
    if missing := [tissue for tissue in tissues if tissue not in files]:
        raise ValueError(f"fractions of {tuple(tissues)} are wanted, {missing} missing; there are {tuple(files)}")
    return torch.stack([_fraction(files[tissue], like) for tissue in tissues])


def _fraction(path: str | os.PathLike[str], like: Any) -> Tensor:
    told = shown(path)
    grid = grid_of(path, told)
    shape = tuple(like.shape[1:])
    if grid.shape != shape:
        raise ValueError(
            f"fractions must lie on the grid of the maps, but {told} has the shape {grid.shape} and the maps "
            f"{shape}; resample it to the maps"
        )
    if (apart := float(np.abs(grid.affine - np.asarray(like.affine)).max())) > _ROUNDING:
        raise ValueError(
            f"fractions must lie on the grid of the maps, but the affine of {told} differs by up to "
            f"{apart:.4g} mm; resample it to the maps"
        )
    values = torch.from_numpy(values_of(path, told)).nan_to_num(nan=0.0)
    low, high = (float(value) for value in values.aminmax())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"fractions must be between 0 and 1, got {low:.4g} to {high:.4g} in {told}; divide percent by 100"
        )
    return values.clamp(0, 1)


def _tissue(path: str | os.PathLike[str]) -> str | None:
    match = _FILE.fullmatch(stem(path))
    return LABELS.get(match["label"]) if match else None


def _entity(path: Path, name: str) -> str:
    return next((part for part in stem(path).split("_") if part.startswith(f"{name}-")), "")
