"""Pseudo-labels of a self-training as they grew up, from what its run kept of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from monai_cl.engine.drawing import new_figure, show_slice
from monai_cl.engine.pseudo_label_pictures import read_pseudo_labels
from monai_cl.report._folders import Run
from monai_cl.report._safety import below, inside

FOLDER, FILE = "pseudo_labels", "pseudo_labels.npz"  # of a few patches, of a slice of a whole volume
Look = tuple[int, np.ndarray, np.ndarray]  # step, images (N, h, w), labels (N, h, w)


def pseudo_label_pictures(run: Run) -> list[bytes]:
    """PNGs of slices at each look, side by side, with the labels that counted; of the run's own folder alone.

    Raises:
        KeyError: If a file holds other things.
        ValueError: If its arrays do not belong together.
    """
    found = []
    folder = run.folder / FOLDER
    if all(inside(run.folder, file) for file in folder.glob("*.npz")) and below(run.folder, folder):
        moments = read_pseudo_labels(folder)
        found.append([(each.step, each.image, np.where(each.certain, each.labels, 0)) for each in moments])
    if inside(run.folder, run.folder / FILE):
        with np.load(run.folder / FILE, allow_pickle=False) as file:
            labels = file["labels"]
            found.append([(int(s), file["image"][None], labels[i][None]) for i, s in enumerate(file["step"])])
    return [_drawn(looks) for looks in found if looks]


def _drawn(looks: Sequence[Look]) -> bytes:
    rows = len(looks[0][1])
    for step, image, labels in looks:
        if image.ndim != 3 or image.shape != labels.shape or len(image) != rows:
            raise ValueError(f"labels of step {step} must be of {rows} slices, got {labels.shape} of {image.shape}")
    figure = new_figure(1.6 * len(looks) + 0.4, 1.7 * rows + 0.3)
    axes = figure.subplots(rows, len(looks), squeeze=False)
    for column, (step, image, labels) in enumerate(looks):
        for row in range(rows):
            show_slice(axes[row][column], image[row], labels[row], title="" if row else f"step {step}")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


__all__ = ["pseudo_label_pictures"]
