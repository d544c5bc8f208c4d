"""Batches of labelled and unlabelled patches, computed from the seed and the step alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.data
import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import DataLoader, Dataset, Sampler

from monai_cl.data.curation.leaks import ADVICE, HELD_OUT, leaks_in_words, leaks_within
from monai_cl.data.loading.alike import check_alike
from monai_cl.data.loading.sampling import collate_views
from monai_cl.datalist import load_datalist, read_datalist
from monai_cl.transforms.seeding import reseed

logger = logging.getLogger(__name__)


def without_labels(items: Sequence[dict[str, Any]], keys: Sequence[str] = ("label",)) -> list[dict[str, Any]]:
    """Return the items of a datalist without their labels, so that nothing can read them.

    Example:
        >>> without_labels([{"image": "a.nii.gz", "label": "a_label.nii.gz"}])
        [{'image': 'a.nii.gz'}]
    """
    return [{key: value for key, value in item.items() if key not in keys} for item in items]


def unlabelled_rest(
    datalist: str | Path, labelled: Sequence[dict[str, Any]], *, dataset_dir: str | Path | None = None
) -> list[dict[str, Any]]:
    """Items of ``training`` and ``unlabelled`` that are not trained on with their labels; none of them has a label.

    Patients or pictures that are held out as well are named in a warning: the network has seen their images.

    Args:
        datalist: The JSON file, or the folder of a cache.
        labelled: Items that are trained on with their labels.
        dataset_dir: Folder that relative paths start from.

    Raises:
        ValueError: If nothing is left.
    """
    content = read_datalist(datalist)
    known = {_image(item) for item in labelled}
    items = load_datalist(datalist, "training+unlabelled", dataset_dir=dataset_dir, labelled=False)
    rest = [item for item in items if _image(item) not in known]
    listed = (
        {_image(item) for item in load_datalist(datalist, "unlabelled", dataset_dir=dataset_dir, labelled=False)}
        if content.get("unlabelled")
        else set()
    )
    if known & listed:
        logger.warning(
            "%d volumes with labels are also in the unlabelled list: each is used once, with its label",
            len(known & listed),
        )
    if not rest:
        raise ValueError(
            f"self-training needs volumes beside the {len(known)} labelled ones, {datalist} has none in training or "
            "unlabelled; add unlabelled volumes, take fewer labels, or leave selftrain.yaml out"
        )
    _warn_of_held_out(content)
    return without_labels(rest)


def _warn_of_held_out(content: Mapping[str, Any]) -> None:
    for name in HELD_OUT:
        if leaks := leaks_within(content, ("training", "unlabelled"), (name,)):
            logger.warning(
                "self-training sees images of %s, without labels (%s): Dice on them is not that on new patients; %s",
                name, leaks_in_words(leaks), ADVICE,
            )  # fmt: skip


def _image(item: dict[str, Any]) -> str:
    return str(item["image"])


class Steps(Sampler[int]):
    """The steps of a run in order, from :attr:`start` on.

    Args:
        steps: Steps of the whole run.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.start = 0

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.steps))


class MixedBatches(Dataset[dict[str, Any]]):
    """A batch of a step: ``image`` and ``label`` of labelled volumes, ``unlabelled`` images of others, and names.

    ``case`` names the labelled volumes, ``unlabelled_case`` the others.
    Where ``alter_unlabelled`` adds ``changed``, an image at the same places, it becomes ``unlabelled_changed``.

    Volumes come in turn, in another order at each turn, and are altered anew each time. A process takes its share of
    the batch of all, so that two of them see what one with twice the batch does.

    Args:
        labelled: Prepared volumes with ``image`` and ``label``.
        unlabelled: Prepared volumes of which ``image`` alone is looked at.
        alter_labelled: Random transform of a labelled volume to a patch.
        alter_unlabelled: Random transform of an unlabelled one; it is given no label.
        batch_size: Patches of each kind a process.
        seed: Seed of the run.
        rank: This process's number among ``world_size`` ones.
        world_size: Number of processes.
        also: Further entries that the transforms are given, of a volume that has them.

    Raises:
        ValueError: If labelled or unlabelled volumes are missing, or these are of another modality or number of
            channels.
    """

    def __init__(
        self,
        labelled: Sequence[dict[str, Any]],
        unlabelled: Sequence[dict[str, Any]],
        *,
        alter_labelled: Randomizable,
        alter_unlabelled: Randomizable,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        also: Sequence[str] = (),
    ) -> None:
        for name, volumes in (("labelled", labelled), ("unlabelled", unlabelled)):
            if not len(volumes):
                raise ValueError(
                    f"self-training needs at least one {name} volume, got none; add some to the datalist, or train "
                    "without self-training"
                )
        check_alike(labelled, unlabelled)
        self.labelled = monai.data.Dataset(labelled, alter_labelled)
        self.unlabelled = monai.data.Dataset(unlabelled, alter_unlabelled)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.also = tuple(also)

    def __getitem__(self, step: int) -> dict[str, Any]:
        known = self._patches(self.labelled, 0, step, ("image", "label"))
        others = self._patches(self.unlabelled, 1, step, ("image",))
        batch = {**known, "unlabelled": others["image"], "unlabelled_case": others["case"]}
        return {**batch, "unlabelled_changed": others["changed"]} if "changed" in others else batch

    def _patches(self, source: Any, kind: int, step: int, keys: Sequence[str]) -> dict[str, Any]:
        everyone = self.batch_size * self.world_size
        first = self.rank * self.batch_size
        seeds = np.random.default_rng([self.seed, kind, 0, step]).integers(0, 2**32, size=everyone)
        patches = []
        for place in range(first, first + self.batch_size):
            turn, number = divmod(step * everyone + place, len(source))
            order = np.random.default_rng([self.seed, kind, 1, turn]).permutation(len(source))
            patches.append(self._patch(source, int(order[number]), int(seeds[place]), keys))
        return collate_views(patches)

    def _patch(self, source: Any, item: int, seed: int, keys: Sequence[str]) -> dict[str, Any]:
        volume = source.data[item]
        given = {key: volume[key] for key in (*keys, *(key for key in self.also if key in volume))}
        altered = reseed(source.transform, seed)(given)
        patch = altered[0] if isinstance(altered, list) else altered  # of croppers that give several
        kept = [*keys, "changed"] if "changed" in patch else keys
        return {**{key: patch[key] for key in kept}, "case": str(volume.get("case", item))}


def mixed_loader(batches: MixedBatches, steps: int, *, num_workers: int = 0) -> DataLoader[dict[str, Any]]:
    """Loader of one batch a step; set ``loader.sampler.start`` to begin later.

    Args:
        batches: Makes the batch of a step.
        steps: Steps of the whole run.
        num_workers: Worker processes.
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=Steps(steps),
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(batches.seed),  # the global one belongs to the network
    )
