"""Bytes of files that somebody else wrote: regular files alone, checksums to the end, no more than was announced."""

import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from monai_cl.io.errors import UnusableImageError

_FEED = 1 << 13  # compressed bytes at a time: at most 8 MB come out of them
_BLOCK = 1 << 20
_SLACK = 1 << 26  # bytes behind the voxels that are still read for the sake of the checksum


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for reading, without waiting for the other end of a pipe.

    Raises:
        UnusableImageError: If it is a pipe, a socket or a device.
        OSError: If it cannot be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise not_regular()
        yield stream


def not_regular() -> UnusableImageError:
    """The error for a pipe, a socket or a device."""
    return UnusableImageError("unreadable", "a broken link, or not a regular file")


class InflatedFile(io.RawIOBase):
    """The content of a gzip or zlib stream, with its checksum and length verified by :meth:`finish`.

    Reading goes forwards; a step back starts anew.

    Args:
        stream: The file.
        start: Offset of the compressed data in it.
        end: Offset behind the compressed data; the end of the file when left out.
        closes: Whether closing this closes the file.
    """

    def __init__(self, stream: BinaryIO, start: int = 0, end: int | None = None, *, closes: bool = False) -> None:
        self._stream, self._begin, self._end, self._closes = stream, start, end, closes
        self._restart()

    def close(self) -> None:
        """Close this, and the file where it is owned."""
        if self._closes:
            self._stream.close()
        super().close()

    def _restart(self) -> None:
        self._stream.seek(self._begin)
        self._engine = zlib.decompressobj(47)  # gzip or zlib, by its own mark
        self._rest, self._place, self._over = memoryview(b""), 0, False
        self._gzip: bool | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes before the next one."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; forwards by reading."""
        target = offset + (self._place if whence == os.SEEK_CUR else 0)
        if whence == os.SEEK_END or target < 0:
            raise io.UnsupportedOperation("a compressed stream has no end to start from")
        if target < self._place:
            self._restart()
        while self._place < target and (self._rest or self._fill()):
            self._take(target - self._place)
        return self._place

    def peek(self, count: int) -> bytes:
        """Return the next bytes without consuming them, up to the given number."""
        parts, self._rest = [self._rest], memoryview(b"")
        while sum(map(len, parts)) < count and self._fill():
            parts.append(self._rest)
            self._rest = memoryview(b"")
        self._rest = memoryview(b"".join(parts))
        return bytes(self._rest[:count])

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as data remain."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and (self._rest or self._fill()):
            part = self._take(len(view) - done)
            view[done : done + len(part)] = part
            done += len(part)
        return done

    def write(self, data: Any) -> int:
        """Refuse; readers of images know a file by this method."""
        raise io.UnsupportedOperation("opened for reading")

    def finish(self, most: int = _SLACK) -> int:
        """Read what is left, and with it the checksum; the place of the end.

        Args:
            most: Bytes that may be left.

        Raises:
            UnusableImageError: If the stream is damaged, ends early, or holds more.
        """
        target = self._place + most
        while self._rest or self._fill():
            self._take(len(self._rest))
            if self._place > target:
                raise UnusableImageError("unreadable", "far more data than the header announces; export it again")
        return self._place

    def _take(self, most: int) -> memoryview:
        part, self._rest = self._rest[:most], self._rest[most:]
        self._place += len(part)
        return part

    def _fill(self) -> bool:
        """Inflate the next block; false at the end."""
        while not self._over:
            raw = self._engine.unused_data if self._engine.eof else self._next()
            if self._engine.eof:
                self._next_member(raw)
                if self._rest:
                    return True
                continue
            if not raw:
                raise UnusableImageError("cut short", "the compressed data ends early; copy the file again")
            if self._gzip is None:
                self._gzip = raw[:2] == b"\x1f\x8b"
                if not self._gzip and raw[0] & 15 != 8:  # nor does it begin as zlib does
                    raise UnusableImageError(
                        "unreadable", "not compressed, in spite of its name; rename it, or copy the file again"
                    )
            self._rest = memoryview(self._inflate(raw))
            if self._rest:
                return True
        return False

    def _inflate(self, raw: bytes) -> bytes:
        try:
            return self._engine.decompress(raw)
        except zlib.error:
            raise UnusableImageError(
                "unreadable", "damaged compressed data: its checksum does not hold; copy the file again"
            ) from None

    def _next_member(self, raw: bytes) -> None:
        """Begin what follows the end of a stream: another gzip member, zeros of padding, or nothing."""
        left = raw or self._next()
        while left and not left.strip(b"\0"):
            left = self._next()
        left = left.lstrip(b"\0")
        if not left:
            self._over = True
            return
        if not (self._gzip and b"\x1f\x8b".startswith(left[:2])):
            raise UnusableImageError(
                "unreadable", "bytes of something else behind the compressed data; copy the file again"
            )
        self._engine = zlib.decompressobj(31)
        self._rest = memoryview(self._inflate(left))

    def _next(self) -> bytes:
        most = _FEED if self._end is None else min(_FEED, self._end - self._stream.tell())
        return self._stream.read(most) if most > 0 else b""


def read_exactly(stream: io.RawIOBase | BinaryIO, count: int) -> bytearray:
    """Read exactly the given number of bytes.

    Raises:
        UnusableImageError: If fewer are given.
    """
    result = bytearray(count)
    view, done = memoryview(result), 0
    while done < count and (part := stream.readinto(view[done:])):  # type: ignore[union-attr]
        done += part
    if done < count:
        raise UnusableImageError("cut short", f"{done} of {count} bytes; copy the file again")
    return result
