"""Masks written whole or not at all."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import DtypeLike, KeysCollection
from monai.data import FolderLayoutBase, MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from monai_cl._files import atomic_write
from monai_cl.transforms.mask_files import MaskFiles
from monai_cl.transforms.mask_writers import MaskWriter, NiftiMasks


class SaveMask(Transform):
    """Save a mask on the grid in its metadata, as NIfTI or in the form of a writer.

    MONAI's ``SaveImage`` writes in place, so that a run that ends in mid-write leaves a part of a mask, and calls every
    failure a missing writer. Here a reader sees the mask of before or the new one, and an error of the system, such as
    a full disk, comes out as it is.

    Args:
        folder_layout: Names the file of each mask, such as :class:`monai_cl.transforms.MaskFiles`.
        output_dtype: Type of the voxels of NIfTI.
        writer: Form of the files, from :func:`monai_cl.transforms.mask_writer`; NIfTI when left out. Scans that it
            cannot write masks of are refused before the first is made.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self, folder_layout: FolderLayoutBase, output_dtype: DtypeLike = np.uint8, writer: MaskWriter | None = None
    ) -> None:
        self.folder_layout = folder_layout
        self.writer: MaskWriter = NiftiMasks(output_dtype) if writer is None else writer
        if isinstance(folder_layout, MaskFiles):
            self.writer.begin(folder_layout.items, folder_layout.output_dir)

    def __call__(self, mask: MetaTensor) -> MetaTensor:
        """Write a mask and give it back.

        Args:
            mask: Channel-first, with the name of its scan as ``filename_or_obj``.

        Raises:
            TypeError: If it has no metadata.
            OSError: If it cannot be written; a file of before is left as it was.
            ValueError: If its scan cannot have one in this form.
        """
        if not isinstance(mask, MetaTensor):
            raise TypeError(
                f"a mask must be a MetaTensor, which knows its scan and its grid, got {type(mask).__name__}"
            )
        name, layout = mask.meta.get("filename_or_obj", ""), self.folder_layout
        source, place = layout.placed(name) if isinstance(layout, MaskFiles) else (name, name)
        with atomic_write(Path(layout.filename(name))) as temporary:
            try:
                self.writer.write(mask, source, temporary)
            except ValueError as error:
                raise ValueError(f"cannot write the mask of {place}: {error}") from error
        if isinstance(layout, MaskFiles):
            layout.note_bytes()
        return mask


class SaveMaskd(MapTransform):
    """Dictionary form of :class:`SaveMask`.

    Args:
        keys: Keys of the masks.
        folder_layout: As of :class:`SaveMask`.
        output_dtype: As of :class:`SaveMask`.
        writer: As of :class:`SaveMask`.
        allow_missing_keys: Skip keys that an item lacks.
    """

    backend = SaveMask.backend

    def __init__(
        self,
        keys: KeysCollection,
        folder_layout: FolderLayoutBase,
        output_dtype: DtypeLike = np.uint8,
        writer: MaskWriter | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.save = SaveMask(folder_layout, output_dtype, writer)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the masks of an item and give it back."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.save(d[key])
        return d


SaveMaskD = SaveMaskDict = SaveMaskd
