"""Pictures of what is pathological: what a decoder of two codes takes away without the salient one, or swaps."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks import eval_mode
from monai.transforms import ResizeWithPadOrCrop
from torch import Tensor

from monai_cl.engine.distributed import rank
from monai_cl.engine.drawing import new_figure, save, show_slice
from monai_cl.methods import Method, SeparateVAETerm
from monai_cl.phantoms.volume import write_nifti

logger = logging.getLogger(__name__)

PARTS = ("image", "restored", "without", "pathology", "swapped")


@torch.no_grad()
def separate(method: Method, images: Tensor) -> dict[str, Tensor]:
    r"""Restored images of patients, the same without and with another's salient code, and what that code adds.

    Args:
        method: A method with a :class:`monai_cl.methods.SeparateVAETerm`.
        images: Images of patients, (N, C, \*S).

    Returns:
        ``image``; ``restored`` from both codes; ``without``, from the common code alone; ``pathology``, the difference
        of the two; ``swapped``, with the salient code of the next image. All (N, C, \*S).

    Raises:
        ValueError: If the method has no such term.
    """
    result = [(name, term) for name, term in method._terms().items() if isinstance(term, SeparateVAETerm)]
    if not result:
        raise ValueError(f"a SeparateVAETerm is needed, which restores images, got {list(method.terms)}")
    term = result[0][1]
    with eval_mode(method):
        codes = term.encode(method._extractors()[term.key], images[:, None])
        common, salient = codes["common"].mean, codes["salient"].mean
        restored, without = term.decode(common, salient), term.decode(common)
        swapped = term.decode(common, salient.roll(-1, 0))
    return dict(zip(PARTS, (images, restored, without, restored - without, swapped), strict=True))


def draw_separation(
    method: Method,
    volumes: Any,
    image_size: Sequence[int],
    folder: str | Path,
    *,
    number: int = 4,
    device: str | torch.device = "cpu",
) -> list[Path]:
    """Write what :func:`separate` gives of the middle of some patients: NIfTI files, and ``separation.png``.

    Files are named ``patient_1_image.nii.gz`` and so on, and lie where the volume does. Rank 0 alone writes.

    Args:
        method: A method with a :class:`monai_cl.methods.SeparateVAETerm`.
        volumes: Prepared volumes with ``patient``, as from :func:`monai_cl.data.weak_labels`.
        image_size: Edge lengths of the images that the method restores.
        folder: Where the files go.
        number: Patients, at most; the first ones.
        device: Where the method runs.

    Returns:
        The files.

    Raises:
        ValueError: If no volume is of a patient.
    """
    if rank() != 0:
        return []
    chosen = [index for index in range(len(volumes)) if int(volumes[index]["patient"]) == 1][:number]
    if not chosen:
        raise ValueError("at least one patient is needed to show pathology, got none; name another section")
    cut = ResizeWithPadOrCrop(tuple(image_size))
    images = [cut(volumes[index]["image"]) for index in chosen]
    method.to(device)
    batch = torch.stack([torch.as_tensor(image).as_subclass(Tensor).float() for image in images]).to(device)
    parts = {name: value.cpu() for name, value in separate(method, batch).items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [_draw(parts, folder / "separation.png")]
    for row, image in enumerate(images):
        affine = torch.as_tensor(getattr(image, "affine", torch.eye(4))).as_subclass(Tensor).double().cpu()
        for name, values in parts.items():
            files.append(folder / f"patient_{row + 1}_{name}.nii.gz")
            write_nifti(files[-1], values[row, 0], affine)
    logger.info("wrote %s and %d NIfTI files of %d patients", files[0], len(files) - 1, len(images))
    return files


def _draw(parts: dict[str, Tensor], path: Path) -> Path:
    rows = len(parts["image"])
    figure = new_figure(2.2 * len(PARTS), 2.4 * rows)
    axes = figure.subplots(rows, len(PARTS), squeeze=False)
    for row in range(rows):
        strength = parts["pathology"][row, 0].abs()
        # the slice in which the salient code changes most
        place = int(strength.flatten(0, 1).sum(0).argmax()) if strength.ndim == 3 else None
        for ax, (name, values) in zip(axes[row], parts.items(), strict=True):
            plane = values[row, 0] if place is None else values[row, 0, ..., place]
            show_slice(ax, plane.numpy(), title=name if row == 0 else "")
    return save(figure, path)
