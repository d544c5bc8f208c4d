"""Tissue fractions beside quantitative maps: BIDS files ``label-GM_probseg`` and what they hold."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_cl.io.maps.files import files_below
from monai_cl.io.maps.kinds import case_of
from monai_cl.io.maps.names import MapNames
from monai_cl.io.suffixes import stem
from monai_cl.privacy.hidden_paths import shown

logger = logging.getLogger(__name__)

# Labels of BIDS for the tissues of monai_cl.qmri.TISSUES, in the order of the channels.
LABELS = {"WM": "white_matter", "GM": "grey_matter", "CSF": "csf", "FAT": "fat", "MUSCLE": "muscle"}
FRACTION_TISSUES = tuple(LABELS.values())
_FILE = re.compile(r"(?P<entities>.+)_label-(?P<label>[A-Za-z]+)_probseg")


def find_fractions(
    folder: str | os.PathLike[str], maps: Mapping[str, Mapping[str, Path]]
) -> dict[str, dict[str, Path]]:
    """Find the tissue fractions below a folder that belong to quantitative maps.

    Args:
        folder: As for :func:`find_maps`; segmentations may lie in ``derivatives``.
        maps: Maps of each subject, as :func:`find_maps` returns them.

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
    result: dict[str, dict[str, list[Path]]] = {case: {} for case in maps}
    for path in files_below(Path(folder), "_probseg"):
        tissue, case = _tissue(path), case_of(stem(path))
        if tissue is None or case not in maps or _entity(path, "space") not in spaces[case]:
            continue
        result[case].setdefault(tissue, []).append(path)
    several = [paths for files in result.values() for paths in files.values() if len(paths) > 1]
    if several:
        logger.warning(
            "left out %d tissue fractions of which a subject has several files, such as %s and %s; keep those on the "
            "grid of the maps",
            len(several), *(names.file(path).shown for path in several[0][:2]),
        )  # fmt: skip
    return {
        case: {t: files[t][0] for t in FRACTION_TISSUES if len(files.get(t, ())) == 1} for case, files in result.items()
    }


def fractions_by_tissue(paths: Sequence[str]) -> dict[str, str]:
    """Tissue fractions of one subject by tissue, recognised by their names.

    Raises:
        ValueError: If a name matches no tissue, or two files hold one tissue.
    """
    result: dict[str, str] = {}
    for path in paths:
        tissue = _tissue(path)
        if tissue is None or tissue in result:
            raise ValueError(
                f"fractions must be files that end on _label-LABEL_probseg, one for each LABEL of {tuple(LABELS)}, got "
                f"{shown(path)}"
            )
        result[tissue] = path
    return result


def _tissue(path: str | os.PathLike[str]) -> str | None:
    match = _FILE.fullmatch(stem(path))
    return LABELS.get(match["label"]) if match else None


def _entity(path: Path, name: str) -> str:
    return next((part for part in stem(path).split("_") if part.startswith(f"{name}-")), "")
