"""Ids that stand for files: a function of the key and the relative path alone, so that two scans give the same.

An image is ``sub-3fa2.../ct-1f9c...``: the pseudonym of the patient, and a token of its kind and path. The token alone
is enough to find the file again, see :mod:`monai_cl.privacy.table`.
"""

import re
from collections.abc import Iterable, Sequence

from monai_cl.privacy.pseudonyms import Key

KINDS = ("ct", "mr", "image", "label", "file", "dir")
_LENGTH = 16
_TOKEN = re.compile(rf"(?:{'|'.join(KINDS)})-[0-9a-f]{{{_LENGTH}}}")
_IN_TEXT = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(KINDS)})-[0-9a-f]{{{_LENGTH}}}(?![0-9A-Za-z])")


def make_token(key: Key, kind: str, paths: str | Sequence[str]) -> str:
    """The token of a file, or of the files of a series.

    Args:
        key: The key of the study.
        kind: One of :data:`KINDS`.
        paths: Path, or paths, relative to the folder of the data.

    Example:
        >>> key = Key(b"0" * 32)
        >>> make_token(key, "ct", "smith/a.nii") == make_token(key, "ct", "./smith//a.nii")
        False
        >>> is_token(make_token(key, "ct", "smith/a.nii"))
        True
    """
    text = paths if isinstance(paths, str) else "\0".join(paths)
    return f"{kind}-{key.digest('path', text, length=_LENGTH)}"


def is_token(component: str) -> bool:
    """Return whether a component of a path is a token."""
    return bool(_TOKEN.fullmatch(component))


def split_id(path: str) -> tuple[str, str] | None:
    """The token of a path and what follows it; ``None`` where it has none.

    Example:
        >>> split_id("sub-0123456789ab/ct-0123456789abcdef"), split_id("dir-0123456789abcdef/T1.nii"), split_id("a/b")
        (('ct-0123456789abcdef', ''), ('dir-0123456789abcdef', 'T1.nii'), None)
    """
    parts = path.split("/")
    for index in range(len(parts) - 1, -1, -1):
        if is_token(parts[index]):
            return parts[index], "/".join(parts[index + 1 :])
    return None


def tokens_in(text: str) -> list[str]:
    """Tokens in a text, each once, in order."""
    return list(dict.fromkeys(_IN_TEXT.findall(text)))


def tokens_of(paths: Iterable[str]) -> list[str]:
    """The tokens of paths that have one, each once."""
    return list(dict.fromkeys(result[0] for result in map(split_id, paths) if result))
