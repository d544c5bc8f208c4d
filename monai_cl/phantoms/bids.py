"""Phantoms with quantitative maps as files: a BIDS derivative dataset with units in the sidecars."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_cl._files import write_json, write_text
from monai_cl.phantoms.dataset_folder import DOI, empty_folder
from monai_cl.phantoms.maps import MAP_LABELS, BrainMaps, brain_maps
from monai_cl.phantoms.volume import write_nifti
from monai_cl.qmri.maps import MAP_NAMES

# Labels of the BIDS specification for derivatives where it has them.
_BIDS_LABELS = {
    "grey_matter": "GM", "white_matter": "WM", "csf": "CSF", "white_matter_lesion": "L", "fat": "FAT",
    "muscle": "MUSCLE",
}  # fmt: skip
_UNITS = {"PDmap": "p.u.", "T1map": "s", "T2map": "s", "R2starmap": "1/s", "MTsat": "p.u."}


def write_brain_maps(
    folder: str | Path,
    *,
    subjects: int = 8,
    spacing: float = 2.0,
    field_strength: float = 3.0,
    head: bool = False,
    lesions: int | tuple[int, int] = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write synthetic subjects with quantitative maps as a BIDS derivative dataset.

    For each subject ``sub-001/anat/`` holds ``sub-001_PDmap``, ``_T1map``, ``_T2map``, ``_R2starmap`` and ``_MTsat``
    (``.nii.gz`` with a ``.json`` that states ``Units``), which :func:`~monai_cl.data.find_maps` and
    :func:`~monai_cl.data.load_maps` read; the shares of the tissues as ``sub-001_label-GM_probseg`` (``WM``, ``CSF``,
    ``L`` for lesions, ``FAT``, ``MUSCLE``) and the labels as ``sub-001_dseg``, named in ``dseg.tsv``.
    ``dataset_description.json`` is written last, so a folder that has it is complete.

    Args:
        folder: Target, absent or empty.
        subjects: Number of subjects; asking for more leaves the first ones as they were.
        spacing: Isotropic voxel size in millimetres, 1 to 12.
        field_strength: 1.5, 3 or 7 tesla.
        head: Add skull, muscle and fat.
        lesions: Number of lesions of a subject, or a pair to draw it from.
        seed: Non-negative integer that fixes every draw; subject n (from 0) is ``brain_maps((seed, n), ...)``.
        progress: Called with (subjects written, subjects in all) after each subject.

    Returns:
        The folder.

    Raises:
        ValueError: If a number is out of range; see :func:`~monai_cl.phantoms.maps.brain_maps`.
        FileExistsError: If the folder holds something already.
        ModuleNotFoundError: If nilearn, which carries the tissue maps, is not installed.
    """
    if subjects < 1:
        raise ValueError(f"subjects must be at least 1, got {subjects!r}")
    options: dict[str, Any] = {"spacing": spacing, "field_strength": field_strength, "head": head, "lesions": lesions}
    with empty_folder(folder, "the maps") as root:
        for number in range(subjects):
            save_subject(brain_maps((seed, number), **options), root, f"{number + 1:03d}")
            if progress is not None:
                progress(number + 1, subjects)
        rows = ["index\tname\tabbreviation", *(f"{k}\t{name}\t{_BIDS_LABELS[name]}" for k, name in MAP_LABELS.items())]
        write_text(root / "dseg.tsv", "\n".join(rows) + "\n")
        write_json(root / "dataset_description.json", _description(seed, options), indent=2)
    return root


def save_subject(subject: BrainMaps, folder: str | Path, name: str) -> dict[str, Path]:
    """Write one subject into a BIDS derivative dataset; see :func:`write_brain_maps` for the files.

    Args:
        subject: The subject.
        folder: The dataset.
        name: Label of the subject, letters and digits without ``sub-``.

    Returns:
        The files of the maps by BIDS suffix, as :func:`~monai_cl.data.load_maps` takes them.

    Raises:
        ValueError: If the name holds something else.
    """
    if not name.isalnum():
        raise ValueError(f"a BIDS subject is named with letters and digits, got {name!r}")
    anat = Path(folder) / f"sub-{name}" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    files = {}
    for suffix, values in _by_suffix(subject.maps).items():
        path = files[suffix] = anat / f"sub-{name}_{suffix}.nii.gz"
        write_nifti(path, values, subject.affine)
        sidecar = {"Units": _UNITS[suffix], "MagneticFieldStrength": subject.field_strength}
        write_json(path.with_name(f"sub-{name}_{suffix}.json"), sidecar, indent=2)
    for tissue, share in zip(subject.tissues, subject.fractions, strict=True):
        write_nifti(anat / f"sub-{name}_label-{_BIDS_LABELS[tissue]}_probseg.nii.gz", share, subject.affine)
    write_nifti(anat / f"sub-{name}_dseg.nii.gz", subject.label[0], subject.affine)
    return files


def _by_suffix(maps: Tensor) -> dict[str, Tensor]:
    """Values to store; as in practice R2* as a rate and MT saturation in p.u., the rest as it is."""
    pd, t1, t2, t2_star, mtsat = (maps[MAP_NAMES.index(n)] for n in ("pd", "t1", "t2", "t2_star", "mtsat"))
    rate = torch.where(t2_star > 0, 1 / torch.where(t2_star > 0, t2_star, 1.0), 0.0)
    return {"PDmap": pd, "T1map": t1, "T2map": t2, "R2starmap": rate, "MTsat": 100 * mtsat}


def _description(seed: int, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "Name": "Synthetic brains with quantitative maps; no patient data",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "monai_cl.data.write_brain_maps", "Parameters": {"seed": seed, **options}}],
        "SourceDatasets": [{"DOI": DOI}],
    }
