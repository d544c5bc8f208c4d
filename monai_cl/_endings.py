"""Commands that end before their time: by a signal, or because a disk is full; what the user reads, and what is left.

Files are written whole or not at all (:func:`monai_cl._files.atomic_write`), as long as the process is unwound: so a
signal that ends a command is turned into an exception.
"""

import errno
import os
import re
import signal
import threading
from types import FrameType
from typing import NoReturn

ANSWERS = (ValueError, OSError, ImportError, RuntimeError)  # errors whose message is for the user
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_TEMPORARY = re.compile(
    r"\.[0-9a-f]{16}\.(?=[^/]+$)|(?<=/)\.(?=[^/]+\.lock$)|\.lock$"
)  # of a file written whole, of a lock
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Ended(KeyboardInterrupt):
    """A signal has ended this command, and the user has read so.

    Attributes:
        code: Exit code as a shell has it: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def listen(*, leave: bool = False) -> None:
    """Let SIGTERM and Ctrl-C end this process with a line to the user and nothing half written.

    A second signal ends it at once. Whoever listens already goes on to; processes that are forked from this one end as
    they would have.

    Args:
        leave: Raise :class:`SystemExit` rather than :class:`Ended`, where nobody above would catch it.
    """
    if threading.current_thread() is not threading.main_thread():  # elsewhere signals cannot be caught
        return
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != process:
            _as_by_default(number)
            raise KeyboardInterrupt
        for each in _NAMES:
            signal.signal(each, signal.SIG_DFL)
        name = _NAMES[signal.Signals(number)]
        text = f"\nstopped by {name}: no file is half written; the same command goes on or starts again\n"
        os.write(2, text.encode())
        ended = Ended(number)
        raise SystemExit(ended.code) if leave else ended

    for number, usual in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is usual:
            signal.signal(number, end)


def code_after(error: BaseException) -> int | None:
    """Exit code after a signal, if one has led to this error."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, Ended):
        seen = seen.__cause__ or seen.__context__
    return None if seen is None else seen.code


def full_disk(error: BaseException) -> str | None:
    """Message for an error caused by a full disk; ``None`` for any other error."""
    seen: BaseException | None = error
    while seen is not None and not (isinstance(seen, OSError) and seen.errno in _FULL):
        seen = seen.__cause__ or seen.__context__
    if not isinstance(seen, OSError) or type(seen) is not OSError:
        return None
    of = f" of {os.path.dirname(os.path.abspath(seen.filename))}" if isinstance(seen.filename, str) else ""
    what = f"no file{of} may grow further" if seen.errno == errno.EFBIG else f"the disk{of} is full"
    return f"{what}; nothing is half written: make room and give the same command again, or another output"


_REASONS = {
    errno.EEXIST: "is in the way: a folder is needed there",
    errno.ENOTDIR: "lies below a file, where a folder is needed",
    errno.EISDIR: "is a folder, where a file is needed",
    errno.ENOENT: "does not exist, or cannot be made",
    errno.EACCES: "may not be read or written by you",
    errno.EPERM: "may not be changed by you",
    errno.EROFS: "lies on a disk that cannot be written to",
    errno.ENAMETOOLONG: "has too long a name",
    errno.ELOOP: "is a link that leads to itself",
}


def in_words(error: Exception) -> str:
    """Message of an error for a user, with a remedy for errors of the operating system."""
    if type(error) in (ValueError, RuntimeError) or not isinstance(error, OSError):
        return full_disk(error) or str(error)
    reason = _REASONS.get(error.errno or 0)
    if reason is None or not isinstance(error.filename, str) or not _is_of_the_system(error):
        return full_disk(error) or str(error)
    name = _TEMPORARY.sub("", error.filename)
    return f"{name or error.filename} {reason} ({error.strerror}); give another path"


def _is_of_the_system(error: OSError) -> bool:
    return error.errno is not None and error.strerror == os.strerror(error.errno)


def _as_by_default(number: int) -> None:
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
