"""The random changes of labelled volumes that fine-tuning sees."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    CopyItemsd,
    RandAdjustContrastd,
    RandAffined,
    RandAxisFlipd,
    RandBiasFieldd,
    RandCropByLabelClassesd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
    RandSpatialCropd,
    SpatialPadd,
    SqueezeDimd,
)
from monai.transforms.utils import map_classes_to_indices

from monai_cl.transforms.nonlinear_intensity import RandNonlinearIntensityd
from monai_cl.transforms.without_metadata import WithoutMetadata

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


class _UnlessFlat(RandHistogramShiftd):
    """MONAI's ``RandHistogramShiftd``, which warns of each image of one intensity; such an image is passed by."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        flat = {key for key in self.key_iterator(dict(data)) if bool((data[key] == data[key].flatten()[0]).all())}
        return {**data, **super().__call__({key: value for key, value in data.items() if key not in flat})}


_STRENGTHS: Mapping[str, Mapping[str, Any]] = {
    "mild": {
        "rotation": 15.0, "scale": 0.15, "intensity_prob": 0.3, "gamma": (0.7, 1.5), "noise": 0.05, "factor": 0.2,
        "offset": 0.1, "nonlinear": 0.0, "bias_field": 0.0, "histogram": 0.0, "blur": 0.0, "low_resolution": 0.0,
    },
    "strong": {
        "rotation": 30.0, "scale": 0.3, "intensity_prob": 0.8, "gamma": (0.5, 2.0), "noise": 0.1, "factor": 0.4,
        "offset": 0.2, "nonlinear": 0.0, "bias_field": 0.3, "histogram": 0.3, "blur": 0.2, "low_resolution": 0.25,
    },
}  # fmt: skip


def usual_augmentation(
    roi_size: Sequence[int],
    num_classes: int,
    *,
    strength: str = "mild",
    ignore_index: int | None = None,
    labelled: bool = True,
    slice_axis: int | None = None,
    flip: float = 0.0,
    affine_prob: float = 0.8,
    translation: float = 0.05,
    **options: Any,
) -> Compose:
    """Return a crop around a class, each equally often however small, in another pose and with other intensities.

    The options that follow ``translation`` come from ``strength``; each can be given by itself:

    ================== ============= ============= ====================================================================
    option             mild          strong        meaning
    ================== ============= ============= ====================================================================
    ``rotation``       15            30            largest angle in degrees
    ``scale``          0.15          0.3           largest relative change of size along each axis
    ``intensity_prob`` 0.3           0.8           probability of each of the next four
    ``gamma``          (0.7, 1.5)    (0.5, 2.0)    range of the exponent of contrast
    ``noise``          0.05          0.1           largest standard deviation of Gaussian noise
    ``factor``         0.2           0.4           largest relative change of intensities
    ``offset``         0.1           0.2           largest shift of intensities
    ``nonlinear``      0             0             probability of :class:`RandNonlinearIntensity`, for long runs
    ``bias_field``     0             0.3           probability of a smooth field that brightens and darkens
    ``histogram``      0             0.3           probability of a random monotone curve of intensities
    ``blur``           0             0.2           probability of a Gaussian blur of 0.3 to 1 voxels
    ``low_resolution`` 0             0.25          probability of fewer voxels, down to a half along each axis
    ================== ============= ============= ====================================================================

    Args:
        roi_size: Size of the crop; smaller volumes are padded.
        num_classes: Classes with the background.
        strength: ``"mild"`` or ``"strong"``. One labelled volume shows one contrast; strong changes show more.
        ignore_index: Label of voxels that do not count.
        labelled: False for items with ``image`` alone, which are cropped anywhere.
        slice_axis: Axis of the slices that are drawn first, for a ``roi_size`` of two sides. A whole slice is turned
            before it is cut, of a volume what has been cut from it.
        flip: Probability of turning about an axis; with a ``slice_axis`` only.
        affine_prob: Probability of another pose.
        translation: Largest shift along each axis, relative to the crop.
        **options: Options of the table.

    Returns:
        A random transform of items with ``image`` and ``label``, or ``image`` alone. Crops are plain tensors.

    Raises:
        ValueError: If ``strength`` is another word.
        TypeError: If an option is not in the table.
    """
    usual = _options(strength, options)
    sides, keys = len(roi_size), _BOTH if labelled else ("image",)
    pose = _pose(roi_size, usual, keys, prob=affine_prob, translation=translation)
    cropped = _crop(roi_size, num_classes, keys, ignore_index=ignore_index)
    padded, looks = SpatialPadd(keys, roi_size), _looks(sides, usual)
    # a lazy pair is one resampling: what turns into a crop comes from the volume around it, not from its border;
    # an outer Compose that is not lazy=None would take that from it. MONAI leaves the mode of a lazy RandAffined unread
    turned = Compose([cropped, pose], lazy=True, overrides={"label": {"mode": "nearest"}})
    if slice_axis is None:
        return Compose([padded, turned, WithoutMetadata(looks)], lazy=None)
    appearance = [RandAxisFlipd(keys, prob=flip), *looks]
    if sides == 2:
        return Compose([_one_slice(slice_axis, keys), WithoutMetadata([pose, padded, cropped, *appearance])])
    return Compose([padded, turned, WithoutMetadata(appearance)], lazy=None)


def unlabelled_augmentation(
    roi_size: Sequence[int], num_classes: int, *, student_changes: str = "none", **options: Any
) -> Compose:
    """Return what :func:`usual_augmentation` makes of images alone, and the same patch with other intensities.

    In self-training the teacher labels ``image`` and the network learns from ``changed``, which lies at the same
    places: pseudo-labels are those of an easy patch, whose intensities are the scan's, and a hard one has to agree with
    them.

    Args:
        roi_size: Size of the patch.
        num_classes: Classes with the background.
        student_changes: Strength of the intensities of ``changed``, ``"mild"`` or ``"strong"``; ``"none"`` to leave
            ``changed`` out, so that both see the same.
        **options: Options of :func:`usual_augmentation` for ``image``, whose ``labelled`` is False here.

    Returns:
        A random transform of items with ``image``.

    Raises:
        ValueError: If ``student_changes`` is another word.

    References:
        Weak and strong views: FixMatch, arXiv 2001.07685; in segmentation UniMatch, arXiv 2208.09910.
    """
    if student_changes not in (*_STRENGTHS, "none"):
        raise ValueError(f"student_changes must be one of {(*_STRENGTHS, 'none')}, got {student_changes!r}")
    if student_changes == "none":
        return usual_augmentation(roi_size, num_classes, labelled=False, **options)
    easy = usual_augmentation(roi_size, num_classes, labelled=False, **{"intensity_prob": 0.0, **options})
    hard = _looks(len(roi_size), _options(student_changes, {}), "changed")
    return Compose([easy, WithoutMetadata([CopyItemsd("image", names="changed"), *hard])], lazy=None)


def _options(strength: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if strength not in _STRENGTHS:
        raise ValueError(f"strength must be one of {tuple(_STRENGTHS)}, got {strength!r}")
    unknown = sorted(set(options) - set(_STRENGTHS[strength]))
    if unknown:
        raise TypeError(f"options must be of {', '.join(_STRENGTHS[strength])}, got {', '.join(unknown)}")
    return {**_STRENGTHS[strength], **options}


def _pose(
    roi_size: Sequence[int], usual: Mapping[str, Any], keys: Sequence[str], *, prob: float, translation: float
) -> RandAffined:
    """Another pose of a crop."""
    sides = len(roi_size)
    return RandAffined(
        keys,
        prob=prob,
        rotate_range=[np.deg2rad(usual["rotation"])] * (1 if sides == 2 else 3),
        scale_range=[usual["scale"]] * sides,
        translate_range=[translation * side for side in roi_size],
        mode=["bilinear", "nearest"][: len(keys)],
        padding_mode="border",
    )


def _crop(roi_size: Sequence[int], num_classes: int, keys: Sequence[str], *, ignore_index: int | None) -> Any:
    """A crop around a class, or of images without label anywhere."""
    if "label" not in keys:
        return RandSpatialCropd(keys, roi_size, random_size=False)
    return RandCropByClassesd(
        keys, label_key="label", spatial_size=roi_size, num_classes=num_classes, num_samples=1, warn=False,
        ignore_index=ignore_index,
    )  # fmt: skip


def _looks(sides: int, usual: Mapping[str, Any], key: str = "image") -> list[Any]:
    """Changes of the intensities of a crop; those with probability 0 are left out."""
    prob = usual["intensity_prob"]
    rare: list[tuple[Any, str, dict[str, Any]]] = [
        (RandNonlinearIntensityd, "nonlinear", {}),
        (RandBiasFieldd, "bias_field", {"coeff_range": (0.0, 0.2)}),
        (_UnlessFlat, "histogram", {"num_control_points": (3, 8), "allow_missing_keys": True}),
        (RandGaussianSmoothd, "blur", {f"sigma_{axis}": (0.3, 1.0) for axis in "xyz"}),
        (RandSimulateLowResolutiond, "low_resolution", {"upsample_mode": "bilinear" if sides == 2 else "trilinear"}),
    ]
    return [
        *(make(key, prob=usual[name], **given) for make, name, given in rare if usual[name]),
        RandAdjustContrastd(key, prob=prob, gamma=usual["gamma"]),
        RandGaussianNoised(key, prob=prob, std=usual["noise"]),
        RandScaleIntensityd(key, prob=prob, factors=usual["factor"]),
        RandShiftIntensityd(key, prob=prob, offsets=usual["offset"]),
    ]


def _one_slice(axis: int, keys: Sequence[str]) -> Compose:
    thickness = [1 if each == axis else -1 for each in range(3)]
    return Compose([RandSpatialCropd(keys, roi_size=thickness, random_size=False), SqueezeDimd(keys, dim=axis + 1)])
