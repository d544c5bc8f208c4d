"""Unlabelled volumes of another kind than the labelled ones, by which self-training would learn nothing or harm."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

_FACTOR = 2.0  # between sizes of voxels, from which on patches show another share of the anatomy
_LISTED = 5


def check_alike(labelled: Sequence[Mapping[str, Any]], unlabelled: Sequence[Mapping[str, Any]]) -> None:
    """Refuse unlabelled volumes of another modality or number of channels; name those of another size of voxels.

    The modality is that of the item in the datalist, as ``monai-cl scan`` writes it; channels and voxels are those of
    the prepared volumes, so that a recipe with a ``spacing`` makes all alike.

    Args:
        labelled: Prepared volumes.
        unlabelled: Prepared volumes.

    Raises:
        ValueError: If a modality or number of channels is not among those of the labelled volumes; names the volumes.
    """
    for name, facts in (("modality", _modalities), ("number of channels", _channels)):
        known = {fact for _, fact in facts(labelled)}
        others = [f"{case}: {fact}" for case, fact in facts(unlabelled) if known and fact not in known]
        if others:
            raise ValueError(
                f"unlabelled volumes must be of the {name} of the labelled ones, {', '.join(sorted(map(str, known)))}, "
                f"{len(others)} of {len(unlabelled)} are not ({_some(others)}); take them out of the datalist"
            )
    sizes = np.array([size for _, size in _voxels(labelled)])
    if not len(sizes):
        return
    low, high = sizes.min(0) / _FACTOR, sizes.max(0) * _FACTOR
    odd = [
        f"{case}: {' x '.join(f'{edge:.3g}' for edge in size)} mm"
        for case, size in _voxels(unlabelled)
        if len(size) == len(low) and ((np.array(size) < low) | (np.array(size) > high)).any()
    ]
    if odd:
        logger.warning(
            "%d of %d unlabelled volumes have voxels more than %g times as large or as small as those of any labelled "
            "one (%s); give the recipe a spacing that suits all, or take them out of the datalist",
            len(odd), len(unlabelled), _FACTOR, _some(odd),
        )  # fmt: skip


def _kept(volumes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Volumes as they are kept, none of which is read for it, with their names."""
    stored = getattr(volumes, "stored", volumes.__getitem__)
    for number in range(len(volumes)):
        volume = stored(number)
        yield str(volume.get("case", number)), volume


def _modalities(volumes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(case, str(volume["modality"])) for case, volume in _kept(volumes) if volume.get("modality")]


def _channels(volumes: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    return [(case, int(volume["image"].shape[0])) for case, volume in _kept(volumes)]


def _voxels(volumes: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[float, ...]]]:
    result = []
    for case, volume in _kept(volumes):
        image = volume["image"]
        if (affine := getattr(image, "affine", None)) is not None:
            axes = len(image.shape) - 1
            result.append((case, tuple(float(edge) for edge in affine[:axes, :axes].norm(dim=0))))
    return result


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:_LISTED]) + ("; ..." if len(names) > _LISTED else "")
