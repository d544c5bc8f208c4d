"""Aliases of path components that could name a patient, and the search for their files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_cl.privacy.ids import split_id
from monai_cl.privacy.naming import without_parts
from monai_cl.privacy.plain import SUFFIX, is_plain
from monai_cl.privacy.pseudonyms import Key

PREFIX = "hidden-"
_ALIAS = re.compile(rf"{PREFIX}[0-9a-f]{{12}}(\.[a-z0-9]+){{0,2}}")


def alias_of(name: str, key: Key) -> str:
    """Alias of a component that is hidden."""
    suffix = SUFFIX.search(name)
    return f"{PREFIX}{key.digest('component', name)}{suffix.group().lower() if suffix else ''}"


def has_alias(path: str) -> bool:
    """Return whether components of a path were hidden."""
    return any(_ALIAS.fullmatch(part) for part in path.split("/"))


class HiddenPath(str):
    """Path on disk that is shown by a substitute.

    Args:
        path: The path on disk.
        shown: The path of the datalist.
    """

    shown: str

    def __new__(cls, path: str, shown: str) -> HiddenPath:
        """Keep what is shown beside the text."""
        made = super().__new__(cls, path)
        made.shown = shown
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.shown


def shown(path: str | os.PathLike[str]) -> str:
    """Path as outputs show it: that of the datalist, where it has one."""
    return path.shown if isinstance(path, HiddenPath) else os.fspath(path)


def without_hidden(text: str, item: Mapping[str, Any]) -> str:
    """A text about an item, such as an error, with its paths and hidden names of files replaced by what is shown.

    Example:
        >>> item = {"image": HiddenPath("/scans/smith/a.nii", "hidden-0123456789ab/a.nii")}
        >>> without_hidden("cannot read /scans/smith/a.nii: smith/a.nii is cut short", item)
        'cannot read hidden-0123456789ab/a.nii: hidden-0123456789ab/a.nii is cut short'
        >>> without_hidden("/scans/smith holds two series", item)
        'hidden-0123456789ab holds two series'
    """
    for path in (value for value in _leaves([*item.values()]) if isinstance(value, HiddenPath)):
        if split_id(path.shown) is not None:
            text = _without_id(text, path)
            continue
        for real in (os.path.abspath(path), str(path)):
            text = text.replace(real, path.shown)
            parts, aliases = real.replace(os.sep, "/").split("/"), path.shown.split("/")
            root = "/".join(parts[: len(parts) - len(aliases)])
            if root not in ("", ".", ".."):  # the folder of the data may be named after somebody, too
                text = re.sub(rf"(?<![\w./-]){re.escape(root)}/", "", text)
                text = re.sub(rf"(?<![\w./-]){re.escape(root)}(?![\w./-])", "the folder", text)
            for part, alias in zip(reversed(parts), reversed(aliases), strict=False):
                text = text.replace(part, alias) if _ALIAS.fullmatch(alias) else text
        text = _without_files_inside(text, path)
    return text


def _leaves(values: list[Any]) -> Iterator[Any]:
    """Values of lists within lists: a series is a list of files, a study one of series and of maps by name."""
    for value in values:
        if isinstance(value, list):
            yield from _leaves(value)
        elif isinstance(value, dict):
            yield from _leaves([*value.values()])
        else:
            yield value


def _without_files_inside(text: str, path: HiddenPath) -> str:
    """A text in which a folder of plain name stands for those of its files whose names are not plain."""
    for name in sorted(_files_in(path), key=len, reverse=True):
        if name in text and not is_plain(name):
            text = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", lambda _: path.shown, text)
    return text


def _without_id(text: str, path: HiddenPath) -> str:
    """A text in which an id stands for its file, for each part of its path, and for files in the folder of a series."""
    for real in dict.fromkeys((os.path.abspath(path), str(path))):
        for name in _files_in(real) if real in text else ():
            text = without_parts(text.replace(os.path.join(real, name), path.shown), name, path.shown)
        text = without_parts(text, real.replace(os.sep, "/"), path.shown)
    return text


def _files_in(path: str) -> list[str]:
    """Names of the files of a folder; none of a file, or of a folder that cannot be listed, which may be the fault."""
    try:
        return os.listdir(path)
    except OSError:
        return []


class Finder:
    """Finds the files behind paths with hidden components.

    Args:
        folder: The scanned folder.
        key: The key of the scan.
    """

    def __init__(self, folder: Path, key: Key) -> None:
        self._folder, self._key = folder, key
        self._listings: dict[str, dict[str, str]] = {}

    def __call__(self, path: str) -> str:
        """The path as it is on disk, relative to the folder.

        Raises:
            FileNotFoundError: If no name there has this hash.
            OSError: If a folder on the way cannot be listed.
        """
        place = ""
        for part in path.split("/"):
            if _ALIAS.fullmatch(part):
                try:
                    result = self._listing(place).get(part)
                except OSError as error:  # its text names folders
                    raise type(error)(
                        f"{path} cannot be looked for: a folder of it cannot be listed ({error.strerror})"
                    ) from None
                if result is None:
                    raise FileNotFoundError(
                        f"{path} is not below the dataset folder under this key: it moved, or has another key"
                    )
                part = result
            place = os.path.join(place, part)
        return place

    def _listing(self, place: str) -> dict[str, str]:
        if place not in self._listings:
            self._listings[place] = {alias_of(name, self._key): name for name in os.listdir(self._folder / place)}
        return self._listings[place]
