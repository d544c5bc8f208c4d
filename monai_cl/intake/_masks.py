"""Masks that lie among images: recognised by name, grid and values, so that nobody pretrains on them."""

import math
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_cl.intake._findings import Findings
from monai_cl.intake.decathlon import Claim, layout_folder, same_person
from monai_cl.io.grid import Grid, on_one_grid
from monai_cl.io.suffixes import is_nifti, stem
from monai_cl.privacy.quoting import Quoting

REASON = "mask among images"
NAMED_AS_MASK = "named as a mask, but with the values of an image"
_SHORT = r"(?:dseg|segs?|segm|labels?|masks?|rois?|contours?|annot|gt|lesions?|tumou?rs?)"
_NAME = re.compile(rf"(?<![a-z]){_SHORT}(?![a-z])|segmentation|annotation|delineation|labelmap|mask\d*$|ground_?truth")
_CHANNEL = re.compile(r"_\d{4}$")
_MOST_VALUES = 256
_ALIKE = 0.8  # share of neighbours within the foreground that have one value: labels have regions, images have noise
_LARGEST = 1 << 28  # bytes that are read of a file


@dataclass(frozen=True)
class _Suspect:
    """A file that may be a mask, and the image it would be of."""

    claim: Claim
    named: bool
    image: str | None


def without_masks(
    claims: Sequence[Claim], grids: Mapping[str, Grid], folder: Path, findings: Findings, *, workers: int | None
) -> list[Claim]:
    """Leave out files that were taken for images without label, but are masks.

    A mask has few whole values in regions, and either the name of a mask, or the grid of an image whose name it
    extends.

    Args:
        claims: Pairs made by name.
        grids: Usable files.
        folder: Folder that paths are relative to.
        findings: Receives the masks, with how to list each as a label.
        workers: Number of threads.

    Returns:
        The other claims.
    """
    suspects = list(_suspects(claims, grids))
    with ThreadPoolExecutor(workers) as pool:
        looked_at = {str(one.claim.image) for one in suspects} | {one.image for one in suspects if one.image}
        names = sorted(looked_at)
        verdicts = pool.map(lambda path: _has_values_of_mask(folder / path, grids[path]), names)
        like_mask = dict(zip(names, verdicts, strict=True))
    masks = set()
    for one in suspects:
        path = str(one.claim.image)
        if not like_mask[path]:
            if one.named:
                findings.note(NAMED_AS_MASK, path)
        elif one.named or (one.image and not like_mask[one.image]):
            masks.add(path)
            findings.leave_out([path], REASON, _detail(one, claims), mentions=[one.image or path])
    return [claim for claim in claims if not (isinstance(claim.image, str) and claim.image in masks)]


def _suspects(claims: Sequence[Claim], grids: Mapping[str, Grid]) -> Iterator[_Suspect]:
    """Files without label that are named as masks, or extend the name of an image on their grid."""
    files = {str(claim.image): claim for claim in claims if isinstance(claim.image, str) and claim.image in grids}
    images: dict[tuple[str, str], str] = {}  # by folder and name without channel
    for path in files:
        if not _is_named_as_mask(path):
            images.setdefault((posixpath.dirname(path), _CHANNEL.sub("", stem(path))), path)
    for path, claim in files.items():
        if claim.label:
            continue
        named = _is_named_as_mask(path)
        own = posixpath.dirname(path)
        near = (own, posixpath.dirname(own)) if named else (own,)  # a folder of masks lies beside the image
        result = (images.get((folder, base)) for folder in near for base in _bases(stem(path), named=named))
        image = next(
            (other for other in result if other not in (None, path) and on_one_grid(grids[other], grids[path])), None
        )
        if named or image:
            yield _Suspect(claim, named, image)


def _is_named_as_mask(path: str) -> bool:
    folder = posixpath.basename(posixpath.dirname(path)).casefold()
    return bool(_NAME.search(stem(path).casefold()) or _NAME.fullmatch(folder) or _NAME.fullmatch(folder.rstrip("s")))


def _bases(name: str, *, named: bool) -> list[str]:
    """Names of images that a name extends by more than a sequence or session, the longest first."""
    ends = [end for end in range(len(name) - 1, 0, -1) if named or name[end] in "_-. "]
    bases = [name[:end] for end in ends if named or not same_person(name[:end], name)]
    rest = re.sub(rf"[-_. ]*({_NAME.pattern})[-_. ]*", "", name, flags=re.IGNORECASE) if named else ""
    return [*filter(None, [rest]), *bases]


def _has_values_of_mask(path: Path, grid: Grid) -> bool:
    """Return whether values are few and whole, and regions of one value, not noise, make up the foreground."""
    try:
        values = _middle_part(path, grid)
    except Exception:  # whatever a reader may throw at a broken file; the full reading reports it
        return False
    return values is not None and _are_labels(values)


def _middle_part(path: Path, grid: Grid) -> NDArray[Any] | None:
    """Slices around the middle that fit into a bounded part of the memory; ``None`` if fewer than one fits."""
    plane = 8 * math.prod(grid.shape[:2])
    count = min(grid.shape[2], _LARGEST // plane)
    if not count:
        return None
    first = (grid.shape[2] - count) // 2
    if is_nifti(path):
        import nibabel

        image: Any = nibabel.load(path)
        part: NDArray[Any] = np.asarray(image.dataobj[:, :, first : first + count])
        return part.reshape(*grid.shape[:2], count)  # trailing axes of length 1 are dropped
    if count < grid.shape[2]:  # its reader takes the whole
        return None
    from monai_cl.io.itk import read_itk

    whole: NDArray[Any] = read_itk(path)[0][0]
    return whole


def _are_labels(values: NDArray[Any]) -> bool:
    """Return whether values are those of a label map.

    Example:
        >>> regions = np.zeros((9, 9, 9))
        >>> regions[2:7, 2:7, 2:7] = 3
        >>> _are_labels(regions), _are_labels(regions * np.random.default_rng(0).integers(1, 9, regions.shape))
        (True, False)
    """
    whole = np.rint(values) if values.dtype.kind == "f" else values
    if values.dtype.kind == "f" and not (np.abs(values - whole) < 0.05).all():  # what resampling leaves of whole ones
        return False
    if np.unique(whole).size > _MOST_VALUES or whole.min() < -1:
        return False
    alike = pairs = 0
    for axis in range(3):
        one, other = np.moveaxis(whole, axis, 0)[1:], np.moveaxis(whole, axis, 0)[:-1]
        inside = (one != 0) & (other != 0)
        pairs += int(inside.sum())
        alike += int((inside & (one == other)).sum())
    return alike >= _ALIKE * pairs


def _detail(suspect: _Suspect, claims: Sequence[Claim]) -> Quoting:
    """Explanation of a suspected mask: its image, and the way to use it as a label."""
    result = "few whole values in regions"
    if suspect.image is None:
        return Quoting(f"{result}, and no image of its name on its grid; to train on it, name both in a dataset.json")
    label = next((claim.label for claim in claims if claim.image == suspect.image), None)
    if label:
        return Quoting(f"{result}, on the voxels of {{}}, which has another label", suspect.image)
    # no path is made up here: it would hold parts of names that nobody looks for
    if layout_folder(posixpath.dirname(suspect.image)):
        advice = "move it to the folder of labels beside that of images, under the name of the image without channel"
    else:
        advice = "name it as that image with _seg behind"
    return Quoting(f"{result}, on the voxels of {{}}; to train on it, {advice}", suspect.image)
