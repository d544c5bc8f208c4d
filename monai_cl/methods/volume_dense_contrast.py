"""Volume contrast in the encoder and dense contrast of two views through encoder and decoder, in one run."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_cl.methods.base import Method
from monai_cl.methods.global_local_contrast import GlobalLocalContrast
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
        position_weight: Weight :math:`w_p`; with 0 the term is not there, and dense contrast is alone.
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
        super().__init__()
        if not 0 <= position_weight < float("inf"):
            raise ValueError(f"position_weight must be at least 0, got {position_weight!r}")
        if not 0 < dense_weight < float("inf"):
            raise ValueError(f"dense_weight must be above 0, got {dense_weight!r}; without it use VolumeContrast alone")
        self.position_weight = position_weight
        self.dense_weight = dense_weight
        self.pair_key = pair_key
        self.position = position
        # after `position`, which lets the encoder alone learn: this one lets the decoder's blocks learn as well
        self.dense = GlobalLocalContrast(
            position.network, patch_size, key=pair_key, global_weight=0.0, dense_weight=1.0, blocks=blocks,
            exclusion_radius=exclusion_radius, temperature=temperature, num_anchors=num_anchors,
        )  # fmt: skip
        if not self._contrasts_places:
            position.student.projector.requires_grad_(False)  # what has no gradient stops a run of several processes

    @property
    def _contrasts_places(self) -> bool:
        return self.position_weight > 0

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        """The network being pretrained."""
        return self.position.network

    @property
    def steady_network(self) -> nn.Module:
        """The network of the teacher of volume contrast, where it has one."""
        return self.position.steady_network if self._contrasts_places else self.network

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of views.

        Returns:
            ``loss``; ``dense`` and ``position``, the two terms before they are weighted; beside them what
            :meth:`VolumeContrast.forward` tells of the position term.

        Raises:
            ValueError: If the batch lacks what a term needs.
        """
        dense = self.dense(self._pair(batch))["loss"]
        if not self._contrasts_places:
            return {"loss": self.dense_weight * dense, "dense": dense.detach()}
        found = self.position(batch)
        position = found.pop("loss")
        loss = self.position_weight * position + self.dense_weight * dense
        return {"loss": loss, "position": position.detach(), "dense": dense.detach(), **found}

    def after_step(self, progress: float) -> None:
        """Move the teacher of volume contrast."""
        self.position.after_step(progress)

    @torch.no_grad()
    def probe(self, batches: Iterable[dict[str, Any]]) -> dict[str, float | Tensor]:
        """Health of both terms on volumes that are not trained on.

        Returns:
            What :meth:`VolumeContrast.probe` tells; ``place_error`` and ``place_accuracy`` of voxels, as
            :meth:`GlobalLocalContrast.probe` has them; and its health of voxels under names that begin with ``dense_``,
            or as they are where the position term is not there.
        """
        seen = list(batches)
        dense = self.dense.probe(self._pair(batch) for batch in seen)
        if not self._contrasts_places:
            return dense
        named = {name if name.startswith("place_") else f"dense_{name}": value for name, value in dense.items()}
        return {**self.position.probe(seen), **named}

    def causes_of_collapse(self) -> list[str]:
        """Settings of this method under which embeddings become alike."""
        return self.position.causes_of_collapse() if self._contrasts_places else self.dense.causes_of_collapse()

    def _pair(self, batch: dict[str, Any]) -> dict[str, Any]:
        missing = [key for key in (self.pair_key, "coords", "valid") if key not in batch]
        if missing:
            raise ValueError(
                f"a batch must hold {', '.join(map(repr, missing))} of two views for the dense term, got "
                f"{sorted(map(str, batch))}; make them with RandViewsd and add them to the keys of the views"
            )
        return batch
