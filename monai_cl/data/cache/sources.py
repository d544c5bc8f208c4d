"""Stamps of source files, by which a cache sees that they have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_cl.datalist import FILE_KEYS
from monai_cl.io.itk import partners
from monai_cl.io.streams import open_regular

_BLOCK = 1 << 20


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
        with open_regular(path) as file:
            while block := file.read(_BLOCK):
                one.update(block)
        total.update(one.digest())
    return total.hexdigest()


def source_stamp(files: list[Path]) -> str:
    """Hash of sizes and times of change (which are not kept themselves): it is compared without reading."""
    states = [path.stat() for path in files]
    return hashlib.sha256(json.dumps([(s.st_size, s.st_mtime_ns) for s in states]).encode()).hexdigest()


def _below(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(child for child in path.iterdir() if child.is_file())
    return [path, *_partners(path)]


def _partners(path: Path) -> list[Path]:
    """The files of voxels that belong to a header: what it names in its folder, one or several."""
    suffix = path.suffix.lower()
    found = [path.with_suffix(".img")] if suffix == ".hdr" else []  # of Analyze, which names nothing
    if suffix in (".mhd", ".nhdr"):
        found = partners(path)
    return [partner for partner in found if partner.is_file()]
