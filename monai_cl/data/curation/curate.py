"""A study without its repetitions: duplicates named, redundant slices left aside, nothing deleted."""

import csv
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from monai_cl._files import atomic_write, read_json
from monai_cl.data.curation.dropping import drop_duplicates, drop_leaks, group, leaks_of, move_to_validation
from monai_cl.data.curation.duplicates import Pair
from monai_cl.data.curation.entries import Entry, marked, read_entries
from monai_cl.data.curation.leaks import HELD_OUT, Leak, leak_text
from monai_cl.data.curation.reduction import Embed, check_threshold
from monai_cl.data.curation.result import CurationResult
from monai_cl.data.curation.slices import counts_by_threshold, criteria_of, median_distance, reduce_slices, runs_of
from monai_cl.datalist import beside_datalist, read_datalist, section_names, split_sections, subject_of

ON_LEAK = ("refuse", "drop", "report")
SCOPES = ("volume", "dataset")
_USUAL = ("training", "validation", "test", "unlabelled")  # which a list need not have


def curate(
    datalist: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    dataset_dir: str | os.PathLike[str] | None = None,
    sections: str | Sequence[str] = "training+unlabelled",
    method: str = "hash",
    threshold: float | None = None,
    scope: str = "volume",
    embed: Embed | None = None,
    against: str | os.PathLike[str] | None = None,
    on_leak: str = "refuse",
    hold_out: float = 0.0,
    seed: int = 0,
    dry_run: bool = False,
    workers: int | None = None,
    console: Console | None = None,
) -> CurationResult:
    """Find duplicates and redundant slices of a study and write what is worth pretraining on.

    Of volumes that are the same, nearly the same or part of each other one stays, a held-out one before a labelled one
    before an unlabelled one; see :func:`~monai_cl.data.curation.duplicates.find_pairs`. Volumes that are only alike, as
    phases of a heart, stay, in one group. Of the slices of each remaining volume (or of all), a greedy pass in slice
    order keeps those that differ from all kept before by more than the threshold. The datalist has all fields of the
    study; its items gain ``content``, ``fingerprint`` and ``coarse``, by which :func:`check_pretraining` recognises a
    volume, ``group``, and, in ``sections``, ``slices`` (see :func:`kept_slices`) of ``slices_of``, ``slice_step`` from
    one to the next in mm and ``weight``, the share kept; :class:`monai_cl.data.SliceDataset` draws those slices alone.
    Beside it, ``<out stem>.curation.csv`` lists whether each volume was kept, and why. No file is deleted.

    Args:
        datalist: From ``monai-cl scan``, or any other.
        out: The datalist to write; by default ``<stem>.curated.json`` beside the first.
        dataset_dir: Folder that paths start from.
        sections: Sections that pretraining reads: only these are reduced.
        method: See :data:`~monai_cl.data.curation.METHODS`.
        threshold: Bits for the hash (slices at this distance or nearer are redundant; 6 as published), similarity for
            ``ssim``, ``mi`` and ``embedding``, step for ``every-n``.
        scope: ``volume`` compares slices within a volume, ``dataset`` across the study.
        embed: For ``embedding``: from slices ``(n, 64, 64)`` in [0, 1] to ``(n, d)``.
        against: A datalist of fine-tuning or testing; by default the held-out sections of the same study.
        on_leak: Action where pretraining shares a patient or a volume with held-out data: ``refuse``, ``drop``
            the pretraining side, or ``report``.
        hold_out: Share of the groups of ``training`` that move to ``validation``, patient by patient.
        seed: Seed of that draw.
        dry_run: Write nothing, only report.
        workers: Reading threads.
        console: Where to show progress.

    Raises:
        FileNotFoundError: If the datalist or a file of it is absent.
        ValueError: If an option is out of range, ``sections`` or ``against`` is empty, ``out`` would replace
            anything but an earlier result, or leaks exist and ``on_leak`` is ``refuse``; the CSV is written
            before, so that they can be looked up.
    """
    threshold = check_threshold(method, threshold)
    _check_options(scope, on_leak, hold_out)
    source, chosen = Path(datalist), split_sections(sections)
    target = Path(out) if out is not None else beside_datalist(source, ".curated.json")
    content = read_datalist(source)
    check_lists(source, content, chosen, against)
    if not dry_run:
        check_target(target, source, against)
    entries = read_entries(source, content, dataset_dir, method, workers, console)
    pairs, leaks = _screen(entries, chosen, against, on_leak, hold_out, seed)
    kept = [entry for entry in entries if entry.section in chosen and not entry.reason and entry.marks]
    criteria = criteria_of(kept, method, scope, embed)
    result = _result(entries, pairs, leaks, kept, method, threshold, counts_by_threshold(criteria, method, threshold))
    reduce_slices(kept, criteria, threshold)
    if not dry_run:
        result = _with_files(result, target)
        write_table(result, chosen)
    if leaks and on_leak == "refuse":
        held = "+".join(HELD_OUT) if against is None else Path(against).name
        raise ValueError(leak_text(leaks, "+".join(chosen), held))
    if not dry_run:
        write_datalist(result, content)
    return result


def _screen(
    entries: Sequence[Entry],
    sections: Sequence[str],
    against: str | os.PathLike[str] | None,
    on_leak: str,
    hold_out: float,
    seed: int,
) -> tuple[list[Pair], list[Leak]]:
    """Drop repeated volumes, and on request held-out ones; return the pairs."""
    pairs = group(entries)
    drop_duplicates(entries, pairs)
    if hold_out:
        move_to_validation(entries, hold_out, seed)
    leaks = leaks_of(entries, sections, against)
    if on_leak == "drop":
        drop_leaks(entries, sections, leaks)
    return pairs, leaks


def _with_files(result: CurationResult, target: Path) -> CurationResult:
    target.parent.mkdir(parents=True, exist_ok=True)
    return replace(result, datalist=target, table_file=target.with_name(f"{target.stem}.curation.csv"))


def _result(
    entries: Sequence[Entry],
    pairs: Sequence[Pair],
    leaks: Sequence[Leak],
    kept: Sequence[Entry],
    method: str,
    threshold: float,
    counts: Mapping[float, int],
) -> CurationResult:
    marks = [entry.marks for entry in kept if entry.marks]
    hashes = [one.hashes for one in marks]
    return CurationResult(
        datalist=None,
        table_file=None,
        entries=entries,
        pairs=pairs,
        leaks=leaks,
        thresholds=counts,
        method=method,
        threshold=threshold,
        total_slices=sum(map(len, hashes)),
        median_distance=median_distance(hashes) if method == "hash" else None,
        slice_spacing=[one.slice_spacing for one in marks],
    )


def _check_options(scope: str, on_leak: str, hold_out: float) -> None:
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    if on_leak not in ON_LEAK:
        raise ValueError(f"on_leak must be one of {', '.join(ON_LEAK)}, got {on_leak!r}")
    if not 0 <= hold_out < 1:
        raise ValueError(f"hold_out must be at least 0 and below 1, got {hold_out}")


def check_lists(
    source: Path, content: Mapping[str, Any], sections: Sequence[str], against: str | os.PathLike[str] | None
) -> None:
    """Refuse lists without anything to curate or to guard, whose result would look clean.

    Raises:
        ValueError: If no volume is given, ``sections`` names no list, or ``against`` lists no volume.
    """
    filled = [name for name in section_names(content) if content.get(name)]
    if not filled:
        raise ValueError(f"the study must list volumes, {source} lists none; scan a folder that holds some")
    unknown = [name for name in sections if name not in {*content, *_USUAL}]
    if unknown or not sections:
        given = ", ".join(map(repr, unknown)) or "none"
        raise ValueError(f"sections must name lists of {source} ({', '.join(filled)}), got {given}")
    if against is not None:
        guarded = read_datalist(against)
        if not any(guarded.get(name) for name in section_names(guarded)):
            raise ValueError(f"against must be a datalist that holds volumes, {os.fspath(against)} lists none")


def check_target(target: Path, source: Path, against: str | os.PathLike[str] | None) -> None:
    """Refuse to replace anything but an earlier result of curation.

    Raises:
        ValueError: If ``target`` is no name of a datalist, an input, or another file.
    """
    if target.suffix != ".json":
        raise ValueError(f"out must be a .json file, got {str(target)!r}")
    if target.is_dir():
        raise ValueError(f"out must be a file, but {target} is a folder; give a file in it")
    if not os.path.lexists(target):
        return
    try:
        content = read_json(target)
        ours = isinstance(content, dict) and "curation" in content
    except (OSError, ValueError):
        ours = False
    inputs = [source, *([] if against is None else [Path(against)])]
    if not ours or target.resolve() in [path.resolve() for path in inputs]:
        raise ValueError(f"{target} exists and is not the result of an earlier curation; choose another name")


def write_table(result: CurationResult, sections: Sequence[str]) -> None:
    """Write a row for each volume: kept or dropped, and the reason."""
    leaking = {leak.first for leak in result.leaks}
    with (
        atomic_write(_target(result.table_file)) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ("image", "section", "subject", "group", "kept", "reason", "like", "slices", "slices_kept", "leak")
        )
        for entry in result.entries:
            count = len(entry.marks.hashes) if entry.marks else ""
            left = len(entry.slices) if entry.slices is not None else count
            subject = subject_of(entry.item)
            leak = entry.section in sections and bool({subject, entry.name} & leaking)
            row = (entry.name, entry.section, subject, entry.group, "no" if entry.reason else "yes", entry.reason)
            writer.writerow((*row, entry.like, count, left, "yes" if leak else ""))


def write_datalist(result: CurationResult, content: Mapping[str, Any]) -> None:
    """Write the study without the dropped items, all of its fields kept, with the results of curation."""
    sections: dict[str, list[dict[str, Any]]] = {name: [] for name in section_names(content)}
    for entry in result.entries:
        if entry.reason:
            continue
        item = marked(entry)
        if entry.slices is not None and entry.marks is not None:
            count = len(entry.marks.hashes)
            item |= {"slices": runs_of(entry.slices), "slices_of": count, "weight": round(len(entry.slices) / count, 4)}
            item["slice_step"] = [round(part, 5) + 0.0 for part in entry.marks.slice_step]  # mm; + 0.0 against -0.0
        sections.setdefault(entry.section, []).append(item)
    dropped = Counter(entry.reason for entry in result.entries if entry.reason)
    curation = {"method": result.method, "threshold": result.threshold, "dropped": dict(sorted(dropped.items()))}
    with atomic_write(_target(result.datalist)) as temporary:
        text = json.dumps({**content, **sections, "curation": curation}, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")


def _target(path: Path | None) -> Path:
    if path is None:
        raise ValueError("a dry run writes nothing; curate with dry_run=False")
    return path
