"""Reading a few top-level tags of a DICOM file quickly.

A scan reads hundreds of thousands of headers and needs some forty values of each; building pydicom's data set for them
takes most of the time. This walks over the elements and keeps the raw bytes of the wanted ones. Whatever is not plain
(a deflated data set, a value of unknown kind and length, damage) goes to pydicom, so that nothing is read that pydicom
would not read.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct, unpack_from
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from monai_cl.io.threads import without_warnings_of_dicom

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

# value representations with a length of four bytes, and those with one of two
_LONG = frozenset(map(str.encode, ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")))
_TEXTS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI")
_SHORT = frozenset(map(str.encode, (*_TEXTS, "AT", "FL", "FD", "SL", "SS", "UL", "US")))
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_GROUP = 0x7FE0
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_SYNTAX = 0x00020010
_FIRST = frozenset((0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0016, 0x0018))  # of group 8
_LONGEST_FIRST = 256
_NONE: Mapping[int, int] = MappingProxyType({})
_BLOCK = 1 << 14
LONGEST = 1 << 10  # bytes of a value that are kept: none that is read here may have more
_MOST_ITEMS = 64


def starts_with_data_set(start: bytes) -> bool:
    """Return whether a file starts with an element that data sets begin with, of a plausible length."""
    if len(start) < 132:
        return False
    group, element, kind, short = unpack_from("<HH2sH", start)
    if group == 2:  # file meta information, which names the kind of each value
        return kind in _SHORT | _LONG
    length = short if kind in _SHORT else int.from_bytes(start[4:8], "little")
    return group == 8 and element in _FIRST and length <= _LONGEST_FIRST


class NotPlainError(Exception):
    """The file needs a full parser."""


@dataclass
class Tags:
    """Raw values of some elements of one file.

    Args:
        values: From tag to bytes.
        syntax: Transfer syntax.
        little_endian: Byte order of numbers.
        end: Offset of the pixel data element, or the length of the file.
    """

    values: Mapping[int, bytes] = field(repr=False)
    syntax: str
    little_endian: bool
    end: int

    def text(self, tag: int) -> str:
        """The value as text, byte by byte: identifiers and codes are ASCII."""
        return self.values.get(tag, b"").decode("latin-1").strip(" \0\t\r\n")

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Decimal strings as floats; anything malformed gives an empty tuple."""
        try:
            numbers = tuple(float(part) for part in self.text(tag).split("\\") if part.strip())
        except ValueError:
            return ()
        return numbers if np.isfinite(numbers).all() else ()

    def integer(self, tag: int, default: int = 0) -> int:
        """An unsigned 16-bit number."""
        value = self.values.get(tag, b"")
        return int.from_bytes(value[:2], "little" if self.little_endian else "big") if len(value) >= 2 else default


def read_tags(stream: BinaryIO, wanted: frozenset[int], *, inside: Mapping[int, int] = _NONE) -> Tags:
    """Raw values of the wanted top-level elements before the pixel data.

    Args:
        stream: An open file, with preamble and ``DICM`` mark or without both.
        wanted: Tags as numbers.
        inside: From the tag of a sequence to that of an element wanted of its items. The values come under the tag of
            the sequence, with backslashes between them.

    Raises:
        Exception: Any error of pydicom where it cannot read the file.
    """
    try:
        return _Walker(stream, wanted, inside).read()
    except NotPlainError:
        with without_warnings_of_dicom():
            return _by_pydicom(stream, wanted, inside)


def syntax_as_read(dataset: Any) -> str:
    """The transfer syntax of pydicom's data set of a file that does not name one."""
    return IMPLICIT if dataset.original_encoding[0] else EXPLICIT


def _by_pydicom(stream: BinaryIO, wanted: frozenset[int], inside: Mapping[int, int]) -> Tags:
    from pydicom import dcmread

    stream.seek(0)
    dataset: Any = dcmread(stream, stop_before_pixels=True, specific_tags=sorted(wanted | set(inside)), force=True)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", syntax_as_read(dataset)))
    values = {tag: value for tag in wanted if (value := _raw(dataset, tag)) is not None}
    for tag, wanted_inside in inside.items():
        items = dataset[tag].value if tag in dataset and dataset[tag].VR == "SQ" else ()
        if len(items):
            result = [_raw(item, wanted_inside) for item in items[:_MOST_ITEMS]]
            values[tag] = b"\\".join(value for value in result if value is not None)
    return Tags(values, syntax, syntax != BIG_ENDIAN, stream.tell())


def _raw(dataset: Any, tag: int) -> bytes | None:
    """The bytes of an element of pydicom's data set; None where it has none."""
    value = getattr(dataset.get_item(tag), "value", None) if tag in dataset else None
    if isinstance(value, str):  # pydicom decodes the character set itself
        value = value.encode("latin-1", "replace")
    return value[:LONGEST] if isinstance(value, bytes) else None


class _Walker:
    """Goes from element to element; only what lies under the cursor is read from the file."""

    def __init__(self, stream: BinaryIO, wanted: frozenset[int], inside: Mapping[int, int]) -> None:
        self._stream, self._wanted, self._inside = stream, wanted, inside
        self._size = os.fstat(stream.fileno()).st_size
        stream.seek(0)
        self._start, self._buffer = 0, stream.read(_BLOCK)
        self._tags, self._lengths, self._shorts = Struct("<HH"), Struct("<L"), Struct("<H")
        self._explicit = True

    def read(self) -> Tags:
        values: dict[int, bytes] = {}
        place = self._meta(values)
        syntax = values.pop(_SYNTAX, b"").decode("latin-1").strip(" \0") or self._guess(place)
        if syntax == DEFLATED:
            raise NotPlainError
        self._explicit = syntax != IMPLICIT
        if syntax == BIG_ENDIAN:
            self._tags, self._lengths, self._shorts = Struct(">HH"), Struct(">L"), Struct(">H")
        while place + 8 <= self._size:
            tag, kind, length, start = self._element(place)
            if tag >> 16 > _PIXEL_GROUP or tag in _PIXELS:
                break
            after = self._behind(kind, length, start)
            if tag in self._inside:
                if after > start:
                    values[tag] = b"\\".join(self._values_inside(start, after, self._inside[tag]))
            elif tag in self._wanted and length != _UNDEFINED:
                values[tag] = self._bytes(start, min(length, LONGEST))
            place = after
        if place > self._size:  # the file ends inside an element: let pydicom judge
            raise NotPlainError
        return Tags(values, syntax, syntax != BIG_ENDIAN, place)

    def _meta(self, values: dict[int, bytes]) -> int:
        """The group of file meta information, always explicit and little-endian; returns where the data set starts."""
        place = 132 if self._bytes(128, 4) == b"DICM" else 0
        while place + 8 <= self._size and self._tags.unpack(self._bytes(place, 4))[0] == 2:
            tag, _, length, start = self._element(place)
            if length == _UNDEFINED:
                raise NotPlainError
            if tag == _SYNTAX:
                values[tag] = self._bytes(start, length)
            place = start + length
        return place

    def _guess(self, place: int) -> str:
        """Transfer syntax of a data set that does not state it, by the value representation after the first tag."""
        return EXPLICIT if self._bytes(place + 4, 2) in _SHORT | _LONG else IMPLICIT

    def _bytes(self, place: int, count: int) -> bytes:
        offset = place - self._start
        if not 0 <= offset <= len(self._buffer) - count:
            self._stream.seek(place)
            self._start, self._buffer = place, self._stream.read(max(_BLOCK, count) if count < 1 << 20 else 0)
            offset = 0
            if len(self._buffer) < count:
                raise NotPlainError
        return self._buffer[offset : offset + count]

    def _element(self, place: int) -> tuple[int, bytes, int, int]:
        """Tag, value representation, length of the value and where it starts."""
        head = self._bytes(place, 8)
        group, element = self._tags.unpack_from(head)
        tag = group << 16 | element
        if not self._explicit or group == 0xFFFE:
            return tag, b"", self._lengths.unpack_from(head, 4)[0], place + 8
        kind = head[4:6]
        if kind in _SHORT:
            return tag, kind, self._shorts.unpack_from(head, 6)[0], place + 8
        if kind not in _LONG:
            raise NotPlainError
        return tag, kind, self._lengths.unpack(self._bytes(place + 8, 4))[0], place + 12

    def _behind(self, kind: bytes, length: int, start: int) -> int:
        """End of an element, that of a sequence of undefined length included."""
        if length != _UNDEFINED:
            return start + length
        if self._explicit and kind != b"SQ":
            raise NotPlainError
        return self._skip_sequence(start)

    def _skip_sequence(self, place: int) -> int:
        """Behind the end of a sequence of undefined length."""
        while True:
            tag, _, length, start = self._element(place)
            if tag == _SEQUENCE_END:
                return start
            if tag != _ITEM:
                raise NotPlainError
            place = self._skip_item(start) if length == _UNDEFINED else start + length

    def _values_inside(self, place: int, end: int, wanted: int) -> list[bytes]:
        """Values of one element of the items of a sequence, in order; items within items are not looked into."""
        result: list[bytes] = []
        while place < end and len(result) < _MOST_ITEMS:
            tag, kind, length, start = self._element(place)
            if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):  # an item is entered
                place = start
                continue
            if tag == wanted and length != _UNDEFINED:
                result.append(self._bytes(start, min(length, LONGEST)))
            place = self._behind(kind, length, start)
        return result

    def _skip_item(self, place: int) -> int:
        while True:
            tag, kind, length, start = self._element(place)
            if tag == _ITEM_END:
                return start
            place = self._behind(kind, length, start)
