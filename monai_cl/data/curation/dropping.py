"""Volumes of a study to drop, with the reason: repetitions, and those held out elsewhere."""

import os
from collections.abc import Sequence

import numpy as np

from monai_cl.data.curation.duplicates import Pair, find_pairs, join_groups
from monai_cl.data.curation.entries import Entry, marked
from monai_cl.data.curation.leaks import HELD_OUT, Leak, find_leaks
from monai_cl.datalist import items_of, read_datalist, section_names, subject_of

_RANK = {"test": 0, "validation": 1, "training": 2}  # of two copies, the one in the earlier section stays


def group(entries: Sequence[Entry]) -> list[Pair]:
    """Find duplicates and give every entry the number of its group."""
    index = [number for number, entry in enumerate(entries) if entry.marks is not None]
    subjects = [subject_of(entry.item) for entry in entries if entry.marks is not None]
    result = find_pairs([entry.marks for entry in entries if entry.marks is not None], subjects)
    pairs = [Pair(index[pair.first], index[pair.second], pair.kind, pair.detail) for pair in result]
    groups = join_groups([subject_of(entry.item) for entry in entries], pairs)
    for entry, group in zip(entries, groups, strict=True):
        entry.group = group
    return pairs


def drop_duplicates(entries: Sequence[Entry], pairs: Sequence[Pair]) -> None:
    """Drop the less important volume of each pair: later in the list, unlabelled, the smaller part.

    Of volumes that are only alike both stay, in one group.
    """

    def worth(index: int) -> tuple[float, int, int]:
        entry = entries[index]
        rank = _RANK.get(entry.section, 3.0) - (0.5 if entry.item.get("label") else 0)
        return rank, -len(entry.marks.hashes) if entry.marks else 0, index

    names = {"exact": "exact duplicate", "near": "near duplicate", "part": "part of another volume"}
    repeated = [pair for pair in pairs if pair.kind in names]
    for pair in sorted(repeated, key=lambda pair: (worth(pair.first), worth(pair.second))):
        better, worse = sorted((pair.first, pair.second), key=worth)
        if entries[better].reason or entries[worse].reason or entries[worse].section in HELD_OUT:
            continue
        if entries[worse].item.get("label") and pair.kind != "exact":
            continue  # a label is worth more than the repetition costs
        entries[worse].reason, entries[worse].like = names[pair.kind], entries[better].name


def move_to_validation(entries: Sequence[Entry], share: float, seed: int) -> None:
    """Move whole groups from training to validation."""
    groups = sorted({entry.group for entry in entries if entry.section == "training"})
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen = {groups[number] for number in order[: max(1, round(share * len(groups)))]}
    for entry in entries:
        if entry.group in chosen and entry.section == "training":
            entry.section = "validation"


def leaks_of(entries: Sequence[Entry], sections: Sequence[str], against: str | os.PathLike[str] | None) -> list[Leak]:
    """Leaks between pretraining sections and those that are held out, or another datalist."""
    ours = [marked(entry) for entry in entries if entry.section in sections and not entry.reason]
    if against is None:
        held_out = [name for name in HELD_OUT if name not in sections]
        return find_leaks(ours, [marked(entry) for entry in entries if entry.section in held_out])
    other = read_datalist(against)
    return find_leaks(ours, [item for name in section_names(other) for item in items_of(other, name)])


def drop_leaks(entries: Sequence[Entry], sections: Sequence[str], leaks: Sequence[Leak]) -> None:
    """Drop the pretraining side of what is shared."""
    subjects = {leak.first for leak in leaks if leak.kind == "subject"}
    images = {leak.first: leak.second for leak in leaks if leak.kind != "subject"}
    for entry in entries:
        if entry.section not in sections or entry.reason:
            continue
        if subject_of(entry.item) in subjects:
            entry.reason = "patient is held out"
        elif entry.name in images:
            entry.reason, entry.like = "picture is held out", images[entry.name]
