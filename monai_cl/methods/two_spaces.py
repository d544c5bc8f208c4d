"""Terms that look at a volume in two spaces, one of what all have and one of what patients alone have."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.networks import eval_mode
from torch import Tensor, nn

from monai_cl.methods._embedding_health import ENOUGH, EmbeddingHealth
from monai_cl.methods.base import Method
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.term import Term, of_batch, require_positive
from monai_cl.metrics import EffectiveRankMetric, LinearProbeMetric
from monai_cl.networks import pool_pyramid

FOLDS = 3  # of the linear probes
SPACES = ("common", "salient")


class Spaces(NamedTuple):
    """Embeddings of views.

    Attributes:
        common: (B, V, C), not of unit length.
        salient: (B, V, S).
    """

    common: Tensor
    salient: Tensor


class TwoSpaceTerm(Term):
    r"""Heads on the pooled maps of the encoder, and what two spaces know of healthy and patients.

    Args:
        key: Key of the views (B, V, C, \*S) in a batch.
        label_key: Key of the weak labels, 0 (healthy) or 1 (patient), as from :func:`monai_cl.data.weak_labels`.
        levels: Encoder maps that are pooled, ``"deepest"`` or ``"all"``.
        pool_size: Cells an axis to which they are averaged; see :func:`monai_cl.networks.pool_pyramid`.
        hidden: Width of the hidden layer of each head.
        norm: Normalisation in the heads: ``"batch"``, with the statistics of a process' batch, or ``"layer"``, with
            which any number of processes gives the same result.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        *,
        key: str = "image",
        label_key: str = "patient",
        levels: str = "all",
        pool_size: int = 2,
        hidden: int = 128,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        require_positive(pool_size=pool_size, hidden=hidden)
        if levels not in ("all", "deepest"):
            raise ValueError(f"levels must be 'all' or 'deepest', got {levels!r}")
        if norm not in ("batch", "layer"):
            raise ValueError(f"norm must be 'batch' or 'layer', got {norm!r}")
        self.key = key
        self.label_key = label_key
        self.levels = levels
        self.needs = frozenset({"encoder" if levels == "all" else "deepest"})
        self.pool_size = pool_size
        self.hidden = hidden
        self.norm = norm
        self.heads = nn.ModuleDict()

    def add_head(self, name: str, maps: Maps, width: int) -> None:
        """Make a head: linear, norm, ReLU, linear."""
        norm = nn.BatchNorm1d(self.hidden) if self.norm == "batch" else nn.LayerNorm(self.hidden)
        first = nn.Linear(self.pool(maps).shape[1], self.hidden, bias=False)
        self.heads[name] = nn.Sequential(first, norm, nn.ReLU(), nn.Linear(self.hidden, width))

    def pool(self, maps: Maps) -> Tensor:
        """Pooled maps of the encoder (N, C)."""
        return pool_pyramid(maps.encoder[-1:] if self.levels == "deepest" else maps.encoder, self.pool_size)

    @abstractmethod
    def embed(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Spaces:
        """Embeddings of the views in both spaces, without randomness."""

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Embeddings of the views in both spaces, and the weak labels."""
        result = self.embed(extract, batch)
        return result, of_batch(batch, self.label_key, result.common.device).long()

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Health of the common space, and what each space knows of healthy and patients.

        Returns:
            ``alignment`` and, of enough volumes, ``uniformity``, ``effective_rank`` and ``dead_dimensions`` of the
            common space; ``salient_effective_rank`` among patients; ``salient_ratio``, the length of the salient
            embeddings of the healthy over that of patients, which should be near 0; and ``common_patient_accuracy``
            and ``salient_patient_accuracy``, the share of volumes that a linear probe (scikit-learn, cross-validated
            over volumes) predicts healthy or patient.
        """
        health, rank = EmbeddingHealth(fewest=ENOUGH), EffectiveRankMetric()
        probes = {name: LinearProbeMetric(FOLDS) for name in SPACES}
        for spaces, labels in records:
            health(spaces.common[:, 0], spaces.common[:, -1], rows=spaces.common.flatten(0, 1))
            for name, rows in zip(SPACES, spaces, strict=True):
                probes[name](rows[:, 0], labels)
        result = {name: float(value) for name, value in health.values().items()}
        salient, labels = probes["salient"].gathered()  # of all processes
        length = salient.norm(dim=1)
        counts = torch.bincount(labels, minlength=2).tolist()
        if min(counts) > 0:
            result["salient_ratio"] = float(length[labels == 0].mean() / length[labels == 1].mean().clamp_min(1e-12))
        if counts[1] >= ENOUGH:
            rank(salient[labels == 1])
            result["salient_effective_rank"] = float(rank.aggregate())
        if min(counts) > FOLDS:
            result |= {f"{name}_patient_accuracy": float(probe.aggregate()) for name, probe in probes.items()}
        return result

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which embeddings become alike."""
        if self.pool_size > 1:
            return []
        return ["pool_size=1: the global average of a normalised map is nearly the same for every volume; use 2"]


@torch.no_grad()
def in_two_spaces(method: Method, batch: Mapping[str, Any]) -> Spaces:
    """Embeddings of a batch by the term of a method that has two spaces, in evaluation mode.

    Raises:
        ValueError: If no term of the method has.
    """
    extractors = method._extractors()
    for term in method._terms().values():
        if isinstance(term, TwoSpaceTerm):
            with eval_mode(method):
                return term.embed(extractors[term.key], batch)
    raise ValueError(f"a term with a common and a salient space is needed, got {list(method.terms)}")
