"""Volumes set aside to look at a representation while it is learned."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Randomizable, SpatialCrop, SpatialPad

from monai_cl.data.loading.prepared import PreparedDataset
from monai_cl.data.loading.sampling import ViewDataset, fixed_batches
from monai_cl.data.loading.slice_loading import fixed_slice_batches
from monai_cl.data.loading.slices import SliceDataset, items_of_rank
from monai_cl.data.study import class_names
from monai_cl.datalist import few_labels, load_datalist, read_datalist, subject_of

logger = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.1  # at most, of the volumes for pretraining, when the datalist sets none apart


def split_for_probe(
    datalist: str | Path,
    sections: str | Sequence[str],
    probe_section: str,
    *,
    dataset_dir: str | Path | None = None,
    count: int = 8,
    seed: int = 0,
    is_volume: Callable[[Mapping[str, Any]], bool] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Items to pretrain on and ``count`` items to probe with, labels taken away from both.

    The probe's come from ``probe_section``; where that is absent or empty, whole patients are held out from
    ``sections``, up to a tenth of the volumes. With too few volumes the probe is left out, and the log reports it.
    Items that are no volumes, such as quantitative maps, are neither counted nor probed with.

    Args:
        datalist: The JSON file.
        sections: Sections to pretrain on, as for :func:`monai_cl.datalist.load_datalist`.
        probe_section: Section to probe on.
        dataset_dir: Folder that relative paths start from.
        count: Most items to probe with; 0 for none.
        seed: Seed of the choice.
        is_volume: Returns whether an item is a volume; ``None`` takes all for volumes.

    Returns:
        Lists ``"train"`` and ``"probe"``.
    """
    items = load_datalist(datalist, sections, dataset_dir=dataset_dir, labelled=False)
    if count < 1:
        return {"train": items, "probe": []}
    if read_datalist(datalist).get(probe_section):
        others = load_datalist(datalist, probe_section, dataset_dir=dataset_dir, labelled=False)
        volumes = list(filter(is_volume, others))  # all of them by ``None``
        if not volumes:
            logger.info("no volume to probe with in section %r", probe_section)
            return {"train": items, "probe": []}
        return {"train": items, "probe": few_labels(volumes, min(count, len(volumes)), seed=seed)}
    volumes = list(filter(is_volume, items))  # all of them by ``None``
    count = min(count, int(HELD_OUT_SHARE * len(volumes)))
    if count < 1:
        logger.info("too few volumes to probe with: only %d, and no section %r", len(volumes), probe_section)
        return {"train": items, "probe": []}
    probe = few_labels(volumes, count, seed=seed)
    patients = {subject_of(item) for item in probe}
    return {"train": [item for item in items if subject_of(item) not in patients], "probe": probe}


def probe_batches(
    items: Sequence[dict[str, Any]],
    transform: Callable[[dict[str, Any]], Any],
    views: Randomizable,
    *,
    keys: Sequence[str],
    batch_size: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    draws: int = 1,
) -> list[dict[str, Any]]:
    """Batches of views of ``items``, prepared and drawn once; empty with fewer items than processes.

    Args:
        items: Items to probe with.
        transform: Deterministic transform of an item.
        views: Random transform; its draws are fixed by ``seed``.
        keys: Entries of the views that go into a batch.
        batch_size: Volumes a batch.
        seed: Seed of the draws.
        rank: This process's number among ``world_size`` ones, which share the items.
        world_size: Number of processes.
        draws: How often each item is drawn from.
    """
    if len(items) < world_size:
        return []
    volumes = PreparedDataset(items, transform, max_faults=0.5, rank=rank, world_size=world_size)
    dataset = ViewDataset(volumes, views, keys=keys)
    return fixed_batches(dataset, len(volumes), batch_size=batch_size, seed=seed, draws=draws)


def probe_patches(
    datalist: str | Path,
    section: str,
    transform: Callable[[dict[str, Any]], Any],
    patch_size: Sequence[int],
    *,
    dataset_dir: str | Path | None = None,
    count: int = 8,
    seed: int = 0,
    rank: int = 0,
    slice_axis: int | None = None,
) -> list[dict[str, Any]]:
    """Labelled patches to see what features know of the labels; none where a section has no labels.

    Args:
        datalist: The JSON file.
        section: Section to take them from.
        transform: Deterministic transform of an item.
        patch_size: Size of a patch in voxels. It lies around what is labelled, moved by up to a quarter of its size:
            were that in its middle, the distance from the edges would give the classes away.
        dataset_dir: Folder that relative paths start from.
        count: Most patches, each of another volume; 0 for none.
        seed: Seed of the choice.
        rank: Number of this process; only the first looks.
        slice_axis: Take patches of one slice along this axis, which ``patch_size`` is then without; ``None`` takes
            them from the volume.

    Returns:
        Items with ``image`` and ``label``, of ``patch_size``; -1 where a label is of no class that the datalist names.
    """
    if rank > 0 or count < 1 or not _is_labelled(datalist, section):
        return []
    items = load_datalist(datalist, section, dataset_dir=dataset_dir, labelled=True)
    items = few_labels(items, min(count, len(items)), seed=seed)
    volumes = PreparedDataset(items, transform, max_faults=0.5)
    generator = torch.Generator().manual_seed(seed)
    named = class_names(datalist)
    return [
        _patch(_with_classes(volumes[index], named), patch_size, generator, slice_axis) for index in range(len(volumes))
    ]


def probe_slices(
    items: Sequence[dict[str, Any]],
    transform: Callable[[dict[str, Any]], Any],
    views: Randomizable,
    *,
    keys: Sequence[str],
    volumes_per_batch: int,
    n_parts: int,
    slab: int = 1,
    axis: int | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> list[dict[str, Any]]:
    """Batches of views of slices, one of each partition, drawn once; empty with fewer patients than processes.

    Args:
        items: Items to probe with.
        transform: Deterministic transform of an item.
        views: Random transform of slices; its draws are fixed by ``seed``.
        keys: Entries of the views that go into a batch.
        volumes_per_batch: Volumes a batch, at most.
        n_parts: Partitions.
        slab: Slices of a slab, 1 for slices.
        axis: Axis of the slices; see :class:`monai_cl.data.SliceDataset`.
        seed: Seed of the draws.
        rank: This process's number among ``world_size`` ones, which share the patients.
        world_size: Number of processes.
    """
    if len({subject_of(item) for item in items}) < world_size:
        return []
    mine = items_of_rank(items, rank=rank, world_size=world_size)
    volumes = PreparedDataset(mine, transform, max_faults=0.5)
    slices = SliceDataset(
        volumes, views, keys=keys, slice_keys=("image",), slab=slab, axis=axis, max_faults=0.5, kept_slices=False,
        rank=rank, world_size=world_size,
    )  # fmt: skip
    return fixed_slice_batches(slices, volumes_per_batch, n_parts, seed=seed)


def _with_classes(item: dict[str, Any], named: Mapping[int, str]) -> dict[str, Any]:
    """The item with -1 where its label is of no class: 255, as usual, and whatever the datalist does not name."""
    label = item["label"]
    known = torch.isin(torch.as_tensor(label), torch.tensor([0, *named])) if named else label >= 0
    return {**item, "label": torch.where(known & (label != 255), label, -1)}


def _is_labelled(datalist: str | Path, section: str) -> bool:
    entries = read_datalist(datalist).get(section) or []
    return any(isinstance(entry, dict) and entry.get("label") for entry in entries)


def _patch(
    item: dict[str, Any], patch_size: Sequence[int], generator: torch.Generator, slice_axis: int | None
) -> dict[str, Any]:
    sides = list(patch_size)
    if slice_axis is not None:
        sides.insert(slice_axis, 1)
    size, patch = torch.tensor(item["label"].shape[1:]), torch.tensor(sides)
    foreground = (torch.as_tensor(item["label"])[0] > 0).nonzero().float()
    centre = foreground.mean(0) if len(foreground) else size / 2
    centre = centre + (torch.rand(len(size), generator=generator) - 0.5) * patch / 2
    start = (centre - patch / 2).round().long().clamp_min(0).minimum((size - patch).clamp_min(0))
    crop, pad = SpatialCrop(roi_start=start.tolist(), roi_end=(start + patch).tolist()), SpatialPad(sides)
    result = {key: pad(crop(item[key])) for key in ("image", "label")}
    return result if slice_axis is None else {key: value.squeeze(slice_axis + 1) for key, value in result.items()}
