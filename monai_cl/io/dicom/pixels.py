"""Completeness of the pixel data that a DICOM header announces, without decoding it."""

import os
from collections.abc import Sequence
from struct import unpack
from typing import BinaryIO

from monai_cl.io.dicom.tags import BIG_ENDIAN, DEFLATED, IMPLICIT, Tags

_PREFIX = "1.2.840.10008.1.2.4."
_JPEG = frozenset(f"{_PREFIX}{number}" for number in (50, 51, 57, 70, 80, 81))  # JPEG-LS among them
_JPEG_2000 = frozenset(f"{_PREFIX}{number}" for number in (90, 91, 92, 93, 201, 202, 203))  # and high-throughput
_END = b"\xff\xd9"  # of an image in all of them; inside, no byte above 0x8f follows an 0xff
_JPEG_START = b"\xff\xd8"
_JPEG_2000_START = b"\xff\x4f\xff\x51"  # the size of the image comes first
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})  # marks of JPEG and JPEG-LS
_TILE_PART = b"\xff\x90"
_TAIL = 64  # encoders pad behind the end
_PIXEL_ELEMENTS = (0x0008, 0x0009, 0x0010)
OTHER_SIZE = "other size"
_UNDEFINED_LENGTH = 0xFFFFFFFF
SAMPLES, FRAMES, ROWS, COLUMNS, BITS = 0x00280002, 0x00280008, 0x00280010, 0x00280011, 0x00280100
STORED_BITS, HIGH_BIT = 0x00280101, 0x00280102
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_Piece = tuple[int, int]  # offset in the file, and length


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
        """Return whether the stream is complete; ``True`` if it states no end, as RLE, video, and no image at all.

        Args:
            syntax: UID of the transfer syntax.
        """
        if syntax in _JPEG and self._read(0, 2) == _JPEG_START:
            return self._has_end()
        if syntax in _JPEG_2000 and self._read(0, 4) == _JPEG_2000_START:
            return self._has_tiles()
        return True

    def size(self, syntax: str) -> tuple[int, int] | None:
        """Columns and rows by the compressed stream, which decoders allocate; ``None`` if it does not state them.

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
        result = b""
        for offset, length in self._pieces:
            if place < length and count > 0:
                self._stream.seek(offset + place)
                part = self._stream.read(min(count, length - place))
                result, count, place = result + part, count - len(part), 0
            else:
                place -= length
        return result


def _number_of_tiles(size: bytes) -> int:
    """Tiles that cover the image area: both dimensions rounded up."""
    if len(size) < 32:
        return 0
    width, height, _, _, tile_width, tile_height, left, top = (int(number) for number in unpack(">8L", size))
    if not tile_width or not tile_height:
        return 0
    return -(-(width - left) // tile_width) * -(-(height - top) // tile_height)


def pixel_state(stream: BinaryIO, tags: Tags) -> str:
    """State of the pixel data, by what is announced: ``"complete"``, ``"cut short"``, ``"other size"``, ``"none"``."""
    if not tags.integer(ROWS) or not tags.integer(COLUMNS):
        return "none"
    if tags.syntax == DEFLATED:  # the whole data set is compressed: only decoding shows it
        return "complete"
    size = os.fstat(stream.fileno()).st_size
    stream.seek(tags.end)
    length = _pixel_length(stream, tags.syntax)
    if length is None:
        return "none"
    if length == _UNDEFINED_LENGTH:
        fragments = _fragments(stream, size)
        if not _have_size(stream, fragments, tags):
            return OTHER_SIZE
        return "complete" if _are_whole(stream, fragments, tags) else "cut short"
    missing = stream.tell() + length > size or length < _native_length(tags)
    return "cut short" if missing else "complete"


def _are_whole(stream: BinaryIO, fragments: list[_Piece], tags: Tags) -> bool:
    """Return whether compressed frames are complete, and each as long as it states."""
    frames = _frames(tags)
    if len(fragments) < frames:
        return False
    if frames == 1:  # one image, in however many pieces
        return Codestream(stream, fragments).is_whole(tags.syntax)
    if len(fragments) > frames:  # which piece is of which frame stands in a table that may be absent
        return True
    return all(Codestream(stream, [piece]).is_whole(tags.syntax) for piece in fragments)


def _have_size(stream: BinaryIO, fragments: list[_Piece], tags: Tags) -> bool:
    """Return whether compressed frames have the size in the header, if they state one."""
    frames = [fragments] if _frames(tags) == 1 else [[piece] for piece in fragments]
    sizes = (Codestream(stream, frame).size(tags.syntax) for frame in frames)
    return all(size is None or size == (tags.integer(COLUMNS), tags.integer(ROWS)) for size in sizes)


def _fragments(stream: BinaryIO, size: int) -> list[_Piece]:
    """The fragments of compressed pixel data, the table of offsets aside; none where the file ends among them."""
    result = []
    while (head := stream.read(8))[:4] == _ITEM and len(head) == 8:
        length = int(unpack("<L", head[4:])[0])
        result.append((stream.tell(), length))
        if stream.seek(length, os.SEEK_CUR) > size:
            return []
    return result[1:] if head[:4] == _SEQUENCE_END else []


def _pixel_length(stream: BinaryIO, syntax: str) -> int | None:
    """Length field of the pixel data element, or ``None`` where the file has no such element."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    start = stream.read(8)
    if len(start) < 8:
        return None
    group, element = unpack(f"{order}HH", start[:4])
    if group != 0x7FE0 or element not in _PIXEL_ELEMENTS:
        return None
    if syntax == IMPLICIT:
        return int(unpack("<L", start[4:])[0])
    rest = stream.read(4)
    return int(unpack(f"{order}L", rest)[0]) if len(rest) == 4 else 0


def _native_length(tags: Tags) -> int:
    """Bytes of an uncompressed image; chroma-subsampled colour is smaller, so colour is not counted."""
    if tags.integer(SAMPLES, 1) != 1:
        return 0
    return tags.integer(ROWS) * tags.integer(COLUMNS) * _frames(tags) * tags.integer(BITS, 16) // 8


def _frames(tags: Tags) -> int:
    return int((tags.numbers(FRAMES) or (1.0,))[0])
