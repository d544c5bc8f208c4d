"""Global and local contrast as a pretraining method: in two stages, or jointly."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.networks import eval_mode
from torch import Tensor, nn

from monai_cl import weights
from monai_cl.methods._contrast_terms import GlobalTerm, MapTerm, local_losses
from monai_cl.methods._crop_size import pooled_width
from monai_cl.methods._global_local_probe import Probe
from monai_cl.methods.base import Method
from monai_cl.networks import (
    decoder_features,
    decoder_modules,
    encoder_features,
    encoder_modules,
    input_channels,
)


class _Embedded(NamedTuple):
    """Embeddings of a batch: of images (B, V, D), and maps (B, V, C, *s); ``None`` where no term looks at them."""

    images: Tensor | None
    maps: Tensor | None


class GlobalLocalContrast(Method):
    r"""Contrast whole slices by their place along the body, and places within a slice, in encoder and decoder.

    .. math:: L = w_g L_{global} + w_l L_{local} + w_a L_{across} + w_d L_{dense}

    ======== ============================ ===========================================================================
    term     looks at                     loss
    ======== ============================ ===========================================================================
    global   the encoder, pooled          ``contrast``: :class:`monai_cl.losses.PartitionContrastiveLoss` (``"gd"``,
                                          ``"gd-"``), :class:`~monai_cl.losses.NTXentLoss` (``"nt_xent"``),
                                          :class:`~monai_cl.losses.PositionalContrastiveLoss` (``"position"``)
    local    decoder block ``blocks``     :class:`~monai_cl.losses.LocalRegionContrastiveLoss`
    across   decoder block ``blocks``     :class:`~monai_cl.losses.CrossVolumeLocalContrastiveLoss`
    dense    decoder block ``blocks``     :class:`~monai_cl.losses.DenseContrastiveLoss`
    ======== ============================ ===========================================================================

    The published training is two runs: ``global_weight=1`` alone, which leaves the decoder as it is; then
    ``local_weight=1`` alone with ``freeze_encoder=True`` on the network of the first. A frozen encoder runs without
    gradient and in evaluation mode throughout, so that its parameters and its running statistics stay bit for bit.
    Any weights together are the joint form. Decoder blocks beyond ``blocks`` and the output layer do not run.

    Images may be slices or slabs: whatever spatial dimensions the network has.

    Args:
        network: A MONAI ``SegResNet``, ``UNet``, ``BasicUNet`` or ``DynUNet``; for the global term alone also
            ``SwinUNETR``.
        image_size: Edge lengths of the views in voxels, or one for all axes; checked against the network here.
        key: Key of the views (B, V, C, \*S) in a batch. Beside it a batch holds ``partition`` and ``volume`` of each
            image (for ``"gd"``, ``"gd-"`` and across), ``position`` (for ``"position"``), and, where views differ in
            geometry, ``coords`` (B, V, nd, \*S) and ``valid`` (B, V, \*S) of
            :class:`monai_cl.transforms.RandViewsd`.
        contrast: Name of the global loss, or the loss itself, with the arguments of that of partitions.
        global_weight: Weight :math:`w_g`; a term of weight 0 is not there at all.
        local_weight: Weight :math:`w_l`.
        across_weight: Weight :math:`w_a`.
        dense_weight: Weight :math:`w_d`.
        freeze_encoder: Keep the encoder as it is; the global term must then have no weight.
        blocks: Decoder blocks that run, counted from the bottom. The published 3 of 5 give maps of a quarter of the
            size.
        levels: Encoder maps that are pooled, ``"deepest"`` as published or ``"all"``.
        pool_size: Cells an axis to which they are averaged; see :func:`monai_cl.networks.pool_pyramid`.
        hidden: Width of the projector's hidden layers.
        embedding: Width of the embedding of an image; that of a voxel is the width of its map.
        norm: Normalisation in the projector: ``"batch"``, with the statistics of a process' batch, or ``"layer"``, with
            which any number of processes gives the same result, but all embeddings start out nearly alike.
        temperature: Of all losses made here.
        region_size: Edge length of a region in voxels of the map.
        exclusion_radius: Of the dense term: nothing so near is a negative, in the unit of ``coords``, or in voxels of
            the map without them.
        num_anchors: Of the dense term, voxels of each view that are anchors; ``None`` takes all.

    Raises:
        ValueError: If the network is unknown or cannot take ``image_size``, no term has a weight, or options disagree.

    References:
        Contrastive learning of global and local features for medical image segmentation with limited annotations,
        arXiv 2006.10511; positional contrastive learning, arXiv 2106.09157.
    """

    def __init__(
        self,
        network: nn.Module,
        image_size: int | Sequence[int],
        *,
        key: str = "image",
        contrast: str | nn.Module = "gd",
        global_weight: float = 1.0,
        local_weight: float = 0.0,
        across_weight: float = 0.0,
        dense_weight: float = 0.0,
        freeze_encoder: bool = False,
        blocks: int = 3,
        levels: str = "deepest",
        pool_size: int = 2,
        hidden: int = 1024,
        embedding: int = 128,
        norm: str = "batch",
        temperature: float = 0.1,
        region_size: int = 3,
        exclusion_radius: float = 0.0,
        num_anchors: int | None = 1024,
    ) -> None:
        super().__init__()
        self.weights = _weights(
            {"global": global_weight, "local": local_weight, "across": across_weight, "dense": dense_weight},
            freeze_encoder=freeze_encoder,
        )
        self.network = network
        self.key = key
        self.freeze_encoder = freeze_encoder
        self.blocks = blocks
        self.levels = levels
        width = pooled_width(network, image_size, pool_size=pool_size, levels=levels)
        self.global_term: GlobalTerm | None = None
        if "global" in self.weights:
            self.global_term = GlobalTerm(
                width, contrast, pool_size=pool_size, hidden=hidden, embedding=embedding, norm=norm,
                temperature=temperature,
            )  # fmt: skip
        self.map_term: MapTerm | None = None
        if self.weights.keys() - {"global"}:
            channels, *size = _map_shape(network, image_size, blocks)
            losses = local_losses(
                len(size), temperature, region_size=region_size, exclusion_radius=exclusion_radius,
                num_anchors=num_anchors,
            )  # fmt: skip
            _check_regions(losses, self.weights, size)
            terms = {name: (loss, self.weights.get(name, 0.0)) for name, loss in losses.items()}
            self.map_term = MapTerm(channels, len(size), **terms)
        self._choose_what_learns()
        self.train(self.training)

    def _choose_what_learns(self) -> None:
        self.network.requires_grad_(False)
        if not self.freeze_encoder:
            for module in self._encoder:
                module.requires_grad_(True)
        if self.map_term is not None:
            for module in decoder_modules(self.network, blocks=self.blocks):
                module.requires_grad_(True)

    @property
    def _encoder(self) -> list[nn.Module]:
        return encoder_modules(self.network, levels="all" if self.map_term is not None else self.levels)

    def train(self, mode: bool = True) -> "GlobalLocalContrast":
        """Set the mode of all but a frozen encoder, which stays in evaluation."""
        super().train(mode)
        if self.freeze_encoder:
            for module in self._encoder:
                module.eval()
        return self

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of views.

        Returns:
            ``loss``; each term before it is weighted; with the global term ``embedding_std`` (near 1 when embeddings
            fill the sphere, 0 when they have collapsed).

        Raises:
            ValueError: If the batch lacks what a term needs, or views differ in geometry under regions.
        """
        found = self._embed(batch)
        terms: dict[str, Tensor] = {}
        health: dict[str, Tensor] = {}
        if self.global_term is not None and found.images is not None:
            terms["global"] = self.global_term(found.images, batch)
            health["embedding_std"] = _spread(found.images.detach())
        if self.map_term is not None and found.maps is not None:
            terms |= self.map_term(found.maps, batch)
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}, **health}

    def _embed(self, batch: Mapping[str, Any]) -> _Embedded:
        image: Tensor = batch[self.key]
        views = image.shape[1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            levels = "all" if self.map_term is not None else self.levels
            maps = encoder_features(self.network, image.flatten(0, 1), levels=levels)
        z = f = None
        if self.global_term is not None:
            z = self.global_term.embed(maps[-1:] if self.levels == "deepest" else maps, views)
        if self.map_term is not None:
            f = self.map_term.embed(decoder_features(self.network, maps, blocks=self.blocks)[-1], views)
        return _Embedded(z, f)

    @torch.no_grad()
    def probe(self, batches: Iterable[dict[str, Any]]) -> dict[str, float | Tensor]:
        """Health of the embeddings on volumes that are not trained on.

        Returns:
            ``alignment`` of two views, ``uniformity``, ``effective_rank`` and ``dead_dimensions`` of embeddings of
            images, or of voxels without the global term. With the global term and partitions ``partition_accuracy``:
            how often the nearest slices of other volumes are of the same partition, beside ``chance_partition``.
            With a term in the decoder ``place_error``: the median distance of the most similar voxel of the other
            view from the same place, in the unit of ``coords`` or in voxels of the map, and ``place_accuracy``: how
            often it is a neighbour of that place at most.
        """
        probe = Probe()
        with eval_mode(self):
            for batch in batches:
                found = self._embed(batch)
                if found.images is not None:
                    probe.add_images(found.images, batch)
                if found.maps is not None:
                    probe.add_maps(found.maps, batch, count=found.images is None)
        return probe.values()

    def causes_of_collapse(self) -> list[str]:
        """Settings of this method under which embeddings become alike."""
        causes = []
        if self.global_term is not None and self.global_term.pool_size == 1:
            causes.append(
                "pool_size=1: the global average of a normalised map is nearly the same for every slice; use 2"
            )
        if self.freeze_encoder:
            causes.append("a frozen encoder that was not pretrained, or has collapsed itself; look at its own health")
        return causes

    def touched(self) -> list[str]:
        """Names of the network's parameters that this run changes, or the one it started from has changed."""
        receipt = weights.receipt_of(self.network)
        before = set(receipt.touched) & set(receipt.matched) if receipt is not None else set()
        return [name for name, p in self.network.named_parameters() if p.requires_grad or name in before]


def _weights(given: Mapping[str, float], *, freeze_encoder: bool) -> dict[str, float]:
    for name, value in given.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}_weight must be at least 0, got {value!r}")
    used = {name: float(value) for name, value in given.items() if value > 0}
    if not used:
        raise ValueError(f"one of {', '.join(f'{name}_weight' for name in given)} must be above 0, all are 0")
    if freeze_encoder and "global" in used:
        raise ValueError(
            f"global_weight must be 0 with freeze_encoder, got {given['global']!r}: the global term trains the encoder "
            "alone"
        )
    return used


def _map_shape(network: nn.Module, image_size: int | Sequence[int], blocks: int) -> tuple[int, ...]:
    """Channels and size of the decoder map of an image, by trying."""
    trial = deepcopy(network).cpu().eval()
    dims = next(p.ndim for p in trial.parameters() if p.ndim > 2) - 2
    size = (image_size,) * dims if isinstance(image_size, int) else tuple(image_size)
    with torch.no_grad():
        maps = encoder_features(trial, torch.zeros(1, input_channels(trial), *size))
        found = decoder_features(trial, maps, blocks=blocks)[-1]
    return tuple(found.shape[1:])


def _check_regions(losses: Mapping[str, nn.Module], used: Mapping[str, float], size: Sequence[int]) -> None:
    for name in ("local", "across"):
        if name not in used:
            continue
        regions = losses[name].regions(size)  # type: ignore[operator]
        if not bool(regions.negatives.any(1).all()):
            raise ValueError(
                f"every region must have another that it shares no voxel with, the decoder's map of size {tuple(size)} "
                "is too small; use larger images, more blocks or a smaller region_size"
            )


def _spread(z: Tensor) -> Tensor:
    flat = F.normalize(z.float().flatten(0, 1), dim=-1)
    spread: Tensor = flat.std(dim=0).mean() * flat.shape[1] ** 0.5
    return spread
