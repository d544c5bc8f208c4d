"""Coded names of classes: a small table of SNOMED CT, and that of a user beside it."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from monai_cl._files import read_yaml
from monai_cl._words import suggestion

TABLE = Path(__file__).with_name("codes.yaml")
_PARTS = ("categories", "modifiers", "segments", "synonyms")
_KEYS = {"category", "type", "modifier"}


class Code(NamedTuple):
    """A coded concept."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Segment:
    """A class of a mask and its codes.

    Args:
        number: Label of its voxels.
        name: Name, as it is given to the class.
        category: Kind of thing (CID 7150).
        type: The thing.
        modifier: Side or part of it.
    """

    number: int
    name: str
    category: Code
    type: Code
    modifier: Code | None = None


def segments_of(classes: Mapping[int, str], *, codes: str | os.PathLike[str] | None = None) -> list[Segment]:
    """Codes of the classes above background.

    Args:
        classes: Names by label; label 0 is background and has none.
        codes: YAML file of a user in the form of ``codes.yaml`` of this package, which wins over it.

    Raises:
        ValueError: If a class has no code: names all of these, the closest names and what to do. If the file of the
            user is malformed, or the labels are not 1, 2, ... without a gap.

    Example:
        >>> segments_of({0: "background", 1: "left_kidney"})[0].type
        Code(scheme='SCT', value='64033007', meaning='Kidney')
    """
    table = _table() if codes is None else _merged(_table(), _checked(codes))
    above = {label: name for label, name in sorted(classes.items()) if label > 0}
    if not above or list(above) != list(range(1, len(above) + 1)):
        raise ValueError(f"labels of classes must be 1, 2, ... without a gap, got {sorted(classes)}")
    result = {label: _segment(label, name, table) for label, name in above.items()}
    without = [name for label, name in above.items() if result[label] is None]
    if without:
        listed = ", ".join(f"{name!r}{suggestion(_plain(name), sorted(table['segments']))}" for name in without)
        raise ValueError(
            f"each class needs a code for DICOM SEG, none is known of {listed}; name the classes in `--classes` or in "
            "channel_def of configs/metadata.json, and add codes in a file of your own (`--codes FILE`), as "
            "`segments: {my class: {category: anatomy, type: [SCT, '10200004', Liver]}}`"
        )
    return [segment for segment in result.values() if segment is not None]


def _segment(label: int, name: str, table: Mapping[str, Mapping[str, Any]]) -> Segment | None:
    plain = _plain(name)
    entry, modifier = table["segments"].get(table["synonyms"].get(plain, plain)), None
    if entry is None:
        for word in table["modifiers"]:
            rest = " ".join(part for part in plain.split() if part != word)
            rest = table["synonyms"].get(rest, rest)
            if rest != plain and rest in table["segments"]:
                entry, modifier = table["segments"][rest], word
                break
    if entry is None:
        return None
    modifier = entry.get("modifier", modifier)
    return Segment(
        label,
        name,
        Code(*table["categories"][entry["category"]]),
        Code(*entry["type"]),
        None if modifier is None else Code(*table["modifiers"][modifier]),
    )


def _plain(name: str) -> str:
    """A name in lower case, with spaces between its words."""
    return " ".join(re.split(r"[\s_\-]+", name.strip().lower()))


@cache
def _table() -> dict[str, dict[str, Any]]:
    return _checked(TABLE)


def _merged(table: Mapping[str, Mapping[str, Any]], own: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    merged = {part: {**table[part], **own[part]} for part in _PARTS}
    for name, entry in own["segments"].items():
        merged["synonyms"].pop(name, None)  # a user's own entry is not led elsewhere
        for kind, key in (("categories", "category"), ("modifiers", "modifier")):
            if key in entry and entry[key] not in merged[kind]:
                raise ValueError(
                    f"{key} of segment {name!r} must be one of {', '.join(merged[kind])}, got {entry[key]!r}; "
                    f"add it under `{kind}`"
                )
    return merged


def _checked(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """A table whose codes are codes."""
    content = read_yaml(path if isinstance(path, Path) else Path(path), "a table of codes")
    if not isinstance(content, dict) or not set(content) <= set(_PARTS):
        raise ValueError(f"a table of codes must hold {', '.join(_PARTS)} alone, {path} does not")
    if not all(isinstance(part, dict) for part in content.values()):
        raise ValueError(f"each part of a table of codes must hold names and their codes, in {path} one does not")
    table = {part: {_plain(str(key)): value for key, value in (content.get(part) or {}).items()} for part in _PARTS}
    for part in ("categories", "modifiers"):
        for name, code in table[part].items():
            _check_code(path, name, code)
    for name, entry in table["segments"].items():
        if not isinstance(entry, dict) or not {"category", "type"} <= set(entry) <= _KEYS:
            raise ValueError(f"segment {name!r} of {path} must hold category and type, and may hold modifier")
        _check_code(path, name, entry["type"])
    return table


def _check_code(path: str | os.PathLike[str], name: str, code: Sequence[Any]) -> None:
    if not isinstance(code, list) or len(code) != 3 or not all(isinstance(part, str) and part for part in code):
        raise ValueError(
            f"the code of {name!r} in {path} must be [scheme, code, meaning], each a text (write numbers in quotes), "
            f"got {code!r}"
        )
    for part, most in zip(code, (16, 16, 64), strict=True):
        if len(part) > most:
            raise ValueError(f"{part!r}, of the code of {name!r} in {path}, must have at most {most} characters")
