"""Files behind the ids of a datalist, looked up in the table beside the key; items keep their ids."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl.privacy.hand_made import FILE_KEYS, KEPT_NAMES
from monai_cl.privacy.hidden_paths import Finder, HiddenPath, has_alias
from monai_cl.privacy.ids import split_id, tokens_of
from monai_cl.privacy.pseudonyms import KEY_VARIABLE, Key, read_key
from monai_cl.privacy.table import IdTable

_Item = dict[str, Any]


def with_real_files(items: Sequence[_Item], folder: Path, content: Mapping[str, Any]) -> list[_Item]:
    """Resolve the paths of items: files in the place of ids, absolute, each a :class:`HiddenPath` to the list's words.

    Args:
        items: Items as the list has them.
        folder: Folder that relative paths start from.
        content: The list, which may name the key of its ids.

    Raises:
        FileNotFoundError: If the key or the table is absent, or an id is not in it.
        ValueError: If the ids are of another key.
    """
    result = _located(items, folder, content)
    return [_resolve(real, folder, item) for real, item in zip(result, items, strict=True)]


def _located(items: Sequence[_Item], folder: Path, content: Mapping[str, Any]) -> Sequence[_Item]:
    """Items with the names of files in the place of ids, and of the hashes that version 0.1.0 wrote."""
    values = [item[name] for item in items for name in FILE_KEYS if item.get(name)]
    paths = [path for value in values for path in (value if isinstance(value, list) else [str(value)])]
    tokens = tokens_of(paths) if "key" in content and content.get(KEPT_NAMES) is not False else []
    if not tokens and not any(map(has_alias, paths)):
        return items
    find = Finder(folder, _key_of(content))
    files = _files_of(tokens)

    def real(path: str) -> str | list[str]:
        if not tokens or (result := split_id(path)) is None:
            return find(path)
        listed = [os.path.join(file, result[1]) if result[1] else file for file in files[result[0]]]
        return listed[0] if len(listed) == 1 else listed

    def real_ones(value: Any) -> Any:
        return [real(path) for path in value] if isinstance(value, list) else real(value)

    return [{**item, **{name: real_ones(item[name]) for name in FILE_KEYS if item.get(name)}} for item in items]


def _key_of(content: Mapping[str, Any]) -> Key:
    key = read_key()
    if content.get("key", key.fingerprint) != key.fingerprint:
        raise ValueError(
            f"the study was scanned with the key of fingerprint {content['key']}, this one is {key.fingerprint}; "
            f"set {KEY_VARIABLE} to the file of the other key"
        )
    return key


def _files_of(tokens: Sequence[str]) -> dict[str, list[str]]:
    if not tokens:
        return {}
    table = IdTable()
    files = table.find(tokens)
    unknown = [token for token in tokens if token not in files]
    if unknown:
        raise FileNotFoundError(
            f"{len(unknown)} of {len(tokens)} ids are not in {table.path.name}, such as {', '.join(unknown[:3])}; copy "
            "the table from where the study was scanned to beside the key, or scan the study again with this key"
        )
    return files


def _resolve(item: _Item, folder: Path, listed: _Item) -> _Item:
    """Item with absolute paths, its ids kept."""

    def resolved_path(path: str, shown: str) -> str:
        absolute = os.path.normpath(folder / path)
        return absolute if os.path.isabs(shown) else HiddenPath(absolute, shown)

    resolved = dict(item)
    for key in FILE_KEYS:
        value, shown = item.get(key), listed.get(key)
        if isinstance(value, list):
            names = shown if isinstance(shown, list) else [str(shown)] * len(value)  # one id for the files of a series
            resolved[key] = [resolved_path(*pair) for pair in zip(value, names, strict=True)]
        elif value is not None:
            resolved[key] = resolved_path(value, str(shown))
    return resolved
