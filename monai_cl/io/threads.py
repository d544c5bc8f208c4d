"""Effects of readers on the whole process, brought about by one thread at a time."""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

_Result = TypeVar("_Result")
_filters = threading.RLock()
_first_read = threading.Lock()
_have_read: set[str] = set()


def without_warnings_of_dicom() -> AbstractContextManager[None]:
    """Hide what pydicom warns of and logs: it quotes malformed values of headers, which may name a person."""
    return without_warnings(log="pydicom")


@contextmanager
def without_warnings(message: str = "", *, log: str = "") -> Iterator[None]:
    """Hide warnings whose text begins with ``message``, and what is meanwhile logged under the name ``log``.

    The filters belong to the process: two threads that restored them at once would mix them up.
    """
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        logger = logging.getLogger(log) if log else None
        if logger and _refuse in logger.filters:  # the outer one of two ends it
            logger = None
        if logger:
            logger.addFilter(_refuse)
        try:
            yield
        finally:
            if logger:
                logger.removeFilter(_refuse)


def _refuse(_: logging.LogRecord) -> bool:
    return False


def read_with_itk(kind: str, read: Callable[[], _Result]) -> _Result:
    """Call ``read``, alone in the process until a first call for its kind of file has come back.

    ITK makes the objects that all readers share when they are first needed and does not guard that: threads that start
    reading at the same moment can end the process. Later calls run side by side.

    Args:
        kind: Kind of file; each has shared objects of its own.
        read: Reads a file.
    """
    if kind in _have_read:
        return read()
    with _first_read:
        result = read()
        _have_read.add(kind)
    return result
