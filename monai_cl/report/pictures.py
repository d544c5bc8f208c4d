"""Pictures of views, curves and masks: PNG files, drawn without any window system."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_cl.engine.drawing import COLOURS, LINES, class_legend, new_figure, save, show_slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "class_legend", "draw_history", "draw_views", "new_figure", "save", "show_slice"]


def draw_history(ax: "Axes", rows: Sequence[Mapping[str, float]], *, name: str = "loss", label: str = "") -> None:
    """Plot a column of a history against the step, each further one on the same axes in the next colour."""
    points = [(row["step"], row[name]) for row in rows if name in row]
    colour = LINES[len(ax.lines) % len(LINES)]
    ax.plot(*zip(*points, strict=True), label=label or name, color=colour, linewidth=1.4) if points else None
    ax.set_xlabel("step")
    ax.grid(alpha=0.3)


def draw_views(axes: Sequence["Axes"], views: Mapping[str, Any]) -> None:
    """Draw the middle slice of a few random crops and, above each, how much of it lies in which base."""
    crops, overlap = np.asarray(views["crops"]), np.asarray(views["overlap"])
    for ax, crop, share in zip(axes, crops, overlap, strict=False):
        middle = crop[0] if crop.ndim == 3 else crop[0, ..., crop.shape[-1] // 2]
        best = np.argsort(-share)[:3]
        text = ", ".join(f"{100 * share[k]:.0f} % in {k}" for k in best if share[k] > 0.005)
        show_slice(ax, middle, title=text)
