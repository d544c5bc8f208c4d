"""Plain names: words of imaging and anatomy and short serial numbers, which can be shown as they are.

Everything else might name somebody: a rule knows no names, so it lets through what it knows to be none. A surname that
is a word of anatomy too, or a serial number that a hospital gives its patients, it cannot decide.
"""

import re
from collections.abc import Mapping
from typing import Any

from monai_cl.privacy._words import PLAIN_WORDS

SUFFIX = re.compile(
    r"(\.nii|\.img|\.hdr)?\.(gz|dcm|ima|dicom|nii|nrrd|nhdr|mha|mhd|img|hdr|json|mgz|mnc)$", re.IGNORECASE
)
PSEUDONYM = re.compile(r"sub-[0-9a-f]{12}")
_TOKEN = re.compile(r"[a-z]+|\d+")
_TERMS = re.compile(  # terms with a number in them, which is neither a serial number nor a part of a date
    r"(?<![a-z0-9])(?:[rt][12]|b\d{1,4}(?![a-z0-9])|mp2rage|[2-4]d(?![a-z0-9])|[1-9]t(?![a-z0-9])"
    r"|[ctls]\d{1,2}(?![a-z]))(?!\d|[^a-z\d]+\d+[^a-z\d]+\d)"
)
_SEVERAL_NUMBERS = re.compile(r"(?<!\d)\d+(?:[^a-z\d]+\d+){2,}(?!\d)")  # a date or a telephone number
_LICENCE = re.compile(
    r"(CC[ -]?(0|BY)([ -]?(SA|NC|ND))*([ -]?[1-4]\.0)?|Apache[ -]2\.0|MIT|BSD([ -][23]-Clause)?|Public Domain)", re.I
)


def is_plain(component: str) -> bool:
    """Return whether a path component is made of words of imaging, at most one other letter, and short numbers alone.

    A number has four digits at most, leading zeros aside, and is no year; of three digits or more it holds one at
    most, and three numbers never follow each other without a word between them.

    Example:
        >>> [is_plain(name) for name in ("hippocampus_001.nii.gz", "sub-01_T1w", "mueller_001", "MR 48213", "5.3.1964")]
        [True, True, False, False, False]
    """
    if not component.isascii():
        return False
    text = SUFFIX.sub("", component).casefold()
    rest = _TERMS.sub(" x-term ", text)
    tokens = _TOKEN.findall(rest.replace("x-term", ""))
    letters = [token for token in tokens if token.isalpha() and token not in PLAIN_WORDS]
    return len("".join(letters)) <= 1 and _are_short([token for token in tokens if token.isdigit()], rest)


def _are_short(numbers: list[str], text: str) -> bool:
    digits = [number.lstrip("0") for number in numbers]
    years = any(len(number) == 4 and number[:2] in ("18", "19", "20") for number in digits)
    lengths = [len(number) for number in digits]
    few = max(lengths, default=0) <= 4 and sum(length > 2 for length in lengths) <= 1
    return few and not years and not _SEVERAL_NUMBERS.search(text)


def is_plain_path(path: str) -> bool:
    """Return whether a path can be shown as it is: it stays in its folder, and all of its components are plain.

    Example:
        >>> [is_plain_path(path) for path in ("imagesTr/la_003.nii.gz", "../la_003.nii.gz", "64/03/05/ct.nii")]
        [True, False, False]
    """
    parts = path.replace("\\", "/").split("/")
    if path.startswith("/") or ".." in parts:
        return False
    numbers = _SEVERAL_NUMBERS.search("/".join(_TERMS.sub("x", part.casefold()) for part in parts))
    return all(map(is_plain, parts)) and not numbers


def is_plain_text(text: str) -> bool:
    """Return whether a text, such as the name of a class or of a data set, names nobody; so do usual licences."""
    return bool(PSEUDONYM.fullmatch(text) or _LICENCE.fullmatch(text.strip())) or (len(text) <= 100 and is_plain(text))


def plain_or(text: str, substitute: str, *, form: str = "{}") -> str:
    """A text of a foreign file as outputs may show it: itself where it names nobody, else a substitute.

    Args:
        text: The text.
        substitute: The words in its place.
        form: Form of the text itself, with ``{}`` or ``{!r}`` for it.

    Example:
        >>> plain_or("left kidney", "class 3"), plain_or("Mueller", "class 3"), plain_or("left", "a text", form="{!r}")
        ('left kidney', 'class 3', "'left'")
    """
    return form.format(text) if is_plain_text(text) else substitute


def is_plain_value(value: Any) -> bool:
    """Return whether a value of a JSON file is plainly no name, number or date of a person.

    Example:
        >>> [is_plain_value(value) for value in (True, 57, 0.25, "left", 48213, 1964, 196403.0, "Mueller", [1, "Hans"])]
        [True, True, True, True, False, False, False, False, False]
    """
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, (int, float)):
        return _is_plain_number(value)
    if isinstance(value, str):
        return is_plain_text(value)
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain_text(key) and is_plain_value(one) for key, one in value.items())
    return isinstance(value, (list, tuple)) and all(map(is_plain_value, value))


def _is_plain_number(number: int | float) -> bool:
    """A measure, or a number so short that nobody is known by it, and no year; infinities are none."""
    return abs(number) < 10_000 and not (number == int(number) and 1800 <= abs(number) < 2100)
