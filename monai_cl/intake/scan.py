"""Scanning folders of DICOM, NIfTI and NRRD: a datalist of what can be used, and why the rest cannot.

Headers are read, in parallel, and the middle slice of each kept volume for its picture. Nothing in the folders is
changed; what is written names files, but no patient.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from monai_cl._files import atomic_write, read_json
from monai_cl.intake._assembly import Known, assemble
from monai_cl.intake._concealment import Concealer
from monai_cl.intake._findings import Findings
from monai_cl.intake._headers import Files, read_files
from monai_cl.intake._left_out import write_left_out
from monai_cl.intake._masks import without_masks
from monai_cl.intake._middle_slice import look_at
from monai_cl.intake._naming import HideNames, ScanNames
from monai_cl.intake._slice_store import SliceStore
from monai_cl.intake._walk import walk
from monai_cl.intake.decathlon import (
    DATASET_JSON,
    Claim,
    declared_claims,
    layout_claims,
    listed_sections,
    read_dataset_json,
    without_sections,
)
from monai_cl.intake.dicom import Series, find_series
from monai_cl.intake.scan_result import ScanResult
from monai_cl.privacy.hand_made import KEPT_NAMES
from monai_cl.privacy.pseudonyms import Key, find_or_make_key
from monai_cl.privacy.table import IdTable

__all__ = ["ScanResult", "scan"]

_SECTIONS = ("training", "validation", "test", "unlabelled")
_CARRIED_OVER = ("description", "reference", "licence", "license", "tensorImageSize")


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
    r"""Write a datalist of the usable volumes below some folders, and a table of what was left out.

    Recognised are Decathlon folders (with ``dataset.json``, else ``imagesTr``/``labelsTr`` and the like, paired by
    name), any other NIfTI, NRRD and MetaImage files, and DICOM series of CT or MR under any file names, enhanced
    multi-frame ones among them. The datalist names every file by an id, made of the key and the path relative to the
    folder (to what several folders have in common), and holds no date, so the same folder and key give the same bytes.
    Beside it, ``<out stem>.left_out.csv`` has a row for each series, or file of no series, that was left out. Which
    file an id stands for is noted in a table beside the key, where :func:`monai_cl.datalist.load_datalist` and
    ``monai-cl whose`` look it up.

    Every item tells its ``subject`` (a pseudonym: for DICOM the HMAC of the patient's identity under ``key``),
    ``modality``, ``sequence``, ``body_part``, ``spacing`` in mm and ``shape``. Of a ``dataset.json`` is kept what
    plainly names nobody: words of imaging and anatomy, short numbers; a note counts the rest.

    Args:
        folders: Folder or folders to look through, with their subfolders; hidden files are passed over.
        out: The ``.json`` file to write; its folder is created.
        name: Name of the data set; by default that of its ``dataset.json``, else that of the folder.
        keep_derived: Whether to keep DICOM series whose ImageType says ``DERIVED``, and secondary captures with the
            geometry of a series.
        keep_tilted: Whether to keep series of a tilted gantry; their affine is sheared.
        stack_series: Whether to keep, as one volume, slices that have a series identifier each but are alike in all
            else and lie evenly behind each other.
        key: Key of the ids or the file that holds it, made where there is none; by default one for all studies of this
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
    target = Path(out)
    _check_target(source, target)
    table = IdTable(None if isinstance(key, Key) else key)
    key = key if isinstance(key, Key) else find_or_make_key(key, outside=source)
    exclusions = target.with_name(f"{target.stem}.left_out.csv")
    concealer = Concealer()
    names = ScanNames(key, hide_names, concealer)
    findings = Findings()
    store = SliceStore(findings)
    try:
        mine = {path.absolute() for path in (target, exclusions, target.with_suffix(".html"))}
        paths = (path for path in walk(source, starts, _reporter(findings)) if (source / path).absolute() not in mine)
        files = read_files(source, paths, store, concealer, findings, workers=workers, console=console)
        listings = {path: names.listing(path) for path in files.listings}
        if hide_names:
            table.add(names.files)  # an error may name them
        contents = {
            os.path.dirname(path) or ".": read_dataset_json(source / path, shown) for path, shown in listings.items()
        }
        series, dicom = find_series(
            store, keep_derived=keep_derived, keep_tilted=keep_tilted, stack_series=stack_series
        )
    finally:
        store.close()
    findings.merge(dicom)
    claims = _claims(source, contents, files, findings, workers)
    assemble(claims, Known(files.grids, files.unusable, series, key), findings)
    looks = look_at(source, findings, workers=workers, console=console) if pictures else {}
    header = _header(source, name, contents, series, key, names)
    result = _result(source, target, exclusions, findings, files.other, names, looks)
    if hide_names:
        table.add(names.files)  # before the list: nothing is written that cannot be looked up
    target.parent.mkdir(parents=True, exist_ok=True)
    write_left_out(exclusions, result.left_out)
    if not any(result.counts.values()):
        raise ValueError(_nothing(result))
    _write_datalist(target, header if hide_names else header | {KEPT_NAMES: False}, result)
    return result


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


def _reporter(findings: Findings) -> Any:
    return lambda path, reason, detail: findings.leave_out([path], reason, detail)


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


def _claims(
    folder: Path,
    contents: Mapping[str, Mapping[str, Any]],
    files: Files,
    findings: Findings,
    workers: int | None,
) -> list[Claim]:
    """Pair images and labels: by each ``dataset.json`` that lists images, by name where there is none above a file."""
    listing = {root: content for root, content in contents.items() if listed_sections(content)}
    claims = [claim for root in sorted(listing) for claim in declared_claims(root, listing[root], folder, findings)]
    named = {path for claim in claims for path in (claim.image, claim.label) if isinstance(path, str)}
    by_name = []
    for path in sorted(files.grids):
        if path in named:
            continue
        if any(root == "." or path.startswith(f"{root}/") for root in listing):
            findings.leave_out([path], "not named in dataset.json", "add it there, or remove that file to pair by name")
        else:
            by_name.append(path)
    paired = layout_claims(by_name, findings)
    return claims + without_masks(paired, files.grids, folder, findings, workers=workers)


def _result(
    folder: Path,
    out: Path,
    exclusions: Path,
    findings: Findings,
    other_files: int,
    names: ScanNames,
    looks: Mapping[str, Any],
) -> ScanResult:
    order = [*_SECTIONS, *(section for section in findings.sections if section not in _SECTIONS)]
    items = names.items({section: findings.sections.get(section, []) for section in order})
    return ScanResult(
        folder=folder,
        datalist=out,
        exclusions=exclusions,
        sections=items,
        left_out=names.left_out(findings.left_out),
        notes=names.notes(findings),
        other_files=other_files,
        shown_folder=names.folder(folder.as_posix()),
        pictures={names.path(path): look.png for path, look in looks.items()},
    )


def _header(
    folder: Path,
    name: str | None,
    contents: Mapping[str, Mapping[str, Any]],
    series: Sequence[Series],
    key: Key,
    names: ScanNames,
) -> dict[str, Any]:
    """Name, modality and labels, from the ``dataset.json`` files where these agree."""
    contents = {root: without_sections(content) for root, content in contents.items()}
    own = contents.get(".", {})
    header: dict[str, Any] = {"name": name or names.name(own.get("name"), folder.resolve().name)}
    header |= {carried: kept for carried in _CARRIED_OVER if (kept := names.value(own.get(carried))) is not None}
    modalities = sorted({one.modality for one in series})
    named = _agreed([content.get("modality", content.get("channel_names")) for content in contents.values()])
    header["modality"] = names.value(named) or ({"0": ", ".join(modalities)} if modalities else {})
    labels = _agreed([content.get("labels") for content in contents.values()])
    if isinstance(labels, dict):
        header["labels"] = names.labels(_by_number(labels))
    header["key"] = key.fingerprint
    return header


def _agreed(values: Sequence[Any]) -> Any:
    """The value that all share; ``None`` where they differ."""
    present = [value for value in values if value]
    return present[0] if present and all(value == present[0] for value in present) else None


def _by_number(labels: dict[str, Any]) -> dict[str, Any]:
    """Decathlon writes number to name; nnU-Net writes name to number, which is turned round."""
    if labels and all(isinstance(value, int) for value in labels.values()):
        return {str(value): key for key, value in labels.items()}
    return labels


def _write_datalist(out: Path, header: Mapping[str, Any], result: ScanResult) -> None:
    content = {**header, **result.sections, "left_out": result.reasons}
    if result.notes:
        content["notes"] = {text: len(paths) for text, paths in result.notes.items()}
    with atomic_write(out) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        # what no encoding has, as bytes of a file name that is not UTF-8, becomes an escape of JSON
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def _nothing(result: ScanResult) -> str:
    if not result.left_out:
        return (
            f"no NIfTI or DICOM files below {result.shown_folder} ({result.other_files} other files); "
            "scan a folder that holds some"
        )
    reasons = ", ".join(f"{count} {reason}" for reason, count in result.reasons.items())
    return f"nothing usable below {result.shown_folder}: {reasons}; {result.exclusions} names each"
