"""Completeness of a compressed image, by the marks and lengths of its own stream."""

from __future__ import annotations

from collections.abc import Sequence
from struct import unpack
from typing import BinaryIO

_PREFIX = "1.2.840.10008.1.2.4."
_JPEG = frozenset(f"{_PREFIX}{number}" for number in (50, 51, 57, 70, 80, 81))  # JPEG-LS among them
_JPEG_2000 = frozenset(f"{_PREFIX}{number}" for number in (90, 91, 92, 93, 201, 202, 203))  # and high-throughput
_END = b"\xff\xd9"  # of an image in all of them; inside, no byte above 0x8f follows an 0xff
_JPEG_START = b"\xff\xd8"
_JPEG_2000_START = b"\xff\x4f\xff\x51"  # the size of the image comes first
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})  # marks of JPEG and JPEG-LS
_TILE_PART = b"\xff\x90"
_TAIL = 64  # encoders pad behind the end


class Codestream:
    """A compressed image in one or more pieces of a file.

    Args:
        stream: The file.
        pieces: Offset and length of each piece.
    """

    def __init__(self, stream: BinaryIO, pieces: Sequence[tuple[int, int]]) -> None:
        self._stream, self._pieces = stream, pieces
        self.length = sum(length for _, length in pieces)

    def is_whole(self, syntax: str) -> bool:
        """Tell whether it goes on to its end; ``True`` where it does not say, as RLE, video, and no image at all.

        Args:
            syntax: UID of the transfer syntax.
        """
        if syntax in _JPEG and self._read(0, 2) == _JPEG_START:
            return self._has_end()
        if syntax in _JPEG_2000 and self._read(0, 4) == _JPEG_2000_START:
            return self._has_tiles()
        return True

    def size(self, syntax: str) -> tuple[int, int] | None:
        """Columns and rows by its own account, which decoders make room for; nothing where it does not tell.

        Args:
            syntax: UID of the transfer syntax.
        """
        if syntax in _JPEG_2000 and self._read(0, 4) == _JPEG_2000_START and len(size := self._read(8, 16)) == 16:
            right, bottom, left, top = (int(number) for number in unpack(">4L", size))
            return right - left, bottom - top
        return self._size_of_frame() if syntax in _JPEG and self._read(0, 2) == _JPEG_START else None

    def _size_of_frame(self) -> tuple[int, int] | None:
        """Walk from marker to marker up to that of a frame (ISO/IEC 10918-1, B.2.2; of JPEG-LS ISO/IEC 14495-1)."""
        place = 2
        while len(head := self._read(place, 9)) == 9 and head[0] == 0xFF:
            if head[1] in _FRAMES:
                rows, columns = unpack(">HH", head[5:9])
                return int(columns), int(rows)
            place += 1 if head[1] == 0xFF else 2 + int(unpack(">H", head[2:4])[0])
        return None

    def _has_end(self) -> bool:
        return _END in self._read(max(0, self.length - _TAIL), _TAIL)

    def _has_tiles(self) -> bool:
        """Walk over the main header and from tile-part to tile-part (ISO/IEC 15444-1, annex A)."""
        place, seen = 2, set()
        expected = _number_of_tiles(self._read(8, 32))
        while len(head := self._read(place, 12)) == 12 and head[:2] != _TILE_PART:
            place += 2 + int(unpack(">H", head[2:4])[0])
        while len(head := self._read(place, 12)) == 12 and head[:2] == _TILE_PART:
            tile, length = unpack(">HL", head[4:10])
            if length == 0:  # the last one may leave its length open
                return self._has_end()
            seen.add(tile)
            place += length
        return place <= self.length and len(seen) >= expected

    def _read(self, place: int, count: int) -> bytes:
        """Bytes at a place of the image, across pieces."""
        found = b""
        for offset, length in self._pieces:
            if place < length and count > 0:
                self._stream.seek(offset + place)
                part = self._stream.read(min(count, length - place))
                found, count, place = found + part, count - len(part), 0
            else:
                place -= length
        return found


def _number_of_tiles(size: bytes) -> int:
    """Tiles that cover the image area: both dimensions rounded up."""
    if len(size) < 32:
        return 0
    width, height, _, _, tile_width, tile_height, left, top = (int(number) for number in unpack(">8L", size))
    if not tile_width or not tile_height:
        return 0
    return -(-(width - left) // tile_width) * -(-(height - top) // tile_height)
