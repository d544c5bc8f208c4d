"""Crops around each class equally often, none around voxels that do not count."""

from typing import Any

import torch
from monai.transforms import RandCropByLabelClassesd
from monai.transforms.utils import map_classes_to_indices


class RandCropByClassesd(RandCropByLabelClassesd):
    """MONAI's ``RandCropByLabelClassesd``, with voxels that do not count.

    No crop is centred on a voxel of ``ignore_index`` or of no class. Where nothing else is left, as in a slice between
    annotated ones, the centre is any voxel; MONAI's own draw fails there. Otherwise draws are those of MONAI.

    Args:
        *args: As for MONAI's.
        ignore_index: Label of voxels that do not count.
        **kwargs: As for MONAI's.

    Example:
        >>> item = {"label": torch.full((1, 8, 8), 255)}
        >>> crop = RandCropByClassesd("label", "label", (4, 4), num_classes=2, ignore_index=255)
        >>> crop(item)[0]["label"].shape
        torch.Size([1, 4, 4])
    """

    def __init__(self, *args: Any, ignore_index: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ignore_index = ignore_index

    def randomize(self, label: torch.Tensor, indices: Any = None, image: torch.Tensor | None = None) -> None:
        """Draw the centres."""
        if indices is None:
            crop = self.cropper
            indices = map_classes_to_indices(
                label, crop.num_classes, image, crop.image_threshold, crop.max_samples_per_class
            )
            if self.ignore_index is not None and 0 <= self.ignore_index < len(indices):
                indices[self.ignore_index] = indices[self.ignore_index][:0]
            if not any(len(one) for one in indices):
                indices = [torch.arange(label[0].numel())] * len(indices)
        super().randomize(label, indices, image)


RandCropByClassesD = RandCropByClassesDict = RandCropByClassesd
