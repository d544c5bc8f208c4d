"""Views for volume contrast: a grid of base crops, random crops of the same canvas, and their overlaps."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from monai_cl.transforms._windows import cut_windows
from monai_cl.transforms.overlap import overlap_fractions
from monai_cl.transforms.stored import StoredVolume

_CANDIDATES = 32  # crop positions tried per wanted crop before the least padded ones are taken


@dataclass(frozen=True)
class CropPlan:
    """Everything drawn for one volume: applying it is plain indexing.

    Attributes:
        padding: Voxels added before and after each axis, (nd, 2).
        canvas_start: First voxel of the canvas in the padded volume, (nd,).
        crop_starts: First voxel of each crop in the canvas, (S, nd).
        flips: Whether a view is mirrored along each axis, (S + K, nd), crops first.
        scales: Intensity factor of each view, (S + K,).
        shifts: Intensity offset of each view, (S + K,).
    """

    padding: np.ndarray
    canvas_start: np.ndarray
    crop_starts: np.ndarray
    flips: np.ndarray
    scales: np.ndarray
    shifts: np.ndarray


class VolumeContrastCrops(Randomizable, Transform):
    """Cut a volume into a grid of base crops and random crops, and say how they overlap.

    A canvas of ``grid * base_size`` voxels is placed at random in the volume (a shorter volume is padded with
    ``background``, never resized). The canvas is tiled by the bases; the crops are drawn uniformly, both ends of the
    range included. Views may be mirrored, scaled and shifted in intensity one by one: neither changes the share of
    a crop inside a base. Draws (:meth:`randomize`) are apart from arithmetic (:meth:`apply`), so a recorded
    :class:`CropPlan` replays exactly.

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

    Returns:
        A dictionary of plain tensors: ``bases`` (K, C, *base_size), ``crops`` (S, C, *crop_size), ``overlap`` (S, K),
        where they lie in the world, in mm through the affine (voxels where there is none): ``base_centers`` (K, nd),
        ``crop_centers`` (S, nd); and what traces each voxel of a view to the volume: ``base_starts``, ``crop_starts``
        (first voxel in the volume, negative in padding) and ``base_flips``, ``crop_flips`` (whether mirrored along
        an axis), (K, nd) and (S, nd). Voxel ``j`` of a view is voxel ``start + j`` of the volume along an axis, or
        ``start + size - 1 - j`` where it is mirrored. All lie on the device of the volume, where views are cut.

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
        for name in ("flip_prob", "intensity_prob", "min_foreground"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)!r}")

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

    def apply(self, img: Tensor | np.ndarray | StoredVolume, plan: CropPlan) -> dict[str, Tensor]:
        """Cut the views of ``img`` (C, *S) that ``plan`` describes, on its device; of a stored one read the canvas."""
        affine = img.affine if isinstance(img, (MetaTensor, StoredVolume)) else None
        volume = img if isinstance(img, StoredVolume) else convert_to_tensor(img, track_meta=False).detach()
        canvas = self._canvas(volume, plan)
        n, device = self.num_crops, canvas.device
        base_starts = self._base_starts()
        origin = plan.canvas_start - plan.padding[:, 0]  # of the canvas in the volume
        sizes = np.repeat([self.crop_size, self.base_size], [n, len(base_starts)], axis=0)
        middles = _centers(np.concatenate([plan.crop_starts, base_starts]) + origin, sizes, affine)
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
        return {
            "crops": self._views(canvas, plan, plan.crop_starts, self.crop_size, slice(0, n)),
            "bases": self._views(canvas, plan, base_starts, self.base_size, slice(n, None)),
            **{name: place.to(device) for name, place in places.items()},
        }

    def _views(self, canvas: Tensor, plan: CropPlan, starts: np.ndarray, size: tuple[int, ...], which: slice) -> Tensor:
        return cut_windows(
            canvas, starts, size, flips=plan.flips[which], scales=plan.scales[which], shifts=plan.shifts[which]
        )

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


class VolumeContrastCropsd(Randomizable, MapTransform):
    """Dictionary form of :class:`VolumeContrastCrops`: each key's volume is replaced by its dictionary of views.

    All keys share one plan, so their crops lie at the same places; they must have the same spatial shape.

    Args:
        keys: Keys of channel-first volumes.
        grid: As in :class:`VolumeContrastCrops`, which takes all further arguments.
        crop_size: Edge lengths of a random crop in voxels.
        num_crops: Random crops a volume.
        allow_missing_keys: Skip keys that an item lacks.
        **kwargs: Further arguments of :class:`VolumeContrastCrops`.
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
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
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
        for key in present:
            d[key] = self.crops.apply(d[key], plan)
        return d


VolumeContrastCropsD = VolumeContrastCropsDict = VolumeContrastCropsd


def _minimum(data: Tensor | StoredVolume) -> float:
    return data.minimum if isinstance(data, StoredVolume) else float(data.min())


def _centers(starts: np.ndarray, sizes: np.ndarray, affine: Tensor | None) -> Tensor:
    """Centres of windows in mm, (N, nd): voxel i covers [i - 1/2, i + 1/2) in the affine's sense."""
    index = starts + (sizes - 1) / 2
    if affine is None:
        return torch.as_tensor(index, dtype=torch.float32)
    nd, a = index.shape[1], np.asarray(affine, dtype=np.float64)
    return torch.as_tensor(index @ a[:nd, :nd].T + a[:nd, -1], dtype=torch.float32)
