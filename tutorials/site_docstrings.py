"""Docstrings as the site shows them: roles of reStructuredText become Markdown, and examples stay code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`~?([^`]+)`")
_DISPLAY = re.compile(r"^\.\. math:: *((?:.+\n?)+)", re.MULTILINE)
_MATH = re.compile(r":math:`([^`]+)`")


class PlainMarkdown(Extension):
    """Rewrite docstrings before they are parsed; the source stays as it is."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Docstring with Markdown for roles, and ``Examples`` for ``Example``."""
    text = _ROLE.sub(r"`\1`", text)
    text = _MATH.sub(r"$\1$", text)
    text = _DISPLAY.sub(lambda match: f"\n$$\n{' '.join(match[1].split())}\n$$\n", text)
    return re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
