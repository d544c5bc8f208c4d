"""Volume contrast in the encoder and dense contrast of two views through encoder and decoder, in one run."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from monai_cl.methods.base import Method
from monai_cl.methods.map_terms import DenseTerm
from monai_cl.methods.volume_contrast import VolumeContrast


class VolumeDenseContrast(Method):
    r"""Learn where in the body a crop lies, and to find each voxel of one view again in another.

    .. math:: L = w_p\,L_{position} + w_d\,L_{dense}

    with :math:`L_{position}` the loss of :class:`VolumeContrast` on a grid of base crops and random crops, and
    :math:`L_{dense}` that of :class:`monai_cl.losses.DenseContrastiveLoss` on a decoder map of two views that are
    turned, stretched and changed in intensity each by itself. Volume contrast leaves the decoder as it was; the dense
    term pretrains it, and the encoder with it.

    Args:
        position: Volume contrast, with the network and all of its options.
        patch_size: Edge lengths of the two views in voxels, or one for all axes; checked against the network here.
        pair_key: Key of the two views (B, 2, C, \*S) in a batch. Beside it a batch holds what ``position`` takes, and
            ``coords`` (B, 2, nd, \*S) and ``valid`` (B, 2, \*S) of :class:`monai_cl.transforms.RandViewsd`.
        position_weight: Weight :math:`w_p`; with 0 the term is missing, and dense contrast is alone.
        dense_weight: Weight :math:`w_d`.
        blocks: Decoder blocks that run, counted from the bottom; those beyond and the output layer stay as they were.
        exclusion_radius: Nothing so near is a negative, in the unit of ``coords``.
        temperature: Of the dense term.
        num_anchors: Voxels of each view that are anchors, drawn anew each step; ``None`` takes all.

    Raises:
        ValueError: If a weight is out of range, the decoder of the network is not known or has not so many blocks, or
            it cannot take ``patch_size``.

    References:
        VoCo, arXiv 2402.17300; the dense term as in arXiv 2006.10511 and DenseCL, arXiv 2011.09157.
    """

    size_name = "patch_size"
    renamed: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dense.map_term.head.": ("terms.dense.head.",),
        "dense.network.": (),  # stands under the other name as well
        **{f"position.{old}": new for old, new in VolumeContrast.renamed.items()},
    }

    def __init__(
        self,
        position: VolumeContrast,
        patch_size: int | Sequence[int],
        *,
        pair_key: str = "pair",
        position_weight: float = 1.0,
        dense_weight: float = 1.0,
        blocks: int = 2,
        exclusion_radius: float = 0.0,
        temperature: float = 0.1,
        num_anchors: int | None = 1024,
    ) -> None:
        if not 0 <= position_weight < float("inf"):
            raise ValueError(f"position_weight must be at least 0, got {position_weight!r}")
        if not 0 < dense_weight < float("inf"):
            raise ValueError(f"dense_weight must be above 0, got {dense_weight!r}; without it use VolumeContrast alone")
        dense = DenseTerm(
            key=pair_key,
            blocks=blocks,
            exclusion_radius=exclusion_radius,
            temperature=temperature,
            num_anchors=num_anchors,
        )
        super().__init__(
            position.network,
            {"position": position.terms["position"], "dense": dense},  # type: ignore[dict-item]
            weights={"position": position_weight, "dense": dense_weight},
            teacher=position.teacher_options if position_weight > 0 else None,
            image_size={pair_key: patch_size},
        )
        self.pair_key = pair_key

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of views.

        Returns:
            ``loss``; ``position`` and ``dense``, the two terms before they are weighted; beside them the signals of
            the position term.

        Raises:
            ValueError: If the batch lacks what a term needs.
        """
        return super().forward(self._with_pair(batch))

    def probe(self, batches: Iterable[dict[str, Any]]) -> Mapping[str, float | Tensor]:
        """Health of both terms as in :meth:`Method.probe`; names for voxels begin with ``dense_``."""
        return super().probe(self._with_pair(batch) for batch in batches)

    def _with_pair(self, batch: dict[str, Any]) -> dict[str, Any]:
        missing = [key for key in (self.pair_key, "coords", "valid") if key not in batch]
        if missing:
            raise ValueError(
                f"a batch must hold {', '.join(map(repr, missing))} of two views for the dense term, got "
                f"{sorted(map(str, batch))}; make them with RandViewsd and add them to the keys of the views"
            )
        return batch
