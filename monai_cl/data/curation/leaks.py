"""Patients and pictures that are on both sides: seen while pretraining, and used again to judge."""

import logging
import os
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_cl.data.curation.duplicates import near_fingerprints, near_pictures
from monai_cl.datalist import first_image, items_of, read_datalist, section_names, split_sections, subject_of

logger = logging.getLogger(__name__)
HELD_OUT = ("validation", "test")
ADVICE = "take them out of one side: `monai-cl curate STUDY --on-leak drop` does"
Item = Mapping[str, Any]


@dataclass(frozen=True)
class Leak:
    """Something that two lists share.

    Args:
        kind: ``subject``, ``content`` (the same voxels) or ``near`` (nearly the same picture).
        first: Image, or for ``subject`` the subject, in the first list.
        second: The same in the second.
    """

    kind: str
    first: str
    second: str

    def __str__(self) -> str:
        if self.kind == "subject":
            return f"subject {self.first}"
        likeness = "the same voxels as" if self.kind == "content" else "nearly the same picture as"
        return f"{self.first} is {likeness} {self.second}"


def find_leaks(first: Iterable[Item], second: Iterable[Item]) -> list[Leak]:
    """Find what two lists share: patients by ``subject``, volumes by the marks that ``monai-cl curate`` writes.

    Args:
        first: Items, as pretraining has them.
        second: Items of fine-tuning or of a test.

    Returns:
        Subjects first, then volumes; each pair once.
    """
    ours, theirs = list(first), list(second)
    subjects = sorted({subject_of(one) for one in ours} & {subject_of(one) for one in theirs})
    leaks = [Leak("subject", subject, subject) for subject in subjects]
    known = {str(one["content"]): one for one in reversed(theirs) if one.get("content")}
    same = [(one, known[str(one["content"])]) for one in ours if one.get("content") in known]
    leaks += [Leak("content", _name(one), _name(other)) for one, other in same]
    pairs = {(_name(one), _name(other)) for one, other in same}
    near = sorted({*_near(ours, theirs, "fingerprint"), *_near(ours, theirs, "coarse")})
    leaks += [
        Leak("near", _name(ours[i]), _name(theirs[j]))
        for i, j in near
        if (_name(ours[i]), _name(theirs[j])) not in pairs
    ]
    return leaks


def _near(ours: Sequence[Item], theirs: Sequence[Item], mark: str) -> list[tuple[int, int]]:
    """Indices of items that are near by a mark, among those that have it: lists of older versions lack one."""
    left, right = ([i for i, one in enumerate(side) if one.get(mark)] for side in (ours, theirs))
    find = near_fingerprints if mark == "fingerprint" else near_pictures
    result = find(_marks([ours[i] for i in left], mark), _marks([theirs[j] for j in right], mark))
    return [(left[i], right[j]) for i, j, _ in result]


def leaks_within(content: Mapping[str, Any], sections: Sequence[str], held_out: Sequence[str]) -> list[Leak]:
    """Find what sections of one datalist share: as :func:`find_leaks`, and images that both list.

    An entry written by hand may state no patient, where that of the other section does.
    """
    ours, theirs = ([item for name in names for item in items_of(content, name)] for names in (sections, held_out))
    leaks = find_leaks(ours, theirs)
    known, listed = {leak.first for leak in leaks}, {os.path.normpath(_name(one)) for one in theirs}
    both = [_name(one) for one in ours if os.path.normpath(_name(one)) in listed and subject_of(one) not in known]
    return leaks + [Leak("content", image, image) for image in dict.fromkeys(both) if image not in known]


def check_pretraining(
    datalist: str | os.PathLike[str], sections: str | Sequence[str], *, held_out: Sequence[str] = HELD_OUT
) -> None:
    """Refuse to pretrain on what the same datalist holds out.

    Args:
        datalist: The datalist, or a cache.
        sections: Sections that pretraining reads, one or several joined by ``+``.
        held_out: Sections that must have nothing in common with these; one that is itself among ``sections`` was put
            there on purpose, and is only warned of.

    Raises:
        ValueError: If a patient or a volume is on both sides; names some.
    """
    content = read_datalist(datalist)
    chosen = split_sections(sections)
    for name in [name for name in chosen if name in held_out]:
        logger.warning("pretraining reads the section %s, which no result can be measured on afterwards", name)
    kept_back = [name for name in section_names(content) if name in held_out and name not in chosen]
    leaks = leaks_within(content, chosen, kept_back)
    if leaks:
        raise ValueError(leak_text(leaks, "+".join(chosen), "+".join(kept_back)))


def leak_text(leaks: Sequence[Leak], first: str, second: str) -> str:
    """The error about leaks between two lists."""
    got = f"{len(leaks)} ({leaks_in_words(leaks)})"
    return f"{first} and {second} must share no patient and no picture, got {got}; {ADVICE}"


def leaks_in_words(leaks: Sequence[Leak]) -> str:
    """The first few of some leaks in words, and the number of the others."""
    return "; ".join(map(str, leaks[:5])) + (f" and {len(leaks) - 5} more" if leaks[5:] else "")


def _marks(items: Sequence[Item], mark: str) -> list[Any]:
    decode = bytes.fromhex if mark == "fingerprint" else b64decode
    return [np.frombuffer(decode(str(one[mark])), dtype=np.uint8) for one in items]


def _name(item: Item) -> str:
    return str(first_image(item["image"]))
