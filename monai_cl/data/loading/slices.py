"""Slices and slabs of prepared volumes, drawn by partition."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.utils.data import Dataset

from monai_cl.data.loading.faults import MAX_FAULTS, TooManyFaultsError
from monai_cl.data.loading.kept import kept_starts
from monai_cl.data.loading.partitions import PartitionDraw, relative_position
from monai_cl.datalist import Item, subject_of
from monai_cl.transforms.short_axis import slice_axis
from monai_cl.transforms.stored import StoredVolume, moved

logger = logging.getLogger(__name__)


class SliceDataset(Dataset[dict[str, Any]]):
    """Slices or slabs of volumes; an index is a :class:`PartitionDraw`, and the same one always gives the same item.

    With a :class:`monai_cl.data.PreparedDataset` volumes are read once, faults are counted there, and slices are cut
    from memory; of a cache on disk each draw reads its own slices alone.

    Args:
        volumes: Prepared items, with ``image`` (C, *S).
        transform: Random transform (``Randomizable``) of an item of slices, such as ``RandViewsd``.
        keys: Entries of the result that go into a batch.
        slice_keys: Entries of a volume that are cut; a key that a volume lacks is passed over.
        slab: Slices of a slab (C, *S); 1 gives slices (C, *S without the axis).
        axis: Spatial axis of the slices; by default that of :func:`monai_cl.transforms.slice_axis`, which must be the
            same for all volumes.
        depths: Slices of each volume, where they are known beforehand; volumes are not looked at then before they are
            drawn, and ``axis`` and ``subjects`` must be given.
        subjects: Patient of each volume; by default ``subject`` of the items, or each is one of its own.
        max_faults: Share of the volumes that may be thinner than a slab; they are named in the log and left out.
        kept_slices: Whether to draw only the slices that ``monai-cl curate`` has kept, where the datalist lists them;
            slabs begin at them. Has no effect with ``depths``.
        rank: This process's number, where each process has volumes of its own (:func:`items_of_rank`).
        world_size: Number of such processes.

    Returns:
        Items with ``keys``, ``case``, ``volume`` (a number that no other volume has, in no process), ``partition`` and
        ``position`` (centre of the slab as a share of the volume). The affine of a slice is of its plane: spacings
        along its two axes, and the place of the slice along a third, in mm.

    Raises:
        TooManyFaultsError: If more than ``max_faults`` of the volumes, or all, are thinner than a slab.
        ValueError: If volumes have slices along different axes, an argument is missing, or kept slices are unknown in a
            prepared volume, as where it was resampled along its slices.

    Example:
        >>> volumes = [{"image": torch.rand(1, 32, 32, depth)} for depth in (9, 7, 12)]
        >>> slices = SliceDataset(volumes)
        >>> slices.axis, slices.depths, slices[PartitionDraw(0, 4, 1, 0)]["image"].shape
        (2, [9, 7, 12], torch.Size([1, 32, 32]))
    """

    def __init__(
        self,
        volumes: Dataset[dict[str, Any]] | Sequence[Mapping[str, Any]],
        transform: Randomizable | None = None,
        *,
        keys: Sequence[str] = ("image",),
        slice_keys: Sequence[str] = ("image", "label"),
        slab: int = 1,
        axis: int | None = None,
        depths: Sequence[int] | None = None,
        subjects: Sequence[str] | None = None,
        max_faults: float = MAX_FAULTS,
        kept_slices: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if slab < 1:
            raise ValueError(f"slab must be at least 1, got {slab}")
        if depths is not None and (axis is None or subjects is None):
            raise ValueError("axis and subjects must be given with depths")
        self.data = volumes  # MONAI's name for what a dataset draws from
        self.transform = transform
        self.keys = tuple(keys)
        self.slice_keys = tuple(slice_keys)
        self.slab = slab
        self.rank = rank
        self.world_size = world_size
        number = len(volumes)  # type: ignore[arg-type]
        self.axis = _one_axis(volumes, number) if axis is None else axis
        result = [_depth(_kept_item(volumes, i), self.axis) for i in range(number)] if depths is None else list(depths)
        patients = [_subject(_kept_item(volumes, i), i) for i in range(number)] if subjects is None else list(subjects)
        self._kept = [i for i, depth in enumerate(result) if depth >= slab]
        self._judge(result, max_faults)
        self.depths = [result[i] for i in self._kept]
        self.subjects = [str(patients[i]) for i in self._kept]
        looked_at = kept_slices and depths is None
        self.starts = [self._starts(i) if looked_at else range(result[i] - slab + 1) for i in self._kept]

    @property
    def drawn(self) -> tuple[int, int]:
        """Number of slices (or slabs, by their first slice) that may be drawn, and the total."""
        return sum(map(len, self.starts)), sum(depth - self.slab + 1 for depth in self.depths)

    def _starts(self, index: int) -> Sequence[int]:
        item = _kept_item(self.data, index)
        return kept_starts(item, axis=self.axis, slab=self.slab, case=str(item.get("case", f"volume {index}")))

    def _judge(self, depths: Sequence[int], max_faults: float) -> None:
        thin = [i for i in range(len(depths)) if depths[i] < self.slab]
        for i in thin:
            logger.warning("left out volume %d: %d slices, a slab has %d", i, depths[i], self.slab)
        if len(thin) > max_faults * len(depths) or not self._kept:
            raise TooManyFaultsError(
                f"at most {100 * max_faults:g} % of the volumes may be thinner than a slab of {self.slab} slices "
                f"(max_faults), got {len(thin)} of {len(depths)}; use thinner slabs "
                f"(slab, or image_size with the overlay `volumes`), of at most {min(depths)} slices, or allow more"
            )

    def __len__(self) -> int:
        return len(self._kept)

    def case(self, volume: int) -> str:
        """Name of a volume for logs."""
        return str(_kept_item(self.data, self._kept[volume]).get("case", self._kept[volume]))

    def __getitem__(self, draw: PartitionDraw) -> dict[str, Any]:
        volume, case = _kept_item(self.data, self._kept[draw.volume]), self.case(draw.volume)
        depth = _depth(volume, self.axis)
        if depth != self.depths[draw.volume]:
            raise ValueError(
                f"{case} has {depth} slices along axis {self.axis}, but depths states {self.depths[draw.volume]}; "
                "leave depths out, or use a recipe that keeps this axis as it is"
            )
        item: Any = {key: cut_slab(volume[key], self.axis, draw.start, self.slab)
                     for key in self.slice_keys if key in volume}  # fmt: skip
        if self.transform is not None:
            self.transform.set_random_state(seed=draw.seed)
            item = self.transform({**item, "case": case})
        return {
            **{key: item[key] for key in self.keys},
            "case": case,
            "volume": self._kept[draw.volume] * self.world_size + self.rank,
            "partition": draw.partition,
            "position": relative_position(draw.start, depth, slab=self.slab),
        }


def cut_slab(image: Tensor | StoredVolume, axis: int, start: int, slab: int = 1) -> Tensor:
    """Slices of a volume (C, *S), a copy; one slice is without the axis, and its affine is of its plane."""
    box = _box(image, axis, start, slab)
    if slab > 1:
        return box
    plain = box.as_tensor() if isinstance(box, MetaTensor) else box
    plane: Tensor = plain.select(axis + 1, 0).contiguous()
    if not isinstance(box, MetaTensor):
        return plane
    # of a 2-D image MONAI reads the first two rows alone, which must hold the plane wherever it lies
    spacing = box.affine[:-1, :-1].norm(dim=0)
    affine = torch.diag(
        torch.stack([*(s for i, s in enumerate(spacing) if i != axis), spacing[axis], spacing.new_ones(())])
    )
    affine[-2, -1] = start * spacing[axis]
    return _placed(plane, affine)


def _box(image: Tensor | StoredVolume, axis: int, start: int, slab: int) -> Tensor:
    low, high = [0] * (image.ndim - 1), list(image.shape[1:])
    low[axis], high[axis] = start, start + slab
    if isinstance(image, StoredVolume):  # of which nothing else is read
        read = image.read(low, high)
        return _placed(read.as_tensor(), read.affine)
    part: Tensor = convert_to_tensor(image, track_meta=False).narrow(axis + 1, start, slab).clone()
    return part if not isinstance(image, MetaTensor) else _placed(part, moved(image.affine, low))


def _placed(plain: Tensor, affine: Tensor) -> Tensor:
    done: Tensor = MetaTensor(plain, affine=affine)
    return done


def check_slab(image_size: Sequence[int], slab: int) -> None:
    """Raise ``ValueError`` unless views of this size can be had from slabs of so many slices.

    Example:
        >>> check_slab([128, 128], 1), check_slab([64, 64, 32], 32)
        (None, None)
    """
    sides = 2 if slab == 1 else 3
    if len(image_size) != sides:
        raise ValueError(
            f"image_size must have {sides} sides with slab {slab} (slices, slab 1, have 2, and thicker slabs 3), "
            f"got {list(image_size)}; change image_size or slab, or use the overlay `volumes`"
        )


def items_of_rank(items: Sequence[Mapping[str, Any]], *, rank: int, world_size: int) -> list[Item]:
    """Items of this process, split by patient, so that no patient is in two processes.

    Raises:
        ValueError: If processes outnumber patients.
    """
    patients = list(dict.fromkeys(subject_of(item) for item in items))
    if not 0 <= rank < world_size or len(patients) < world_size:
        raise ValueError(
            f"each of {world_size} processes needs a patient and a rank below {world_size}, got {len(patients)} "
            f"patients and rank {rank}; use fewer processes"
        )
    mine = set(patients[rank::world_size])
    return [dict(item) for item in items if subject_of(item) in mine]


def _one_axis(volumes: Any, number: int) -> int:
    axes = Counter(_axis_of(_kept_item(volumes, i)["image"]) for i in range(number))
    if len(axes) != 1:
        listed = ", ".join(f"axis {axis}: {count} volumes" for axis, count in axes.most_common())
        raise ValueError(f"all volumes must have slices along one axis, got {listed or 'no volumes'}; give axis")
    return next(iter(axes))


def _axis_of(image: Tensor | StoredVolume) -> int:
    shape = list(image.shape[1:])
    if not isinstance(image, (MetaTensor, StoredVolume)):
        return slice_axis(shape, [1.0] * len(shape))
    return slice_axis(shape, image.affine[:-1, :-1].norm(dim=0).tolist())


def _kept_item(volumes: Any, index: int) -> Mapping[str, Any]:
    """An item as it is kept, of a cache on disk without its voxels."""
    item: Mapping[str, Any] = getattr(volumes, "stored", volumes.__getitem__)(index)
    return item


def _depth(volume: Mapping[str, Any], axis: int) -> int:
    shape = volume["image"].shape[1:]
    if not 0 <= axis < len(shape):
        raise ValueError(f"axis must be between 0 and {len(shape) - 1}, got {axis}")
    return int(shape[axis])


def _subject(volume: Mapping[str, Any], index: int) -> str:
    return str(volume.get("subject", f"volume {index}"))
