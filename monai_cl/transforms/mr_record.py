"""Record of what was drawn for an image, in its metadata: kept apart from others when items become a batch."""

from typing import Any

from torch.utils.data._utils.collate import default_collate_fn_map


class MRRecord(dict[str, Any]):
    """A plain dictionary of JSON values, which a batch keeps as a list instead of merging records that differ."""


class _Batch(list[MRRecord]):
    """Records of a batch. MONAI's ``decollate_batch`` takes what has no axes as one item, and splits it as a list."""

    ndim = 0

    def item(self) -> list[MRRecord]:
        return list(self)


def _as_batch(batch: list[MRRecord], *, collate_fn_map: Any = None) -> _Batch:
    return _Batch(batch)


default_collate_fn_map[MRRecord] = _as_batch  # torch's place for types of one's own; MONAI's collation looks there too
