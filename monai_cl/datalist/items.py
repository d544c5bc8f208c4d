"""Items of a datalist: their images and their patients."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from monai_cl.privacy.hidden_paths import shown
from monai_cl.privacy.naming import Pseudonym

Item = dict[str, Any]
CACHED = "cached"  # key of an item of a cache: how each of its volumes is stored


def first_image(image: str | Sequence[str]) -> str:
    """The image of an item, of several files the first."""
    return image if isinstance(image, str) else image[0]


def subject_of(item: Mapping[str, Any]) -> str:
    """The patient of an item, as text: its ``"subject"``, else its image as the list has it."""
    subject = item.get("subject")
    return image_key(item, as_listed) if subject is None else str(subject)


def drawn_by(item: Mapping[str, Any]) -> str:
    """The patient of an item as the list has it, by whom draws go: they must not depend on the key. Never show it."""
    subject = item.get("subject")
    if subject is None:
        return image_key(item)
    return subject.behind if isinstance(subject, Pseudonym) else str(subject)


def shared_subjects(
    a: Iterable[Mapping[str, Any]], b: Iterable[Mapping[str, Any]], *, folder: str | os.PathLike[str] = ""
) -> list[str]:
    """Subjects that occur in both lists, sorted: training and validation must have none in common.

    Those of ``a`` whose image is in ``b`` too are among them, under whatever name, path or link.

    Args:
        a: Items.
        b: Other items.
        folder: Folder that relative paths start from.

    Example:
        >>> shared_subjects([{"image": "x", "subject": 1}], [{"image": "y", "subject": "1"}])
        ['1']
        >>> shared_subjects([{"image": "x", "subject": 1}], [{"image": "./x", "subject": 2}])
        ['1']
    """
    a, b = list(a), list(b)
    places = {place_of(item, folder) for item in b if item.get("image")}
    of_both = {subject_of(item) for item in a} & {subject_of(item) for item in b}
    return sorted(of_both | {subject_of(item) for item in a if place_of(item, folder) in places})


def place_of(item: Mapping[str, Any], folder: str | os.PathLike[str] = "", key: str = "image") -> str:
    """The file under a key of an item, of several the first one, without links and other spellings."""
    return os.path.realpath(os.path.join(folder, *paths_of(item.get(key))[:1]))


def image_key(item: Mapping[str, Any], text: Callable[[Any], str] = str) -> str:
    """The image of an item as one text, its files joined by ``|``, each as ``text`` writes it."""
    return "|".join(paths_of(item.get("image"), text))


def as_listed(part: Any) -> str:
    """A path of an item as messages show it: as the list has it, also where an id was looked up."""
    return shown(part) if isinstance(part, str | os.PathLike) else str(part)


def paths_of(value: Any, text: Callable[[Any], str] = str) -> list[str]:
    """The files under a key of an item, also where it has a single one."""
    return [text(part) for part in value] if isinstance(value, (list, tuple)) else [text(value)]
