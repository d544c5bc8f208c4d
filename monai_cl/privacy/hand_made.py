"""Datalists that were made by hand: what could name a patient in them is replaced where they are read."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from monai_cl.privacy.naming import PlainNames
from monai_cl.privacy.plain import is_plain_text, is_plain_value
from monai_cl.privacy.pseudonyms import KEY_VARIABLE, Key, find_or_make_key
from monai_cl.privacy.table import IdTable

logger = logging.getLogger(__name__)

KEPT_NAMES = "hide_names"  # a list with `false` under it keeps its names
FILE_KEYS = ("image", "label")  # keys of an item that hold paths
_NUMBERS = ("spacing", "shape", "slice_step", "slices_of", "weight", "group")  # of scan and curate
_HASHES = ("content", "fingerprint")
_USUAL = (
    *_NUMBERS,
    *_HASHES,
    "slices",
    "modality",
    "sequence",
    "body_part",
    "source",
    "position",
    "fold",
    "orientation",
)
_HEADER = (
    *("name", "description", "reference", "licence", "license", "release", "modality", "channel_names", "labels"),
    *("tensorImageSize", "numTraining", "numTest", "file_ending"),
)
_SOURCE = re.compile(r"[a-z]+\d{0,3}")  # a data set or site by a word in small letters, which settings refer to
_HEX = re.compile(r"[0-9a-f]{16,}")
_RUNS = re.compile(r"(\d{1,4}(-\d{1,4})?,)*\d{1,4}(-\d{1,4})?")
_OF_CURATE = "curation"
_CURATED = {  # what `monai-cl curate` writes under it, beside numbers
    *("method", "threshold", "dropped", "hash", "ssim", "mi", "embedding", "every-n", "unreadable", "exact duplicate"),
    *("near duplicate", "part of another volume", "patient is held out", "picture is held out"),
}
_CLASS = re.compile(r"[0-9]{1,5}")  # number of a class; a longer one may be a date, or the number of a patient
_FINGERPRINT = re.compile(r"[0-9a-f]{8}")
# terms that go with the data into records and reports
_LICENCE = re.compile(
    r"(CC0|CC[- ]BY([- ](NC|SA|ND))*|Apache|MIT|BSD|ODbL|ODC[- ]BY|PDDL|L?GPL|Public Domain)"
    r"([- ]?v?\d(\.\d)*)?( (International|Unported|Generic|Licen[cs]e))*",
    re.IGNORECASE,
)
HIDDEN_SECTION = "section-"  # begins what stands for the name of a section
_logged: set[tuple[str, ...]] = set()


def is_made_here(content: Mapping[str, Any]) -> bool:
    """Return whether a scan or a cache made a list."""
    return bool(_FINGERPRINT.fullmatch(str(content.get("key")))) or isinstance(content.get("cache"), Mapping)


def keeps_names(content: Mapping[str, Any]) -> bool:
    """Return whether names are kept: a scan or a cache made the list, or its owner asks for it in the list."""
    return is_made_here(content) or content.get(KEPT_NAMES) is False


def without_names(content: Mapping[str, Any], is_section: Callable[[str, Any], bool]) -> dict[str, Any]:
    """The content of a datalist with ids and pseudonyms in the place of what is not plain.

    Paths of plain names such as ``imagesTr/hippocampus_001.nii.gz`` stay, and so does all else that is plain. Fields
    and texts that are not are left out, names of classes become ``class N``, and the log reports how many. The file of
    each id is noted in the table beside the key, which is made if none exists.

    Args:
        content: The JSON object.
        is_section: Whether a value of it is a list of items.

    Returns:
        The content, with the fingerprint of the key as ``"key"`` where ids are in it.

    Raises:
        OSError: If ids are needed, and key or table can be neither read nor written.
    """
    if keeps_names(content):
        return dict(content)
    names, lost = PlainNames(_key), Counter[str]()
    hidden: dict[str, Any] = {}
    for name, value in content.items():
        if is_section(name, value) and value:
            hidden[section_name(name, names)] = [_entry(entry, names, lost) for entry in value]
        elif name == "labels" and isinstance(value, Mapping):
            hidden[name] = class_names(value, lost)
        elif (name == _OF_CURATE and _is_of_curate(value)) or _is_licence(name, value) or _is_plain_header(name, value):
            hidden[name] = value
        else:
            lost["texts"] += 1
    _log_hidden(lost)
    if names.files:
        hidden["key"] = names.key.fingerprint
        IdTable().add(names.files)
    return hidden


def section_name(name: str, names: PlainNames) -> str:
    """The name of a section, or what stands for it."""
    return name if is_plain_text(name) else f"{HIDDEN_SECTION}{names.key.digest('section', name, length=8)}"


def class_names(labels: Mapping[str, Any], lost: Counter[str]) -> dict[str, str]:
    """Names of classes by number; ``class N`` where one might name somebody."""
    names = {}
    for number, name in labels.items():
        if not _CLASS.fullmatch(str(number)):
            lost["class names"] += 1
            continue
        plain = is_plain_text(str(name))
        names[str(number)] = str(name) if plain else f"class {number}"
        lost["class names"] += not plain
    return names


def plain_fields(item: Mapping[str, Any], lost: Counter[str]) -> dict[str, Any]:
    """The fields of an item that plainly name nobody."""
    kept = {}
    for name, value in item.items():
        if (name in _USUAL or is_plain_text(name)) and (_is_ours(name, value) or is_plain_value(value)):
            kept[name] = value
        else:
            lost["field values"] += 1
    return kept


def _entry(entry: Any, names: PlainNames, lost: Counter[str]) -> Any:
    if isinstance(entry, str):
        return names.path(entry)
    hidden: dict[str, Any] = {}
    for name in FILE_KEYS:
        value = entry.get(name)
        if isinstance(value, str) and value:
            hidden[name] = names.path(value)
        elif name in entry:
            hidden[name] = _paths(value, names, lost)
    if entry.get("subject") is not None:
        hidden["subject"] = names.subject(entry["subject"])
    return hidden | plain_fields({k: v for k, v in entry.items() if k not in (*FILE_KEYS, "subject")}, lost)


def _paths(value: Any, names: PlainNames, lost: Counter[str]) -> Any:
    """Paths of a list as they may be shown; what stands in the place of one is refused later, by a message with it."""
    if isinstance(value, list):
        return [_paths(part, names, lost) for part in value]
    if isinstance(value, str):
        return names.path(value) if value else value
    if is_plain_value(value):
        return value
    lost["field values"] += 1
    return None


def _is_of_curate(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(name in _CURATED and _is_of_curate(one) for name, one in value.items())
    return value in _CURATED if isinstance(value, str) else isinstance(value, (int, float)) and is_plain_value(value)


def _is_plain_header(name: str, value: Any) -> bool:
    return (name in _HEADER or is_plain_text(name)) and is_plain_value(value)


def _is_licence(name: str, value: Any) -> bool:
    return name in ("licence", "license") and isinstance(value, str) and bool(_LICENCE.fullmatch(value.strip()))


def _is_ours(name: str, value: Any) -> bool:
    """Return whether scan or curate write such a value under this name, though it looks like a number or a text."""
    if name == "source":
        return isinstance(value, str) and bool(_SOURCE.fullmatch(value))
    if name in _HASHES:
        return isinstance(value, str) and bool(_HEX.fullmatch(value))
    if name == "slices":
        return isinstance(value, str) and bool(_RUNS.fullmatch(value))
    return name in _NUMBERS and _are_numbers(value)


def _are_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_are_numbers, value))
    return isinstance(value, (int, float)) and abs(value) < 100_000


def _key() -> Key:
    try:
        return find_or_make_key()
    except OSError as error:
        raise OSError(
            "the list holds names that might be those of patients, and the key that hides them can be neither read nor "
            f'made: {error.strerror}; set {KEY_VARIABLE} to a file that can be written, or add `"{KEPT_NAMES}": false` '
            "to a list that names nobody"
        ) from error


def _log_hidden(lost: Counter[str]) -> None:
    counts = tuple(f"{count} {what}" for what, count in sorted(lost.items()) if count)
    if counts and counts not in _logged:  # a run reads its list many times
        _logged.add(counts)
        logger.warning(
            "%s of the datalist were left out or replaced, for they might name somebody; if they do not, add "
            '`"%s": false` to it',
            " and ".join(counts), KEPT_NAMES,
        )  # fmt: skip
