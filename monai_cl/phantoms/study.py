"""Phantoms: synthetic scans with labels for the demo, the previews and the tests. No patient is in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_cl._files import write_json
from monai_cl.phantoms import brain, heart
from monai_cl.phantoms.brain import brain_subject
from monai_cl.phantoms.dataset_folder import empty_folder, header, numbers_of_subjects
from monai_cl.phantoms.heart import heart_subject
from monai_cl.phantoms.volume import LabelledVolume


def write_brain_dataset(
    folder: str | Path,
    *,
    unlabelled: int = 40,
    labelled: int = 8,
    test: int = 8,
    spacing: float = 3.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a Decathlon-style folder of brain phantoms.

    ``imagesTr/brain_001.nii.gz``, ``labelsTr/brain_001.nii.gz`` and ``dataset.json``, whose sections are ``training``
    (labelled), ``validation`` (the test subjects, labelled) and ``unlabelled`` (images alone). Every entry names its
    ``subject``. A subject is drawn from the seed, its section and its place there: asking for more unlabelled ones
    leaves all the others as they were. ``dataset.json`` is written last, so a folder that has it is complete.

    Args:
        folder: Target, absent or empty.
        unlabelled: Number of subjects without a label.
        labelled: Number of subjects with a label for training.
        test: Number of subjects with a label for validation.
        spacing: Isotropic voxel size in millimetres, 1 to 12.
        seed: Non-negative integer that fixes every draw.
        progress: Called with (subjects written, subjects in all) after each subject.

    Returns:
        Path of ``dataset.json``.

    Raises:
        ValueError: If a number of subjects is negative, or all are 0, or the spacing is out of range.
        FileExistsError: If the folder holds something already.
        ModuleNotFoundError: If nilearn is not installed.
    """
    counts = numbers_of_subjects(labelled=labelled, test=test, unlabelled=unlabelled)
    description = f"Synthetic T1-weighted brains without skull at {spacing:g} mm, seed {seed}"
    head = header("brain phantoms", description, modality="MR T1w", labels=brain.LABELS)
    with empty_folder(folder, "the brain phantoms") as root:
        return _write(root, "brain", head, counts, lambda draw: brain_subject((seed, *draw), spacing=spacing), progress)


def write_heart_dataset(
    folder: str | Path,
    *,
    unlabelled: int = 32,
    labelled: int = 8,
    test: int = 12,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a Decathlon-style folder of heart phantoms, in short-axis slices of 2.5 x 2.5 x 9 mm.

    Files, sections and draws are as in :func:`write_brain_dataset`, under the name ``heart_001``; subjects are those of
    :func:`~monai_cl.phantoms.heart_subject`.

    Args:
        folder: Target, absent or empty.
        unlabelled: Number of subjects without a label.
        labelled: Number of subjects with a label for training.
        test: Number of subjects with a label for validation.
        seed: Non-negative integer that fixes every draw.
        progress: Called with (subjects written, subjects in all) after each subject.

    Returns:
        Path of ``dataset.json``.

    Raises:
        ValueError: If a number of subjects is negative, or all are 0.
        FileExistsError: If the folder holds something already.
    """
    counts = numbers_of_subjects(labelled=labelled, test=test, unlabelled=unlabelled)
    description = f"Synthetic short-axis cine MR of hearts at 2.5 x 2.5 x 9 mm, seed {seed}"
    head = header("heart phantoms", description, modality="MR cine", labels=heart.LABELS, template=False)
    with empty_folder(folder, "the heart phantoms") as root:
        return _write(root, "heart", head, counts, lambda draw: heart_subject((seed, *draw)), progress)


def _write(
    root: Path,
    organ: str,
    head: dict[str, Any],
    counts: dict[str, int],
    subject_of: Callable[[tuple[int, int]], LabelledVolume],
    progress: Callable[[int, int], None] | None,
) -> Path:
    sections: dict[str, list[dict[str, str]]] = {}
    written = 0
    for section_number, (section, count) in enumerate(counts.items()):
        sections[section] = []
        for place in range(count):
            subject = subject_of((section_number, place))
            written += 1
            sections[section].append(_write_subject(root, f"{organ}_{written:03d}", subject, section != "unlabelled"))
            if progress is not None:
                progress(written, sum(counts.values()))
    write_json(root / "dataset.json", head | sections, indent=2)
    return root / "dataset.json"


def _write_subject(root: Path, name: str, subject: LabelledVolume, with_label: bool) -> dict[str, str]:
    entry = {"image": f"imagesTr/{name}.nii.gz"}
    if with_label:
        entry["label"] = f"labelsTr/{name}.nii.gz"
    for path in entry.values():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
    subject.save(root / entry["image"], root / entry["label"] if with_label else None)
    return entry | {"subject": name}
