"""Pages from templates, escaped and without paths; apart from what reads runs, for a scan does without torch."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monai_cl._files import atomic_write
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


def rendered(template: str, **content: Any) -> str:
    """A page of a template, in the style of all pages."""
    environment = page_environment()
    style = Markup(environment.get_template("report.css").render())
    return environment.get_template(template).render(style=style, **content)


def script(name: str) -> Markup:
    """A script of the templates, as it stands in a page."""
    environment = page_environment()
    return Markup(environment.loader.get_source(environment, name)[0].strip() if environment.loader else "")


def script_hash(text: str) -> str:
    """Digest by which the policy of a page allows a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def write_page(out: str | Path, page: str) -> Path:
    """Write a page, whose texts may hold what no encoding has, and return its path."""
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return target


def _finalise(value: Any) -> Any:
    # our own SVG is Markup and full of slashes; data URIs of pictures hold them too
    if isinstance(value, Markup) or not isinstance(value, str) or value.startswith("data:image/"):
        return value
    return without_paths(value)
