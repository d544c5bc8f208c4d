"""A folder of phantoms: begun in an empty place, described last, so that one with a description is complete."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_cl._locks import alone_in, is_empty

DOI = "doi:10.1016/j.neuroimage.2010.07.033"  # of the tissue maps that all brains are made of
# sections of a datalist in the order of the subject numbers; the place of each is part of the seeds
SECTIONS = ("training", "validation", "unlabelled")


@contextmanager
def empty_folder(folder: str | Path, what: str) -> Iterator[Path]:
    """Make a folder and hold it for this process alone while the block writes into it.

    Args:
        folder: Target, absent or empty.
        what: Name of the content, in the plural, for the message.

    Raises:
        FileExistsError: If the folder holds something already.
    """
    root = Path(folder)
    with alone_in(root, instead="another folder"):
        if not is_empty(root):
            raise FileExistsError(f"{what} need an absent or empty folder, {root} holds files; choose another")
        yield root


def numbers_of_subjects(*, labelled: int, test: int, unlabelled: int) -> dict[str, int]:
    """Number of subjects of each of :data:`SECTIONS`.

    Raises:
        ValueError: If one is negative, or all are 0.
    """
    counts = dict(zip(SECTIONS, (labelled, test, unlabelled), strict=True))
    if min(counts.values()) < 0 or sum(counts.values()) == 0:
        raise ValueError(f"the numbers of subjects must not be negative and not all 0, got {counts}")
    return counts


def header(
    name: str, description: str, *, modality: str, labels: Mapping[int, str], template: bool = True
) -> dict[str, Any]:
    """Description of a datalist of phantoms, beside its sections.

    Args:
        name: Name of the data set.
        description: Kind of the images, without the end of the sentence.
        modality: Modality of all images.
        labels: Names of the classes above background.
        template: If they are made of the ICBM152 tissue maps, which the description then refers to.
    """
    return {
        "name": name,
        "description": f"{description}; no patient data.",
        **({"reference": f"ICBM152 2009a symmetric tissue maps, {DOI}"} if template else {}),
        "tensorImageSize": "3D",
        "modality": {"0": modality},
        "labels": {"0": "background"} | {str(value): label for value, label in labels.items()},
        "hide_names": False,  # these subjects are nobody
    }
