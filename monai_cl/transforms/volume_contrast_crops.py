"""Views for volume contrast: a grid of base crops, random crops of the same canvas, and their overlaps."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import TransformBackends, convert_to_tensor, ensure_tuple
from torch import Tensor

from monai_cl.transforms._crop_plan import CropPlan, places_alone, window_centers, with_other_noise
from monai_cl.transforms._view_changes import ViewChanges, changed, field_terms
from monai_cl.transforms._windows import cut_windows
from monai_cl.transforms.overlap import overlap_fractions
from monai_cl.transforms.stored import StoredVolume

_PROBABILITIES = ("rot90_prob", "blur_prob", "bias_prob", "noise_prob")
_CANDIDATES = 32  # crop positions tried per wanted crop before the least padded ones are taken


class VolumeContrastCrops(Randomizable, Transform):
    """Cut a volume into a grid of base crops and random crops, with the overlap of each pair.

    A canvas of ``grid * base_size`` voxels is placed at random in the volume (a shorter volume is padded with
    ``background``, never resized). The canvas is tiled by the bases; the crops are drawn uniformly, both ends of the
    range included. Views may be mirrored, turned by right angles and changed in intensity one by one: none of it
    changes the share of a crop inside a base. Other turns and deformations of a single view would, and are not offered;
    of the whole volume, before this transform, they do no harm. Draws (:meth:`randomize`) are apart from arithmetic
    (:meth:`apply`), so a recorded :class:`CropPlan` replays exactly.

    Args:
        grid: Number of bases along each axis, any number of axes from 1 to 3.
        crop_size: Edge lengths of a random crop in voxels.
        num_crops: Random crops a volume.
        base_size: Edge lengths of a base in voxels; those of a crop when left out.
        flip_prob: Probability of mirroring a view along each axis.
        intensity_prob: Probability of changing a view's intensity.
        scale_range: Half width of the intensity factor around 1, drawn uniformly.
        shift_range: Half width of the intensity offset, in units of the volume's intensity, drawn uniformly.
        min_foreground: Least share of a crop that must lie inside the volume where that can be had.
        background: Value of padded voxels; the volume's minimum when left out.
        rot90_prob: Probability of turning a view by 90, 180 or 270 degrees in the plane of its first two axes, after
            mirroring. The published code has 0.2.
        blur_prob: Probability of blurring a view.
        blur_sigma: Least and largest standard deviation of the Gaussian, in voxels.
        bias_prob: Probability of a bias field on a view, the exponential of a polynomial of third order.
        bias_strength: Largest coefficient of the polynomial, of places from -1 to 1.
        noise_prob: Probability of Gaussian noise on a view.
        noise_std: Largest standard deviation of the noise, in units of the volume's intensity.

    Returns:
        A dictionary of plain tensors: ``bases`` (K, C, *base_size), ``crops`` (S, C, *crop_size), ``overlap`` (S, K),
        where they lie in the world, in mm through the affine (voxels if none exists): ``base_centers`` (K, nd),
        ``crop_centers`` (S, nd); and what traces each voxel of a view to the volume: ``base_starts``, ``crop_starts``
        (first voxel in the volume, negative in padding) and ``base_flips``, ``crop_flips`` (whether mirrored along
        an axis), (K, nd) and (S, nd). Voxel ``j`` of a view is voxel ``start + j`` of the volume along an axis, or
        ``start + size - 1 - j`` where it is mirrored. ``rot90_prob`` adds ``base_turns`` (K,) and
        ``crop_turns`` (S,), quarter turns that are to be undone first, ``torch.rot90(view, -turns, (1, 2))``. All lie
        on the device of the volume, where views are cut.

        The axes of the world are the first ``nd`` ones. Where an image of fewer axes lies aslant to them, as a
        sagittal slice, places are along two axes of its own plane, so that distances are true.

    Raises:
        ValueError: If sizes do not fit each other or the image's number of axes.

    References:
        VoCo, arXiv 2402.17300; here on a true three-dimensional grid at the volume's own spacing.

    Example:
        >>> crops = VolumeContrastCrops(grid=(2, 2, 1), crop_size=(8, 8, 8), num_crops=3).set_random_state(seed=0)
        >>> views = crops(torch.rand(1, 20, 20, 8))
        >>> views["bases"].shape, views["crops"].shape, views["overlap"].shape
        (torch.Size([4, 1, 8, 8, 8]), torch.Size([3, 1, 8, 8, 8]), torch.Size([3, 4]))
        >>> bool((views["overlap"].sum(1) - 1).abs().max() < 1e-6)
        True
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract
    takes_stored = True

    def __init__(
        self,
        grid: Sequence[int],
        crop_size: Sequence[int],
        num_crops: int = 2,
        *,
        base_size: Sequence[int] | None = None,
        flip_prob: float = 0.2,
        intensity_prob: float = 0.5,
        scale_range: float = 0.1,
        shift_range: float = 0.1,
        min_foreground: float = 0.1,
        background: float | None = None,
        rot90_prob: float = 0.0,
        blur_prob: float = 0.0,
        blur_sigma: tuple[float, float] = (0.5, 1.0),
        bias_prob: float = 0.0,
        bias_strength: float = 0.3,
        noise_prob: float = 0.0,
        noise_std: float = 0.05,
    ) -> None:
        self.grid = tuple(int(n) for n in grid)
        self.crop_size = tuple(int(n) for n in crop_size)
        self.base_size = self.crop_size if base_size is None else tuple(int(n) for n in base_size)
        self.num_crops = int(num_crops)
        self.flip_prob = flip_prob
        self.intensity_prob = intensity_prob
        self.scale_range = scale_range
        self.shift_range = shift_range
        self.min_foreground = min_foreground
        self.background = background
        self.rot90_prob = rot90_prob
        self.blur_prob = blur_prob
        self.blur_sigma = blur_sigma
        self.bias_prob = bias_prob
        self.bias_strength = bias_strength
        self.noise_prob = noise_prob
        self.noise_std = noise_std
        self._check()

    @property
    def canvas_size(self) -> tuple[int, ...]:
        """Edge lengths of the tiled canvas in voxels."""
        return tuple(n * b for n, b in zip(self.grid, self.base_size, strict=True))

    def _check(self) -> None:
        nd = len(self.grid)
        if not 1 <= nd <= 3 or len(self.crop_size) != nd or len(self.base_size) != nd:
            raise ValueError(
                "grid, crop_size and base_size must have the same 1 to 3 axes, "
                f"got {self.grid}, {self.crop_size}, {self.base_size}"
            )
        if min(*self.grid, *self.crop_size, *self.base_size, self.num_crops) < 1:
            raise ValueError(
                "grid, crop_size, base_size and num_crops must be at least 1, "
                f"got {self.grid}, {self.crop_size}, {self.base_size}, {self.num_crops}"
            )
        if any(r > m for r, m in zip(self.crop_size, self.canvas_size, strict=True)):
            raise ValueError(
                f"crop_size must be at most the canvas {self.canvas_size} (grid {self.grid} times base_size "
                f"{self.base_size}), got {self.crop_size}; choose a smaller crop or a larger grid"
            )
        for name in (*_PROBABILITIES, "flip_prob", "intensity_prob", "min_foreground"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)!r}")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be two positive numbers that do not fall, got {self.blur_sigma!r}")
        for name in ("bias_strength", "noise_std"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)!r}")
        square = nd > 1 and self.crop_size[0] == self.crop_size[1] and self.base_size[0] == self.base_size[1]
        if self.rot90_prob > 0 and not square:
            raise ValueError(
                "crop_size and base_size must have the same length along their first two axes for rot90_prob above 0, "
                f"got {self.crop_size} and {self.base_size}; choose square ones, or rot90_prob=0"
            )

    def randomize(self, data: Sequence[int]) -> CropPlan:
        """Draw the plan for a volume with spatial shape ``data``."""
        if len(data) != len(self.grid):
            raise ValueError(
                f"img must be channel-first with {len(self.grid)} spatial axes as grid {self.grid}, "
                f"got spatial shape {tuple(data)}"
            )
        shape, canvas = np.asarray(data), np.asarray(self.canvas_size)
        missing = np.maximum(canvas - shape, 0)
        padding = np.stack([missing // 2, missing - missing // 2], axis=1)
        canvas_start = self._integers(np.zeros_like(canvas), shape + missing - canvas)
        real_low = padding[:, 0] - canvas_start  # the volume's own voxels, in canvas coordinates
        views = self.num_crops + int(np.prod(self.grid))
        changed = self.R.random_sample(views) < self.intensity_prob
        return CropPlan(
            padding=padding,
            canvas_start=canvas_start,
            crop_starts=self._draw_starts(real_low, real_low + shape),
            flips=self.R.random_sample((views, len(canvas))) < self.flip_prob,
            scales=1 + changed * self.R.uniform(-self.scale_range, self.scale_range, views),
            shifts=changed * self.R.uniform(-self.shift_range, self.shift_range, views),
            changes=self._draw_changes(views),
        )

    def _draw_changes(self, views: int) -> ViewChanges | None:
        if not any(getattr(self, name) for name in _PROBABILITIES):
            return None
        turned, blurred, biased, noisy = (self.R.random_sample(views) < getattr(self, name) for name in _PROBABILITIES)
        terms = len(field_terms(len(self.grid)))
        return ViewChanges(
            turns=turned * self.R.randint(1, 4, views),
            blurs=blurred * self.R.uniform(*self.blur_sigma, views),
            biases=biased[:, None] * self.R.uniform(-self.bias_strength, self.bias_strength, (views, terms)),
            noises=noisy * self.R.uniform(0, self.noise_std, views),
            seed=int(self.R.randint(2**32, dtype=np.uint32)),
        )

    def _integers(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        # both ends included, axis by axis
        return np.array([self.R.randint(lo, hi + 1) for lo, hi in zip(low, high, strict=True)])

    def _draw_starts(self, real_low: np.ndarray, real_high: np.ndarray) -> np.ndarray:
        size = np.asarray(self.crop_size)
        highest = np.asarray(self.canvas_size) - size
        count = _CANDIDATES * self.num_crops
        starts = np.stack([self.R.randint(0, h + 1, count) for h in highest], axis=1)
        inside = np.minimum(starts + size, real_high) - np.maximum(starts, real_low)
        share = np.prod(np.clip(inside, 0, None) / size, axis=1)
        # the first candidates that hold enough of the volume; failing that, those that hold most
        order = np.argsort(-np.where(share >= self.min_foreground, 2.0, share), kind="stable")
        return np.asarray(starts[order[: self.num_crops]])

    def __call__(self, img: Tensor | np.ndarray | StoredVolume) -> dict[str, Tensor]:
        """Draw a plan for ``img`` (C, *S) and apply it."""
        return self.apply(img, self.randomize(tuple(img.shape[1:])))

    def apply(
        self, img: Tensor | np.ndarray | StoredVolume, plan: CropPlan, *, intensities: bool = True
    ) -> dict[str, Tensor]:
        """Cut the views of ``img`` (C, *S) that ``plan`` describes, on its device; of a stored one read the canvas.

        Args:
            img: The volume.
            plan: From :meth:`randomize`.
            intensities: Whether to change them by the plan; False leaves the values of a label map.
        """
        plan = plan if intensities else places_alone(plan)
        affine = img.affine if isinstance(img, (MetaTensor, StoredVolume)) else None
        volume = img if isinstance(img, StoredVolume) else convert_to_tensor(img, track_meta=False).detach()
        canvas = self._canvas(volume, plan)
        n, device = self.num_crops, canvas.device
        base_starts = self._base_starts()
        origin = plan.canvas_start - plan.padding[:, 0]  # of the canvas in the volume
        sizes = np.repeat([self.crop_size, self.base_size], [n, len(base_starts)], axis=0)
        middles = window_centers(np.concatenate([plan.crop_starts, base_starts]) + origin, sizes, affine)
        centers = torch.as_tensor(plan.crop_starts + np.asarray(self.crop_size) / 2, dtype=torch.float32)
        places = {
            "overlap": overlap_fractions(centers, self.grid, self.crop_size, base_size=self.base_size),
            "crop_centers": middles[:n],
            "base_centers": middles[n:],
            "crop_starts": torch.as_tensor(plan.crop_starts + origin),
            "base_starts": torch.as_tensor(base_starts + origin),
            "crop_flips": torch.as_tensor(plan.flips[:n]),
            "base_flips": torch.as_tensor(plan.flips[n:]),
        }
        if self.rot90_prob > 0 and plan.changes is not None:
            turns = torch.as_tensor(plan.changes.turns)
            places |= {"crop_turns": turns[:n], "base_turns": turns[n:]}
        return {
            "crops": self._views(canvas, plan, plan.crop_starts, self.crop_size, slice(0, n)),
            "bases": self._views(canvas, plan, base_starts, self.base_size, slice(n, None)),
            **{name: place.to(device) for name, place in places.items()},
        }

    def _views(self, canvas: Tensor, plan: CropPlan, starts: np.ndarray, size: tuple[int, ...], which: slice) -> Tensor:
        views = cut_windows(
            canvas, starts, size, flips=plan.flips[which], scales=plan.scales[which], shifts=plan.shifts[which]
        )
        return views if plan.changes is None else changed(views, plan.changes.part(which))

    def _canvas(self, data: Tensor | StoredVolume, plan: CropPlan) -> Tensor:
        """The canvas: a window of ``data`` without a copy, or padded where the volume is shorter."""
        low = plan.canvas_start - plan.padding[:, 0]
        spans = zip(low, self.canvas_size, data.shape[1:], strict=True)
        window = [slice(max(int(start), 0), min(int(start) + m, n)) for start, m, n in spans]
        if isinstance(data, StoredVolume):
            canvas: Tensor = data.read([s.start for s in window], [s.stop for s in window]).as_tensor()
        else:
            index = (slice(None), *window)
            canvas = data[index]
        if not plan.padding.any():
            return canvas
        value = _minimum(data) if self.background is None else self.background
        ends = low + np.asarray(self.canvas_size) - np.asarray(data.shape[1:])
        beyond = np.maximum(np.stack([-low, ends], axis=1), 0)
        return F.pad(canvas.float(), [int(p) for p in beyond[::-1].ravel()], value=value)

    def _base_starts(self) -> np.ndarray:
        corners = np.indices(self.grid).reshape(len(self.grid), -1).T  # the last axis runs fastest
        return np.asarray(corners * np.asarray(self.base_size))


def _minimum(data: Tensor | StoredVolume) -> float:
    return data.minimum if isinstance(data, StoredVolume) else float(data.min())


class VolumeContrastCropsd(Randomizable, MapTransform):
    """Dictionary form of :class:`VolumeContrastCrops`: each key's volume is replaced by its dictionary of views.

    All keys share one plan, so their crops lie at the same places and change alike, each with noise of its own; they
    must have the same spatial shape. Views are float32.

    Args:
        keys: Keys of channel-first volumes.
        grid: As in :class:`VolumeContrastCrops`, which takes all further arguments.
        crop_size: Edge lengths of a random crop in voxels.
        num_crops: Random crops a volume.
        intensity_keys: Keys whose intensities are changed, all when left out: leave label maps out.
        allow_missing_keys: Skip keys that an item lacks.
        **kwargs: Further arguments of :class:`VolumeContrastCrops`.

    Raises:
        ValueError: If ``intensity_keys`` are not among ``keys``, or volumes differ in shape.
    """

    backend = VolumeContrastCrops.backend
    takes_stored = True

    def __init__(
        self,
        keys: KeysCollection,
        grid: Sequence[int],
        crop_size: Sequence[int],
        num_crops: int = 2,
        *,
        intensity_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.intensity_keys = self.keys if intensity_keys is None else ensure_tuple(intensity_keys)
        if unknown := set(self.intensity_keys) - set(self.keys):
            raise ValueError(f"intensity_keys must be among keys {self.keys}, got {sorted(map(str, unknown))}")
        self.crops = VolumeContrastCrops(grid, crop_size, num_crops, **kwargs)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "VolumeContrastCropsd":
        """Seed this transform and the array transform it owns."""
        super().set_random_state(seed, state)
        self.crops.set_random_state(seed, state)
        return self

    def randomize(self, data: Sequence[int]) -> CropPlan:
        """Draw one plan for all keys."""
        return self.crops.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each key's volume by its views."""
        d = dict(data)
        present = list(self.key_iterator(d))
        if not present:
            return d
        shape = tuple(d[present[0]].shape[1:])
        for key in present:
            if tuple(d[key].shape[1:]) != shape:
                raise ValueError(
                    f"all keys must have one spatial shape, got {shape} for {present[0]!r} and "
                    f"{tuple(d[key].shape[1:])} for {key!r}; resample them to one grid first"
                )
        plan = self.randomize(shape)
        for place, key in enumerate(present):
            own = with_other_noise(plan, place)
            d[key] = self.crops.apply(d[key], own, intensities=key in self.intensity_keys)
        return d


VolumeContrastCropsD = VolumeContrastCropsDict = VolumeContrastCropsd
