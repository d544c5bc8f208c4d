"""The JSON file of a datalist: its place, also in the folder of a cache, and its content without names of patients."""

import os
from pathlib import Path
from typing import Any

from monai_cl._files import read_json
from monai_cl.datalist.sections import is_section, labels_by_number
from monai_cl.privacy.hand_made import FILE_KEYS, is_made_here, without_names

CACHE_FILE = "cache.json"  # what `monai-cl cache` writes: a datalist of prepared volumes


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
    if not is_made_here(content):
        content = {
            name: [_with_slashes(entry, path.parent) for entry in value] if is_section(name, value) else value
            for name, value in content.items()
        }
        if "labels" in content:
            content["labels"] = labels_by_number(content["labels"])
    return without_names(content, is_section) if hide_names else content


def with_slashes(path: str, folder: Path) -> str:
    r"""A path of a list that was made on Windows with ``/`` for ``\``, unless a file of the name exists.

    Args:
        path: The path as listed.
        folder: Folder that it starts from.
    """
    return path.replace("\\", "/") if "\\" in path and not (folder / path).exists() else path


def _with_slashes(entry: Any, folder: Path) -> Any:
    if isinstance(entry, str):
        return with_slashes(entry, folder)
    if isinstance(entry, list):
        return [_with_slashes(part, folder) for part in entry]
    if isinstance(entry, dict):
        return entry | {key: _with_slashes(entry[key], folder) for key in FILE_KEYS if key in entry}
    return entry


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


def is_cache(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is the folder of a cache from ``monai-cl cache``, or the ``cache.json`` in it."""
    return datalist_file(path).name == CACHE_FILE


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
