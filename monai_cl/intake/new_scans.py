"""Scans to make masks of: those of a datalist, or a file, a series or a folder that no datalist speaks of."""

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai_cl.datalist import is_cache, load_datalist, read_datalist, section_names
from monai_cl.intake.scan import scan
from monai_cl.io.suffixes import stem
from monai_cl.privacy.hidden_paths import HiddenPath, shown
from monai_cl.privacy.naming import PlainNames
from monai_cl.privacy.pseudonyms import KEY_VARIABLE, Key, find_or_make_key, new_key
from monai_cl.privacy.table import IdTable

logger = logging.getLogger(__name__)

Item = dict[str, Any]
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")


def find_images(
    path: str | os.PathLike[str],
    *,
    datalist: str | os.PathLike[str] | None = None,
    sections: str | Sequence[str] | None = None,
    hide_names: bool = True,
) -> list[Item]:
    """Items for the scans at ``path``: a file, a DICOM series, or all volumes below a folder, labels aside.

    Each has its ``"image"``, a ``"case"`` to name it in logs, and a ``"place"``: where below a folder of results those
    of this scan belong, another one for each. With ``hide_names`` both are ids, or paths of words of imaging
    and short numbers, as ``imagesTs/hippocampus_001``; items of a datalist from ``monai-cl scan`` are named as it names
    them. Without, the place is the path of the scan: below the folder, or the whole of it where it lies elsewhere.

    Unusable files are logged with the reason.

    Args:
        path: The scans, or the folder that paths of ``datalist`` start from.
        datalist: A datalist that names them.
        sections: Which lists of it; all that hold something when left out.
        hide_names: Whether to hide what could name a patient.

    Raises:
        FileNotFoundError: If ``path`` does not exist, or the datalist names a file that is absent.
        ValueError: If nothing below it can be used, or the datalist is a cache or has no such section.
        OSError: If the key of the ids can be neither read nor made.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no scan, series or folder at {source}; give an existing one as dataset_dir")
    names = PlainNames(lambda: _key(source if source.is_dir() else None))
    if datalist is not None:
        items, base = _listed(Path(datalist), source, sections, hide_names), ""
    elif source.is_file():
        name = names.path(source.name) if hide_names else source.name
        items, base = [{"image": HiddenPath(os.path.abspath(source), name), "case": _bare(name)}], ""
    else:
        base = source.resolve().name
        base = names.path(base) if hide_names else base
        items = _below(source, base, names.key if hide_names else new_key(), hide_names=hide_names)
    if names.files:
        IdTable().add(names.files)
    return _with_places(items, base) if hide_names else _with_real_places(items, source, base)


def _key(outside: Path | None) -> Key:
    try:
        return find_or_make_key(outside=outside)
    except OSError as error:
        raise OSError(
            f"the key that hides names of patients can be neither read nor made: {error.strerror}; set {KEY_VARIABLE} "
            "to a file that can be written, or `--hide_names false` to name masks after their scans"
        ) from error


def _listed(datalist: Path, folder: Path, sections: str | Sequence[str] | None, hide_names: bool) -> list[Item]:
    if is_cache(datalist):
        raise ValueError("masks are made of scans, got a cache of prepared volumes; give the datalist it was made from")
    content = read_datalist(datalist, hide_names=hide_names)
    wanted = section_names(content) if sections is None else sections
    items = load_datalist(datalist, wanted, dataset_dir=folder, labelled=False, hide_names=hide_names)
    first: dict[str, Item] = {}
    for item in items:  # one that the list has by an absolute path, too
        image = item["image"]
        first.setdefault("|".join(map(os.path.abspath, image if isinstance(image, list) else [image])), item)
    return list(first.values())


def _below(folder: Path, base: str, key: Key, *, hide_names: bool) -> list[Item]:
    with tempfile.TemporaryDirectory() as scratch:  # nothing of this list is kept
        out = Path(scratch) / "datalist.json"
        try:
            result = scan(folder, out, key=key, hide_names=hide_names and "strict")
        except ValueError as error:
            reasons, named, _ = str(error).partition(f"; {scratch}")
            raise ValueError(f"{reasons}; `monai-cl scan` names each") if named else error from None
        for left_out in result.left_out:
            logger.warning("left out %s: %s, %s", left_out.paths[0], left_out.reason, left_out.detail)
        sections = [name for name, count in result.counts.items() if count]
        items = load_datalist(result.datalist, sections, dataset_dir=folder, labelled=False)
    for item in items:
        image = item["image"]
        if isinstance(image, str) and shown(image) == ".":  # a series that fills the folder is named after it
            item.update(image=HiddenPath(str(image), base), case=base)
    return items


def _with_places(items: list[Item], base: str) -> list[Item]:
    """Items with the folders of their results; a suffix is kept only if it separates two items."""
    return _placed(items, [_first(item, shown) for item in items], base)


def _with_real_places(items: list[Item], folder: Path, base: str) -> list[Item]:
    """Items with where results of each belong, after its file: below the folder, else by the whole of its path."""
    root, names = os.path.abspath(folder), []
    for item in items:
        path = os.path.abspath(_first(item, str))
        inside = os.path.isdir(root) and path.startswith(os.path.join(root, ""))
        names.append(base if path == root and base else os.path.relpath(path, root) if inside else path)
    if os.path.isfile(root):
        names = [os.path.basename(name) for name in names]
    return _placed(items, [name.lstrip(os.sep) for name in names], base)


def _placed(items: list[Item], names: list[str], base: str) -> list[Item]:
    short = [os.path.join(os.path.dirname(name), _bare(name)) for name in names]
    how_often = Counter(short)
    places = [brief if how_often[brief] == 1 else name for brief, name in zip(short, names, strict=True)]
    for item, place in zip(items, places, strict=True):
        item["place"] = place if place == base else os.path.join(base, place)
    return items


def _first(item: Item, shown: Callable[[str], str]) -> str:
    image = item["image"]
    return os.path.normpath(shown(image[0] if isinstance(image, list) else image))


def _bare(path: str) -> str:
    name = stem(path)
    start, suffix = os.path.splitext(name)
    return start if suffix.lower() in _DICOM_SUFFIXES else name
