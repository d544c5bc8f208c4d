"""Picture of random anatomies: label map, two views, and places that correspond."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_cl._files import atomic_write
from monai_cl.phantoms.random_anatomy import RandomAnatomy

_POINTS = 7  # places that are marked in both views
_COLUMNS = ("label map", "view 1", "view 2", "labels of view 2")


def draw_anatomies(anatomy: RandomAnatomy, path: str | Path, *, rows: int = 6, seed: int = 0) -> None:
    """Draw anatomies as PNG, a row each: the middle slice of the label map, of two views, and of the second's labels.

    Numbers mark places of the slice of the first view in the second, and there a place that lies in another slice is
    smaller. They mark the pairs that a dense contrast takes as the same.

    Args:
        anatomy: Anatomy to draw, with at least two views.
        path: Target, a name that ends in ``.png``.
        rows: Number of anatomies.
        seed: Seed of the draws.

    Raises:
        ValueError: If the name does not end in ``.png``, or fewer than two views are given.
    """
    from matplotlib.figure import Figure

    if Path(path).suffix != ".png" or anatomy.num_views < 2:
        raise ValueError(
            f"a picture needs a name that ends in .png and two views, got {Path(path).name!r} and {anatomy.num_views}"
        )
    figure = Figure(figsize=(2.4 * len(_COLUMNS), 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, len(_COLUMNS), squeeze=False)
    anatomy.set_random_state(seed=seed)
    for row in axes:
        draw = anatomy.randomize()
        _row(row, anatomy.label_map(draw), anatomy.apply(draw))
    for axis, title in zip(axes[0], _COLUMNS, strict=True):
        axis.set_title(title, fontsize=9)
    with atomic_write(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _row(axes: Any, labels: Tensor, views: dict[str, Tensor]) -> None:
    middle = [labels.shape[2] // 2] if labels.ndim == 3 else []
    colours: dict[str, Any] = {"cmap": "nipy_spectral", "vmin": 0, "vmax": int(labels.max()), "interpolation": "none"}
    axes[0].imshow(_slice(labels, middle), **colours)
    for view in (0, 1):
        image = views["image"][view, 0]
        axes[1 + view].imshow(_slice(image, _middle(image)), cmap="gray", vmin=0, vmax=1)
    axes[3].imshow(_slice(views["label"][1], _middle(views["label"][1])), **colours)
    for number, (here, there) in enumerate(corresponding(views)):
        away = abs(there[2] - views["image"].shape[-1] // 2) if len(there) == 3 else 0
        axes[1].text(here[0], here[1], str(number), color="yellow", fontsize=7)
        axes[2].text(there[0], there[1], str(number), color="yellow", fontsize=7 if away < 2 else 4)
    for axis in axes:
        axis.set_axis_off()


def corresponding(views: dict[str, Tensor], *, count: int = _POINTS) -> list[tuple[list[int], list[int]]]:
    """Voxels of the middle slice of the first view, and those of the second that show the nearest place.

    Args:
        views: Views of an anatomy, as of :class:`RandomAnatomy`.
        count: Most voxels, evenly spread over those that both views show.

    Returns:
        Pairs of indices of voxels.
    """
    (first, second), (shown, also) = views["coords"], views["valid"]
    size, dims = first.shape[1:], len(first)
    here = shown.clone()
    if dims == 3:
        here[..., : size[2] // 2] = False
        here[..., size[2] // 2 + 1 :] = False
    candidates = here.nonzero()
    candidates = candidates[:: max(len(candidates) // (8 * count), 1)]
    places = second.flatten(1).T
    index = (slice(None), *candidates.T)
    distance = torch.cdist(first[index].T, places)
    distance[:, ~also.flatten()] = torch.inf
    nearest = distance.min(1)
    kept = (nearest.values < 0.9).nonzero()[:, 0]
    number = min(count, len(kept))
    kept = kept[((torch.arange(number) + 0.5) * len(kept) / max(number, 1)).long()]
    result = np.stack(np.unravel_index(nearest.indices[kept].numpy(), tuple(size)), axis=1)
    return list(zip(candidates[kept].tolist(), result.tolist(), strict=True))


def _middle(volume: Tensor) -> list[int]:
    return [volume.shape[2] // 2] if volume.ndim == 3 else []


def _slice(volume: Tensor, at: list[int]) -> Any:
    plane = volume[..., at[0]] if at else volume
    return plane.T.numpy()  # the first axis to the right
