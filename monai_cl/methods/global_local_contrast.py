"""Global and local contrast as a pretraining method: in two stages, or jointly."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from monai_cl.methods._dense_maps import DenseHead
from monai_cl.methods.base import Method, used_weights
from monai_cl.methods.image_terms import PartitionTerm
from monai_cl.methods.map_terms import DenseTerm, MapTerm, RegionTerm
from monai_cl.methods.term import Term


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
        global_weight: Weight :math:`w_g`; a term of weight 0 is left out.
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

    renamed: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "global_term.": ("terms.global.",),
        "map_term.head.": tuple(f"terms.{name}.head." for name in ("local", "across", "dense")),
    }

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
        given = {"global": global_weight, "local": local_weight, "across": across_weight, "dense": dense_weight}
        used = _used(given, freeze_encoder=freeze_encoder)
        whole = PartitionTerm(
            contrast, key=key, levels=levels, pool_size=pool_size, hidden=hidden, embedding=embedding, norm=norm,
            temperature=temperature,
        )  # fmt: skip
        head = DenseHead()  # one for all terms of the map
        of_map: dict[str, Any] = {"key": key, "blocks": blocks, "temperature": temperature, "head": head}
        maps: dict[str, MapTerm] = {
            "local": RegionTerm(region_size=region_size, **of_map),
            "across": RegionTerm(across=True, region_size=region_size, **of_map),
            "dense": DenseTerm(exclusion_radius=exclusion_radius, num_anchors=num_anchors, **of_map),
        }
        for name in [name for name in maps if name in used][1:]:
            maps[name].probed = False  # with the head of the first, its values are the same
        terms: dict[str, Term] = {"global": whole, **maps}
        super().__init__(
            network, terms, weights=given, trains="decoder" if freeze_encoder else "all", image_size=image_size
        )


def _used(given: Mapping[str, float], *, freeze_encoder: bool) -> dict[str, float]:
    used = used_weights(given, given, named="{}_weight")
    if freeze_encoder and "global" in used:
        raise ValueError(
            f"global_weight must be 0 with freeze_encoder, got {given['global']!r}: the global term trains the encoder "
            "alone"
        )
    return used
