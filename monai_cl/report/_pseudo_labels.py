"""Pseudo-labels of a self-training as they grew up, from what its run kept of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from monai_cl.engine.drawing import new_figure, show_slice
from monai_cl.engine.pseudo_label_pictures import PseudoLabelMoment, read_pseudo_labels
from monai_cl.report._folders import Run
from monai_cl.report._safety import below, inside

FOLDER = "pseudo_labels"


def pseudo_label_picture(run: Run) -> bytes | None:
    """PNG of slices at each look, side by side, with the labels that counted; of the run's own folder alone.

    None where the run kept no pseudo-labels.

    Raises:
        KeyError: If a file holds other things.
        ValueError: If its arrays do not belong together.
    """
    folder = run.folder / FOLDER
    if not (all(inside(run.folder, file) for file in folder.glob("*.npz")) and below(run.folder, folder)):
        return None
    moments = read_pseudo_labels(folder)
    return _drawn(moments) if moments else None


def _drawn(moments: Sequence[PseudoLabelMoment]) -> bytes:
    rows = len(moments[0].image)
    for step, image, labels, certain in moments:
        if image.ndim != 3 or not image.shape == labels.shape == certain.shape or len(image) != rows:
            raise ValueError(f"labels of step {step} must be of {rows} slices, got {labels.shape} of {image.shape}")
    figure = new_figure(1.6 * len(moments) + 0.4, 1.7 * rows + 0.3)
    axes = figure.subplots(rows, len(moments), squeeze=False)
    for column, (step, image, labels, certain) in enumerate(moments):
        for row in range(rows):
            counted = np.where(certain[row], labels[row], 0)
            show_slice(axes[row][column], image[row], counted, title="" if row else f"step {step}")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


__all__ = ["pseudo_label_picture"]
