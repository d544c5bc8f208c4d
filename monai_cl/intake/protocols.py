"""Published splits of public data: a datalist with the cases of the papers, from a folder of the data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cl._files import read_yaml, write_json
from monai_cl._words import suggestion

SECTIONS = ("training", "tuning", "validation")
_SPLITS = Path(__file__).with_name("protocols.yaml")
_FRAME = re.compile(r"(patient\d{3})_frame\d+\.nii(\.gz)?")
_SHOWN = 5

Pair = tuple[Path, Path]  # image and label


@dataclass(frozen=True)
class _Layout:
    """Files of a public data set.

    Attributes:
        pairs: Finds the case, the image and the label of each labelled volume under a folder.
        volumes: Volumes of a case.
        wanted: Files of a case, for a message.
    """

    pairs: Callable[[Path], Iterator[tuple[str, Pair]]]
    volumes: int
    wanted: str


def names() -> list[str]:
    """Names of the published splits."""
    return sorted(_LAYOUTS)


def published_split(name: str) -> dict[str, list[str]]:
    """Names of the cases of a published split by section, in the order of its lists.

    Args:
        name: One of :func:`names`.

    Raises:
        ValueError: If no such split exists.

    Example:
        >>> [len(cases) for cases in published_split("acdc").values()], published_split("acdc")["training"][:3]
        ([70, 10, 20], ['patient099', 'patient038', 'patient050'])
    """
    record = _record(name)
    return {section: record[section].split() for section in SECTIONS if section in record}


def write_split(name: str, folder: str | Path, out: str | Path) -> dict[str, int]:
    """Write the datalist of a published split.

    Items of ``training`` have their place in the published list under ``order``, by which
    :func:`monai_cl.datalist.few_labels` draws: ``labels`` of a bundle and budgets of a curve take the cases of the
    papers, whatever the seed. Names of cases are those of the public data, and stay.

    Args:
        name: One of :func:`names`.
        folder: Folder of the public data as it was downloaded, at any depth; paths start from it.
        out: The datalist to write.

    Returns:
        Number of volumes of each section.

    Raises:
        ValueError: If no such split exists, or a case of it is absent or not complete.
        FileNotFoundError: If no such folder exists.
    """
    split, record, root = published_split(name), _record(name), Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"the public data must be a folder, {root} is not")
    result: dict[str, list[Pair]] = {}
    for case, pair in _LAYOUTS[name].pairs(root):
        result.setdefault(case, []).append(pair)
    _check(name, root, [case for cases in split.values() for case in cases], result)
    sections = {
        section: [
            _item(case, pair, root) | ({"order": place} if section == "training" else {})
            for place, case in enumerate(cases)
            for pair in sorted(result[case])
        ]
        for section, cases in split.items()
    }
    labels = {"0": "background"} | {str(i): title for i, title in enumerate(record["classes"], start=1)}
    content = {"name": record["title"], "reference": record["source"], "labels": labels, "hide_names": False}
    write_json(out, content | sections)
    return {section: len(items) for section, items in sections.items()}


def _record(name: str) -> dict[str, Any]:
    if name not in _LAYOUTS:
        raise ValueError(f"unknown split {name!r}{suggestion(name, names())} (valid: {', '.join(names())})")
    record: dict[str, Any] = read_yaml(_SPLITS, "the published splits")[name]
    return record


def _check(name: str, root: Path, cases: list[str], found: dict[str, list[Pair]]) -> None:
    layout = _LAYOUTS[name]
    wrong = [case for case in cases if len(found.get(case, [])) != layout.volumes]
    if wrong:
        examples = ", ".join(f"{case} ({len(found.get(case, []))})" for case in wrong[:_SHOWN])
        raise ValueError(
            f"each of the {len(cases)} cases of {name} must have {layout.volumes} labelled volume(s) under {root}: "
            f"{layout.wanted}; {len(wrong)} have another number of them, such as {examples}; give the folder of the "
            "complete public data, each scan in it once"
        )


def _item(case: str, pair: Pair, root: Path) -> dict[str, Any]:
    image, label = (path.relative_to(root).as_posix() for path in pair)
    return {"image": image, "label": label, "subject": case}


def _frames(root: Path) -> Iterator[tuple[str, Pair]]:
    """Frames of ACDC with their ``_gt``, or pairs of the same name in ``imagesTr`` and ``labelsTr``."""
    for image in root.rglob("patient*_frame*.nii*"):
        match = _FRAME.fullmatch(image.name)
        if match is None or image.parent.name == "labelsTr":
            continue
        beside = image.with_name(image.name.replace(".nii", "_gt.nii"))
        label = beside if beside.is_file() else image.parent.with_name("labelsTr") / image.name
        if label.is_file():
            yield match[1], (image, label)


def _enhancements(root: Path) -> Iterator[tuple[str, Pair]]:
    for image in root.rglob("lgemri.nrrd"):
        label = image.with_name("laendo.nrrd")
        if label.is_file():
            yield image.parent.name, (image, label)


_LAYOUTS = {
    "acdc": _Layout(_frames, 2, "patientNNN_frameNN.nii.gz with its _gt.nii.gz, or a pair in imagesTr and labelsTr"),
    "la": _Layout(_enhancements, 1, "lgemri.nrrd and laendo.nrrd in a folder named after the case"),
}
