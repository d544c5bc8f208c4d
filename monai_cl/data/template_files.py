"""Templates of sequences as NIfTI files, to look at and to stand in for a sequence that is missing."""

import gzip
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from monai_cl._files import atomic_write, read_json, write_json

logger = logging.getLogger(__name__)

INDEX = "templates.json"
FOLDER = "templates"


def write_templates(templates: Mapping[str, Tensor], folder: str | os.PathLike[str], spacing: Sequence[float]) -> Path:
    r"""Write a NIfTI file for each template, and ``templates.json`` with the sequence of each.

    Axes run towards right, anterior and superior, and the centre of a template is the origin: it lies on that of a
    prepared volume.

    Args:
        templates: Volumes (X, Y, Z) by name of the sequence.
        folder: The folder, made if none exists.
        spacing: Edge lengths of a voxel in mm.

    Returns:
        The file that names the others, written last.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, (name, values) in enumerate(templates.items()):
        files[name] = f"{number:02d}_{re.sub(r'[^A-Za-z0-9]+', '_', name)}.nii.gz"
        affine = np.diag([*map(float, spacing), 1.0])
        affine[:3, 3] = [-step * (side - 1) / 2 for step, side in zip(spacing, values.shape, strict=True)]
        with atomic_write(root / files[name]) as temporary:
            data = nib.Nifti1Image(values.numpy().astype(np.float32), affine).to_bytes()
            Path(temporary).write_bytes(gzip.compress(data, mtime=0))  # the same templates, the same bytes
    write_json(root / INDEX, {"templates": files, "spacing": [float(step) for step in spacing]})
    return root / INDEX


def read_templates(
    folder: str | os.PathLike[str] | None,
    channels: Sequence[str] = (),
    *,
    beside: str | os.PathLike[str] | None = None,
) -> dict[str, Tensor]:
    """Templates by name of the sequence; none without a folder.

    The log reports what stands in for channels that a study lacks.

    Args:
        folder: Folder with ``templates.json``; ``"none"``: missing channels are zeros; ``None``: the folder
            ``templates`` beside a file of weights, if one exists.
        channels: Names of the channels that a network takes.
        beside: The file of weights.

    Raises:
        FileNotFoundError: If no such folder exists, or it holds no templates.
    """
    if folder is None and beside is not None and (Path(beside).parent / FOLDER / INDEX).is_file():
        folder = Path(beside).parent / FOLDER
    if folder is None or str(folder).casefold() == "none":
        if len(channels) > 1:
            logger.info("a channel that a study lacks is filled with zeros, as no templates exist")
        return {}
    index = Path(folder) / INDEX
    if not index.is_file():
        raise FileNotFoundError(
            f"no {INDEX} in {folder}; run the pretraining, which writes it, or set `templates` to none, with which "
            "missing channels are zeros"
        )
    files: dict[str, str] = read_json(index)["templates"]
    result = {}
    for name, file in files.items():
        image = nib.Nifti1Image.from_filename(index.parent / Path(file).name)
        result[name] = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32))
    without = [name for name in channels if name not in result or not bool(result[name].any())]
    log = logger.info if len(channels) > 1 else logger.debug
    log(
        "a channel that a study lacks is filled with the template of its sequence%s",
        f"; with zeros for {', '.join(without)}, which pretraining never saw" if without else "",
    )
    return result
