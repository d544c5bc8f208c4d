"""Steps of a scan: headers are read, images and labels paired, middle slices looked at, results named and written."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from monai_cl._files import atomic_write
from monai_cl.datalist import labels_by_number
from monai_cl.intake._assembly import Known, assemble
from monai_cl.intake._concealment import Concealer
from monai_cl.intake._findings import Findings
from monai_cl.intake._headers import Files, read_files
from monai_cl.intake._left_out import write_left_out
from monai_cl.intake._masks import without_masks
from monai_cl.intake._middle_slice import Look, look_at
from monai_cl.intake._naming import HideNames, ScanNames
from monai_cl.intake._slice_store import SliceStore
from monai_cl.intake._walk import walk
from monai_cl.intake.bids import bids_claims, with_sessions
from monai_cl.intake.decathlon import (
    Claim,
    declared_claims,
    each_file_once,
    layout_claims,
    listed_sections,
    read_dataset_json,
    without_sections,
)
from monai_cl.intake.dicom import Series, find_series
from monai_cl.intake.scan_result import ScanResult
from monai_cl.privacy.hand_made import KEPT_NAMES
from monai_cl.privacy.pseudonyms import Key, find_or_make_key
from monai_cl.privacy.quoting import Quoting
from monai_cl.privacy.table import IdTable

_SECTIONS = ("training", "validation", "test", "unlabelled")
_CARRIED_OVER = ("description", "reference", "licence", "license", "tensorImageSize")


class Steps:
    """One scan on its way from files to a datalist: :meth:`read`, :meth:`pair`, perhaps :meth:`look`, :meth:`write`.

    Args:
        folder: Folder that paths are relative to.
        out: The datalist to write.
        key: Key of the ids, or its file; see :func:`monai_cl.intake.scan.scan`.
        hide_names: Whether to name files by ids.
        workers: Number of reading threads.
        console: Where to show progress.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        key: Key | str | os.PathLike[str] | None,
        hide_names: HideNames,
        *,
        workers: int | None,
        console: Console | None,
    ) -> None:
        self._folder, self._out = folder, out
        self._exclusions = out.with_name(f"{out.stem}.left_out.csv")
        self._table = IdTable(None if isinstance(key, Key) else key)
        self._key = key if isinstance(key, Key) else find_or_make_key(key, outside=folder)
        self._hide_names, self._workers, self._console = hide_names, workers, console
        self._concealer = Concealer()
        self._names = ScanNames(self._key, hide_names, self._concealer)
        self._findings = Findings()
        self._files = Files()
        self._contents: dict[str, dict[str, Any]] = {}  # of each dataset.json, by its folder
        self._series: list[Series] = []
        self._looks: Mapping[str, Look] = {}

    def read(self, starts: Sequence[str], *, keep_derived: bool, keep_tilted: bool, stack_series: bool) -> None:
        """Read the headers below some folders, and sort slices into series."""
        mine = {path.absolute() for path in (self._out, self._exclusions, self._out.with_suffix(".html"))}
        walked = walk(self._folder, starts, self._leave_out)
        paths = (path for path in walked if (self._folder / path).absolute() not in mine)
        with closing(SliceStore(self._findings)) as store:
            self._files = read_files(
                self._folder,
                paths,
                store,
                self._concealer,
                self._findings,
                workers=self._workers,
                console=self._console,
            )
            self._read_listings()
            self._series, dicom = find_series(
                store, keep_derived=keep_derived, keep_tilted=keep_tilted, stack_series=stack_series
            )
        self._findings.merge(dicom)

    def _leave_out(self, path: str, reason: str, detail: str) -> None:
        self._findings.leave_out([path], reason, Quoting(detail))

    def _read_listings(self) -> None:
        listings = {path: self._names.listing(path) for path in self._files.listings}
        self._note_ids()  # an error may name them
        for path, shown in listings.items():
            self._contents[os.path.dirname(path) or "."] = read_dataset_json(self._folder / path, shown)

    def _note_ids(self) -> None:
        if self._hide_names:
            self._table.add(self._names.files)

    def pair(self) -> None:
        """Make items of images and their labels."""
        known = Known(self._files.grids, self._files.unusable, self._series, self._key)
        assemble(self._claims(), known, self._findings)

    def _claims(self) -> list[Claim]:
        """Pair files: by each ``dataset.json`` that lists images, else by name."""
        listing = {root: content for root, content in self._contents.items() if listed_sections(content)}
        claims = [
            claim
            for root in sorted(listing)
            for claim in declared_claims(root, listing[root], self._folder, self._findings)
        ]
        named = {path for claim in claims for path in (claim.image, claim.label) if isinstance(path, str)}
        by_name = []
        for path in sorted(set(self._files.grids) - named):
            if any(root == "." or path.startswith(f"{root}/") for root in listing):
                self._leave_out(path, "not named in dataset.json", "add it there, or remove that file to pair by name")
            else:
                by_name.append(path)
        of_bids, others = bids_claims(by_name, self._files.grids, self._folder, self._findings)
        paired = with_sessions(of_bids + layout_claims(others, self._findings, self._files.unusable))
        claims, paired = each_file_once(claims, paired, self._files.grids, self._folder, self._findings)
        return claims + without_masks(paired, self._files.grids, self._folder, self._findings, workers=self._workers)

    def look(self) -> None:
        """Read the middle slice of each kept volume."""
        self._looks = look_at(self._folder, self._findings, workers=self._workers, console=self._console)

    def write(self, name: str | None) -> ScanResult:
        """Name everything, and write what was left out, then the datalist.

        Raises:
            ValueError: If nothing is usable.
        """
        header = self._header(name)
        result = self._result()
        self._note_ids()  # before the list: nothing is written that cannot be looked up
        self._out.parent.mkdir(parents=True, exist_ok=True)
        write_left_out(self._exclusions, result.left_out)
        if not any(result.counts.values()):
            raise ValueError(_nothing(result))
        _write_datalist(self._out, header if self._hide_names else header | {KEPT_NAMES: False}, result)
        return result

    def _header(self, name: str | None) -> dict[str, Any]:
        """Name, modality and labels, from the ``dataset.json`` files where these agree."""
        names = self._names
        contents = {root: without_sections(content) for root, content in self._contents.items()}
        own = contents.get(".", {})
        header: dict[str, Any] = {"name": name or names.name(own.get("name"), self._folder.resolve().name)}
        header |= {carried: kept for carried in _CARRIED_OVER if (kept := names.value(own.get(carried))) is not None}
        modalities = sorted({one.modality for one in self._series})
        named = _agreed([content.get("modality", content.get("channel_names")) for content in contents.values()])
        header["modality"] = names.value(named) or ({"0": ", ".join(modalities)} if modalities else {})
        labels = labels_by_number(_agreed([content.get("labels") for content in contents.values()]))
        if isinstance(labels, dict):
            header["labels"] = names.labels(labels)
        header["key"] = self._key.fingerprint
        return header

    def _result(self) -> ScanResult:
        result, names = self._findings, self._names
        order = [*_SECTIONS, *(section for section in result.sections if section not in _SECTIONS)]
        items = names.items({section: result.sections.get(section, []) for section in order})
        return ScanResult(
            folder=self._folder,
            datalist=self._out,
            exclusions=self._exclusions,
            sections=items,
            left_out=names.left_out(result.left_out),
            notes=names.notes(result),
            other_files=self._files.other,
            shown_folder=names.folder(self._folder.as_posix()),
            pictures={names.path(path): look.png for path, look in self._looks.items()},
        )


def _agreed(values: Sequence[Any]) -> Any:
    """The value that all share; ``None`` where they differ."""
    present = [value for value in values if value]
    return present[0] if present and all(value == present[0] for value in present) else None


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
