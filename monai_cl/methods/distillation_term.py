"""Self-distillation of views and tokens whose encoder and decoder are aligned by attention."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_cl.losses import SelfDistillationLoss
from monai_cl.methods._embedding_health import ENOUGH, EmbeddingHealth
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.masked_views import ColumnMask, masked_views
from monai_cl.methods.term import Term, require_positive, views_of
from monai_cl.metrics import RetrievalMetric
from monai_cl.networks import CrossAttentionAlign, PrototypeHead, resized

_SIGNALS = ("rejected", "likeness")  # of the pairs, where a batch has them


class AlignedDistillationTerm(Term):
    r"""Answers of the student to masked views are those of its teacher to the whole ones, across patients.

    Tokens are the voxels of the deepest map of the encoder. Tokens of the student are the queries, and decoder tokens
    answer (keys and values), once the student's, of the masked view, once the teacher's, of the whole one
    (:class:`monai_cl.networks.CrossAttentionAlign`); the decoder's map is averaged to the grid of the tokens. A head
    turns aligned tokens, and their mean as that of the view, into answers
    (:class:`monai_cl.networks.PrototypeHead`), which :class:`monai_cl.losses.SelfDistillationLoss` compares: views with
    the others of the item, tokens within a view. The teacher's block and head follow the student's; it gets no
    gradient.

    Args:
        mask: Makes the mask of the student's views; columns by default. Give the same one to all terms.
        key: Key of the views (B, V, C, \*S) in a batch, two or more of each item.
        heads: Heads of the attention.
        head_features: Width of each.
        hidden: Width of the perceptrons.
        bottleneck: Width in which answers are compared with directions.
        prototypes: Number of directions.
        loss: Options of the loss, such as ``temperature``.

    Raises:
        ValueError: If an option is out of range.

    References:
        Alice, Jiang et al. 2023 (ICCV); DINO, arXiv 2104.14294.
    """

    needs = frozenset({"deepest", "decoder"})
    follows = True
    progress: Tensor

    def __init__(
        self,
        mask: nn.Module | None = None,
        *,
        key: str = "image",
        heads: int = 8,
        head_features: int = 64,
        hidden: int = 512,
        bottleneck: int = 128,
        prototypes: int = 512,
        loss: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require_positive(
            heads=heads, head_features=head_features, hidden=hidden, bottleneck=bottleneck, prototypes=prototypes
        )
        self.mask = ColumnMask() if mask is None else mask
        self.key = key
        self.heads = heads
        self.head_features = head_features
        self.hidden = hidden
        self.bottleneck = bottleneck
        self.prototypes = prototypes
        self.loss = SelfDistillationLoss(prototypes, **(loss or {}))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.align: nn.Module
        self.head: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the attention and the head."""
        width = maps.encoder[-1].shape[1]
        self.align = CrossAttentionAlign(
            width, maps.decoder.shape[1], heads=self.heads, head_features=self.head_features, hidden=self.hidden
        )
        self.head = PrototypeHead(width, self.hidden, self.bottleneck, self.prototypes)

    def after_step(self, progress: float) -> None:
        """Take the share of training that is done, for the teacher's temperature."""
        self.progress.fill_(progress)

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of views.

        Returns:
            The loss; its parts ``views`` and ``tokens``; ``target_entropy`` and ``target_dimensions``; and the means of
            ``rejected`` and ``likeness`` of the pairs, where the batch has them.

        Raises:
            ValueError: If each item has one view alone.
        """
        images = views_of(batch, self.key).images
        masked, _ = masked_views(extract, images, self.mask)
        queries, keys = _tokens(extract(masked))
        student = self._answers(self, queries, keys, images.shape[:2])
        with torch.no_grad():
            _, whole = _tokens(extract.once("fixed", images, lambda: extract.fixed(images)))
            twin = extract.twin(self)
            teacher = self._answers(self if twin is None else twin, queries.detach(), whole, images.shape[:2])
        parts = self.loss(student[0], teacher[0], student[1], teacher[1], progress=float(self.progress))
        signals = {name: batch[name].float().mean() for name in _SIGNALS if isinstance(batch.get(name), Tensor)}
        return parts.pop("loss"), {**{name: part.detach() for name, part in parts.items()}, **signals}

    def _answers(self, of: Any, queries: Tensor, keys: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Answers to views (B, V, D) and to tokens (B, V, L, D), by the parts of the student or its teacher."""
        aligned = of.align(queries, keys)
        answers: tuple[Tensor, Tensor] = of.head(aligned.mean(1)), of.head(aligned)
        views, tokens = (each.unflatten(0, tuple(shape)) for each in answers)
        return views, tokens

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Embeddings (B, F) of the first two views, whole."""
        images = views_of(batch, self.key).images
        aligned = self.align(*_tokens(extract(images))).mean(1).float()
        return aligned.unflatten(0, images.shape[:2])[:, :2].unbind(1)

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Share of crops whose partner in another patient is the nearest of all, and the health of embeddings.

        Returns:
            ``pair_retrieval``, ``chance_retrieval``, ``alignment`` of partners and, of enough of them, ``uniformity``,
            ``effective_rank`` and ``dead_dimensions``.
        """
        health, retrieval = EmbeddingHealth(fewest=ENOUGH), RetrievalMetric()
        for first, second in records:
            retrieval(first, second)
            health(first, second, rows=torch.cat([first, second]))
        values = {"pair_retrieval": float(retrieval.aggregate())}
        values["chance_retrieval"] = 1 / sum(len(first) for first, _ in records)
        return {**values, **{name: float(value) for name, value in health.values().items()}}

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which all answers become alike."""
        causes = []
        if self.loss.center_momentum == 1:
            causes.append("center_momentum=1: the centre never moves, so that one direction wins everywhere; use 0.9")
        if self.loss.teacher_temperature[1] >= self.loss.temperature:
            causes.append(
                f"teacher_temperature={self.loss.teacher_temperature[1]:g} not below temperature="
                f"{self.loss.temperature:g}: targets are as flat as answers, which ends in equal ones; use 0.01"
            )
        return causes


def _tokens(maps: Maps) -> tuple[Tensor, Tensor]:
    """Tokens of the encoder (N, L, C) and of the decoder (N, L, C'), on the grid of the deepest map."""
    deepest = maps.encoder[-1]
    keys = resized(maps.decoder, deepest.shape[2:])
    return deepest.flatten(2).mT, keys.flatten(2).mT
