"""Look up the file of an id, and the scan of a mask, for the user of this machine, who has key and table."""

import os
from pathlib import Path

from monai_cl.privacy.ids import tokens_in
from monai_cl.privacy.mask_record import masks_at, scans_of
from monai_cl.privacy.table import IdTable

UNKNOWN = "not on record"
_TEXTS = (".json", ".csv", ".html", ".htm", ".txt", ".log", ".yaml", ".yml", ".md", ".jsonl", ".tsv", ".ipynb")


def look_up(what: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Files behind the ids of a text, or scans of masks.

    Args:
        what: An id; a list, table, page or log that holds ids, such as ``study.json`` or ``study.left_out.csv``; a
            mask, or a folder of masks.

    Returns:
        Pairs of id and path, relative to the folder of the data unless the list had it absolute, with one pair for each
        file of a series; or pairs of mask and scan. Unknown ids give ``"not on record"``.

    Raises:
        FileNotFoundError: If the file, the table, or the mask on record does not exist.
        ValueError: If a text holds no id.
    """
    place = Path(what)
    if place.is_file() and place.name.lower().endswith(_TEXTS):
        return _behind(place.read_text(encoding="utf-8", errors="replace"), str(place))
    if not place.exists() and tokens_in(os.fspath(what)):
        return _behind(os.fspath(what), os.fspath(what))
    known = scans_of(place)
    return [(str(mask), known.get(str(mask), UNKNOWN)) for mask in masks_at(place)]


def _behind(text: str, name: str) -> list[tuple[str, str]]:
    tokens = tokens_in(text)
    if not tokens:
        raise ValueError(
            f"{name} must hold ids, such as those of `monai-cl scan`, it holds none; its paths are as given"
        )
    files = IdTable().find(tokens)
    return [(token, path) for token in tokens for path in files.get(token, [UNKNOWN])]
