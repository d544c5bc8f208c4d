"""Names as they may be shown: plain ones as they are, tokens and pseudonyms in the place of all others."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Sequence
from typing import Any

from monai_cl.privacy.ids import make_token
from monai_cl.privacy.plain import PSEUDONYM, is_plain, is_plain_path, is_plain_value
from monai_cl.privacy.pseudonyms import Key

_OPTIONS = ("--keep-derived", "--keep-tilted", "--stack-series")  # which messages advise: no part of a name
_OPTION = re.compile(rf"({'|'.join(_OPTIONS)})(?![\w-])")


class PlainNames:
    """Shows plain names, and notes what stands for the others.

    A path is shown as it is where all of it is plain. Otherwise a token stands for its folder, ``dir-.../case_1.nii``,
    or where the name of the file is not plain either for the whole, ``file-...``.

    Args:
        key: Gives the key; asked for with the first name that is not plain.

    Attributes:
        files: File that each token stands for, for the table.
    """

    def __init__(self, key: Callable[[], Key]) -> None:
        self._make_key = key
        self._key: Key | None = None
        self.files: dict[str, str | Sequence[str]] = {}

    @property
    def key(self) -> Key:
        """Key of the user, created on first use."""
        if self._key is None:
            self._key = self._make_key()
        return self._key

    def path(self, path: str) -> str:
        """A path as it may be shown."""
        whole = posixpath.normpath(path.replace(os.sep, "/"))
        if is_plain_path(whole):
            return path
        folder, name = posixpath.split(whole)
        if folder.strip("/") and name not in ("", ".", "..") and is_plain(name):
            return f"{self.token('dir', folder)}/{name}"
        return self.token("file", whole)

    def token(self, kind: str, paths: str | Sequence[str]) -> str:
        """The token of a file or of the files of a series, which is noted."""
        token = make_token(self.key, kind, paths)
        self.files[token] = paths
        return token

    def subject(self, subject: Any) -> Any:
        """A patient as it may be shown: a number of a study, or a pseudonym."""
        if is_plain_value(subject) and not isinstance(subject, (list, dict)):
            return subject
        return subject if PSEUDONYM.fullmatch(str(subject)) else Pseudonym(self.key.subject(f"name:{subject}"), subject)


class Pseudonym(str):
    """The pseudonym of a patient, which knows who is behind it while it is in memory.

    Draws of few labels go by the patient, not by the key: two users of one public data set draw the same.

    Args:
        pseudonym: Shown name.
        behind: The patient as the list has it.
    """

    behind: str

    def __new__(cls, pseudonym: str, behind: object) -> Pseudonym:
        """Keep who is behind it beside the text."""
        made = super().__new__(cls, pseudonym)
        made.behind = str(behind)
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.behind


def without_parts(text: str, path: str, shown: str) -> str:
    """A text in which nothing is left of a path: what stands for it takes the place of the whole and of each part.

    Example:
        >>> without_parts("smith/a1.nii is cut short, smith holds two series", "smith/a1.nii", "file-0123")
        'file-0123 is cut short, file-0123 holds two series'
        >>> without_parts("tilted holds two series; scan with --keep-tilted", "tilted", "file-0123")
        'file-0123 holds two series; scan with --keep-tilted'
    """
    return "".join(one if one in _OPTIONS else _without_parts(one, path, shown) for one in _OPTION.split(text))


def _without_parts(text: str, path: str, shown: str) -> str:
    text = text.replace(path, shown)
    for part in sorted(set(path.split("/")), key=len, reverse=True):
        for form in (part, *(part[: match.start()] for match in re.finditer(r"\.", part) if match.start() > 0)):
            if form not in ("", ".", "..") and not is_plain(form):
                text = re.sub(rf"(?<![^\W_]){re.escape(form)}(?![^\W_])", lambda _: shown, text)
    return text
