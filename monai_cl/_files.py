"""Writing files so that a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside the target; on success it replaces the target, on failure it is removed.

    Args:
        path: Target file; its folder must exist.

    Yields:
        Path to write to: a hidden name in the folder of the target that ends in the target's name.

    Raises:
        FileNotFoundError: If nothing was written to the temporary path.
    """
    target = Path(path)
    # Not tempfile: its files are readable by their owner alone, and a data folder is shared.
    temporary = target.with_name(f".{secrets.token_hex(8)}.{target.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes that were killed while they wrote to ``path`` have left beside it.

    Args:
        path: Target of :func:`atomic_write`, which no other process may be writing now.
    """
    target = Path(path)
    for leftover in target.parent.glob(f".{'[0-9a-f]' * 16}.{glob.escape(target.name)}"):
        leftover.unlink(missing_ok=True)
