"""The files below some folders, one after another, in an order that does not depend on the file system."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(base: Path, starts: list[str], report: Callable[[str, str], None]) -> Iterator[str]:
    """All files but hidden ones, folder by folder, each with its names sorted; only one listing is in memory.

    Links are followed; a folder that was visited under another name is passed over, so that loops end.

    Args:
        base: Folder that the paths are relative to.
        starts: Folders to walk, relative to ``base``; ``"."`` for all.
        report: Called with the path and what was wrong for a folder that cannot be listed.

    Yields:
        Paths relative to ``base``, with slashes.
    """
    visited: set[tuple[int, int]] = set()
    stack = [start.replace(os.sep, "/") for start in reversed(starts)]
    while stack:
        below = stack.pop()
        place = base / below
        try:
            mark = os.stat(place)
            if (mark.st_dev, mark.st_ino) in visited:
                continue
            visited.add((mark.st_dev, mark.st_ino))
            with os.scandir(place) as entries:
                listed = sorted((one.name, _is_folder(one)) for one in entries if not one.name.startswith("."))
        except OSError as error:
            report(below, f"folder cannot be listed ({type(error).__name__})")
            continue
        prefix = "" if below == "." else f"{below}/"
        stack += [prefix + name for name, folder in reversed(listed) if folder]
        for name, folder in listed:
            if not folder:
                yield prefix + name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a loop of links
