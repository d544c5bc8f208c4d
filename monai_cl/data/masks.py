"""Where masks of scans go, and whose they are: known to the user of this machine, and not to who gets the masks."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.data import FolderLayoutBase

from monai_cl.data.intake.pseudonyms import key_path

REGISTER = "masks.csv"
_COLUMNS = ("mask", "scan")


class MaskFiles(FolderLayoutBase):
    """Names of masks after the ``"place"`` of each scan, for :class:`monai.transforms.SaveImaged` as ``folder_layout``.

    A mask is ``OUTPUT_DIR/PLACE_POSTFIX.EXTENSION``. With ``hide_names`` each mask and its scan are noted in
    ``masks.csv`` beside the key of pseudonyms, which only this user can read: :func:`scans_of` looks there.

    Args:
        data: Items as from :func:`monai_cl.data.find_images`.
        output_dir: Folder of the masks.
        postfix: End of each name.
        extension: Suffix of each name.
        hide_names: Whether the places hide names, so that it must be noted which mask is whose.
    """

    def __init__(
        self,
        data: Iterable[Mapping[str, Any]],
        output_dir: str | os.PathLike[str],
        *,
        postfix: str = "seg",
        extension: str = ".nii.gz",
        hide_names: bool = True,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.postfix, self.extension = postfix, extension
        self._note = hide_names
        self._noted: dict[str, str] | None = None
        self._places: dict[str, str] = {}
        for item in data:
            image = item["image"]
            for file in image if isinstance(image, list) else [image]:
                self._places[_real(file)] = str(item["place"])

    def filename(self, subject: str | os.PathLike[str], idx: Any = None, **_: Any) -> str:
        """The file for the mask of a scan; its folder is made.

        Args:
            subject: The scan, as the metadata of its volume name it (``filename_or_obj``).
            idx: Number of a patch, as MONAI passes it on.

        Raises:
            ValueError: If it is none of the items.
        """
        place = self._places.get(_real(subject))
        if place is None:
            raise ValueError(
                "a mask must be of one of the items that were looked for, this one is not; "
                "keep `filename_or_obj` in the metadata of the volumes"
            )
        number = "" if idx is None else f"_{idx}"
        path = self.output_dir / f"{place}_{self.postfix}{number}{self.extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._note:
            self._enter(str(path.absolute()), _real(subject))
        return str(path)

    def _enter(self, mask: str, scan: str) -> None:
        """Note a mask once, with one write, for other runs may add theirs at the same time."""
        if self._noted is None:
            self._noted = dict(_read())
        if self._noted.get(mask) != scan:
            _append(mask, scan)
            self._noted[mask] = scan


def scans_of(masks: str | os.PathLike[str]) -> dict[str, str]:
    """Which scan each mask is of, as noted when it was made.

    Args:
        masks: A mask or a folder of masks. Masks that were moved are told by their names, if these tell them.

    Returns:
        Scans by mask.

    Raises:
        FileNotFoundError: If there is nothing at ``masks``, or no mask is on record on this machine.
    """
    source = Path(masks)
    if not source.exists():
        raise FileNotFoundError(f"no mask or folder of masks at {source}")
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    noted = dict(_read())  # the last note of a file counts
    by_name: dict[str, set[str]] = {}
    for mask, scan in noted.items():
        by_name.setdefault(os.path.basename(mask), set()).add(scan)
    found = {}
    for file in files:
        where = str(file.absolute())
        candidates = {noted[where]} if where in noted else by_name.get(file.name, set())
        if len(candidates) == 1:
            (found[str(file)],) = candidates
    if not found:
        raise FileNotFoundError(
            f"none of the {len(files)} files at {source} is on record; only the user who made masks has their record"
        )
    return found


def _register() -> Path:
    return key_path().with_name(REGISTER)


def _read() -> list[tuple[str, str]]:
    try:
        with open(_register(), encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return [(row["mask"], row["scan"]) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        return []


def _append(mask: str, scan: str) -> None:
    place = _register()
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if stream.tell() == 0:
            writer.writerow(_COLUMNS)
        writer.writerow((mask, scan))


def _real(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(path)))
