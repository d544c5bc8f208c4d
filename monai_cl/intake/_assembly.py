"""Assembly of datalist items from claims about files, with every image and label checked on disk."""

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from monai_cl.datalist import first_image, shared_subjects
from monai_cl.intake._findings import Findings, Item
from monai_cl.intake.decathlon import Claim, same_person, subjects_by_name
from monai_cl.intake.description import Description, by_file_name
from monai_cl.intake.dicom import Series
from monai_cl.io.errors import UnusableImageError
from monai_cl.io.grid import Grid, check_same_grid, on_one_grid
from monai_cl.io.suffixes import stem
from monai_cl.privacy.pseudonyms import Key
from monai_cl.privacy.quoting import Quoting

_ABSENT = "named in dataset.json but absent"
_NOT_ONE = "named in dataset.json but not one usable series"
_ORPHAN = "label without image"
_UNLABELLED = "image without label, kept as unlabelled"
_REFUSED = "its label was left out, kept as unlabelled"
_NOT_HOUNSFIELD = "CT that cannot hold negative values, so not in Hounsfield units"
_NO_SPACING = "affine is the identity: the spacing is probably missing"
_MODALITIES = (("CT", r"\bct"), ("MR", r"\bmr|\bt1|\bt2|flair|\bdwi"))


@dataclass(frozen=True)
class Known:
    """Grids, refusals and series read from disk.

    Args:
        grids: Usable NIfTI files.
        unusable: Other volume files, already reported, with the reason.
        series: Usable DICOM series.
        key: Makes the pseudonyms.
    """

    grids: Mapping[str, Grid]
    unusable: Mapping[str, str]
    series: Sequence[Series]
    key: Key


def assemble(claims: Sequence[Claim], known: Known, findings: Findings) -> None:
    """Add an item for each claim that holds and for each DICOM series nobody claims.

    Args:
        claims: Images with their labels and sections.
        known: Headers read from disk.
        findings: Receives items, what is left out, and notes.
    """
    by_image = {_key(one.image): one for one in known.series}
    names = subjects_by_name(claim.image for claim in claims if isinstance(claim.image, str))
    labelled = {_place(claim) for claim in claims if claim.label}
    subjects: dict[str, str] = {}  # of patients that a dataset.json names
    claimed = set()
    for claim in claims:
        series = by_image.get(_key(claim.image))
        grid = series.grid if series else known.grids.get(str(claim.image))
        if grid is None:
            _report_image(claim, known, findings)
            continue
        claimed.add(_key(claim.image))
        label = _usable_label(claim, grid, known, findings)
        item = _item(claim, label, names.get(str(claim.image), ""), grid, series)
        if series:
            subjects.setdefault(series.patient, item["subject"])
        _note_values(claim, series, grid, findings)
        findings.add(_section(claim, label, _place(claim) in labelled, findings), item)
    rest = [one for one in known.series if _key(one.image) not in claimed]
    _add_series(rest, subjects, known.key, findings)
    _note_possible_masks(known.grids, findings)
    _note_shared_subjects(findings)


def _item(claim: Claim, label: str | None, name: str, grid: Grid, series: Series | None) -> Item:
    item: Item = {"image": claim.image}
    if label:
        item["label"] = label
    item["subject"] = claim.fields.get("subject", name or first_image(claim.image))
    if series:
        return item | _picture(series.modality, grid, series.description) | _other_fields(claim)
    description = by_file_name(stem(first_image(claim.image)))
    modality = _modality(claim.modality or "") or _modality(stem(first_image(claim.image)).casefold().replace("_", " "))
    sequence = "" if modality == "CT" else description.sequence or by_file_name(claim.modality or "").sequence
    described = replace(description, sequence=sequence)
    return item | _picture(modality or ("MR" if sequence else ""), grid, described) | _other_fields(claim)


def _other_fields(claim: Claim) -> Item:
    return {key: value for key, value in claim.fields.items() if key != "subject"}


def _picture(modality: str, grid: Grid, description: Description) -> Item:
    """The same fields for every item, known or not: batches of items need them alike."""
    return {
        "modality": modality,
        "sequence": description.sequence,
        "body_part": description.body_part,
        "spacing": [round(side, 4) for side in grid.spacing],
        "shape": list(grid.shape),
    }


def _modality(text: str) -> str:
    return next((name for name, pattern in _MODALITIES if re.search(pattern, text.casefold())), "")


def _place(claim: Claim) -> str:
    return posixpath.dirname(first_image(claim.image))


def _note_values(claim: Claim, series: Series | None, grid: Grid, findings: Findings) -> None:
    modality = series.modality if series else claim.modality
    if modality == "CT" and not grid.may_be_negative:
        findings.note(_NOT_HOUNSFIELD, first_image(claim.image))
    if grid.is_uninformative and series is None:
        findings.note(_NO_SPACING, first_image(claim.image))
    of_series = (*series.description.contradictions, *series.remarks) if series else ()
    for remark in (*grid.remarks, *of_series):
        findings.note(remark, first_image(claim.image))


def _report_image(claim: Claim, known: Known, findings: Findings) -> None:
    """Report an unusable image; an unreadable file is listed already."""
    image = first_image(claim.image)
    if image not in known.unusable:
        refused = {path for entry in findings.left_out for path in entry.paths}
        if image in refused:  # a series: it has its own line
            pass
        elif any(path.startswith(f"{image}/") for path in (*refused, *(one.first for one in known.series))):
            advice = Quoting("list the files of one series, or give each a folder of its own")
            findings.leave_out([image], _NOT_ONE, advice)
        else:
            advice = Quoting("no such NIfTI file or DICOM series; check its name, or copy it again")
            findings.leave_out([image], _ABSENT, advice)
    if claim.label in known.grids:
        detail = Quoting("its image {} is absent or left out", image)
        findings.leave_out([str(claim.label)], _ORPHAN, detail, mentions=[image])


def _usable_label(claim: Claim, grid: Grid, known: Known, findings: Findings) -> str | None:
    """Usable label, readable and on the grid of its image; an unusable label is left out, its image is kept."""
    if claim.label is None:
        return None
    image = first_image(claim.image)
    if claim.label in known.grids:
        try:
            check_same_grid(grid, known.grids[claim.label])
        except UnusableImageError as error:
            detail = Quoting("{}; its image is {}", error.detail, image)
            findings.leave_out([claim.label], error.reason, detail, mentions=[image])
        else:
            return claim.label
    if claim.label in known.grids or claim.label in known.unusable:
        findings.note(_REFUSED, image)
    else:
        findings.note(_UNLABELLED, image)
        findings.leave_out([claim.label], _ABSENT, Quoting("the label of {}; copy it again", image), mentions=[image])
    return None


def _section(claim: Claim, label: str | None, labelled: bool, findings: Findings) -> str:
    """The section of an item: without a label nothing is left for training or validation with labels."""
    if label or claim.section not in ("training", "validation"):
        return claim.section
    if labelled and not claim.label:
        findings.note(_UNLABELLED, first_image(claim.image))
    return "unlabelled"


def _add_series(series: Sequence[Series], subjects: Mapping[str, str], key: Key, findings: Findings) -> None:
    """Add unclaimed series; a patient keeps the subject that a dataset.json gave, or gets a pseudonym."""
    for one in series:
        subject = subjects.get(one.patient) or key.subject(one.patient)
        _note_values(Claim("unlabelled", one.image), one, one.grid, findings)
        picture = _picture(one.modality, one.grid, one.description)
        findings.add("unlabelled", {"image": one.image, "subject": subject} | picture)


def _note_possible_masks(grids: Mapping[str, Grid], findings: Findings) -> None:
    """Point at unlabelled files that lie on the grid of a file whose name they extend."""
    for item in findings.sections.get("unlabelled", []):
        path = str(item["image"])
        base = stem(path).rpartition("_")[0]
        for suffix in (".nii.gz", ".nii"):
            other = posixpath.join(posixpath.dirname(path), base + suffix)
            if (
                path in grids
                and other in grids
                and not same_person(base, stem(path))
                and on_one_grid(grids[path], grids[other])
            ):
                findings.note("may be a mask of another file: ends of a label's name are _seg, _label, _mask", path)


def _note_shared_subjects(findings: Findings) -> None:
    for one, other in combinations(sorted(findings.sections), 2):
        if {one, other} & {"validation", "test"}:
            for subject in shared_subjects(findings.sections[one], findings.sections[other]):
                findings.note(Quoting("subject both in {} and in {}", one, other), subject)


def _key(image: str | list[str]) -> str:
    return json.dumps(image if isinstance(image, str) else sorted(image))
