"""Pictures of views, curves and masks: PNG files, drawn without any window system."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_cl._files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito: told apart by people with any colour vision
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def new_figure(width: float, height: float) -> "Figure":
    """A figure of the given inches that belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def save(figure: "Figure", path: str | Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def show_slice(ax: "Axes", image: np.ndarray, mask: np.ndarray | None = None, *, title: str = "") -> None:
    """Draw an axial slice (x, y) of a RAS volume as radiologists see it, the patient's right at the left.

    Args:
        ax: Where to draw.
        image: The slice.
        mask: Classes to outline and tint; 0 is background.
        title: Text above.
    """
    image = image[::-1]
    mask = None if mask is None else mask[::-1]
    ax.imshow(image.T, cmap="gray", origin="lower", interpolation="nearest")
    labels = np.unique(mask) if mask is not None else np.zeros(0)
    for label in labels[labels > 0]:
        colour = COLOURS[(int(label) - 1) % len(COLOURS)]
        inside = (mask == label).T.astype(float)
        ax.contourf(inside, levels=[0.5, 1.5], colors=[colour], alpha=0.35)
        ax.contour(inside, levels=[0.5], colors=[colour], linewidths=1.2)
    ax.set_title(title, fontsize=9)
    ax.set_xticks([])
    ax.set_yticks([])


def draw_history(ax: "Axes", rows: Sequence[Mapping[str, float]], *, name: str = "loss", label: str = "") -> None:
    """Plot a column of a history against the step."""
    points = [(row["step"], row[name]) for row in rows if name in row]
    ax.plot(*zip(*points, strict=True), label=label or name, linewidth=1.4) if points else None
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


def class_legend(figure: "Figure", names: Mapping[int, str]) -> None:
    """Name the colours of the classes below the figure."""
    from matplotlib.patches import Patch

    patches = [Patch(color=COLOURS[(label - 1) % len(COLOURS)], label=name) for label, name in names.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=9)
