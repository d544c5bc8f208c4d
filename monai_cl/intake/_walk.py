"""The files below some folders, one after another, in an order that does not depend on the file system."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from monai_cl.io.raw_volume import OUTSIDE, is_below

__all__ = ["OUTSIDE", "SECOND_NAME", "real_paths", "walk"]

SECOND_NAME = "second name by a link"


def walk(base: Path, starts: Sequence[str], report: Callable[[str, str, str], None]) -> Iterator[str]:
    """Walk over all files but hidden ones, sorted within each folder; one listing at a time is in memory.

    Links are followed as long as they stay below what is walked; one that leads out of it is reported. A folder that
    was visited under another name is reported and passed over, so that loops end.

    Args:
        base: Folder that the paths are relative to.
        starts: Folders to walk, relative to ``base``; ``"."`` for all.
        report: Called with the path, a reason and details for a folder that cannot be listed, a second name of a
            folder, and a link that leads out.

    Yields:
        Paths relative to ``base``, with slashes.
    """
    roots = [os.path.realpath(base / start) for start in starts]
    visited: dict[tuple[int, int], str] = {}
    stack = [start.replace(os.sep, "/") for start in reversed(starts)]
    while stack:
        below = stack.pop()
        place = base / below
        try:
            mark = os.stat(place)
            key = mark.st_dev, mark.st_ino
            if key in visited:
                if visited[key] != below:  # else a given folder in another given one
                    report(below, SECOND_NAME, "this folder is scanned under its other name")
                continue
            visited[key] = below
            with os.scandir(place) as entries:
                listed = sorted((one.name, _kind(one, roots)) for one in entries if not one.name.startswith("."))
        except OSError as error:
            report(below, "unreadable", f"folder cannot be listed ({type(error).__name__})")
            continue
        prefix = "" if below == "." else f"{below}/"
        stack += [prefix + name for name, kind in reversed(listed) if kind == "folder"]
        for name, kind in listed:
            if kind == "file":
                yield prefix + name
            elif kind == "link":
                report(prefix + name, OUTSIDE, "a link leads there; scan the folder that it leads to")


def real_paths(folder: Path) -> Callable[[str], str]:
    """Function from a path below a folder to that of the file itself; a path that leads to hidden folders stays."""
    base = os.path.realpath(folder)
    real_folder = cache(os.path.realpath)

    def real(path: str) -> str:
        place = os.path.join(real_folder(os.path.join(base, os.path.dirname(path))), os.path.basename(path))
        place = os.path.realpath(place) if os.path.islink(place) else place
        below = Path(os.path.relpath(place, base))
        return path if any(part.startswith(".") and part != ".." for part in below.parts) else below.as_posix()

    return real


def _kind(entry: os.DirEntry[str], roots: list[str]) -> str:
    """``"folder"``, ``"file"``, or ``"link"`` for one that leads out of what is walked."""
    try:
        if entry.is_symlink() and not is_below(os.path.realpath(entry.path), roots):
            return "link"
        return "folder" if entry.is_dir() else "file"
    except OSError:
        return "file"  # a loop of links
