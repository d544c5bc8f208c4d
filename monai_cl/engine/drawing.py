"""Drawing of masks on slices: figures without a window, in colours safe for colour-blind readers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monai_cl._files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito, safe for colour-blind readers
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = COLOURS
# of lines on white, where yellow vanishes; the last three are Paul Tol's
LINES = (BLUE, RED, GREEN, PINK, SKY, ORANGE, "#882255", "#332288", "#999933")
# of lines on white or black alike: no yellow, and a lighter blue and violet
LINES_ON_ANY_GROUND = (RED, "#3D8FD1", GREEN, PINK, ORANGE, "#8C7AE6")


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


def class_legend(figure: "Figure", names: Mapping[int, str]) -> None:
    """Name the colours of the classes below the figure."""
    from matplotlib.patches import Patch

    patches = [Patch(color=COLOURS[(label - 1) % len(COLOURS)], label=name) for label, name in names.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=9)
