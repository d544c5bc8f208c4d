"""Scanning a folder of DICOM and NIfTI: a datalist of what can be used, and why the rest cannot.

Only headers are read, in parallel. Nothing in the folder is changed; what is written names files, but no patient.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shlex
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from monai_cl._files import atomic_write
from monai_cl.data._assembly import Known, assemble
from monai_cl.data._findings import Findings, Grid, Item, LeftOut
from monai_cl.data.decathlon import (
    DATASET_JSON,
    Claim,
    declared_claims,
    layout_claims,
    listed_sections,
    read_dataset_json,
)
from monai_cl.data.dicom import Series, find_series
from monai_cl.data.nifti import is_nifti, read_grid
from monai_cl.transforms._dicom import SliceHeader, UnusableImageError, is_dicom, read_slice_header

_SECTIONS = ("training", "validation", "test", "unlabelled")
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_OTHER_VOLUMES = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mnc", ".hdr", ".img", ".img.gz")
_CARRIED_OVER = ("description", "reference", "licence", "license", "tensorImageSize")


@dataclass(frozen=True)
class ScanResult:
    """What a scan found.

    Args:
        folder: The scanned folder.
        datalist: The written datalist.
        exclusions: The written list of what was left out.
        sections: Items by section.
        left_out: What does not enter the datalist, with the reason.
        notes: What is worth a look, with the paths concerned.
        other_files: Number of files that are no volumes (texts, pictures, tables).
    """

    folder: Path
    datalist: Path
    exclusions: Path
    sections: Mapping[str, Sequence[Item]]
    left_out: Sequence[LeftOut]
    notes: Mapping[str, Sequence[str]]
    other_files: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of items by section."""
        return {section: len(items) for section, items in self.sections.items()}

    @property
    def reasons(self) -> dict[str, int]:
        """How many images, labels or series were left out, by reason."""
        return dict(sorted(Counter(entry.reason for entry in self.left_out).items()))

    @property
    def next_command(self) -> str:
        """Commands that copy a bundle and pretrain on the datalist."""
        bundle = "my_bundle"
        copy = f"monai-cl bundles copy volume_contrast {bundle}"
        words = ["python", "-m", "monai.bundle", "run", "--bundle_root", bundle]
        words += ["--config_file", f"{bundle}/configs/pretrain.yaml"]
        words += ["--dataset_dir", str(self.folder), "--datalist", str(self.datalist)]
        return f"{copy}\n{shlex.join(words)} --recipe NAME  # one of `monai-cl recipes`"

    def table(self) -> Table:
        """The counts as a table for the terminal."""
        table = Table(title=f"Scan of {escape(str(self.folder))}", title_justify="left")
        table.add_column("what")
        table.add_column("count", justify="right")
        table.add_column("which", overflow="fold")
        for section, items in self.sections.items():
            subjects = len({str(item["subject"]) for item in items})
            table.add_row(escape(section), str(len(items)), f"{subjects} subject{'s'[: subjects > 1]}" if items else "")
        table.add_section()
        for reason, count in self.reasons.items():
            paths = [path for entry in self.left_out if entry.reason == reason for path in entry.paths]
            table.add_row(f"[yellow]left out: {escape(reason)}[/]", str(count), escape(_some(paths)))
        for text, paths_noted in self.notes.items():
            table.add_row(f"note: {escape(text)}", str(len(paths_noted)), escape(_some(paths_noted)))
        if self.other_files:
            table.add_row("other files, passed over", str(self.other_files), "")
        return table


def scan(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    keep_derived: bool = False,
    workers: int | None = None,
    console: Console | None = None,
) -> ScanResult:
    r"""Write a datalist of the usable volumes below a folder, and a table of what was left out.

    Recognised are Decathlon folders (with ``dataset.json``, else ``imagesTr``/``labelsTr`` and the like, paired by
    name), any other NIfTI files, and DICOM series of CT or MR under any file names. The datalist holds paths relative
    to ``folder`` and no date, so the same folder gives the same bytes. Beside it, ``<out stem>.left_out.csv`` names
    each file left out.

    Args:
        folder: Folder to look through, with its subfolders; hidden files are passed over.
        out: The ``.json`` file to write; its folder is created.
        name: Name of the data set; by default that of its ``dataset.json``, else that of the folder.
        keep_derived: Whether to keep DICOM series marked ``DERIVED\SECONDARY``.
        workers: Number of reading threads; by default twice the number of processors, at most 16.
        console: Where to show progress; ``None`` shows none.

    Returns:
        Counts, items, and what was left out.

    Raises:
        FileNotFoundError: If ``folder`` does not exist.
        NotADirectoryError: If ``folder`` is a file.
        ValueError: If nothing usable is found, a ``dataset.json`` is damaged, or ``out`` would overwrite another file.
    """
    source, target = Path(folder), Path(out)
    _check_folder(source)
    _check_target(source, target)
    exclusions = target.with_name(f"{target.stem}.left_out.csv")
    findings = Findings()
    paths = [path for path in _walk(source, findings) if not _is_output(source / path, target, exclusions)]
    contents = {
        os.path.dirname(path) or ".": read_dataset_json(source / path)
        for path in paths
        if os.path.basename(path) == DATASET_JSON
    }
    files = _inspect_all(source, paths, findings, workers, console)
    series, dicom = find_series(files.slices, damaged=files.damaged, keep_derived=keep_derived)
    _merge(findings, dicom)
    claims = _claims(source, contents, files, findings)
    assemble(claims, Known(files.grids, files.unusable, series), findings)
    result = _result(source, target, exclusions, findings, files.other)
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_exclusions(exclusions, result.left_out)
    if not any(result.counts.values()):
        raise ValueError(_nothing(source, result))
    _write_datalist(target, _header(source, name, contents, series), result)
    return result


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise FileNotFoundError(f"no such folder: {folder}")
    if not folder.is_dir():
        raise NotADirectoryError(f"expected a folder to scan, got the file {folder}; give the folder that holds it")


def _check_target(folder: Path, out: Path) -> None:
    """Refuse to overwrite anything that a scan has not written."""
    if out.suffix != ".json":
        raise ValueError(f"out must be a .json file, got {out}")
    if out.is_dir():
        raise ValueError(f"out must be a file, but {out} is a folder; give a file in it")
    if out.exists():
        try:
            ours = "left_out" in json.loads(out.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            ours = False
        if not ours or out.resolve() == (folder / DATASET_JSON).resolve():
            raise ValueError(f"{out} exists and is not the datalist of a scan; choose another name or remove it")
    elif out.name == DATASET_JSON and out.parent.resolve() == folder.resolve():
        raise ValueError(f"{DATASET_JSON} in the scanned folder is an input of the next scan; choose another name")


def _is_output(path: Path, *outputs: Path) -> bool:
    return any(path.name == output.name and path.absolute() == output.absolute() for output in outputs)


def _walk(folder: Path, findings: Findings) -> list[str]:
    """All files but hidden ones, sorted, relative to the folder; links are followed, loops are not."""
    found: list[PurePosixPath] = []
    visited: set[str] = set()

    def report(error: OSError) -> None:
        findings.leave_out([os.path.relpath(error.filename, folder)], "unreadable", "folder cannot be listed")

    for place, folders, names in os.walk(folder, onerror=report, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        below = PurePosixPath(os.path.relpath(place, folder).replace(os.sep, "/"))
        found += [below / one for one in names if not one.startswith(".")]
    return sorted(path.as_posix() for path in found)


@dataclass
class _Files:
    """What the files of a folder are."""

    grids: dict[str, Grid]
    slices: list[SliceHeader]
    unusable: dict[str, str]
    damaged: list[str]
    other: int


def _inspect(folder: Path, path: str) -> Grid | SliceHeader | UnusableImageError | None:
    """Read the header of a file; ``None`` for a file that is no volume."""
    source = folder / path
    named = is_nifti(path) or source.suffix.lower() in _DICOM_SUFFIXES
    if not source.is_file():  # opening a pipe would wait for ever
        return UnusableImageError("unreadable", "a broken link, or not a regular file") if named else None
    try:
        if is_nifti(path):
            return read_grid(source)
        if source.suffix.lower() in _DICOM_SUFFIXES and source.stat().st_size == 0:
            return UnusableImageError("zero bytes", "the file is empty; copy it again")
        if is_dicom(source):
            return dataclasses.replace(read_slice_header(source), path=Path(path))
    except UnusableImageError as error:
        return error
    except OSError as error:
        return UnusableImageError("unreadable", f"{type(error).__name__}: the file cannot be opened")
    if source.suffix.lower() in _DICOM_SUFFIXES:
        return UnusableImageError("unreadable", "named as DICOM, but without a DICOM header")
    if path.lower().endswith(_OTHER_VOLUMES):
        return UnusableImageError("format that scan does not read", "convert it to NIfTI")
    return None


def _inspect_all(
    folder: Path, paths: Sequence[str], findings: Findings, workers: int | None, console: Console | None
) -> _Files:
    """Read all headers in threads, in the order of the paths."""
    files = _Files({}, [], {}, [], 0)
    for path, found in _read_headers(folder, paths, workers, console):
        if isinstance(found, Grid):
            files.grids[path] = found
        elif isinstance(found, SliceHeader):
            files.slices.append(found)
        elif isinstance(found, UnusableImageError):
            files.unusable[path] = found.reason
            findings.leave_out([path], found.reason, found.detail)
            if not is_nifti(path):
                files.damaged.append(path)
        else:
            files.other += 1
    return files


def _read_headers(
    folder: Path, paths: Sequence[str], workers: int | None, console: Console | None
) -> list[tuple[str, Grid | SliceHeader | UnusableImageError | None]]:
    threads = workers or min(16, 2 * (os.cpu_count() or 1))
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        # Readers warn about malformed values and quote them: a quoted value may name a patient.
        warnings.simplefilter("ignore", UserWarning)
        found = pool.map(lambda path: _inspect(folder, path), paths)
        pairs = zip(paths, found, strict=True)
        if console is None:
            return list(pairs)
        return list(track(pairs, description="reading headers", total=len(paths), console=console, transient=True))


def _merge(findings: Findings, more: Findings) -> None:
    findings.left_out += more.left_out
    for text, paths in more.notes.items():
        findings.notes.setdefault(text, []).extend(paths)


def _claims(folder: Path, contents: Mapping[str, Mapping[str, Any]], files: _Files, findings: Findings) -> list[Claim]:
    """Who belongs to whom: by each ``dataset.json`` that lists images, by name where there is none above a file."""
    listing = {root: content for root, content in contents.items() if listed_sections(content)}
    claims = [claim for root in sorted(listing) for claim in declared_claims(root, listing[root], folder, findings)]
    named = {path for claim in claims for path in (claim.image, claim.label) if isinstance(path, str)}
    by_name = []
    for path in files.grids:
        if path in named:
            continue
        if any(root == "." or path.startswith(f"{root}/") for root in listing):
            findings.leave_out([path], "not named in dataset.json", "add it there, or remove that file to pair by name")
        else:
            by_name.append(path)
    return claims + layout_claims(by_name, findings)


def _result(folder: Path, out: Path, exclusions: Path, findings: Findings, other_files: int) -> ScanResult:
    order = [*_SECTIONS, *(section for section in findings.sections if section not in _SECTIONS)]
    return ScanResult(
        folder=folder,
        datalist=out,
        exclusions=exclusions,
        sections={section: findings.sections.get(section, []) for section in order},
        left_out=sorted(findings.left_out, key=lambda entry: (entry.reason, entry.paths)),
        notes={text: sorted(findings.notes[text]) for text in sorted(findings.notes)},
        other_files=other_files,
    )


def _header(
    folder: Path, name: str | None, contents: Mapping[str, Mapping[str, Any]], series: Sequence[Series]
) -> dict[str, Any]:
    """Name, modality and labels, from the ``dataset.json`` files where these agree."""
    own = contents.get(".", {})
    header: dict[str, Any] = {"name": name or own.get("name") or folder.resolve().name}
    header |= {key: own[key] for key in _CARRIED_OVER if key in own}
    modalities = sorted({one.modality for one in series})
    named = _agreed([content.get("modality", content.get("channel_names")) for content in contents.values()])
    header["modality"] = named or ({"0": ", ".join(modalities)} if modalities else {})
    labels = _agreed([content.get("labels") for content in contents.values()])
    if isinstance(labels, dict):
        header["labels"] = _by_number(labels)
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
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _write_exclusions(path: Path, left_out: Sequence[LeftOut]) -> None:
    """One row a file (or a directory that is one series)."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("path", "reason", "detail"))
        writer.writerows((one, entry.reason, entry.detail) for entry in left_out for one in entry.paths)


def _nothing(folder: Path, result: ScanResult) -> str:
    if not result.left_out:
        return (
            f"no NIfTI or DICOM files below {folder} ({result.other_files} other files); scan a folder that holds some"
        )
    reasons = ", ".join(f"{count} {reason}" for reason, count in result.reasons.items())
    return f"nothing usable below {folder}: {reasons}; {result.exclusions} names each file"


def _some(paths: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join(paths[:shown]) + more
