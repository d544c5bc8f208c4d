"""Terms of maps: a head on features of voxels, and a contrast of voxels or of regions of two views."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_cl.losses import CrossVolumeLocalContrastiveLoss, DenseContrastiveLoss, LocalRegionContrastiveLoss
from monai_cl.methods._dense_maps import DenseHead, MatchedVoxels, dense_rows, hypercolumns
from monai_cl.methods._embedding_health import ENOUGH, EmbeddingHealth
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.term import Term, Views, of_batch, require_positive, views_of
from monai_cl.networks import resized

_PROBED = 512  # voxels of each image that a probe compares, evenly spread


class MapTerm(Term):
    """Head in each voxel of a map of the decoder.

    Args:
        key: Key of the views in a batch.
        blocks: Decoder blocks that run, counted from the bottom; ``None`` is all.
        head: A head shared with other terms; one of its own when left out.
    """

    def __init__(self, *, key: str = "image", blocks: int | None = None, head: DenseHead | None = None) -> None:
        super().__init__()
        self.key = key
        self.blocks = blocks
        self.needs = frozenset({"blocks"})
        self.head = DenseHead() if head is None else head

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the layers of the head."""
        block = last_block(maps, self.blocks)
        self.head.build(block.ndim - 2, block.shape[1], block.shape[1], block.shape[1])

    def _map(self, maps: Maps, size: Sequence[int]) -> Tensor:
        """Map that the head takes, of images of a size."""
        return last_block(maps, self.blocks)

    def embed(self, extract: FeatureExtractor, views: Views) -> Tensor:
        r"""Embedded maps (B, V, C, \*s) of views; made once for all terms of one head."""
        images = views.images
        if images.shape[1] < 2:
            raise ValueError(f"contrast in the decoder needs two views of each image, got {images.shape[1]}")
        name = (self.head, self.blocks)  # terms may share a head and have blocks of their own
        f = extract.once(name, images, lambda: self.head(self._map(extract(images), images.shape[3:])))
        pair: Tensor = f.unflatten(0, images.shape[:2])
        return pair

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Voxels of the first view that the second shows too, and the size of a voxel."""
        views = views_of(batch, self.key)
        f = self.embed(extract, views)
        coords, valid = places(views, f.shape[3:], f.device)
        if coords is None or valid is None:
            axes = [torch.arange(n, device=f.device, dtype=torch.float32) for n in f.shape[3:]]
            coords = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(f), 2, -1, *f.shape[3:])
            valid = torch.ones(len(f), 2, *f.shape[3:], dtype=torch.bool, device=f.device)
        result = dense_rows((f[:, 0], f[:, 1]), coords[:, :2], valid[:, :2], count=_PROBED)
        return result, _voxel(coords)

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Errors of retrieved places, and the health of embeddings of voxels.

        Returns:
            ``place_error``: the median distance of the most similar voxel of the other view from the same place, in
            the unit of ``coords`` or in voxels of the map; ``place_accuracy``: how often it is a neighbour of that
            place at most; ``alignment``, ``uniformity``, ``effective_rank`` and ``dead_dimensions`` of voxels.
        """
        values: dict[str, float | Tensor] = {**voxel_health([result for result, _ in records])}
        error = torch.cat([result.error for result, _ in records])
        if len(error):
            near = (error <= 1.001 * min(voxel for _, voxel in records)).float().mean()
            values |= {"place_error": float(error.median()), "place_accuracy": float(near)}
        return values


class RegionTerm(MapTerm):
    """Contrast of regions of a decoder map: with other regions of the slice, or with slices of other patients.

    Both views must show the same place at the same index.

    Args:
        across: Contrast with slices of the same partition of other volumes,
            :class:`monai_cl.losses.CrossVolumeLocalContrastiveLoss`; a batch then holds ``partition`` and ``volume`` of
            each image. Without it :class:`monai_cl.losses.LocalRegionContrastiveLoss`.
        region_size: Edge length of a region in voxels of the map.
        temperature: Of the loss.
        options: Options of :class:`MapTerm`.

    References:
        arXiv 2006.10511.
    """

    def __init__(self, *, across: bool = False, region_size: int = 3, temperature: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.across = across
        self.region_size = region_size
        self.temperature = temperature
        self.loss: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make head and loss."""
        super().build(network, maps)
        kind = CrossVolumeLocalContrastiveLoss if self.across else LocalRegionContrastiveLoss
        self.loss = kind(last_block(maps, self.blocks).ndim - 2, self.region_size, temperature=self.temperature)

    def check_maps(self, maps: Maps) -> None:
        """Raise ``ValueError`` if a region has no other that it shares no voxel with."""
        size = tuple(last_block(maps, self.blocks).shape[2:])
        if not bool(self.loss.regions(size).negatives.any(1).all()):  # type: ignore[operator]
            raise ValueError(
                f"every region must have another that it shares no voxel with, the decoder's map of size {size} "
                "is too small; use larger images, more blocks or a smaller region_size"
            )

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of pairs of views.

        Raises:
            ValueError: If views differ in geometry, or the batch lacks what the loss needs.
        """
        views = views_of(batch, self.key)
        f = self.embed(extract, views)
        _require_same_places(views)
        marks = [of_batch(batch, key, f.device).long() for key in ("partition", "volume") if self.across]
        return self.loss(f[:, 0], f[:, 1], *marks), {}


class DenseTerm(MapTerm):
    r"""Contrast of voxels: those that show the same place in two views are drawn together, others apart.

    Args:
        loss: Loss of two maps with coordinates and validity; :class:`monai_cl.losses.DenseContrastiveLoss` with
            ``temperature``, ``exclusion_radius`` and ``num_anchors`` when left out.
        on: Features that voxels are compared by: ``"block"``: a block of the decoder, on its own grid;
            ``"decoder"``; ``"encoder"``: all its levels brought to one grid and joined; or ``"all"``: these and the
            decoder, joined. Views have ``coords`` (B, 2, n, \*S) and ``valid`` (B, 2, \*S) of
            :class:`monai_cl.transforms.RandViewsd` beside them; without these they show the same place at the same
            index.
        stride: Voxels of the view along an axis that are averaged to one of the contrast, unless on a block.
        embedding: Width of the embedding of a voxel; that of the map when left out.
        temperature: Of the loss.
        exclusion_radius: Nothing so near is a negative, in the unit of ``coords``, or in voxels of the map.
        num_anchors: Voxels of each view that are anchors, drawn anew each step; ``None`` takes all.
        millimetres: Name the errors of a probe by their unit, which is that of ``coords``.
        options: Options of :class:`MapTerm`.

    Raises:
        ValueError: If an option is out of range.

    References:
        DenseCL, arXiv 2011.09157; in a decoder, arXiv 2006.10511.
    """

    def __init__(
        self,
        loss: nn.Module | None = None,
        *,
        on: str = "block",
        stride: int = 2,
        embedding: int | None = None,
        temperature: float = 0.1,
        exclusion_radius: float = 0.0,
        num_anchors: int | None = 1024,
        millimetres: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if on not in _NEEDS:
            raise ValueError(f"on must be one of {tuple(_NEEDS)}, got {on!r}")
        require_positive(stride=stride, embedding=1 if embedding is None else embedding)
        self.on = on
        self.needs = _NEEDS[on]
        self.stride = stride
        self.embedding = embedding
        self.millimetres = millimetres
        self.loss = loss
        self._of_loss = (temperature, num_anchors, exclusion_radius)

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the layers of the head, and the loss where none was given."""
        compared = self._compared(maps)
        channels, dims = sum(one.shape[1] for one in compared), compared[0].ndim - 2
        width = channels if self.embedding is None else self.embedding
        self.head.build(dims, channels, max(channels, width), width)
        if self.loss is None:
            self.loss = DenseContrastiveLoss(dims, *self._of_loss)

    def _compared(self, maps: Maps) -> list[Tensor]:
        if self.on == "block":
            return [last_block(maps, self.blocks)]
        encoder = [] if self.on == "decoder" else [*maps.encoder]
        return [*encoder, *([] if self.on == "encoder" else [maps.decoder])]

    def _map(self, maps: Maps, size: Sequence[int]) -> Tensor:
        compared = self._compared(maps)
        if self.on == "block":
            return compared[0]
        grid = [max(n // self.stride, 1) for n in size]
        return hypercolumns(compared, grid) if len(compared) > 1 else resized(compared[0], grid)

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of pairs of views."""
        views = views_of(batch, self.key)
        f = self.embed(extract, views)
        coords, valid = places(views, f.shape[3:], f.device)
        result = () if coords is None or valid is None else (coords[:, 0], coords[:, 1], valid[:, :2])
        if self.loss is None:
            raise ValueError("a dense term needs its loss, which the method makes with the head; give it to a method")
        return self.loss(f[:, 0], f[:, 1], *result), {}

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Summary of :class:`MapTerm`; with ``millimetres``, errors have names with their unit.

        Returns:
            Then ``voxel_error_mm`` (median distance between the place of a voxel and that of the most similar voxel of
            the other view), ``voxel_within_5_mm``, and ``blind_voxel_error_mm``, the error of taking the voxel of the
            same index: what a network gives that only knows where in the crop a voxel lies.
        """
        if not self.millimetres:
            return super().summary(records)
        result = [one for one, _ in records]
        values: dict[str, float | Tensor] = {**voxel_health(result)}
        error, blind = torch.cat([one.error for one in result]), torch.cat([one.blind for one in result])
        if len(error):
            within = (error <= 5).float().mean()
            values |= {"voxel_error_mm": float(error.median()), "voxel_within_5_mm": float(within)}
            values["blind_voxel_error_mm"] = float(blind.median())
        return values

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which embeddings become alike."""
        if self.on == "block" or self.stride > 1:
            return []
        return ["dense_stride=1: neighbouring voxels look alike but are negatives of each other; use 2 or more"]


_NEEDS = {
    "block": frozenset({"blocks"}),
    "decoder": frozenset({"decoder"}),
    "encoder": frozenset({"encoder"}),
    "all": frozenset({"encoder", "decoder"}),
}


def last_block(maps: Maps, blocks: int | None) -> Tensor:
    """Map of the last of a number of blocks from the bottom; another term may have had more of them run."""
    return maps.blocks[-1 if blocks is None else blocks - 1]


def voxel_health(found: Sequence[MatchedVoxels]) -> dict[str, float]:
    """Health of embeddings of voxels, by name; empty without any."""
    health = EmbeddingHealth(fewest=ENOUGH)
    for one in found:
        if len(one.first):
            health(one.first, one.second, rows=one.first)
    return {name: float(value) for name, value in health.values().items()} if health.rows else {}


def places(views: Views, size: Sequence[int], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    r"""Coordinates (B, V, n, \*size) and validity (B, V, \*size) of the voxels of a map, if views have them.

    The centre of a voxel of the map is the mean of the centres of the voxels it covers, so averages are exact for
    affine views; a voxel is valid if all that it covers are.
    """
    if views.coords is None or views.valid is None:
        return None, None
    coords, valid = views.coords.to(device).float(), views.valid.to(device)
    b, v = coords.shape[:2]
    coarse = resized(coords.flatten(0, 1), size)
    whole = resized(valid.flatten(0, 1)[:, None].float(), size)
    return coarse.unflatten(0, (b, v)), whole[:, 0].unflatten(0, (b, v)) > 1 - 1e-3


def _voxel(coords: Tensor) -> float:
    """Smallest distance of neighbours in a map, from coordinates (B, V, nd, *s)."""
    steps = [coords.diff(dim=3 + axis).norm(dim=2) for axis in range(coords.ndim - 3) if coords.shape[3 + axis] > 1]
    return min((float(step.min()) for step in steps), default=0.0)


def _require_same_places(views: Views) -> None:
    coords = views.coords
    if coords is not None and not torch.allclose(coords[:, 0], coords[:, 1], atol=0.01):
        raise ValueError(
            "regions are compared at the same index, so both views must show the same place there: leave flips, crops "
            "and deformations out of the chain of the views (before it they serve both), or use the dense term"
        )
