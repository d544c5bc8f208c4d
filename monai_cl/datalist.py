"""Reading datalists: sections with resolved paths, nested subsets of few labels, the guard against shared patients."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl._files import read_json
from monai_cl._words import suggestion
from monai_cl.io.suffixes import stem
from monai_cl.privacy.hand_made import FILE_KEYS as FILE_KEYS, keeps_names, section_name, without_names
from monai_cl.privacy.hidden_paths import shown
from monai_cl.privacy.ids import split_id
from monai_cl.privacy.naming import PlainNames, Pseudonym
from monai_cl.privacy.pseudonyms import find_or_make_key
from monai_cl.privacy.real_files import with_real_files

Item = dict[str, Any]
CACHE_FILE = "cache.json"  # what `monai-cl cache` writes: a datalist of prepared volumes
CACHED = "cached"  # key of an item of a cache: how each of its volumes is stored
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
    names = _section_names(content, sections, source)
    entries = [_entry(entry, name, source) for name in names for entry in content[name]]
    if not entries:
        raise ValueError(f"section {'+'.join(names)!r} of {source} is empty; choose from {_filled(content)}")
    items = _labelled(_distinct(entries, source, labelled is not False), labelled, source)
    result = with_real_files(items, folder, content)
    resolved = [item | {"case": case} for item, case in zip(result, _cases(items), strict=True)]
    _check_files(resolved, source, folder)
    return resolved if limit is None else few_labels(resolved, limit, seed=seed)


def few_labels(items: Iterable[Mapping[str, Any]], n: int, *, seed: int) -> list[Item]:
    """Draw ``n`` items, patient by patient, so that the draw of ``n`` is the start of the draw of ``n + 1``.

    Patients are put in an order that depends on ``seed`` and their name alone: neither the order of the items nor other
    patients change it. Their items are taken in turn, by image path. Items with a number under ``"order"`` come first,
    the smallest before all, whatever the seed: so a list can state a published choice of patients.

    Args:
        items: Items with ``"subject"``; one without counts as a patient of its own.
        n: Number of items, at least 1.
        seed: Seed of the order of patients.

    Returns:
        ``n`` items.

    Raises:
        ValueError: If ``n`` is not positive or larger than the number of items, or an order is not a number.

    Example:
        >>> items = [{"image": f"{s}_{v}.nii.gz", "subject": s} for s in "abc" for v in (1, 2)]
        >>> few_labels(items, 2, seed=0) == few_labels(items[::-1], 3, seed=0)[:2]
        True
    """
    pool = [dict(item) for item in items]
    if not 1 <= n <= len(pool):
        patients = len({subject_of(item) for item in pool})
        raise ValueError(
            f"the number of labelled volumes (labels of a bundle, here n) must be between 1 and {len(pool)} "
            f"({len(pool)} items of {patients} subjects), got {n}"
        )
    return sorted(pool, key=lambda item: (_place(item), _draw(drawn_by(item), seed), _image_key(item)))[:n]


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
    names = _section_names(content, sections, source)
    items = _distinct([_entry(entry, name, source) for name in names for entry in content[name]], source, False)
    return {case: subject_of(item) for case, item in zip(_cases(items), items, strict=True)}


def first_image(image: str | Sequence[str]) -> str:
    """The image of an item, of several files the first."""
    return image if isinstance(image, str) else image[0]


def items_of(content: Mapping[str, Any], section: str) -> list[Mapping[str, Any]]:
    """The items of a section; Decathlon lists test images as bare strings."""
    return [{"image": item} if isinstance(item, str) else item for item in content.get(section, [])]


def shared_subjects(a: Iterable[Mapping[str, Any]], b: Iterable[Mapping[str, Any]]) -> list[str]:
    """Subjects that occur in both lists, sorted: training and validation must have none in common.

    Example:
        >>> shared_subjects([{"image": "x", "subject": 1}], [{"image": "y", "subject": "1"}])
        ['1']
    """
    return sorted({subject_of(item) for item in a} & {subject_of(item) for item in b})


def subject_of(item: Mapping[str, Any]) -> str:
    """The patient of an item, as text: its ``"subject"``, else its image as the list has it."""
    subject = item.get("subject")
    return _image_key(item, _as_listed) if subject is None else str(subject)


def drawn_by(item: Mapping[str, Any]) -> str:
    """The patient of an item as the list has it, by whom draws go: they must not depend on the key. Never show it."""
    subject = item.get("subject")
    if subject is None:
        return _image_key(item)
    return subject.behind if isinstance(subject, Pseudonym) else str(subject)


def _place(item: Mapping[str, Any]) -> float:
    """Place of an item that the list itself states; after all others where it states none."""
    order = item.get("order", math.inf)
    if isinstance(order, bool) or not isinstance(order, int | float) or math.isnan(order):
        name = item.get("case") or _image_key(item, _as_listed)
        raise ValueError(f"order of an item must be a number, got {order!r} for {name}; correct the list")
    return order


def _draw(subject: str, seed: int) -> str:
    """A pseudo-random sort key that no other patient influences."""
    return hashlib.sha256(f"{seed}:{subject}".encode()).hexdigest()


def _image_key(item: Mapping[str, Any], text: Callable[[Any], str] = str) -> str:
    return "|".join(_paths(item.get("image"), text))


def _as_listed(part: Any) -> str:
    return shown(part) if isinstance(part, str | os.PathLike) else str(part)


def _paths(value: Any, text: Callable[[Any], str] = str) -> list[str]:
    return [text(part) for part in value] if isinstance(value, (list, tuple)) else [text(value)]


def is_cache(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is the folder of a cache from ``monai-cl cache``, or the ``cache.json`` in it."""
    return datalist_file(path).name == CACHE_FILE


def section_names(content: Mapping[str, Any]) -> list[str]:
    """Names of the sections of a datalist that hold something."""
    return [name for name, value in content.items() if value and _is_section(name, value)]


def datalist_file(path: str | os.PathLike[str]) -> Path:
    """The JSON file that ``path`` stands for: that in it, where it is the folder of a cache.

    Raises:
        ValueError: If the cache is not complete.
    """
    path = Path(path)
    if path.is_dir() and (path / "entries").is_dir() and not (path / CACHE_FILE).is_file():
        raise ValueError(
            f"the cache {path} is not complete; the `monai-cl cache` command that began it goes on with it"
        )
    return path / CACHE_FILE if (path / CACHE_FILE).is_file() else path


def beside_datalist(path: str | os.PathLike[str], ending: str) -> Path:
    """The place beside a datalist that is named after it.

    Args:
        path: The JSON file, or the folder of a cache.
        ending: Text that replaces the suffix.

    Example:
        >>> beside_datalist("a/study.json", ".curated.json").as_posix()
        'a/study.curated.json'
    """
    source = Path(path)
    if not source.name:  # as of "." and "", which are this folder
        source = source.absolute()
    return source.parent / f"{source.stem}{ending}"


def read_datalist(path: str | os.PathLike[str], *, hide_names: bool = True) -> dict[str, Any]:
    """The content of a datalist, without what could name a patient.

    A list of ``monai-cl scan`` or ``cache``, or one with ``"hide_names": false``, is returned as it is. In any other,
    paths of plain names stay, ids and pseudonyms take the place of the rest, see
    :func:`monai_cl.privacy.hand_made.without_names`.

    Args:
        path: The JSON file, or the folder of a cache.
        hide_names: Whether to do so; ``False`` gives the content as it is.

    Raises:
        FileNotFoundError: If no such file exists.
        ValueError: If it is not a JSON object.
    """
    path = datalist_file(path)
    if not path.is_file():
        name = "study.json" if path.is_dir() else path.name
        what = f"{path}, which is a folder" if path.is_dir() else str(path)
        raise FileNotFoundError(f"no such datalist: {what}; `monai-cl scan FOLDER --out {name}` writes one")
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}; repair it or scan the folder again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object of sections, got a {type(content).__name__}")
    return without_names(content, _is_section) if hide_names else content


def _is_section(name: str, value: Any) -> bool:
    # Decathlon lists test images as bare strings; a list of strings under another name may be anything.
    kinds = (dict, str) if name == "test" else (dict,)
    return isinstance(value, list) and all(isinstance(entry, kinds) for entry in value)


def _filled(content: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{name} ({len(value)})" for name, value in content.items() if _is_section(name, value))
        or "no sections"
    )


def split_sections(sections: str | Sequence[str]) -> list[str]:
    """Names of sections, joined by ``+`` or in a list.

    Example:
        >>> split_sections("training+unlabelled"), split_sections(["test"])
        (['training', 'unlabelled'], ['test'])
    """
    return sections.split("+") if isinstance(sections, str) else list(sections)


def _section_names(content: Mapping[str, Any], sections: str | Sequence[str], source: Path) -> list[str]:
    wanted = split_sections(sections)
    if not wanted:
        raise ValueError(f"sections must name at least one section, got {sections!r}; choose from {_filled(content)}")
    valid = [name for name, value in content.items() if _is_section(name, value)]
    if len(wanted) > 1 and "unlabelled" not in content:
        wanted = [name for name in wanted if name != "unlabelled"]
    wanted = [name if name in valid or keeps_names(content) else _hidden_section(name, valid) for name in wanted]
    for name in wanted:
        if name not in valid:
            hint = suggestion(name, valid, form="did you mean {!r}? ")
            raise ValueError(f"{source} has no section {name!r}; {hint}valid are: {_filled(content)}")
    return list(dict.fromkeys(wanted))


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
        key = os.path.normpath(_image_key(item))
        known = first.setdefault(key, item)
        one, other = (entry.get("label") for entry in (known, item))
        if with_labels and one and other and _normal(one) != _normal(other):
            raise ValueError(
                f"{source} lists one image with two labels, {_image_key(item)} with {'|'.join(_paths(one))} and "
                f"{'|'.join(_paths(other))}; keep one of them, or merge both into one file"
            )
        if other and not one:
            first[key] = item
    return list(first.values())


def _normal(value: Any) -> list[str]:
    return [os.path.normpath(path) for path in _paths(value)]


def _labelled(items: list[Item], labelled: bool | None, source: Path) -> list[Item]:
    if labelled is False:
        return [{key: value for key, value in item.items() if key != "label"} for item in items]
    bare = [_image_key(item) for item in items if not item.get("label")]
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
        name if how_often[name] == 1 else path if how_often_long[path] == 1 else _image_key(item)
        for name, path, item in zip(short, long, items, strict=True)
    ]


def _short(item: Item) -> str:
    """File stem, directory name of a series, or the directory of the files of a series."""
    image = item["image"]
    if isinstance(image, str):
        return "series" if image == "." else _bare(image)  # "." is a series that fills the data folder
    return os.path.basename(os.path.dirname(os.path.normpath(image[0]))) or _bare(image[0])


def _long(item: Item) -> str:
    first = os.path.normpath(_paths(item["image"])[0])
    return Path(os.path.dirname(first), _bare(first)).as_posix()


def _bare(path: str) -> str:
    """Name without the suffixes of a volume; other dots belong to the name, as in ``1.2.840`` or ``scan.v2``."""
    name = stem(os.path.normpath(path))
    start, suffix = os.path.splitext(name)
    return start if suffix.lower() in _VOLUME_SUFFIXES else name


def _hidden_section(name: str, valid: Sequence[str]) -> str:
    """Pseudonym of the name of a section of a list made by hand, where the list has it."""
    hidden = section_name(str(name), PlainNames(find_or_make_key))
    return hidden if hidden in valid else name


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
