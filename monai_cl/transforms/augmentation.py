"""The random changes of labelled volumes that fine-tuning sees."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandAxisFlipd,
    RandCropByLabelClassesd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    SpatialPadd,
    SqueezeDimd,
)
from monai.transforms.utils import map_classes_to_indices

_BOTH = ("image", "label")


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


def usual_augmentation(
    roi_size: Sequence[int],
    num_classes: int,
    *,
    ignore_index: int | None = None,
    labelled: bool = True,
    slice_axis: int | None = None,
    flip: float = 0.0,
    affine_prob: float = 0.8,
    rotation: float = 15.0,
    scale: float = 0.15,
    translation: float = 0.05,
    intensity_prob: float = 0.3,
    gamma: Sequence[float] = (0.7, 1.5),
    noise: float = 0.05,
    factor: float = 0.2,
    offset: float = 0.1,
) -> Compose:
    """A crop around a class, each equally often however small, in another pose and with other intensities.

    Args:
        roi_size: Size of the crop; smaller volumes are padded.
        num_classes: Classes with the background.
        ignore_index: Label of voxels that do not count.
        labelled: False for items with ``image`` alone, which are cropped anywhere.
        slice_axis: Axis of the slices that are drawn first, for a ``roi_size`` of two sides. A whole slice is turned
            before it is cut, of a volume what has been cut from it.
        flip: Probability of turning about an axis; with a ``slice_axis`` only.
        affine_prob: Probability of another pose.
        rotation: Largest angle in degrees.
        scale: Largest relative change of size along each axis.
        translation: Largest shift along each axis, relative to the crop.
        intensity_prob: Probability of each change of intensities.
        gamma: Range of the exponent of contrast.
        noise: Largest standard deviation of Gaussian noise.
        factor: Largest relative change of intensities.
        offset: Largest shift of intensities.

    Returns:
        A random transform of items with ``image`` and ``label``, or ``image`` alone.
    """
    sides, keys = len(roi_size), _BOTH if labelled else ("image",)
    pose = RandAffined(
        keys,
        prob=affine_prob,
        rotate_range=[np.deg2rad(rotation)] * (1 if sides == 2 else 3),
        scale_range=[scale] * sides,
        translate_range=[translation * side for side in roi_size],
        mode=["bilinear", "nearest"][: len(keys)],
        padding_mode="border",
    )
    cropped: Any = RandSpatialCropd(keys, roi_size, random_size=False)
    if labelled:
        cropped = RandCropByClassesd(
            keys, label_key="label", spatial_size=roi_size, num_classes=num_classes, num_samples=1, warn=False,
            ignore_index=ignore_index,
        )  # fmt: skip
    cut: list[Any] = [SpatialPadd(keys, roi_size), cropped]
    looks: list[Any] = [
        RandAdjustContrastd("image", prob=intensity_prob, gamma=gamma),
        RandGaussianNoised("image", prob=intensity_prob, std=noise),
        RandScaleIntensityd("image", prob=intensity_prob, factors=factor),
        RandShiftIntensityd("image", prob=intensity_prob, offsets=offset),
    ]
    if slice_axis is None:
        return Compose([*cut, pose, *looks])
    appearance = Compose([RandAxisFlipd(keys, prob=flip), *looks])
    if sides == 2:
        return Compose([_one_slice(slice_axis, keys), pose, Compose(cut), appearance])
    return Compose([Compose(cut), pose, appearance])


def _one_slice(axis: int, keys: Sequence[str]) -> Compose:
    thickness = [1 if each == axis else -1 for each in range(3)]
    return Compose([RandSpatialCropd(keys, roi_size=thickness, random_size=False), SqueezeDimd(keys, dim=axis + 1)])
