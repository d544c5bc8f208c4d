"""Figures as SVG inside a page: lines and letters take the colour of the text around them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from monai_cl.engine.drawing import LINES_ON_ANY_GROUND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#0a0b0c"  # drawn in this, it becomes the colour of the page's text


@dataclass(frozen=True)
class Picture:
    """A picture for the page.

    Attributes:
        svg: The element.
        caption: Text below it.
        wide: Whether it takes the whole width.
    """

    svg: Markup
    caption: str
    wide: bool = True


@contextmanager
def page_style() -> Iterator[None]:
    """Draw for a page: text as text, in the page's colours."""
    from matplotlib import rc_context

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    style: Any = dict.fromkeys(inked, INK)
    style |= {"svg.fonttype": "none", "svg.hashsalt": "", "font.family": "sans-serif", "font.size": 9}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "grid.alpha": 0.25}
    style |= {"text.parse_math": False}  # names are shown as they are
    style |= {"legend.frameon": False, "axes.titlesize": 10, "axes.titleweight": "bold"}
    with rc_context(style):
        yield


def to_svg(figure: Figure, alt: str, name: str) -> Markup:
    """The figure as one ``<svg role="img">``.

    Args:
        figure: The figure.
        alt: A text for those who cannot see it.
        name: Unlike for each figure of a page: names of elements begin with it.
    """
    stream = io.BytesIO()
    # no date, no generator: the same run gives the same page
    nothing: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue().decode("utf-8")
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = _renamed(text, name).split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)  # the page sizes it; the viewBox keeps its shape
    return Markup(f'{head} role="img" aria-label="{escape(alt, quote=True)}">{body.strip()}')


def _renamed(svg: str, name: str) -> str:
    """Elements by number: matplotlib's own names come from addresses in memory, or are alike in all figures."""
    referred = dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    stem = re.sub("[^a-z0-9]+", "-", name.lower())
    numbers = {old: f"{stem}-{number}" for number, old in enumerate(referred)}
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in numbers else "", svg)

    def new(match: re.Match[str]) -> str:
        return f"{match[1]}{numbers[match[2]]}{match[3]}"

    return re.sub(r'( id="|url\(#|href="#)([^")]+)(["\)])', new, svg)


def colours(count: int) -> list[str]:
    """Line colours for light and dark pages, safe for colour-blind readers."""
    return [LINES_ON_ANY_GROUND[index % len(LINES_ON_ANY_GROUND)] for index in range(count)]


def dashes(index: int) -> Any:
    """Line style of the ``index``-th line, distinct in grey prints."""
    styles: Sequence[Any] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    return styles[index % len(styles)]


def draw_slice(ax: Axes, plane: np.ndarray, title: str = "") -> None:
    """Draw a slice (x, y) of a RAS volume in its own coordinates, the patient's right at the left."""
    ax.imshow(plane.T, cmap="gray", origin="lower", interpolation="nearest")
    ax.invert_xaxis()
    ax.set_axis_off()
    ax.set_title(title)


def draw_box(ax: Axes, corner: Any, size: Any, text: str, colour: str, *, dashed: bool = False) -> None:
    """Outline voxels ``corner`` to ``corner + size`` of a slice from :func:`draw_slice` and name them in a corner."""
    from matplotlib.patches import Rectangle

    x, y, across, up = corner[0] - 0.5, corner[1] - 0.5, size[0], size[1]
    style: dict[str, Any] = {"linewidth": 1.0, "linestyle": "--"} if dashed else {"linewidth": 1.8, "linestyle": "-"}
    ax.add_patch(Rectangle((x, y), across, up, fill=False, edgecolor=colour, **style))
    # what is dashed at its upper left corner, as seen, the others at their lower right one: names stay apart
    alignment: dict[str, Any] = {"ha": "left", "va": "top"} if dashed else {"ha": "right", "va": "bottom"}
    place = (x + across, y + up) if dashed else (x, y)
    ground = {"facecolor": "#000000", "alpha": 0.6, "edgecolor": "none", "pad": 1.0}
    if text:
        ax.text(*place, text, color=colour, fontsize=8, fontweight="bold", bbox=ground, **alignment)
