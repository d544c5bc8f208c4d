"""A study without its repetitions: duplicates named, redundant slices left aside, nothing deleted."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from monai_cl._files import atomic_write
from monai_cl.data.curation.duplicates import Pair, find_pairs, join_groups
from monai_cl.data.curation.leaks import HELD_OUT, Leak, find_leaks, items_of, leak_text
from monai_cl.data.curation.reduction import THRESHOLDS, Criterion, Embed, check_threshold
from monai_cl.data.curation.slice_hash import hamming
from monai_cl.data.curation.volume_marks import VolumeMarks, mark
from monai_cl.data.datalist import load_datalist, read_datalist, section_names, split_sections, subject_of

ON_LEAK = ("refuse", "drop", "report")
SCOPES = ("volume", "dataset")
_RANK = {"test": 0, "validation": 1, "training": 2}  # of two copies, the one in the earlier section stays


@dataclass
class Entry:
    """A volume of the study and what became of it.

    Args:
        section: Its section.
        item: Its item.
        marks: What it is recognised by; ``None`` where it could not be read.
        group: Number of the patient or, through duplicates, patients it belongs to.
        reason: Why it was dropped; empty where it is kept.
        like: The volume it repeats.
        slices: Indices of the kept slices along the last axis; ``None`` for all.
    """

    section: str
    item: dict[str, Any]
    marks: VolumeMarks | None
    group: int = -1
    reason: str = ""
    like: str = ""
    slices: NDArray[np.intp] | None = None

    @property
    def name(self) -> str:
        """Path of the image, the first of several."""
        image = self.item["image"]
        return str(image if isinstance(image, str) else image[0])


@dataclass(frozen=True)
class CurationResult:
    """What curating found.

    Args:
        datalist: The filtered datalist; ``None`` for a dry run.
        table_file: The CSV of kept and dropped; ``None`` for a dry run.
        entries: Every volume in the order of the study.
        pairs: Duplicates, as indices into ``entries``.
        leaks: What pretraining and held-out sections, or the two lists, share.
        thresholds: Kept slices by threshold.
        method: How slices were compared.
        threshold: The threshold applied.
        median_distance: Median distance of neighbouring slices in bits, for the hash.
    """

    datalist: Path | None
    table_file: Path | None
    entries: Sequence[Entry]
    pairs: Sequence[Pair]
    leaks: Sequence[Leak]
    thresholds: Mapping[float, int]
    method: str
    threshold: float
    total_slices: int
    median_distance: float | None = None
    slice_spacing: Sequence[float] = field(default_factory=tuple)

    def table(self) -> Table:
        """Kept and dropped volumes by reason."""
        table = Table("volumes", "count", title="Curation", title_justify="left")
        table.add_row("kept", str(sum(not entry.reason for entry in self.entries)))
        for reason, count in sorted(Counter(entry.reason for entry in self.entries if entry.reason).items()):
            table.add_row(f"[yellow]dropped: {reason}[/]", str(count))
        table.add_section()
        for kind, what in (("exact", "exact duplicates"), ("near", "near duplicates"), ("part", "parts of another")):
            table.add_row(f"pairs: {what}", str(sum(pair.kind == kind for pair in self.pairs)))
        table.add_row("groups (a patient, or joined by duplicates)", str(len({entry.group for entry in self.entries})))
        table.add_row("shared with held-out volumes", str(len(self.leaks)))
        return table

    def threshold_table(self) -> Table:
        """How many slices each threshold would keep."""
        spacing = sorted(self.slice_spacing)
        told = f"{self.total_slices} slices"
        if spacing:
            told += f", {spacing[0]:.3g} to {spacing[-1]:.3g} mm apart"
        if self.median_distance is not None:
            told += f", neighbours differ by {self.median_distance:.0f} of 64 bits in the median"
        table = Table(title=f"Slices kept by method {self.method}: {told}", title_justify="left")
        for head in ("threshold", "kept", "share"):
            table.add_column(head, justify="right")
        for threshold, kept in self.thresholds.items():
            mark_used = " <- used" if threshold == self.threshold else ""
            share = 100 * kept / max(self.total_slices, 1)
            table.add_row(f"{threshold:g}", str(kept), f"{share:.0f} %{mark_used}")
        return table


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
    before an unlabelled one. Of the slices of each remaining volume (or of all), a greedy pass in slice order
    keeps those that differ from all kept before by more than the threshold. The datalist has all fields of the study;
    its items gain ``content`` and ``fingerprint``, by which :func:`check_pretraining` recognises a volume, ``group``,
    and, in ``sections``, ``slices`` (see :func:`kept_slices`) and ``weight``, the share of slices kept.
    Beside it, ``<out stem>.curation.csv`` says of each volume whether it was kept and why. No file is deleted.

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
        on_leak: What to do where pretraining shares a patient or a volume with what is held out: ``refuse``, ``drop``
            the pretraining side, or ``report``.
        hold_out: Share of the groups of ``training`` that move to ``validation``, patient by patient.
        seed: Seed of that draw.
        dry_run: Write nothing, only tell.
        workers: Reading threads.
        console: Where to show progress.

    Raises:
        FileNotFoundError: If the datalist or a file of it is absent.
        ValueError: If an option is out of range, or there are leaks and ``on_leak`` is ``refuse``; the CSV is written
            before, so that they can be looked up.
    """
    threshold = check_threshold(method, threshold)
    _check_options(scope, on_leak, hold_out)
    source = Path(datalist)
    content = read_datalist(source)
    chosen = split_sections(sections)
    entries = _read(source, content, dataset_dir, method, workers, console)
    pairs = _group(entries)
    _drop_duplicates(entries, pairs)
    if hold_out:
        _hold_out(entries, hold_out, seed)
    leaks = _find_leaks(entries, chosen, against)
    if on_leak == "drop":
        _drop_leaks(entries, chosen, leaks)
    kept = [entry for entry in entries if entry.section in chosen and not entry.reason and entry.marks]
    criteria = _criteria(kept, method, scope, embed)
    counts = {
        one: sum(int((c.reduce(one) == np.arange(len(c.features))).sum()) for c in criteria)
        for one in sorted({*THRESHOLDS[method], threshold}, reverse=method not in ("hash", "every-n"))
    }
    _reduce(kept, criteria, threshold)
    target = Path(out) if out else source.with_name(f"{source.stem}.curated.json")
    table_file = target.with_name(f"{target.stem}.curation.csv")
    hashes = [entry.marks.hashes for entry in kept if entry.marks]
    result = CurationResult(
        datalist=None if dry_run else target,
        table_file=None if dry_run else table_file,
        entries=entries,
        pairs=pairs,
        leaks=leaks,
        thresholds=counts,
        method=method,
        threshold=threshold,
        total_slices=sum(map(len, hashes)),
        median_distance=_median_distance(hashes) if method == "hash" else None,
        slice_spacing=[entry.marks.slice_spacing for entry in kept if entry.marks],
    )
    if not dry_run:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_table(table_file, result, chosen)
    if leaks and on_leak == "refuse":
        held = "+".join(HELD_OUT) if against is None else Path(against).name
        raise ValueError(leak_text(leaks, "+".join(chosen), held))
    if not dry_run:
        _write_datalist(target, content, result)
    return result


def kept_slices(item: Mapping[str, Any]) -> list[int]:
    """Indices of the kept slices of a curated item, along the last axis of the file.

    Example:
        >>> kept_slices({"slices": "0-2,5,7-8"})
        [0, 1, 2, 5, 7, 8]
    """
    runs = (part.split("-") for part in str(item["slices"]).split(",") if part)
    return [index for run in runs for index in range(int(run[0]), int(run[-1]) + 1)]


def _check_options(scope: str, on_leak: str, hold_out: float) -> None:
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    if on_leak not in ON_LEAK:
        raise ValueError(f"on_leak must be one of {', '.join(ON_LEAK)}, got {on_leak!r}")
    if not 0 <= hold_out < 1:
        raise ValueError(f"hold_out must be at least 0 and below 1, got {hold_out}")


def _read(
    source: Path,
    content: Mapping[str, Any],
    dataset_dir: str | os.PathLike[str] | None,
    method: str,
    workers: int | None,
    console: Console | None,
) -> list[Entry]:
    """Mark every volume of the study."""
    names = section_names(content)
    listed = [(name, dict(item)) for name in names for item in items_of(content, name)]
    found = {
        (name, _key(raw)): item["image"]
        for name in names
        for raw, item in zip(
            _distinct(items_of(content, name)), load_datalist(source, name, dataset_dir=dataset_dir), strict=True
        )
    }
    keep_slices = method in ("ssim", "mi", "embedding", "every-n")
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        work = pool.map(lambda one: _marks(found[one[0], _key(one[1])], keep_slices), listed)
        seen = track(
            work, "reading volumes", total=len(listed), console=console, transient=True, disable=console is None
        )
        entries = [Entry(name, item, marks) for (name, item), marks in zip(listed, seen, strict=True)]
    for entry in entries:
        if entry.marks is None:
            entry.reason = "unreadable"
    return entries


def _marks(image: Any, keep_slices: bool) -> VolumeMarks | None:
    from monai_cl.transforms.load import LoadVolume

    try:
        volume = LoadVolume()(image)
        return mark(volume[0].numpy(), np.asarray(volume.affine), keep_slices=keep_slices)  # type: ignore[attr-defined]
    except (ValueError, OSError):
        return None


def _distinct(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({os.path.normpath(_key(item)): item for item in reversed(list(items))}.values())[::-1]


def _key(item: Mapping[str, Any]) -> str:
    image = item["image"]
    return "|".join(image) if isinstance(image, list) else str(image)


def _group(entries: Sequence[Entry]) -> list[Pair]:
    """Find duplicates and give every entry the number of its group."""
    index = [number for number, entry in enumerate(entries) if entry.marks is not None]
    found = find_pairs([entry.marks for entry in entries if entry.marks is not None])
    pairs = [Pair(index[pair.first], index[pair.second], pair.kind, pair.detail) for pair in found]
    groups = join_groups([subject_of(entry.item) for entry in entries], pairs)
    for entry, group in zip(entries, groups, strict=True):
        entry.group = group
    return pairs


def _drop_duplicates(entries: Sequence[Entry], pairs: Sequence[Pair]) -> None:
    """Of each pair the one that matters less goes: later in the list, unlabelled, the smaller part."""

    def worth(index: int) -> tuple[float, int, int]:
        entry = entries[index]
        rank = _RANK.get(entry.section, 3.0) - (0.5 if entry.item.get("label") else 0)
        return rank, -len(entry.marks.hashes) if entry.marks else 0, index

    names = {"exact": "exact duplicate", "near": "near duplicate", "part": "part of another volume"}
    for pair in sorted(pairs, key=lambda pair: (worth(pair.first), worth(pair.second))):
        better, worse = sorted((pair.first, pair.second), key=worth)
        if entries[better].reason or entries[worse].reason or entries[worse].section in HELD_OUT:
            continue
        if entries[worse].item.get("label") and pair.kind != "exact":
            continue  # a label is worth more than the repetition costs
        entries[worse].reason, entries[worse].like = names[pair.kind], entries[better].name


def _hold_out(entries: Sequence[Entry], share: float, seed: int) -> None:
    """Move whole groups from training to validation."""
    groups = sorted({entry.group for entry in entries if entry.section == "training"})
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen = {groups[number] for number in order[: max(1, round(share * len(groups)))]}
    for entry in entries:
        if entry.group in chosen and entry.section == "training":
            entry.section = "validation"


def _marked(entry: Entry) -> dict[str, Any]:
    """The item with what it is recognised by."""
    if entry.marks is None:
        return entry.item
    marks = {"content": entry.marks.content, "fingerprint": entry.marks.fingerprint.tobytes().hex()}
    return {**entry.item, **marks, "group": entry.group}


def _find_leaks(
    entries: Sequence[Entry], sections: Sequence[str], against: str | os.PathLike[str] | None
) -> list[Leak]:
    ours = [_marked(entry) for entry in entries if entry.section in sections and not entry.reason]
    if against is None:
        held_out = [name for name in HELD_OUT if name not in sections]
        return find_leaks(ours, [_marked(entry) for entry in entries if entry.section in held_out])
    other = read_datalist(against)
    return find_leaks(ours, [item for name in section_names(other) for item in items_of(other, name)])


def _drop_leaks(entries: Sequence[Entry], sections: Sequence[str], leaks: Sequence[Leak]) -> None:
    subjects = {leak.first for leak in leaks if leak.kind == "subject"}
    images = {leak.first: leak.second for leak in leaks if leak.kind != "subject"}
    for entry in entries:
        if entry.section not in sections or entry.reason:
            continue
        if subject_of(entry.item) in subjects:
            entry.reason = "patient is held out"
        elif entry.name in images:
            entry.reason, entry.like = "picture is held out", images[entry.name]


def _criteria(entries: Sequence[Entry], method: str, scope: str, embed: Embed | None) -> list[Criterion]:
    """One criterion a volume, or one for all."""
    stacks = [_features(entry.marks, method, embed) for entry in entries if entry.marks]
    if scope == "dataset" and stacks:
        stacks = [np.concatenate(stacks)]
    return [Criterion(method, stack) for stack in stacks]


def _features(marks: VolumeMarks, method: str, embed: Embed | None) -> NDArray[Any]:
    if method == "hash":
        return marks.hashes
    if marks.small is None:
        raise RuntimeError(f"method {method!r} needs the slices, which were not kept")
    return Criterion.of(method, marks.small, embed).features


def _reduce(entries: Sequence[Entry], criteria: Sequence[Criterion], threshold: float) -> None:
    """Note the slices that stay, and drop volumes of which none does."""
    stands_for = [criterion.reduce(threshold) for criterion in criteria]
    kept = np.concatenate([one == np.arange(len(one)) for one in stands_for]) if stands_for else np.zeros(0, bool)
    start = 0
    for entry in entries:
        count = len(entry.marks.hashes) if entry.marks else 0
        entry.slices = np.flatnonzero(kept[start : start + count])
        start += count
        if not entry.slices.size:
            entry.reason = "every slice is like one kept before"


def _median_distance(stacks: Sequence[NDArray[np.uint64]]) -> float | None:
    steps = [hamming(one[1:], one[:-1]) for one in stacks if len(one) > 1]
    return float(np.median(np.concatenate(steps))) if steps else None


def _runs(indices: NDArray[np.intp]) -> str:
    """Indices as runs, ``0-2,5``: text, so that batches of items stay batches."""
    parts = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts if len(part))


def _write_table(path: Path, result: CurationResult, sections: Sequence[str]) -> None:
    leaking = {leak.first for leak in result.leaks}
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
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


def _write_datalist(path: Path, content: Mapping[str, Any], result: CurationResult) -> None:
    sections: dict[str, list[dict[str, Any]]] = {name: [] for name in section_names(content)}
    for entry in result.entries:
        if entry.reason:
            continue
        item = _marked(entry)
        if entry.slices is not None and entry.marks is not None:
            item |= {"slices": _runs(entry.slices), "weight": round(len(entry.slices) / len(entry.marks.hashes), 4)}
        sections.setdefault(entry.section, []).append(item)
    dropped = Counter(entry.reason for entry in result.entries if entry.reason)
    curation = {"method": result.method, "threshold": result.threshold, "dropped": dict(sorted(dropped.items()))}
    with atomic_write(path) as temporary:
        text = json.dumps({**content, **sections, "curation": curation}, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
