"""Batches of labelled volumes for fine-tuning: every volume in turn, each time altered anew."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from torch.utils.data import RandomSampler


def labelled_loader(
    volumes: Sequence[dict[str, Any]],
    augmentation: Callable[[dict[str, Any]], Any],
    *,
    batch_size: int,
    batches: int,
    seed: int = 0,
    num_workers: int = 0,
) -> DataLoader:
    """Loader of the same number of batches an epoch, whatever the number of volumes, reshuffled at each turn.

    Args:
        volumes: Prepared volumes.
        augmentation: Random transform of a volume.
        batch_size: Items a batch.
        batches: Batches an epoch.
        seed: Seed of the order.
        num_workers: Worker processes.

    Raises:
        ValueError: If a batch, or an epoch, would be empty.
    """
    for name, number in (("finetune_batch_size", batch_size), ("finetune_epoch_length", batches)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number!r}")
    altered = Dataset(volumes, augmentation)
    order = RandomSampler(altered, num_samples=batch_size * batches, generator=torch.Generator().manual_seed(seed))
    return DataLoader(altered, batch_size=batch_size, sampler=order, num_workers=num_workers)
