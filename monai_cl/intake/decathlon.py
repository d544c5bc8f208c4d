"""Pairs of image and label: from ``dataset.json``, or by name in a Decathlon layout, never by position."""

import json
import posixpath
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai_cl._files import read_json
from monai_cl.datalist import first_image, with_slashes
from monai_cl.intake._findings import Findings
from monai_cl.intake._walk import OUTSIDE, SECOND_NAME, real_paths
from monai_cl.io.suffixes import stem
from monai_cl.privacy.quoting import Quoting

DATASET_JSON = "dataset.json"
LABEL_SUFFIXES = ("_seg", "_label", "_labels", "_mask", "_dseg")
# fields of a datalist that is written: no section may have their names
_HEADER_FIELDS = (
    *("name", "description", "reference", "licence", "license", "tensorImageSize", "modality", "channel_names"),
    *("labels", "key", "left_out", "notes", "hide_names", "cache", "numTraining", "numTest"),
)
# fields of an item that come from the files, or that runs add
_OWN_FIELDS = ("image", "label", "spacing", "shape", "case", "place", "cached")
_SECTIONS = {"tr": "training", "ts": "test", "te": "test", "va": "validation", "val": "validation", "": "training"}
_LABEL_WORD = re.compile(r"(?:(?<=_)|^)(?:labels?|masks?|segmentation)_", re.IGNORECASE)
_LAYOUT = re.compile(r"(?P<kind>images|labels)(?P<suffix>\w*)", re.IGNORECASE)
_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net numbers the channels of an image, not of its label
# Endings of a name that separate scans of one person: sequence, session, run, cine frame, channel.
_SCAN_TOKEN = re.compile(
    r"[._ -]+(t1|t2|pd)(w|c|ce|gd|map|star)?$|[._ -]+(flair|dwi|adc|swi|bold|ct|cta|mr|mri|pet)$"
    r"|[._ -]+(frame|ses|run|echo|acq)[-_]?\w+$|_\d{4}$",
    re.IGNORECASE,
)
_BIDS_SUBJECT = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)(?=[/_.]|$)")


@dataclass(frozen=True)
class Claim:
    """An image, and perhaps a label, that belong to a section; nothing is verified yet.

    Args:
        section: ``training``, ``validation``, ``test``, ``unlabelled`` or another section of a ``dataset.json``.
        image: Path relative to the scanned folder, or the list of the files of a DICOM series.
        label: Path of the label, or ``None``.
        fields: Further fields of the entry, among them ``subject``.
        modality: Modality in the ``dataset.json``, where it names one.
    """

    section: str
    image: str | list[str]
    label: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    modality: str | None = None


def read_dataset_json(path: Path, shown: str) -> dict[str, Any]:
    """Read a ``dataset.json``.

    Args:
        path: The file.
        shown: Form of its path in errors.

    Raises:
        ValueError: If it is not a JSON object: guessing its split would mix training and validation.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"cannot read {shown}: {why}; repair it, or remove it to pair files by name") from error
    if not isinstance(content, dict):
        raise ValueError(f"{shown} must hold a JSON object, got a {type(content).__name__}; repair or remove it")
    return content


def without_sections(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a datalist beside its sections."""
    sections = listed_sections(content)
    return {name: value for name, value in content.items() if name not in sections}


def listed_sections(content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The sections of a datalist: each list whose entries name images."""
    return {
        name: entries
        for name, entries in content.items()
        if isinstance(entries, list) and any(_is_entry(name, entry) for entry in entries)
    }


def _is_entry(section: str, entry: Any) -> bool:
    # Decathlon lists test images as bare strings; a list of strings under another name may be anything.
    return (isinstance(entry, dict) and "image" in entry) or (section == "test" and isinstance(entry, str))


def declared_claims(root: str, content: Mapping[str, Any], folder: Path, findings: Findings) -> list[Claim]:
    """Claims of one ``dataset.json``.

    Args:
        root: Folder of the JSON relative to the scanned folder, ``"."`` for that folder itself.
        content: The JSON object.
        folder: The scanned folder.
        findings: Receives what cannot be claimed.

    Returns:
        One claim an image; an image named twice is claimed once.
    """
    claims: list[Claim] = []
    seen: set[str] = set()
    modalities = content.get("modality")
    modality = str(next(iter(modalities.values()))) if isinstance(modalities, dict) and len(modalities) == 1 else None
    for named, entries in listed_sections(content).items():
        section = f"{named}_images" if named in _HEADER_FIELDS else named
        for entry in entries:
            claim = _declared_claim(root, section, entry, folder, findings)
            if claim is None:
                continue
            key = json.dumps(claim.image)
            if key in seen:
                findings.note("named more than once in dataset.json: the first entry counts", first_image(claim.image))
            else:
                claims.append(replace(claim, modality=modality))
                if section != named:
                    findings.note(
                        f"in section {section!r}: {named!r} is a field of the datalist", first_image(claim.image)
                    )
            seen.add(key)
    return claims


def _declared_claim(root: str, section: str, entry: Any, folder: Path, findings: Findings) -> Claim | None:
    """The claim of one entry, or ``None`` for an entry that names no image or one outside the folder."""
    entry = {"image": entry} if isinstance(entry, str) else entry if isinstance(entry, dict) else {}
    image, label = entry.get("image"), entry.get("label")
    named = image if isinstance(image, list) else [image]
    if not named or not all(isinstance(path, str) for path in (*named, "" if label is None else label)):
        detail = Quoting("in section '{}'", section)
        findings.leave_out([f"{root}/{DATASET_JSON}"], "invalid entry in dataset.json", detail)
        return None
    images = [_inside(root, path, folder) for path in named]
    label = _inside(root, label, folder) if label is not None else None
    outside = [path for path in (*images, label or "") if path.startswith("..") or path.startswith("/")]
    if outside:
        findings.leave_out([posixpath.basename(outside[0])], OUTSIDE, Quoting("scan the folder above it"))
        return None
    fields = {key: value for key, value in entry.items() if key not in _OWN_FIELDS}
    if "subject" in fields and root != ".":  # number 1 of one data set is not number 1 of the next
        fields["subject"] = f"{root}/{fields['subject']}"
    return Claim(section, images[0] if len(images) == 1 else images, label, fields)


def _inside(root: str, path: str, folder: Path) -> str:
    """A path of a dataset.json relative to the scanned folder; one that leads outside starts with ``..`` or ``/``."""
    path = with_slashes(path, folder / root)
    if posixpath.isabs(path):
        absolute = posixpath.normpath(path)
        base = folder.absolute().as_posix()
        return posixpath.relpath(absolute, base) if absolute.startswith(base + "/") else absolute
    return posixpath.normpath(posixpath.join(root, path))


def layout_claims(paths: Iterable[str], findings: Findings, unusable: Iterable[str] = ()) -> list[Claim]:
    """Pair images and labels by name.

    A label is a file below a ``labels*`` folder, whose image has the same name below the ``images*`` folder beside it,
    or a file with one of :data:`LABEL_SUFFIXES`, whose image lies in the same folder and lacks that suffix.

    Args:
        paths: NIfTI files relative to the scanned folder.
        findings: Receives labels without image.
        unusable: Files reported already: a label among them is named with its image, which had one.

    Returns:
        One claim an image.
    """
    images: dict[tuple[str, str], list[tuple[str, str]]] = {}
    labels: dict[tuple[str, str], str] = {}
    for path in sorted(paths):
        kind, key, section = _role(path)
        if kind == "label":
            labels[key] = path
        else:
            images.setdefault(key, []).append((path, section))
    refused = {key: path for path in sorted(unusable) for kind, key, _ in [_role(path)] if kind == "label"}
    claims = []
    used = set()
    for key, candidates in images.items():
        for path, section in candidates:
            match = next((one for one in (key, _without_channel(key)) if one in labels or one in refused), None)
            used.add(match)
            claims.append(Claim(section, path, labels.get(match, refused.get(match)) if match else None))
    for key, path in labels.items():
        if key not in used:
            detail = "no usable image named '{}' belongs to it: absent, left out, or named otherwise"
            mentions = [f"{key[0]}/{key[1]}"]
            findings.leave_out([path], "label without image", Quoting(detail, key[1]), mentions=mentions)
    return claims


def each_file_once(
    declared: Sequence[Claim], paired: Sequence[Claim], grids: Container[str], folder: Path, findings: Findings
) -> tuple[list[Claim], list[Claim]]:
    """Leave out images that links make the same file as another image or a label.

    Of several names counts the first in a ``dataset.json``, else that of an image with a label, else the one that is no
    link. Links into hidden folders, which are not scanned by themselves, are names like any other: so DataLad keeps
    files.

    Args:
        declared: Claims of each ``dataset.json``.
        paired: Claims by name.
        grids: Usable files.
        folder: The scanned folder.
        findings: Receives the other names, each with the label that belongs to it.

    Returns:
        The claims that remain of both.
    """
    real = real_paths(folder)
    ranked = [*declared, *sorted(paired, key=lambda one: (one.label is None, (folder / str(one.image)).is_symlink()))]
    ranked = [claim for claim in ranked if isinstance(claim.image, str) and claim.image in grids]
    names = {real(claim.label): claim.label for claim in reversed(ranked) if claim.label}
    second: set[str] = set()  # no lists of files, which are series of DICOM
    for claim in ranked:
        image = str(claim.image)
        first = names.setdefault(real(image), image)
        if first != image:
            second.add(image)
            files = [image, claim.label] if claim.label else [image]
            detail = Quoting("the same file as {}, which is listed", first)
            findings.leave_out(files, SECOND_NAME, detail, mentions=[first])
    remaining = [
        [claim for claim in claims if not isinstance(claim.image, str) or claim.image not in second]
        for claims in (declared, paired)
    ]
    return remaining[0], remaining[1]


def _role(path: str) -> tuple[str, tuple[str, str], str]:
    """Kind of a file, the key an image and its label share, and the section of its folder."""
    parts = path.split("/")
    for index in range(len(parts) - 2, -1, -1):
        match = _LAYOUT.fullmatch(parts[index])
        if match:
            suffix = match["suffix"].lower()
            place = "/".join((*parts[:index], f"<{suffix}>", *parts[index + 1 : -1]))
            return match["kind"].lower().rstrip("s"), (place, stem(path)), _SECTIONS.get(suffix, "unlabelled")
    place, name = posixpath.dirname(path), stem(path)
    for suffix in LABEL_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return "label", (place, name[: -len(suffix)]), "training"
    if words := _LABEL_WORD.search(name):  # as in orphan_label_case_7: the rest of the name is the image
        return "label", (place, name[: words.start()] + name[words.end() :]), "training"
    return "image", (place, name), "training"


def layout_folder(folder: str) -> str | None:
    """The folder of labels that belongs to a folder of images; ``None`` for other folders.

    Example:
        >>> layout_folder("study/imagesTr"), layout_folder("study/scans")
        ('study/labelsTr', None)
    """
    parts = folder.split("/")
    match = _LAYOUT.fullmatch(parts[-1])
    if not match or not match["kind"].lower().startswith("images"):
        return None
    return "/".join((*parts[:-1], f"labels{match['suffix']}"))


def _without_channel(key: tuple[str, str]) -> tuple[str, str]:
    return key[0], _CHANNEL.sub("", key[1])


def subjects_by_name(images: Iterable[str]) -> dict[str, str]:
    """Guess from names which images show one person.

    A BIDS ``sub-XX`` in the path decides. Otherwise it is the name without ends such as ``_T1``, ``_frame01`` or
    ``_ses-2``. A name without digits that several folders hold (``brain``) identifies nothing: then the folder
    stands for the person.

    Args:
        images: Paths relative to the scanned folder.

    Returns:
        From path to subject.
    """
    names = {path: _person(stem(path)) for path in images}
    folders: dict[str, set[str]] = {}
    for path, name in names.items():
        folders.setdefault(name, set()).add(posixpath.dirname(path))
    generic = {name for name, places in folders.items() if not re.search(r"\d", name) and len(places) > 1}
    personal = set().union(*(folders[name] for name in generic))
    subjects = {}
    for path, name in names.items():
        bids = _BIDS_SUBJECT.findall(path)
        folder = posixpath.dirname(path)
        subjects[path] = bids[-1] if bids else (folder if folder in personal else name) or folder or stem(path)
    return subjects


def same_person(one: str, other: str) -> bool:
    """Return whether two file stems differ only in endings that separate scans of one person."""
    return _person(one) == _person(other)


def _person(name: str) -> str:
    """File stem without the endings that separate scans of one person."""
    while len(shorter := _SCAN_TOKEN.sub("", name)) not in (0, len(name)):
        name = shorter
    # A bare "T1" or "flair" names a sequence, not a person: as good as no name, the same in every folder.
    return "" if _SCAN_TOKEN.fullmatch(f"_{name}") else name
