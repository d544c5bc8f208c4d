"""Names of cases and places of files, which must not leave the machine."""

from __future__ import annotations

import re

# a path that starts at a root: two parts or more, so that "1/2" and "mm/s" stay; drives and homes too
_ABSOLUTE = re.compile(r"(?<![\w.:/<-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\:*?\"'<>|,;()\[\]{}]+){2,}")


class CaseNames:
    """Numbers in the place of case names, the same number wherever a case comes up.

    Args:
        shown: Give the names themselves.

    Example:
        >>> names = CaseNames(shown=False)
        >>> names("smith_john"), names("doe"), names("smith_john")
        ('case 1', 'case 2', 'case 1')
    """

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown
        self._numbers: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        """The name to print."""
        if self.shown:
            return name
        return f"case {self._numbers.setdefault(name, len(self._numbers) + 1)}"


def without_paths(text: str) -> str:
    r"""Text with absolute paths cut to their last part.

    Example:
        >>> without_paths("prepared by /home/me/my_recipe.yaml at 1/2 mm")
        'prepared by my_recipe.yaml at 1/2 mm'
        >>> without_paths("C:\\data\\list.json")
        'list.json'
    """
    return _ABSOLUTE.sub(lambda match: re.split(r"[/\\]", match.group())[-1], text)
