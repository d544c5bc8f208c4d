"""Loading sections of a datalist: items with resolved paths, each under a name for logs."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_cl.datalist.draws import few_labels
from monai_cl.datalist.items import CACHED, Item, as_listed, image_key, paths_of, place_of, subject_of
from monai_cl.datalist.reading import datalist_file, is_cache, read_datalist
from monai_cl.datalist.sections import chosen_sections, filled_sections, how_to_fill
from monai_cl.io.suffixes import stem
from monai_cl.privacy.hand_made import FILE_KEYS
from monai_cl.privacy.hidden_paths import shown
from monai_cl.privacy.ids import split_id
from monai_cl.privacy.real_files import with_real_files

_VOLUME_SUFFIXES = (".dcm", ".ima", ".nrrd", ".mha", ".mhd", ".npy", ".npz", ".pt")


def load_datalist(
    path: str | os.PathLike[str],
    sections: str | Sequence[str] = "training",
    *,
    dataset_dir: str | os.PathLike[str] | None = None,
    labelled: bool | None = None,
    limit: int | None = None,
    seed: int = 0,
    hide_names: bool = True,
) -> list[Item]:
    """Read sections of a Decathlon-style datalist.

    Each item keeps its fields and gains ``"case"``, a name for logs: the file stem, or the relative path where stems
    collide. Names of patients in a list that was made by hand are replaced, see :func:`read_datalist`; the files
    behind ids are looked up in the table beside the key. An image that comes twice is kept once, with its label if one
    of them has one. ``unlabelled`` beside another section may be absent, for a study in which every scan has a label.

    Args:
        path: The JSON file, or the folder of a cache from ``monai-cl cache``.
        sections: A section, several joined by ``+`` (``"training+unlabelled"``), or a list of them.
        dataset_dir: Folder that relative paths start from; by default that of the JSON file, and always for a cache.
        labelled: ``True`` requires a label in each item, ``False`` takes labels away, ``None`` leaves them be.
        limit: Keep this many items, patient by patient, by :func:`few_labels`; ``None`` keeps all.
        seed: Seed of the order in which ``limit`` takes patients, where the list states none.
        hide_names: Whether to replace what could name a patient in a list made by hand.

    Returns:
        Items with absolute paths where ``dataset_dir`` is absolute.

    Raises:
        FileNotFoundError: If the JSON, or any file it names in these sections, is absent, or the key or the table that
            maps ids to files, or an id is not in it.
        ValueError: If the JSON is malformed, a section is unknown or empty, a required label is missing, or an image
            has two labels.
    """
    source = datalist_file(path)
    content = read_datalist(source, hide_names=hide_names)
    folder = source.parent if dataset_dir is None or is_cache(source) else Path(dataset_dir)
    names = chosen_sections(content, sections, source)
    entries = [_entry(entry, name, source) for name in names for entry in content[name]]
    if not entries:
        choice = f"choose from {filled_sections(content)}{how_to_fill(names, content)}"
        raise ValueError(f"section {'+'.join(names)!r} of {source} is empty; {choice}")
    items = _labelled(_distinct(entries, source, labelled is not False), labelled, source)
    result = with_real_files(items, folder, content)
    named = [item | {"case": case} for item, case in zip(result, _cases(items), strict=True)]
    resolved = [named[place] for place in _one_of_each_file(named, source)]
    _check_files(resolved, source, folder)
    return resolved if limit is None else few_labels(resolved, limit, seed=seed)


def subjects_by_case(
    path: str | os.PathLike[str], sections: str | Sequence[str], *, hide_names: bool = True
) -> dict[str, str]:
    """Patients by case in sections of a datalist; the files need not exist.

    Args:
        path: The JSON file, or the folder of a cache.
        sections: As in :func:`load_datalist`.
        hide_names: As in :func:`load_datalist`.

    Raises:
        FileNotFoundError: If the JSON is absent.
        ValueError: If it is malformed or a section is unknown.
    """
    source = datalist_file(path)
    content = read_datalist(source, hide_names=hide_names)
    names = chosen_sections(content, sections, source)
    items = _distinct([_entry(entry, name, source) for name in names for entry in content[name]], source, False)
    return {case: subject_of(item) for case, item in zip(_cases(items), items, strict=True)}


def _entry(entry: Any, section: str, source: Path) -> Item:
    item: Item = {"image": entry} if isinstance(entry, str) else dict(entry)
    for key in FILE_KEYS:
        value = item.get(key)
        listed = value if isinstance(value, list) else [value]
        if (key == "image" and not value) or (value is not None and not all(isinstance(part, str) for part in listed)):
            raise ValueError(f"each entry of {section!r} in {source} needs a path as {key!r}, got {entry!r}")
    return item


def _distinct(items: Sequence[Item], source: Path, with_labels: bool) -> list[Item]:
    """Items with each image once and with one label; two different labels of one image are an error."""
    first: dict[str, Item] = {}
    for item in items:
        key = os.path.normpath(image_key(item))
        known = first.setdefault(key, item)
        one, other = (entry.get("label") for entry in (known, item))
        if with_labels and one and other and _normal(one) != _normal(other):
            raise ValueError(
                f"{source} lists one image with two labels, {image_key(item)} with {'|'.join(paths_of(one))} and "
                f"{'|'.join(paths_of(other))}; keep one of them, or merge both into one file"
            )
        if other and not one:
            first[key] = item
    return list(first.values())


def _one_of_each_file(items: Sequence[Item], source: Path) -> list[int]:
    """Places of the items but for those whose image is that of another one by a link or another spelling."""
    if any(CACHED in item for item in items):
        return list(range(len(items)))
    chosen: dict[str, int] = {}
    for place, item in enumerate(items):
        image, label = place_of(item), place_of(item, key="label") if item.get("label") else None
        if image == label:
            raise ValueError(f"{source} names {image_key(item, as_listed)} as image and as label; correct one of them")
        first = items[chosen.setdefault(image, place)]
        if not first.get("label"):
            chosen[image] = place if label else chosen[image]
        elif label and place_of(first, key="label") != label:
            both = " and as ".join(image_key(one, as_listed) for one in (first, item))
            raise ValueError(
                f"{source} lists one file as {both}, with two labels; keep one of them, or merge both labels into one "
                "file"
            )
    return sorted(chosen.values())


def _normal(value: Any) -> list[str]:
    return [os.path.normpath(path) for path in paths_of(value)]


def _labelled(items: list[Item], labelled: bool | None, source: Path) -> list[Item]:
    if labelled is False:
        return [{key: value for key, value in item.items() if key != "label"} for item in items]
    bare = [image_key(item) for item in items if not item.get("label")]
    if labelled and bare:
        raise ValueError(
            f"{len(bare)} of {len(items)} items of {source} have no label, such as {', '.join(bare[:5])}; "
            "choose a labelled section"
        )
    return items


def _cases(items: Sequence[Item]) -> list[str]:
    """Short unique names: the stem where only one item has it, else the relative path, if need be with its suffix."""
    if all(CACHED in item for item in items):
        return [str(item["case"]) for item in items]
    short, long = [_short(item) for item in items], [_long(item) for item in items]
    how_often, how_often_long = Counter(short), Counter(long)
    return [
        name if how_often[name] == 1 else path if how_often_long[path] == 1 else image_key(item)
        for name, path, item in zip(short, long, items, strict=True)
    ]


def _short(item: Item) -> str:
    """File stem, directory name of a series, or the directory of the files of a series."""
    image = item["image"]
    if isinstance(image, str):
        return "series" if image == "." else _bare(image)  # "." is a series that fills the data folder
    return os.path.basename(os.path.dirname(os.path.normpath(image[0]))) or _bare(image[0])


def _long(item: Item) -> str:
    first = os.path.normpath(paths_of(item["image"])[0])
    return Path(os.path.dirname(first), _bare(first)).as_posix()


def _bare(path: str) -> str:
    """Name without the suffixes of a volume; other dots belong to the name, as in ``1.2.840`` or ``scan.v2``."""
    name = stem(os.path.normpath(path))
    start, suffix = os.path.splitext(name)
    return start if suffix.lower() in _VOLUME_SUFFIXES else name


def _check_files(items: Sequence[Item], source: Path, folder: Path) -> None:
    values = [item[key] for item in items for key in FILE_KEYS if item.get(key)]
    paths = [path for value in values for path in (value if isinstance(value, list) else [value])]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        ids = sum(split_id(os.path.relpath(path, folder).replace(os.sep, "/")) is not None for path in missing)
        advice = f"paths start from {folder}, set dataset_dir if the data lie elsewhere"
        if ids:  # no file has such a name: an id of a scan was not looked up
            advice = (
                f'{ids} of them are ids of a scan, which only a list with the "key" of that scan can look up; edit a '
                'copy of the list that the scan wrote, or take over its line "key"'
            )
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} files that {source} names are absent, such as "
            f"{', '.join(map(shown, missing[:5]))}; {advice}"
        )
