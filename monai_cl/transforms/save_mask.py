"""Masks written whole or not at all."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import DtypeLike, KeysCollection
from monai.data import FolderLayoutBase, MetaTensor, NibabelWriter
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from monai_cl._files import atomic_write


class SaveMask(Transform):
    """Save a mask as NIfTI on the grid that its metadata tell.

    MONAI's ``SaveImage`` writes in place, so that a run that ends in mid-write leaves a part of a mask, and calls every
    failure a missing writer. Here a reader sees the mask of before or the new one, and an error of the system, such as
    a full disk, comes out as it is.

    Args:
        folder_layout: Names the file of each mask, such as :class:`monai_cl.transforms.MaskFiles`.
        output_dtype: Type of the voxels.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 - MONAI's contract

    def __init__(self, folder_layout: FolderLayoutBase, output_dtype: DtypeLike = np.uint8) -> None:
        self.folder_layout = folder_layout
        self.output_dtype = output_dtype

    def __call__(self, mask: MetaTensor) -> MetaTensor:
        """Write a mask and give it back.

        Args:
            mask: Channel-first, with the name of its scan as ``filename_or_obj``.

        Raises:
            TypeError: If it has no metadata.
            OSError: If it cannot be written; a file of before is left as it was.
        """
        if not isinstance(mask, MetaTensor):
            raise TypeError(
                f"a mask must be a MetaTensor, which knows its scan and its grid, got {type(mask).__name__}"
            )
        writer = NibabelWriter(output_dtype=self.output_dtype)
        writer.set_data_array(mask)
        writer.set_metadata(mask.meta, resample=False)
        with atomic_write(Path(self.folder_layout.filename(mask.meta.get("filename_or_obj", "")))) as temporary:
            writer.write(temporary)
        return mask


class SaveMaskd(MapTransform):
    """Dictionary form of :class:`SaveMask`.

    Args:
        keys: Keys of the masks.
        folder_layout: As of :class:`SaveMask`.
        output_dtype: As of :class:`SaveMask`.
        allow_missing_keys: Skip keys that an item lacks.
    """

    backend = SaveMask.backend

    def __init__(
        self,
        keys: KeysCollection,
        folder_layout: FolderLayoutBase,
        output_dtype: DtypeLike = np.uint8,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.save = SaveMask(folder_layout, output_dtype)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the masks of an item and give it back."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.save(d[key])
        return d


SaveMaskD = SaveMaskDict = SaveMaskd
