"""Synthetic studies of several MR sequences, some of which are missing, of healthy and of patients with lesions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from monai_cl._files import write_json
from monai_cl._words import suggestion
from monai_cl.phantoms.brain import scanned
from monai_cl.phantoms.dataset_folder import SECTIONS, empty_folder, header, numbers_of_subjects
from monai_cl.phantoms.maps import MAP_LABELS, BrainMaps, brain_maps
from monai_cl.phantoms.volume import write_nifti
from monai_cl.qmri import draw_protocol

SEQUENCES = {"T1w": "t1w_mprage", "T2w": "t2w_fse", "FLAIR": "flair", "PDw": "pdw_fse"}  # family of protocols of each
HEALTHY, PATIENT = "healthy", "patient"
OTHERS = "validation_series"  # further series of the test subjects, which no training may see
_TISSUES = 4  # labels of the brain; fat and muscle above them are background


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A subject of a study: where it stands in the list, and what it has."""

    section: str
    name: str
    seed: tuple[int, ...]
    sequences: tuple[str, ...]
    is_patient: bool


def write_sequence_study(
    folder: str | Path,
    *,
    sequences: Sequence[str] = ("T1w", "T2w", "FLAIR"),
    missing: float = 0.3,
    patients: float = 0.5,
    lesions: int = 40,
    unlabelled: int = 24,
    labelled: int = 8,
    test: int = 8,
    spacing: float = 3.0,
    field_strength: float = 3.0,
    head: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a study of synthetic brains in several sequences, with masks, as a datalist.

    ``imagesTr/brain_001_T1w.nii.gz`` and so on, ``labelsTr/brain_001.nii.gz`` and ``datalist.json``, whose entries have
    ``image``, ``subject``, ``sequence`` and ``cohort`` (``healthy`` or ``patient``). Sequences of a subject lie on one
    grid, each with a protocol, a receive field, noise and a gain of its own; air is 0, as after the extraction of a
    brain. A label map has 1 grey matter, 2 white matter, 3 cerebrospinal fluid and 4 lesion, and belongs to the first
    sequence that its subject has. ``training`` and ``validation`` hold these images; the other series of subjects in
    training are in ``unlabelled``, those of test subjects in ``validation_series``, which no training reads. Test
    subjects have all sequences, so that the cost of a missing one can be measured.

    Subjects are drawn from the seed, their section and their place there: other numbers of subjects and other sequences
    leave the images that remain as they were. ``datalist.json`` is written last, so a folder that has it is complete.

    Args:
        folder: Target, absent or empty.
        sequences: One or several of T1w, T2w, FLAIR and PDw.
        missing: Probability, below 1, that a subject that is no test subject lacks a sequence; one is always there.
        patients: Share of patients in each section, evenly spread.
        lesions: Most lesions of white matter in a patient, of whom each has at least half of them; 0: all are healthy.
        unlabelled: Number of subjects without a label.
        labelled: Number of subjects with a label for training.
        test: Number of subjects with a label for validation.
        spacing: Isotropic voxel size in millimetres, 1 to 12.
        field_strength: 1.5, 3 or 7 tesla.
        head: Add skull, muscle and fat, which are background of the label maps.
        seed: Non-negative integer that fixes every draw.
        progress: Called with (subjects written, subjects in all) after each subject.

    Returns:
        Path of ``datalist.json``.

    Raises:
        ValueError: If a sequence is unknown or comes twice, a share or a number is out of range, or no subject is left.
        FileExistsError: If the folder holds something already.
        ModuleNotFoundError: If nilearn, which carries the tissue maps, is not installed.

    Example:
        >>> write_sequence_study("studies", sequences=["T1w", "FLAIR"], spacing=6.0)  # doctest: +SKIP
        PosixPath('studies/datalist.json')
    """
    _check(sequences, missing, patients)
    counts = numbers_of_subjects(labelled=labelled, test=test, unlabelled=unlabelled)
    load = (lesions + 1) // 2, lesions
    with empty_folder(folder, "the studies") as root:
        sections: dict[str, list[dict[str, str]]] = {name: [] for name in (*SECTIONS, OTHERS)}
        subjects = list(_subjects(sequences, missing, patients if lesions else 0.0, counts, seed))
        for number, subject in enumerate(subjects, start=1):
            maps = brain_maps(
                subject.seed, spacing=spacing, field_strength=field_strength, head=head,
                lesions=load if subject.is_patient else 0,
            )  # fmt: skip
            for section, entry in _write(root, subject, maps, spacing):
                sections[section].append(entry)
            if progress is not None:
                progress(number, len(subjects))
        filled = {name: listed for name, listed in sections.items() if listed}
        write_json(root / "datalist.json", _header(spacing, seed, lesions) | filled, indent=2)
    return root / "datalist.json"


def _check(sequences: Sequence[str], missing: float, patients: float) -> None:
    for name in sequences:
        if name not in SEQUENCES:
            hint = suggestion(name, SEQUENCES, form="; did you mean {!r}?")
            raise ValueError(f"sequences must be among {', '.join(SEQUENCES)}, got {name!r}{hint}")
    if not sequences or len(set(sequences)) < len(sequences):
        raise ValueError(f"sequences must name one or several, each once, got {list(sequences)}")
    if not 0 <= missing < 1:
        raise ValueError(f"missing must be a probability from 0 to below 1, got {missing}")
    if not 0 <= patients <= 1:
        raise ValueError(f"patients must be a share from 0 to 1, got {patients}")


def _subjects(
    sequences: Sequence[str], missing: float, patients: float, counts: dict[str, int], seed: int
) -> Iterator[_Subject]:
    number = 0
    for section_number, (section, count) in enumerate(counts.items()):
        for place in range(count):
            number += 1
            own = seed, section_number, place
            has = tuple(sequences) if section == "validation" else _some(sequences, missing, own)
            # evenly: the number of patients among the first n is the whole part of n times their share
            is_patient = int((place + 1) * patients) > int(place * patients)
            yield _Subject(section=section, name=f"brain_{number:03d}", seed=own, sequences=has, is_patient=is_patient)


def _some(sequences: Sequence[str], missing: float, seed: tuple[int, ...]) -> tuple[str, ...]:
    """The sequences that a subject has, in order; of each the draw is its own."""
    draws = {name: np.random.default_rng((*seed, 1, _place(name))).random() for name in sequences}
    return tuple(name for name in sequences if draws[name] >= missing) or (max(draws, key=lambda name: draws[name]),)


def _place(sequence: str) -> int:
    return list(SEQUENCES).index(sequence)


def _write(root: Path, subject: _Subject, maps: BrainMaps, spacing: float) -> Iterator[tuple[str, dict[str, str]]]:
    """Write the files of a subject; the section and the entry of each image."""
    cohort = PATIENT if subject.is_patient else HEALTHY
    for place, name in enumerate(subject.sequences):
        entry = {"image": f"imagesTr/{subject.name}_{name}.nii.gz"}
        _save(root / entry["image"], image_of(maps, name, subject.seed, spacing), maps.affine)
        section = {"training": "unlabelled", "validation": OTHERS}.get(subject.section, subject.section)
        if place == 0 and subject.section != "unlabelled":
            section, entry["label"] = subject.section, f"labelsTr/{subject.name}.nii.gz"
            _save(root / entry["label"], (maps.label * (maps.label <= _TISSUES))[0], maps.affine)
        yield section, entry | {"subject": subject.name, "sequence": name, "cohort": cohort}


def image_of(maps: BrainMaps, sequence: str, seed: Sequence[int], spacing: float) -> Tensor:
    """A scan of a subject in one sequence, with a drawn protocol, receive field, noise and gain; air is 0.

    Args:
        maps: The subject.
        sequence: A key of ``SEQUENCES``.
        seed: Integers; the draws of a sequence do not depend on those of others.
        spacing: Voxel size of the maps in millimetres.

    Returns:
        float32 image of shape ``(X, Y, Z)``.
    """
    spawned = np.random.SeedSequence((*seed, 2, _place(sequence))).spawn(3)
    protocol_source, receive, noise = (np.random.default_rng(one) for one in spawned)
    protocol = draw_protocol(SEQUENCES[sequence], protocol_source, field_strength=maps.field_strength)
    signal, body = maps.image(protocol)[0], maps.fractions.sum(0) > 0
    return scanned(signal, receive, noise, spacing=spacing, reference=float(signal[body].mean())) * body


def _save(path: Path, volume: Tensor, affine: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, volume, affine)


def _header(spacing: float, seed: int, lesions: int) -> dict[str, Any]:
    named = {value: name.replace("_", " ") for value, name in MAP_LABELS.items() if value < _TISSUES + bool(lesions)}
    description = f"Synthetic brains at {spacing:g} mm, seed {seed}"
    return header("brain phantoms in several sequences", description, modality="MR", labels=named)
