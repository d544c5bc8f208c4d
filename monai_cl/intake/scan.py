"""Scanning folders of DICOM, NIfTI and NRRD: a datalist of what can be used, and why the rest cannot.

Headers are read, in parallel, and the middle slice of each kept volume for its picture. Nothing in the folders is
changed; what is written names files, but no patient.

Recognised are Decathlon folders (with ``dataset.json``, else ``imagesTr``/``labelsTr`` and the like, paired by name),
any other NIfTI, NRRD and MetaImage files, and DICOM series of CT or MR under any file names, enhanced multi-frame ones
among them. The datalist names every file by an id, made of the key and the path relative to the folder (to what several
folders have in common), and holds no date, so the same folder and key give the same bytes. Beside it,
``<out stem>.left_out.csv`` has a row for each series, or file of no series, that was left out. Which file an id stands
for is noted in a table beside the key, where :func:`monai_cl.datalist.load_datalist` and ``monai-cl whose`` look it up.

Every item holds its ``subject`` (a pseudonym: for DICOM the HMAC of the patient's identity under ``key``),
``modality``, ``sequence``, ``body_part``, ``spacing`` in mm and ``shape``. Of a ``dataset.json`` is kept what plainly
names nobody: words of imaging and anatomy, short numbers; a note counts the rest.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from monai_cl._files import read_json
from monai_cl.intake._naming import HideNames
from monai_cl.intake._steps import Steps
from monai_cl.intake.decathlon import DATASET_JSON
from monai_cl.intake.scan_result import ScanResult
from monai_cl.privacy.pseudonyms import Key

__all__ = ["ScanResult", "scan"]


def scan(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    keep_derived: bool = False,
    keep_tilted: bool = False,
    stack_series: bool = False,
    key: Key | str | os.PathLike[str] | None = None,
    hide_names: HideNames = True,
    pictures: bool = False,
    workers: int | None = None,
    console: Console | None = None,
) -> ScanResult:
    """Write a datalist of the usable volumes below some folders, and a table of what was left out.

    Args:
        folders: Folder or folders to look through, with their subfolders; hidden files are passed over, and a file
            that has further names by links is listed once.
        out: The ``.json`` file to write; its folder is created.
        name: Name of the data set; by default that of its ``dataset.json``, else that of the folder.
        keep_derived: Whether to keep DICOM series whose ImageType is ``DERIVED``, and secondary captures with the
            geometry of a series.
        keep_tilted: Whether to keep series of a tilted gantry; their affine is sheared.
        stack_series: Whether to keep, as one volume, slices that have a series identifier each but are alike in all
            else and lie evenly behind each other.
        key: Key of the ids or the file that holds it, made if none exists; by default one for all studies of this
            user, see :func:`monai_cl.privacy.pseudonyms.key_path`. The table lies beside the file.
        hide_names: Whether to name files by ids; ``"strict"`` leaves names of nothing but words of imaging and short
            numbers as they are, ``False`` leaves all.
        pictures: Whether to read the middle slice of each kept volume, for its thumbnail and to check its values.
        workers: Number of reading threads; by default twice the number of processors, at most 16.
        console: Where to show progress; ``None`` shows none.

    Returns:
        Counts, items, and what was left out.

    Raises:
        FileNotFoundError: If a folder does not exist.
        NotADirectoryError: If a folder is a file.
        ValueError: If nothing usable is found, a ``dataset.json`` is damaged, ``out`` would overwrite another file, or
            the key is damaged or lies in a scanned folder.
    """
    given = [folders] if isinstance(folders, (str, os.PathLike)) else list(folders)
    source, starts = _common_folder([Path(folder) for folder in given])
    _check_target(source, Path(out))
    steps = Steps(source, Path(out), key, hide_names, workers=workers, console=console)
    steps.read(starts, keep_derived=keep_derived, keep_tilted=keep_tilted, stack_series=stack_series)
    steps.pair()
    if pictures:
        steps.look()
    return steps.write(name)


def _common_folder(folders: Sequence[Path]) -> tuple[Path, list[str]]:
    """The folder that paths are relative to, and where to start below it."""
    if not folders:
        raise ValueError("give at least one folder to scan")
    for folder in folders:
        if not folder.exists():
            raise FileNotFoundError(f"no such folder: {folder}")
        if not folder.is_dir():
            raise NotADirectoryError(f"expected a folder to scan, got the file {folder}; give the folder that holds it")
    if len(folders) == 1:
        return folders[0], ["."]
    base = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    return base, sorted({folder.absolute().relative_to(base).as_posix() for folder in folders})


def _check_target(folder: Path, out: Path) -> None:
    """Refuse to overwrite anything that a scan has not written."""
    if out.suffix != ".json":
        raise ValueError(f"out must be a .json file, got {out}")
    if out.is_dir():
        raise ValueError(f"out must be a file, but {out} is a folder; give a file in it")
    if out.exists():
        try:
            ours = "left_out" in read_json(out)
        except (OSError, ValueError, TypeError):
            ours = False
        if not ours or out.resolve() == (folder / DATASET_JSON).resolve():
            raise ValueError(f"{out} exists and is not the datalist of a scan; choose another name or remove it")
    elif out.name == DATASET_JSON and out.parent.resolve() == folder.resolve():
        raise ValueError(f"{DATASET_JSON} in the scanned folder is an input of the next scan; choose another name")
