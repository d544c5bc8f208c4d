"""Pair of MR images of one anatomy, each with its own sequence, pose and artefacts."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, RandAffine, RandFlip, Randomizable, Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from monai_cl.qmri import Protocol, from_weighted_rates, to_weighted_rates
from monai_cl.transforms._mr_image import coarse, scanner_axes
from monai_cl.transforms.intensity_change import IntensityChange
from monai_cl.transforms.mr_contrast import RandMRContrast
from monai_cl.transforms.views import RandViews

Sharing = Literal["none", "protocol"]
_ATTEMPTS = 64  # to place a crop on signal
_SIGNAL = 0.05  # of the largest density in a view; below is air
_SEEDS = 2**32


def usual_geometry(
    crop_size: Sequence[int],
    *,
    rotation: float = 15.0,
    scale: float = 0.15,
    translation: float = 0.5,
    shear: float = 0.012,
    flip_axes: Sequence[int] = (),
    flip_prob: float = 0.5,
) -> Compose:
    """A random pose: flips, rotation, stretch, shear and a shift, cut to the size of a view.

    The published chain also bends the anatomy and mirrors it along every axis, and takes its angles for radians. Here
    angles are degrees; for a bend give a chain of your own to :class:`RandSequenceViews`, such as ``Rand3DElastic``.

    Args:
        crop_size: Edge lengths of a view in voxels.
        rotation: Largest angle about each axis in degrees.
        scale: Largest relative change of size along each axis.
        translation: Largest shift along each axis, relative to the size of a view. Without it the same place lies at
            nearly the same voxel of every view, which a network infers from its distance to the rim: contrast of voxels
            is then won without looking at the anatomy. At a half, two views may lie side by side, and where in one of
            them a voxel lies does not determine where it lies in the other.
        shear: Largest shear.
        flip_axes: Axes that may be mirrored, each view by itself. None is by default: where left and right look alike,
            features of a voxel and its mirror image would be taught to be the same by the one view and to differ by the
            next.
        flip_prob: Probability of each.
    """
    dims = len(crop_size)
    turn = [np.deg2rad(rotation)] * (1 if dims == 2 else dims)
    flips = [RandFlip(prob=flip_prob, spatial_axis=axis) for axis in flip_axes]
    pose = RandAffine(
        prob=1.0,
        rotate_range=turn,
        scale_range=[scale] * dims,
        translate_range=[translation * n for n in crop_size],
        shear_range=[shear] * (dims * (dims - 1)),
        spatial_size=tuple(crop_size),
        mode="bilinear",
        padding_mode="zeros",
    )
    return Compose([*flips, pose])


class RandSequenceViews(Randomizable, Transform):
    r"""Simulate two images of a random crop of quantitative maps, with the voxels that show the same place.

    A crop somewhere in the tissue is posed anew for each view, then scanned: a sequence and a protocol are drawn and
    the image is simulated where the subject lies, so that slices, noise and ghosts follow the axes of the view. Maps
    are interpolated as rates weighted by density (:func:`monai_cl.qmri.to_weighted_rates`). Draws (:meth:`randomize`)
    are plain numbers apart from arithmetic (:meth:`apply`).

    Args:
        crop_size: Edge lengths of the views in voxels.
        contrast: Draws and simulates; its artefacts are drawn anew for each view.
        sharing: ``"none"``: each view has its own protocol (two contrasts); ``"protocol"``: both have the same one,
            drawn anew for each crop (shared contrast). With a single fixed protocol in ``contrast`` all views have one
            contrast.
        geometry: Chain of array transforms on maps (M, *S) that ends with ``crop_size``; :func:`usual_geometry` when
            left out.
        intensities: Array transform that brings an image to the intensities that fine-tuning will see. Fine-tuning
            shows it whole volumes: it is applied to a coarse image of the whole subject in the protocol of the view,
            and the view's intensities are changed as those were (``IntensityChange``).
        corruption: Random array transform of an image that the reconstruction has to undo beside the artefacts.
        targets: ``"clean"``: each view without artefacts and corruption, its intensities changed alike; or protocols
            whose images, in the pose of the view, are to be predicted from it: the anatomy in sequences that were not
            measured. None gives no targets.
        margin: Edge lengths of the crop that is posed, relative to those of a view.

    Returns:
        A dictionary: ``views`` (2, 1, *crop_size); ``coords`` (2, nd, *crop_size), in mm from the first voxel of the
        crop that both come from; ``valid`` (2, *crop_size), the tissue that lies inside; ``target``
        (2, T, *crop_size).

    Raises:
        ValueError: If an option is out of range, or the maps do not fit ``contrast``.

    Source:
        Pairs of simulated contrasts: Chalcroft et al., arXiv 2501.12057.

    Example:
        >>> maps = torch.tensor([70.0, 0.9, 0.07, 0.05, 0.02]).reshape(5, 1, 1, 1).expand(5, 16, 16, 16)
        >>> found = RandSequenceViews((8, 8, 8), RandMRContrast()).set_random_state(seed=0)(maps)
        >>> {name: tuple(value.shape) for name, value in found.items()}["coords"]
        (2, 3, 8, 8, 8)
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self,
        crop_size: Sequence[int],
        contrast: RandMRContrast,
        *,
        sharing: Sharing = "none",
        geometry: Callable[[Any], Any] | None = None,
        intensities: Callable[[Tensor], Tensor] | None = None,
        corruption: Any = None,
        targets: str | Sequence[Protocol] | None = "clean",
        margin: float = 2.2,
    ) -> None:
        if sharing not in ("none", "protocol"):
            raise ValueError(f"sharing must be 'none' or 'protocol', got {sharing!r}")
        if not margin >= 1:
            raise ValueError(f"margin must be at least 1, got {margin!r}")
        if isinstance(targets, str) and targets != "clean":
            raise ValueError(f"targets must be 'clean', protocols or None, got {targets!r}")
        self.crop_size = tuple(crop_size)
        self.contrast = contrast
        self.sharing = sharing
        self.poses = RandViews(usual_geometry(crop_size) if geometry is None else geometry, 2, unit="mm")
        self.intensities = intensities
        self.corruption = corruption
        self.targets = targets
        self.source_size = tuple(int(np.ceil(margin * n)) for n in crop_size)

    @property
    def target_channels(self) -> int:
        """Channels of the targets; 0 without."""
        return 0 if self.targets is None else 1 if isinstance(self.targets, str) else len(self.targets)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandSequenceViews":
        """Seed this transform and what it draws with."""
        super().set_random_state(seed, state)
        self.contrast.set_random_state(state=self.R)
        return self

    def randomize(self, data: Tensor) -> dict[str, Any]:
        """Draw place, poses, protocols, artefacts and corruption for maps (M, *S)."""
        start = self._place(data)
        poses = [int(self.R.randint(_SEEDS, dtype=np.uint32)) for _ in range(2)]
        records = [dict(self.contrast.randomize(self.crop_size)) for _ in range(2)]
        if self.sharing == "protocol":
            shared = {name: value for name, value in records[0].items() if name != "artefacts"}
            records[1] = {**shared, "artefacts": records[1]["artefacts"]}
        corruption = [int(self.R.randint(_SEEDS, dtype=np.uint32)) for _ in range(2)]
        return {"start": start, "poses": poses, "contrasts": records, "corruption": corruption}

    def __call__(self, img: Tensor | np.ndarray) -> dict[str, Tensor]:
        """Draw and make the views of maps (M, *S)."""
        maps = convert_to_tensor(img, track_meta=True)
        return self.apply(maps, self.randomize(maps))

    def apply(self, img: Tensor | np.ndarray, record: Mapping[str, Any]) -> dict[str, Tensor]:
        """The views of maps (M, *S) that ``record`` describes."""
        maps = convert_to_tensor(img, track_meta=True)
        window = (slice(None), *(slice(a, a + n) for a, n in zip(record["start"], self.source_size, strict=True)))
        crop = MetaTensor(to_weighted_rates(maps.as_tensor()[window].float(), self.contrast.maps))
        crop.affine = axes = scanner_axes(maps)
        posed = self.poses.apply(crop, record["poses"])
        whole = coarse(maps)
        if tuple(posed["views"].shape[2:]) != self.crop_size:
            raise ValueError(
                f"geometry must end with views of crop_size {self.crop_size}, got {tuple(posed['views'].shape[2:])}"
            )
        views, targets, tissue = [], [], []
        for number in range(2):
            posed_maps = self._maps(posed["views"][number], axes)
            contrast = record["contrasts"][number]
            change = self._change(whole, contrast)
            views.append(self._corrupted(self._image(posed_maps, contrast, change), record["corruption"][number]))
            targets.append(self._target(posed_maps, contrast, whole, change))
            tissue.append(self._tissue(posed_maps))
        result = {
            "views": torch.stack(views),
            "coords": convert_to_tensor(posed["coords"], track_meta=False),
            "valid": convert_to_tensor(posed["valid"], track_meta=False) & torch.stack(tissue),
        }
        return result if self.targets is None else {**result, "target": torch.stack(targets)}

    def _place(self, maps: Tensor) -> list[int]:
        """First voxel of a crop whose middle has signal, inside the volume as far as that is large enough."""
        size = maps.shape[1:]
        if len(size) != len(self.crop_size):
            raise ValueError(f"maps must have {len(self.crop_size)} spatial axes as crop_size, got {tuple(maps.shape)}")
        middle = [n // 2 for n in size]
        for _ in range(_ATTEMPTS):
            at = [int(self.R.randint(n)) for n in size]
            place: tuple[slice | int, ...] = (slice(None), *at)
            if float(self._density(maps[place])) > 0:
                middle = at
                break
        lengths = zip(middle, self.source_size, size, strict=True)
        return [min(max(m - n // 2, 0), max(whole - n, 0)) for m, n, whole in lengths]

    def _maps(self, posed: Tensor, axes: Tensor) -> MetaTensor:
        """Maps in the pose of a view, which the scanner sees with voxels of the same size as before."""
        plain = convert_to_tensor(posed, track_meta=False)
        return MetaTensor(from_weighted_rates(plain, self.contrast.maps), affine=axes)

    def _corrupted(self, image: Tensor, seed: int) -> Tensor:
        if self.corruption is None:
            return image
        self.corruption.set_random_state(seed=seed)
        done: Tensor = convert_to_tensor(self.corruption(image), track_meta=False)
        return done

    def _change(self, whole: MetaTensor, record: Mapping[str, Any]) -> IntensityChange | None:
        """Change of the intensities of the whole subject."""
        if self.intensities is None:
            return None
        return IntensityChange.of_subject(self.contrast.apply, whole, record, self.intensities)

    def _image(self, maps: MetaTensor, record: Mapping[str, Any], change: IntensityChange | None) -> Tensor:
        """Scan of the maps of a view, with its intensities changed."""
        scanned: Tensor = convert_to_tensor(self.contrast.apply(maps, record), track_meta=False)
        return scanned if change is None else change(scanned)

    def _target(
        self, maps: MetaTensor, record: Mapping[str, Any], whole: MetaTensor, change: IntensityChange | None
    ) -> Tensor:
        clean = {**record, "artefacts": {}}
        if self.targets is None or isinstance(self.targets, str):
            return self._image(maps, clean, change)
        records = [{**clean, "protocol": protocol.to_dict()} for protocol in self.targets]
        return torch.cat([self._image(maps, one, self._change(whole, one)) for one in records])

    def _tissue(self, maps: Tensor) -> Tensor:
        density = self._density(convert_to_tensor(maps, track_meta=False))
        return density > _SIGNAL * density.amax()

    def _density(self, maps: Tensor) -> Tensor:
        """Proton density, or the amount of tissue if its properties are drawn."""
        names = self.contrast.maps
        return maps[names.index("pd")] if "pd" in names else maps[len(names) :].sum(0)


class RandSequenceViewsd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandSequenceViews`: the maps under each key are replaced by the dictionary of views.

    Args:
        keys: Keys of maps (M, *S); all share one record.
        crop_size: As in :class:`RandSequenceViews`, which takes all further arguments.
        contrast: As in :class:`RandSequenceViews`.
        allow_missing_keys: Skip keys that an item lacks.
        **kwargs: As in :class:`RandSequenceViews`.

    Raises:
        ValueError: As :class:`RandSequenceViews`.
        KeyError: If an item lacks a key.
    """

    backend = RandSequenceViews.backend

    def __init__(
        self,
        keys: KeysCollection,
        crop_size: Sequence[int],
        contrast: RandMRContrast,
        *,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.views = RandSequenceViews(crop_size, contrast, **kwargs)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandSequenceViewsd":
        """Seed this transform and the array transform it owns."""
        super().set_random_state(seed, state)
        self.views.set_random_state(seed, state)
        return self

    def randomize(self, data: Tensor) -> dict[str, Any]:
        """Draw one record for all keys."""
        return self.views.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the maps under each key by their views."""
        d = dict(data)
        present = list(self.key_iterator(d))
        if present:
            record = self.randomize(convert_to_tensor(d[present[0]], track_meta=True))
            for key in present:
                d[key] = self.views.apply(d[key], record)
        return d


RandSequenceViewsD = RandSequenceViewsDict = RandSequenceViewsd
