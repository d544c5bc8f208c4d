"""Templates of pages, escaped and without paths; apart from what reads runs, for a scan does without torch."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monai_cl.report._privacy import without_paths
from monai_cl.report.tables import cell_text, is_number


def page_environment() -> Environment:
    """Templates that escape everything, refuse unknown names, and cut absolute paths out of every text."""
    environment = Environment(
        loader=PackageLoader("monai_cl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalise,
    )
    environment.filters["cell"] = cell_text
    environment.tests["figure"] = is_number
    return environment


def _finalise(value: Any) -> Any:
    # our own SVG is Markup and full of slashes; data URIs of pictures hold them too
    if isinstance(value, Markup) or not isinstance(value, str) or value.startswith("data:image/"):
        return value
    return without_paths(value)
