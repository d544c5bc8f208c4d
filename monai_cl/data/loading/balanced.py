"""Batches that hold healthy and patients in a fixed share."""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from monai_cl.data.loading.sampling import StepSampler


class WeakLabelBalancedSampler(StepSampler):
    """Batches of ``(item, seed)`` with the same number of patients in each, computed from seed and step alone.

    Healthy and patients each go round in passes of their own: within one every item comes once, in an order drawn for
    it. Whatever their numbers in the data, a batch holds as many as asked for, and never one kind alone.

    Args:
        labels: Label of each item, 0 (healthy) or 1 (patient).
        batch_size: Items a batch, at least 2.
        steps: Number of batches of the whole run.
        patients: Share of patients in a batch, rounded so that a batch holds at least one of each kind.
        seed: Seed of the run.
        rank: This process's number; processes draw differently.

    Raises:
        ValueError: If a label is neither or the share is not in (0, 1); with the first batch, or by :meth:`check`, if
            a kind has fewer items than a batch holds.

    Example:
        >>> labels = [0, 0, 0, 0, 1, 1]
        >>> [sum(labels[item] for item, _ in batch) for batch in WeakLabelBalancedSampler(labels, 4, 3)]
        [2, 2, 2]
    """

    def __init__(
        self,
        labels: Sequence[Hashable],
        batch_size: int,
        steps: int,
        *,
        patients: float = 0.5,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        other = sorted({str(label) for label in labels if label not in (0, 1)})
        if other:
            raise ValueError(
                f"labels must be 0 (healthy) or 1 (patient), got {other[:5]}; see monai_cl.data.weak_labels"
            )
        if not 0 < patients < 1:
            raise ValueError(f"patients must be a share between 0 and 1, got {patients!r}")
        if batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, for one of each kind, got {batch_size}")
        super().__init__(len(labels), min(batch_size, len(labels)), steps, seed=seed, rank=rank)
        self.batch_size = batch_size
        number = min(max(round(patients * batch_size), 1), batch_size - 1)
        self.counts = (batch_size - number, number)
        self.members = tuple(np.flatnonzero([label == kind for label in labels]) for kind in (0, 1))

    def check(self) -> None:
        """Raise ``ValueError`` if a batch takes more volumes of a kind than exist; so does the first batch."""
        for name, count, members in zip(("healthy", "patients"), self.counts, self.members, strict=True):
            if len(members) < count:
                raise ValueError(
                    f"a batch of {self.batch_size} takes {count} {name}, process {self.rank} has {len(members)}; use a "
                    "smaller batch_size, another share of patients or more volumes"
                )

    def _items(self) -> Iterator[tuple[int, np.ndarray]]:
        self.check()
        for step in range(self.start, self.steps):
            chosen = [self._of_kind(kind, step) for kind in (0, 1)]
            yield step, self._generator(2, step).permutation(np.concatenate(chosen))

    def _of_kind(self, kind: int, step: int) -> np.ndarray:
        members, count = self.members[kind], self.counts[kind]
        number, place = divmod(step, len(members) // count)
        order = self._generator(3 + kind, number).permutation(members)
        return np.asarray(order[place * count : (place + 1) * count])
