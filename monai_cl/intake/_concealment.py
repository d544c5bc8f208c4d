"""Memory of persons in headers, so that no text that quotes a file passes them on."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from monai_cl.io.dicom import Person
from monai_cl.io.threads import without_warnings_of_dicom
from monai_cl.privacy._words import NEUTRAL_WORDS
from monai_cl.privacy.ids import tokens_in
from monai_cl.privacy.plain import SUFFIX

HIDDEN = "[hidden]"
_TOKEN = re.compile(r"[^\W\d_]+|\d+")


class Concealer:
    """Knows the persons of the headers of a folder, by names, numbers and dates, and leaves them out of texts."""

    def __init__(self) -> None:
        self._parts: set[str] = set()  # found anywhere in a component
        self._words: set[str] = set()  # found as a whole word
        self._people: set[Person] = set()

    def learn(self, person: Person) -> None:
        """Learn the names and numbers of a person from a header."""
        if person in self._people:
            return
        self._people.add(person)
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
                self._words.update(
                    token[:end] for end in range(4, min(len(token), 64)) if token[:end] not in NEUTRAL_WORDS
                )

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

    def knows(self, component: str) -> bool:
        """Return whether a component of a path or a word holds, in whole or in part, a header field of a person."""
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

    def text(self, text: str) -> str:
        """Text with every word about a person hidden; ids are kept, whatever their digits."""
        words = text.split(" ")
        return " ".join(HIDDEN if not tokens_in(w) and self.knows(w.strip(".,;:()")) else w for w in words)


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
    from pydicom import charset as charsets

    try:
        with without_warnings_of_dicom():
            encodings = charsets.convert_encodings(charset.split("\\") if charset else "ISO_IR 6")
            text = str(charsets.decode_bytes(raw, encodings, {0x0A, 0x0D, 0x0C, 0x09, 0x5E, 0x3D, 0x5C}))
    except Exception:  # unknown character sets and malformed escape sequences
        text = raw.decode("latin-1")
    try:
        return tuple({text, raw.decode("utf-8")})
    except UnicodeDecodeError:
        return (text,)
