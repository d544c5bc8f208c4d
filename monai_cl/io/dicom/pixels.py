"""Completeness of the pixel data that a DICOM header announces, without decoding it."""

from __future__ import annotations

import os
from struct import unpack
from typing import BinaryIO

from monai_cl.io.dicom.codestream import Codestream
from monai_cl.io.dicom.tags import BIG_ENDIAN, DEFLATED, IMPLICIT, Tags

SAMPLES, FRAMES, ROWS, COLUMNS, BITS = 0x00280002, 0x00280008, 0x00280010, 0x00280011, 0x00280100
_PIXEL_ELEMENTS = (0x0008, 0x0009, 0x0010)
OTHER_SIZE = "other size"
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_Piece = tuple[int, int]  # offset in the file, and length


def pixel_state(stream: BinaryIO, tags: Tags) -> str:
    """State of the pixel data, by what is announced: ``"complete"``, ``"cut short"``, ``"other size"``, ``"none"``."""
    if not tags.integer(ROWS) or not tags.integer(COLUMNS):
        return "none"
    if tags.syntax == DEFLATED:  # the whole data set is compressed: only decoding tells
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
    """Tell whether compressed frames are all there, and each as long as it says itself."""
    frames = _frames(tags)
    if len(fragments) < frames:
        return False
    if frames == 1:  # one image, in however many pieces
        return Codestream(stream, fragments).is_whole(tags.syntax)
    if len(fragments) > frames:  # which piece is of which frame stands in a table that need not be there
        return True
    return all(Codestream(stream, [piece]).is_whole(tags.syntax) for piece in fragments)


def _have_size(stream: BinaryIO, fragments: list[_Piece], tags: Tags) -> bool:
    """Tell whether compressed frames are as large as the header says, where they have a size of their own."""
    frames = [fragments] if _frames(tags) == 1 else [[piece] for piece in fragments]
    sizes = (Codestream(stream, frame).size(tags.syntax) for frame in frames)
    return all(size is None or size == (tags.integer(COLUMNS), tags.integer(ROWS)) for size in sizes)


def _fragments(stream: BinaryIO, size: int) -> list[_Piece]:
    """The fragments of compressed pixel data, the table of offsets aside; none where the file ends among them."""
    found = []
    while (head := stream.read(8))[:4] == _ITEM and len(head) == 8:
        length = int(unpack("<L", head[4:])[0])
        found.append((stream.tell(), length))
        if stream.seek(length, os.SEEK_CUR) > size:
            return []
    return found[1:] if head[:4] == _SEQUENCE_END else []


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
