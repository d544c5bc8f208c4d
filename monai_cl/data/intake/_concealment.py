"""Path components and texts that could name a patient, and what stands in their place.

A component is hidden when it holds, in whole or in part, a name, an identifier or a date that a header of the scanned
folder carries, or looks like one by itself: a calendar date, a DICOM UID, a long number, a pair of capitalised words
that are no terms of imaging, a name that is no text. In its place stands a keyed hash of the component, from which the
holder of the key and of the folder finds the file again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from monai_cl.data.intake._hidden_paths import PREFIX, SUFFIX, alias_of
from monai_cl.data.intake._neutral_words import NEUTRAL_WORDS
from monai_cl.data.intake.pseudonyms import Key
from monai_cl.transforms._dicom import Person

_PSEUDONYM = re.compile(r"sub-[0-9a-f]{12}")
_DAY, _MONTH, _YEAR, _CUT = r"(0[1-9]|[12]\d|3[01])", r"(0[1-9]|1[0-2])", r"(19|20)\d\d", "[-_. ]?"
_DATE = re.compile(
    rf"(?<!\d)({_YEAR}{_CUT}{_MONTH}{_CUT}{_DAY}|({_DAY}{_CUT}{_MONTH}|{_MONTH}{_CUT}{_DAY}){_CUT}{_YEAR})(?!\d)"
)
_UID = re.compile(r"\d+(\.\d+){4,}")
_LONG_NUMBER = re.compile(r"(?<!\d)0*[1-9]\d{6,}")
_PAIR = re.compile(r"(?<![^\W_])([^\W\d_]{2,})[\s_,^-]+([^\W\d_]{2,})(?![^\W_])")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_SHORT_DATE = re.compile(rf"(?<!\d)(\d{{1,2}}[-_. ]\d{{1,2}}[-_. ]\d{{2}}|{_YEAR}{_CUT}{_MONTH})(?!\d)")


class Concealer:
    """Decides what of a path may be shown.

    Args:
        key: Key of the hashes that take the place of hidden components.
        active: Whether anything is hidden at all.
        strict: Whether to hide as well what is more than words of imaging, a letter and short numbers, for paths of
            which no header tells whose they are.
    """

    def __init__(self, key: Key, *, active: bool = True, strict: bool = False) -> None:
        self._key, self._active, self._strict = key, active, strict
        self._parts: set[str] = set()  # found anywhere in a component
        self._words: set[str] = set()  # found as a whole word
        self._people: set[Person] = set()
        self._hidden: dict[str, bool] = {}  # what was asked already

    def learn(self, person: Person) -> None:
        """Take in what a header says of a person."""
        if person in self._people:
            return
        self._people.add(person)
        self._hidden.clear()
        for raw in person.names:
            for text in _decode(raw, person.charset):
                self._learn_name(text)
        for raw in person.ids:
            for text in _decode(raw, person.charset):
                self._learn_id(text)
        for raw in person.dates:
            self._learn_date(raw.decode("latin-1"))

    def _learn_name(self, name: str) -> None:
        for form in _plain(name):
            joined = "".join(_TOKEN.findall(form))
            if len(joined) >= 5 and joined not in NEUTRAL_WORDS:
                self._parts.add(joined)
            for token in _TOKEN.findall(form):
                if (
                    token in NEUTRAL_WORDS
                    or (token.isascii() and len(token) < 2)
                    or (token.isdigit() and len(token) < 4)
                ):
                    continue
                self._words.add(token)
                if len(token) >= (4 if token.isascii() else 2):
                    self._parts.add(token)
                # export tools cut names short
                self._words.update(token[:end] for end in range(4, len(token)) if token[:end] not in NEUTRAL_WORDS)

    def _learn_id(self, text: str) -> None:
        for form in _plain(text):
            tokens = _TOKEN.findall(form)
            joined = "".join(tokens)
            if len(joined) >= 4 and joined not in NEUTRAL_WORDS:
                self._parts.add(joined)
                if len(joined.lstrip("0")) >= 4:
                    self._parts.add(joined.lstrip("0"))
            elif len(joined) >= 3:
                self._words.add(joined)
            numbers = {form for token in tokens if token.isdigit() for form in (token, token.lstrip("0"))}
            self._parts.update(number for number in numbers if len(number) >= 4)
            self._words.update(
                token for token in tokens if token.isalpha() and len(token) >= 5 and token not in NEUTRAL_WORDS
            )

    def _learn_date(self, text: str) -> None:
        digits = re.sub(r"\D", "", text)[:8]
        if len(digits) == 8 and digits[:2] in ("18", "19", "20"):
            year, month, day = digits[:4], digits[4:6], digits[6:]
            self._parts.update((digits, f"{day}{month}{year}", f"{month}{day}{year}"))
            self._words.update((digits[2:], f"{day}{month}{year[2:]}", f"{month}{day}{year[2:]}"))

    def hides(self, component: str) -> bool:
        """Whether a path component is hidden."""
        if not self._active or component in ("", ".", ".."):
            return False
        if len(self._hidden) > 100_000:
            self._hidden.clear()
        if component not in self._hidden:
            self._hidden[component] = (
                self._looks_personal(component)
                or self._is_known(component)
                or (self._strict and not is_plain(component))
            )
        return self._hidden[component]

    def _looks_personal(self, component: str) -> bool:
        try:
            component.encode("utf-8")
        except UnicodeEncodeError:
            return True
        bare = SUFFIX.sub("", component)
        if any(mark in component for mark in "^\n\r\t") or _DATE.search(bare) or _UID.search(bare):
            return True
        return bool(_LONG_NUMBER.search(bare)) or any(_like_names(*pair) for pair in _PAIR.findall(bare))

    def _is_known(self, component: str) -> bool:
        for form in _plain(SUFFIX.sub("", component)):
            if not self._words.isdisjoint(_TOKEN.findall(form)):
                return True
            joined = "".join(_TOKEN.findall(form))
            if any(
                joined[start:end] in self._parts
                for start in range(len(joined))
                for end in range(start + 2, min(len(joined), start + 40) + 1)
            ):
                return True
        return False

    def component(self, name: str) -> str:
        """The component, or what stands in its place; a suffix that tells the format is kept."""
        if not self.hides(name):
            return name
        return alias_of(name, self._key)

    def path(self, path: str) -> str:
        """A path with its hidden components replaced."""
        return "/".join(self.component(part) for part in path.split("/"))

    def item(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """An item with hidden components of its paths replaced, a subject guessed from such a path as well."""
        shown: dict[str, Any] = {}
        for name, value in item.items():
            if name in ("image", "label"):
                shown[name] = [self.path(one) for one in value] if isinstance(value, list) else self.path(str(value))
            elif name == "subject" and isinstance(value, str) and not _PSEUDONYM.fullmatch(value):
                shown[name] = "/".join(
                    self._key.subject(f"name:{part}") if self.hides(part) else part for part in value.split("/")
                )
            else:
                shown[name] = value if name == "subject" else self.value(value)
        return shown

    def value(self, value: Any) -> Any:
        """A value of a foreign JSON file with every text in it looked through."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {name: self.value(one) for name, one in value.items()}
        return value

    def text(self, text: str, mentions: Iterable[str] = ()) -> str:
        """A text that may quote paths: those among ``mentions``, and any other word that is hidden.

        Args:
            text: The text.
            mentions: Paths whose components it may quote.
        """
        if not self._active:
            return text
        parts = {part for path in mentions for part in path.split("/") if part in text and self.hides(part)}
        for part in sorted(parts, key=len, reverse=True):
            text = text.replace(part, self.component(part))
        return " ".join(
            word if PREFIX in word or not self._is_known(word.strip(".,;:()")) else "[hidden]"
            for word in text.split(" ")
        )


def is_plain(component: str) -> bool:
    """Whether a path component is made of words of imaging, at most one other letter, and short numbers alone.

    Example:
        >>> [is_plain(name) for name in ("hippocampus_001.nii.gz", "sub-01_T1w", "mueller_001", "MR 48213", "4-7-61")]
        [True, True, False, False, False]
    """
    tokens = _TOKEN.findall(SUFFIX.sub("", component).casefold())
    numbers = [token.lstrip("0") for token in tokens if token.isdigit()]
    words = [token for token in tokens if not token.isdigit() and token not in NEUTRAL_WORDS]
    short = all(len(number) <= 4 for number in numbers) and sum(map(len, numbers)) <= 8
    return short and len("".join(words)) <= 1 and not _SHORT_DATE.search(component)


def _like_names(first: str, second: str) -> bool:
    """Whether two words in a row look like a person's names: capitalised, and no words of imaging."""
    words = (first, second)
    if not all(word[0].isupper() and (word[1:].islower() or word.isupper()) for word in words):
        return False
    return all(len(word) >= 3 for word in words) and not any(word.casefold() in NEUTRAL_WORDS for word in words)


def _plain(text: str) -> Iterator[str]:
    """The text in small letters without accents, and once more with umlauts spelled out."""
    folded = unicodedata.normalize("NFC", text).casefold()
    seen = set()
    for form in (folded, folded.translate(_SPELLED)):
        plain = "".join(one for one in unicodedata.normalize("NFKD", form) if not unicodedata.combining(one))
        plain = plain.translate(_BARE)
        if plain not in seen:
            seen.add(plain)
            yield plain


_SPELLED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "æ": "ae", "œ": "oe"})
# letters whose stroke is no accent of Unicode
_BARE = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "\u0131": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)


@lru_cache(maxsize=4096)
def _decode(raw: bytes, charset: str) -> tuple[str, ...]:
    """Header text in its character set, and in UTF-8 where it can be that: headers lie about their character set."""
    from pydicom.charset import convert_encodings, decode_bytes

    try:
        encodings = convert_encodings(charset.split("\\") if charset else "ISO_IR 6")
        text = str(decode_bytes(raw, encodings, {0x0A, 0x0D, 0x0C, 0x09, 0x5E, 0x3D, 0x5C}))
    except Exception:  # unknown character sets and malformed escape sequences
        text = raw.decode("latin-1")
    try:
        return tuple({text, raw.decode("utf-8")})
    except UnicodeDecodeError:
        return (text,)
