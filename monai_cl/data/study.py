"""Questions that a run asks about its data before it starts."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from monai_cl.datalist import datalist_file, is_cache, items_of, read_datalist, shared_subjects
from monai_cl.transforms._labels import NOT_FINITE

logger = logging.getLogger(__name__)

_USUALLY_IGNORED = (-1, 255)  # by other programs, for a voxel of no known class


def digest(datalist: str | Path) -> str:
    """SHA-256 of a datalist or of a cache's manifest, to detect changed data when a run resumes."""
    if not is_cache(datalist):
        return hashlib.sha256(Path(datalist).read_bytes()).hexdigest()
    content = read_datalist(datalist)
    del content["cache"]["monai_cl"]  # the version that wrote it last does not describe the data
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def source_of(items: Sequence[Mapping[str, Any]], datalist: str | Path) -> str | Path | None:
    """The datalist that items were read from; ``None`` where another program, such as MONAI Label, gave its own.

    Args:
        items: Items of a run; those of :func:`monai_cl.datalist.load_datalist` each have a ``case``.
        datalist: The datalist of the run.

    Example:
        >>> source_of([{"image": "a.nii.gz", "case": "a"}], "study.json"), source_of([{"image": "a.nii.gz"}], "no.json")
        ('study.json', None)
    """
    return datalist if all("case" in item for item in items) else None


def check_study(datalist: str | Path | None, *, out_channels: int, ignore_index: int | None = None) -> None:
    """Refuse a study that cannot give an honest result.

    Args:
        datalist: The JSON file, or the folder of a cache; ``None`` without a list to look at.
        out_channels: Classes with the background.
        ignore_index: Label of voxels that do not count.

    Raises:
        ValueError: If the datalist's ``labels`` need another number of output channels, or a patient is in both
            ``training`` and ``validation`` (or ``test``).
    """
    if datalist is None:
        return
    content = read_datalist(datalist)
    _check_names(datalist, _labels_of(content, datalist), out_channels, ignore_index)
    for held_out in ("validation", "test"):
        sides = items_of(content, "training"), items_of(content, held_out)
        both = shared_subjects(*sides, folder=datalist_file(datalist).parent)
        if both:
            raise ValueError(
                f"no patient may be in both training and {held_out}, got {len(both)} ({', '.join(map(str, both[:5]))})"
                f" in {datalist}; move all volumes of a patient to one side"
            )


def _labels_of(content: Mapping[str, Any], datalist: str | Path) -> dict[int, str]:
    """Names of the classes of a datalist by their numbers."""
    labels = content.get("labels") or {}
    try:
        return {int(label): str(name) for label, name in labels.items()}
    except (AttributeError, ValueError):
        example = '{"0": "background", "1": "liver"}'
        raise ValueError(f"labels of {datalist} must be names of classes by number, as {example}; mend it") from None


def _check_names(datalist: str | Path, labels: Mapping[int, str], out_channels: int, ignore_index: int | None) -> None:
    """Compare the classes that a datalist names with the output channels."""
    named = {label: name for label, name in labels.items() if label != ignore_index}
    if not named or max(named) + 1 == out_channels:
        return
    classes = f"the labels of {datalist} ({', '.join(f'{label}: {name}' for label, name in named.items())})"
    advice = _advice(set(named), out_channels)
    needed = max((label for label in named if label not in _USUALLY_IGNORED), default=0) + 1
    if needed == out_channels and set(named) & set(_USUALLY_IGNORED):
        raise ValueError(f"{classes} must be below out_channels, {out_channels}; {advice}")
    raise ValueError(f"out_channels must be {needed} for {classes}, got {out_channels}; {advice}")


def check_labels(
    volumes: Dataset[Mapping[str, Any]] | None, *, out_channels: int, ignore_index: int | None = None
) -> None:
    """Refuse prepared volumes with labels beyond the network's channels, whatever the datalist states.

    Logs the number of voxels that do not count, and the classes that no volume holds.

    Args:
        volumes: Prepared volumes with ``label``; ``None`` if none exist.
        out_channels: Classes with the background.
        ignore_index: Label of voxels that do not count; with it, NaN and infinities in files do not count either.

    Raises:
        ValueError: If a label is below 0 or not below ``out_channels`` and is not ``ignore_index``, or NaN without it;
            or if no voxel of a volume counts. Names the volumes, and the values as they stand in the files.
    """
    if volumes is None:
        return
    counts = {}
    for index in range(len(volumes)):  # type: ignore[arg-type]
        volume = volumes[index]
        values, voxels = torch.unique(torch.as_tensor(volume["label"]), return_counts=True)
        listed = {int(value): int(count) for value, count in zip(values.tolist(), voxels.tolist(), strict=True)}
        counts[str(volume.get("case", index))] = listed
    accepted = set(range(out_channels)) | (set() if ignore_index is None else {ignore_index, NOT_FINITE})
    wrong = {case: sorted(set(result) - accepted) for case, result in counts.items() if set(result) - accepted}
    if wrong:
        cases = "; ".join(f"{case} has {_words(values)}" for case, values in sorted(wrong.items())[:5])
        every = {value for result in counts.values() for value in result if value != ignore_index}
        raise ValueError(
            f"labels must be 0 to {out_channels - 1} for {out_channels} output channels, {len(wrong)} of "
            f"{len(counts)} volumes have others ({cases}); {_advice(every, out_channels)}"
        )
    _check_counted(counts, set(range(out_channels)) - {ignore_index})


def _check_counted(counts: Mapping[str, Mapping[int, int]], classes: set[int]) -> None:
    """Refuse volumes without any counted voxel; warn of ignored voxels and of classes in no volume."""
    empty = sorted(case for case, result in counts.items() if not classes & set(result))
    if empty:
        raise ValueError(
            f"some voxel of each volume must count, all are to be ignored in {len(empty)} of {len(counts)} "
            f"({', '.join(empty[:5])}); take these volumes out of the datalist"
        )
    ignored = [sum(n for value, n in result.items() if value not in classes) for result in counts.values()]
    if any(ignored):
        share = sum(ignored) / sum(sum(result.values()) for result in counts.values())
        logger.info(
            "%.3g %% of the voxels are ignored, in %d of %d volumes", 100 * share, sum(map(bool, ignored)), len(counts)
        )
    held = {value for result in counts.values() for value in result} & classes
    absent = classes - held
    if absent:
        top = max(held, default=0)
        fewer = f"; or, if no class is above {top}, `--out_channels {top + 1}`" if top and max(absent) > top else ""
        logger.warning(
            "no volume of %d holds class %s: none is learned of it in training, nothing measured in validation; take "
            "more volumes (--labels), or another draw of them (--seed)%s",
            len(counts), ", ".join(map(str, sorted(absent))), fewer,
        )  # fmt: skip


def _advice(values: set[int], out_channels: int) -> str:
    """A remedy for labels without a channel."""
    advice = []
    if NOT_FINITE in values:
        advice.append("NaN and infinities are ignored once `--ignore_index 255` or another value is given")
    for value in sorted(values & set(_USUALLY_IGNORED)):
        advice.append(f"if {value} stands for voxels that are not to count, add `--ignore_index {value}`")
    classes = sorted(value for value in values if value not in (*_USUALLY_IGNORED, NOT_FINITE))
    most = max(classes, default=0)
    gaps = sorted(set(range(most + 1)) - set(classes))
    if most + 1 != out_channels and most > 0:
        advice.append(f"for classes up to {most} add `--out_channels {most + 1}`")
        if gaps:
            advice.append(
                f"no voxel has {_words(gaps)}: renumber the classes to leave no gap, which needs fewer channels"
            )
    if min(classes, default=0) < 0 or not advice:
        advice.append("mend the masks")
    return "; ".join(advice)


def _words(values: Sequence[int]) -> str:
    shown = [("NaN or infinity" if value == NOT_FINITE else str(value)) for value in values[:9]]
    return ", ".join(shown) + (", ..." if len(values) > 9 else "")


def check_axes(volumes: Dataset[Mapping[str, Any]], crop_size: Sequence[int]) -> None:
    """Refuse crops of another number of axes than the prepared volumes have."""
    axes = torch.as_tensor(volumes[0]["image"]).ndim - 1
    if len(crop_size) != axes:
        raise ValueError(f"crop_size must have the {axes} axes of the volumes, got {tuple(crop_size)}")


def class_names(datalist: str | Path, *, ignore_index: int | None = None) -> dict[int, str]:
    """Names of the classes above background that a datalist gives, without that of voxels that do not count."""
    labels = _labels_of(read_datalist(datalist), datalist)
    return {label: name for label, name in labels.items() if label > 0 and label != ignore_index}
