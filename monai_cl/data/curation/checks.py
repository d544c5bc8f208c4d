"""Checks of what is given to curation before anything is read or written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl._files import read_json
from monai_cl.datalist import read_datalist, section_names

_USUAL = ("training", "validation", "test", "unlabelled")  # which a list need not have


def check_lists(
    source: Path, content: Mapping[str, Any], sections: Sequence[str], against: str | os.PathLike[str] | None
) -> None:
    """Refuse lists in which there is nothing to curate, or nothing to guard: the result would look like a clean one.

    Raises:
        ValueError: If there is no volume, ``sections`` names no list, or ``against`` lists no volume.
    """
    filled = [name for name in section_names(content) if content.get(name)]
    if not filled:
        raise ValueError(f"the study must list volumes, {source} lists none; scan a folder that holds some")
    unknown = [name for name in sections if name not in {*content, *_USUAL}]
    if unknown or not sections:
        given = ", ".join(map(repr, unknown)) or "none"
        raise ValueError(f"sections must name lists of {source} ({', '.join(filled)}), got {given}")
    if against is not None:
        guarded = read_datalist(against)
        if not any(guarded.get(name) for name in section_names(guarded)):
            raise ValueError(f"against must be a datalist that holds volumes, {os.fspath(against)} lists none")


def check_target(target: Path, source: Path, against: str | os.PathLike[str] | None) -> None:
    """Refuse to replace anything but an earlier result of curation.

    Raises:
        ValueError: If ``target`` is no name of a datalist, an input, or another file.
    """
    if target.suffix != ".json":
        raise ValueError(f"out must be a .json file, got {str(target)!r}")
    if target.is_dir():
        raise ValueError(f"out must be a file, but {target} is a folder; give a file in it")
    if not os.path.lexists(target):
        return
    try:
        content = read_json(target)
        ours = isinstance(content, dict) and "curation" in content
    except (OSError, ValueError):
        ours = False
    inputs = [source, *([] if against is None else [Path(against)])]
    if not ours or target.resolve() in [path.resolve() for path in inputs]:
        raise ValueError(f"{target} exists and is not the result of an earlier curation; choose another name")
