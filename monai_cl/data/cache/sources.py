"""Whether the files behind a volume are still the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_cl.data.datalist import FILE_KEYS

_BLOCK = 1 << 20
# headers whose voxels lie in files beside them, which they name
_NAMING = {
    ".mhd": re.compile(rb"^ElementDataFile\s*=\s*([^\r\n]+)((?s:.*))", re.MULTILINE),
    ".nhdr": re.compile(rb"^data ?file:\s*([^\r\n]+)((?s:.*))", re.MULTILINE | re.IGNORECASE),
}
_HEADER = 1 << 16  # bytes


def paths_of(item: Mapping[str, Any], key: str) -> list[Path]:
    """The paths that an item gives for ``key``: none, one, or the files of a series."""
    value = item.get(key)
    return [Path(path) for path in (value if isinstance(value, (list, tuple)) else [value] if value else [])]


def source_files(item: Mapping[str, Any]) -> list[Path]:
    """All files that an item is read from: those of a series' folder, and the partners of headers, included."""
    return [file for key in FILE_KEYS for path in paths_of(item, key) for file in _below(path)]


def source_hash(files: list[Path]) -> str:
    """SHA-256 over the contents of files, in this order, whatever they are called."""
    total = hashlib.sha256()
    for path in files:
        one = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                one.update(block)
        total.update(one.digest())
    return total.hexdigest()


def source_stamp(files: list[Path]) -> str:
    """What can be compared without reading: a hash of sizes and times of change (which are not kept themselves)."""
    states = [path.stat() for path in files]
    return hashlib.sha256(json.dumps([(s.st_size, s.st_mtime_ns) for s in states]).encode()).hexdigest()


def _below(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(child for child in path.iterdir() if child.is_file())
    return [path, *_partners(path)]


def _partners(path: Path) -> list[Path]:
    """The files of voxels that belong to a header: what it names, one, or after LIST one a line."""
    suffix, partners = path.suffix.lower(), []
    if suffix == ".hdr":  # of Analyze, which names nothing
        partners = [path.with_suffix(".img")]
    elif suffix in _NAMING:
        with open(path, "rb") as file:
            found = _NAMING[suffix].search(file.read(_HEADER))
        names = [] if found is None else [found[1], *found[2].splitlines()]
        partners = [path.parent / os.fsdecode(name.strip()) for name in names if 0 < len(name.strip()) < 256]
    return [partner for partner in partners if partner.is_file()]
