"""Volumes that stay on disk and are read box by box, with any crop of MONAI."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.transforms import Crop, MapTransform, Randomizable, Transform
from monai.utils import TransformBackends
from numpy.typing import NDArray
from torch import Tensor


class UnreadableVolumeError(OSError):
    """A stored volume cannot be read as it was written."""


class BoxArray(Protocol):
    """An array on disk: slices in, values out. Opened for each read, so it may cross to worker processes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths, channels first."""

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """A writable array of the values in ``box``, one slice an axis; OSError or ValueError if damaged."""


@dataclass(frozen=True, eq=False)
class StoredVolume:
    r"""A prepared volume on disk, channel first ``(C, *S)``, of which only the box that is needed is read.

    The value of a voxel is :math:`(q + s_c)\,a_c`, with :math:`q` what is stored, :math:`a_c` the channel's ``scale``
    and :math:`s_c` its ``shift``; without a scale it is the stored value, as for labels.

    Args:
        array: Stored array.
        affine: ``(4, 4)``, voxel to mm.
        dtype: Type of the values that are read.
        scale: Factor of each channel, or none.
        shift: Added before the factor, of each channel.
        minimum: Smallest value of the volume.
        meta: Further metadata of what is read, as ``filename_or_obj``.
    """

    array: BoxArray
    affine: Tensor
    dtype: torch.dtype = torch.float32
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    minimum: float = 0.0
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> torch.Size:
        """Shape of the whole, channels first."""
        return torch.Size(self.array.shape)

    @property
    def ndim(self) -> int:
        """Number of axes, that of the channels included."""
        return len(self.array.shape)

    def read(self, start: Sequence[int] | None = None, stop: Sequence[int] | None = None) -> MetaTensor:
        """The box from voxel ``start`` up to, not including, voxel ``stop``; the whole when left out.

        Returns:
            ``(C, *box)`` with the affine of the box.

        Raises:
            ValueError: If the box is not inside the volume.
            UnreadableVolumeError: If the file is missing or damaged.
        """
        size = self.array.shape[1:]
        low = [0] * len(size) if start is None else [int(s) for s in start]
        high = list(size) if stop is None else [int(s) for s in stop]
        if not all(0 <= a < b <= n for a, b, n in zip(low, high, size, strict=True)):
            raise ValueError(f"a box must lie inside the volume of {size} voxels, got {low} to {high}; pad afterwards")
        box = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
        meta = {**self.meta, "spatial_shape": np.asarray([b - a for a, b in zip(low, high, strict=True)])}
        try:
            stored = self.array.read(box)
        except (OSError, ValueError) as error:
            raise UnreadableVolumeError(f"{type(error).__name__}: {error}") from error
        return MetaTensor(self._restore(stored), affine=moved(self.affine, low), meta=meta)

    def placeholder(self) -> MetaTensor:
        """A tensor with the shape and the affine of the volume that takes no memory: all its voxels are one.

        Raises:
            ValueError: If MONAI's metadata is switched off, which holds the place of a crop.
        """
        if not get_track_meta():
            raise ValueError("a crop of a stored volume needs MONAI's metadata; leave set_track_meta on")
        one = torch.zeros((1,) * self.ndim, dtype=self.dtype).expand(self.shape)
        return MetaTensor(one, affine=self.affine.clone(), meta=dict(self.meta))

    def read_like(self, cropped: MetaTensor) -> MetaTensor:
        """Read the box of a crop of the :meth:`placeholder` by the operations recorded in it.

        Raises:
            ValueError: If it is no crop.
        """
        nd = self.ndim - 1
        affine = self.affine.to(torch.float64)
        relative = torch.linalg.solve(affine, cropped.affine.to(torch.float64))
        start = relative[:nd, -1]
        if (
            not (relative[:nd, :nd] - torch.eye(nd)).abs().max() < 1e-3
            or not (start - start.round()).abs().max() < 1e-2
        ):
            raise ValueError(
                "a stored volume is read by transforms that crop alone; read it whole (ReadVolumed) before others"
            )
        low = [int(s) for s in start.round()]
        box = self.read(low, [s + n for s, n in zip(low, cropped.shape[1:], strict=True)])
        box.affine = cropped.affine
        box.applied_operations = cropped.applied_operations
        return box

    def _restore(self, stored: NDArray[Any]) -> Tensor:
        values = torch.from_numpy(stored).to(self.dtype)
        for channel, (scale, shift) in enumerate(zip(self.scale, self.shift, strict=True)):
            if (scale, shift) != (1.0, 0.0):
                values[channel].add_(shift).mul_(scale)
        return values


def moved(affine: Tensor, start: Sequence[int]) -> Tensor:
    """Affine of a box that begins at voxel ``start``."""
    result = affine.clone().to(torch.float64)
    offset = torch.as_tensor(list(start), dtype=torch.float64)
    result[: len(offset), -1] += result[: len(offset), : len(offset)] @ offset
    return result


def takes_stored(transform: Any) -> bool:
    """Return whether a transform reads the boxes it needs from a :class:`StoredVolume`; of a chain, its first one."""
    parts = getattr(transform, "transforms", None)
    if parts:
        return takes_stored(parts[0])
    return bool(getattr(transform, "takes_stored", False))


def whole(item: Mapping[Any, Any]) -> dict[Any, Any]:
    """An item with every stored volume read whole."""
    return {key: value.read() if isinstance(value, StoredVolume) else value for key, value in item.items()}


class ReadVolume(Transform):
    """Read a stored volume whole; what is in memory already passes through."""

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - the attribute as MONAI declares it
    takes_stored = True

    def __call__(self, img: StoredVolume | Tensor) -> Tensor:
        """The volume as a tensor ``(C, *S)``."""
        return _tracked(img.read()) if isinstance(img, StoredVolume) else img


class ReadVolumed(MapTransform):
    """Dictionary version of :class:`ReadVolume`.

    Args:
        keys: Keys of the volumes to read.
        allow_missing_keys: Whether a missing key is passed over.
    """

    backend = ReadVolume.backend
    takes_stored = True

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.read = ReadVolume()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each stored volume by a tensor."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.read(d[key])
        return d


class ReadCrop(Randomizable, Transform):
    """Read only what a crop keeps: any transform of MONAI that cuts boxes out, on a volume that stays on disk.

    The crop runs on a tensor of the volume's shape that takes no memory, which gives the box; affine and recorded
    operations are those of the crop, so it can be inverted by its own ``inverse``. A volume in memory is cropped as
    usual. Padding belongs after it.

    Args:
        crop: For example ``RandSpatialCrop``, ``CenterSpatialCrop``, ``RandSpatialCropSamples``.

    Example:
        >>> from monai.transforms import RandSpatialCrop
        >>> ReadCrop(RandSpatialCrop((8, 8, 8), random_size=False))(torch.rand(1, 16, 16, 16)).shape
        torch.Size([1, 8, 8, 8])
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - the attribute as MONAI declares it
    takes_stored = True

    def __init__(self, crop: Callable[[Any], Any]) -> None:
        self.crop = crop

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> ReadCrop:
        """Seed this transform and the crop it owns."""
        super().set_random_state(seed, state)
        if isinstance(self.crop, Randomizable):
            self.crop.set_random_state(seed, state)
        return self

    def __call__(self, img: StoredVolume | Tensor) -> Any:
        """The crop, or the list of crops, of ``img``."""
        if not isinstance(img, StoredVolume):
            return self.crop(img)
        cropped = self.crop(img.placeholder())
        if isinstance(cropped, list):
            return [_tracked(img.read_like(one)) for one in cropped]
        return _tracked(img.read_like(cropped))

    def inverse(self, img: Tensor) -> Tensor:
        """Put a crop back into a volume of zeros, where ``crop`` can."""
        if not isinstance(self.crop, Crop):
            raise ValueError(f"inverse needs a crop of MONAI that has one, got {type(self.crop).__name__}")
        result: Tensor = self.crop.inverse(img)
        return result


class ReadCropd(Randomizable, MapTransform):
    """Dictionary version of :class:`ReadCrop`, with a dictionary crop of MONAI.

    Crops that look at voxels, as ``RandCropByLabelClassesd``, need what they look at in memory: put
    ``ReadVolumed(keys="label")`` before, and leave the label out of ``keys``.

    Args:
        keys: Keys of the volumes whose boxes are read; the crop cuts these, and may cut others.
        crop: Dictionary transform, for example ``RandSpatialCropd``.
        allow_missing_keys: Whether a missing key is passed over.
    """

    backend = ReadCrop.backend
    takes_stored = True

    def __init__(self, keys: KeysCollection, crop: Callable[[Any], Any], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.crop = crop

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> ReadCropd:
        """Seed this transform and the crop it owns."""
        super().set_random_state(seed, state)
        if isinstance(self.crop, Randomizable):
            self.crop.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        """The item, or list of items, that the crop makes."""
        d = dict(data)
        stored = {key: d[key] for key in self.key_iterator(d) if isinstance(d[key], StoredVolume)}
        cropped = self.crop({**d, **{key: volume.placeholder() for key, volume in stored.items()}})
        items = cropped if isinstance(cropped, list) else [cropped]
        for item in items:
            item.update({key: _tracked(volume.read_like(item[key])) for key, volume in stored.items()})
        return cropped

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put crops back into volumes of zeros, where ``crop`` can."""
        if not hasattr(self.crop, "inverse"):
            raise ValueError(f"inverse needs a crop of MONAI that has one, got {type(self.crop).__name__}")
        return dict(self.crop.inverse(data))


ReadVolumeD = ReadVolumeDict = ReadVolumed
ReadCropD = ReadCropDict = ReadCropd


def _tracked(volume: MetaTensor) -> Tensor:
    plain: Tensor = volume.as_tensor()
    return volume if get_track_meta() else plain
