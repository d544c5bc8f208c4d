"""Figures as SVG inside a page: lines and letters take the colour of the text around them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#0a0b0c"  # drawn in this, it becomes the colour of the page's text


@dataclass(frozen=True)
class Picture:
    """A picture for the page.

    Attributes:
        svg: The element.
        caption: What stands below it.
        wide: Whether it takes the whole width.
    """

    svg: Markup
    caption: str
    wide: bool = True


@contextmanager
def page_style(salt: str) -> Iterator[None]:
    """Draw for a page: text as text, no background, element names that do not depend on chance.

    Args:
        salt: Unlike for each figure of a page, so that no two share the name of an element.
    """
    from matplotlib import rc_context

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    style: dict[str, Any] = dict.fromkeys(inked, INK)
    style |= {"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif", "font.size": 9}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "grid.alpha": 0.25}
    style |= {"legend.frameon": False, "axes.titlesize": 10, "axes.titleweight": "bold"}
    with rc_context(style):
        yield


def to_svg(figure: Figure, alt: str) -> Markup:
    """The figure as one ``<svg role="img">`` with a text for those who cannot see it."""
    stream = io.BytesIO()
    # no date, no generator: the same run gives the same page
    nothing: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue().decode("utf-8")
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)  # the page sizes it; the viewBox keeps its shape
    return Markup(f'{head} role="img" aria-label="{escape(alt, quote=True)}">{body.strip()}')


def colours(count: int) -> list[str]:
    """Line colours that show on light and on dark, told apart by people with any colour vision."""
    # Okabe-Ito without black and yellow, which vanish on one of the grounds; the blue comes lighter
    hues = ("#D55E00", "#3D8FD1", "#009E73", "#CC79A7", "#E69F00", "#8C7AE6")
    return [hues[index % len(hues)] for index in range(count)]


def dashes(index: int) -> Any:
    """A line style for the ``index``-th line: prints in grey tell lines apart by it."""
    styles: Sequence[Any] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    return styles[index % len(styles)]
