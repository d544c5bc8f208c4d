"""Term of volume contrast: the likeness of random crops to a grid of base crops of the same volume."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_cl.losses import VolumeContrastLoss
from monai_cl.methods._volume_signals import Embedded, ProbeSignals, step_signals
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.term import Term
from monai_cl.networks import Projector, pool_pyramid


class Arrangement(NamedTuple):
    """Arrangement around the loss; the fields are options of :class:`monai_cl.methods.VolumeContrast`."""

    teacher: str
    momentum: float
    momentum_schedule: str
    levels: str
    pool_size: int
    hidden: int
    embedding: int
    norm: str
    dropout: float
    dropout_kind: str


_PUBLISHED = Arrangement(
    teacher="network",
    momentum=0.9,
    momentum_schedule="constant",
    levels="all",
    pool_size=1,
    hidden=2048,
    embedding=2048,
    norm="batch",
    dropout=0.0,
    dropout_kind="element",
)
ARRANGEMENTS = {
    "monai_cl": _PUBLISHED._replace(
        momentum=0.99, momentum_schedule="cosine", pool_size=2, hidden=512, embedding=256, dropout=0.2
    ),
    "cvpr": _PUBLISHED._replace(teacher="none", levels="deepest"),
    "10k": _PUBLISHED,
    "v2": _PUBLISHED._replace(teacher="projector", hidden=1024, embedding=1024, dropout=0.2, dropout_kind="row"),
}
_CHOICES = {
    "teacher": ("none", "network", "projector"),
    "momentum_schedule": ("constant", "cosine"),
    "levels": ("all", "deepest"),
    "norm": ("batch", "layer"),
    "dropout_kind": ("element", "row"),
}


def arrange(variant: str, **options: Any) -> Arrangement:
    """The arrangement of a variant with those options changed that are not ``None``.

    Raises:
        ValueError: If a name is unknown or a number is out of range.
    """
    if variant not in ARRANGEMENTS:
        raise ValueError(f"variant must be one of {tuple(ARRANGEMENTS)}, got {variant!r}")
    arrangement = ARRANGEMENTS[variant]._replace(**{k: v for k, v in options.items() if v is not None})
    for name, known in _CHOICES.items():
        if getattr(arrangement, name) not in known:
            raise ValueError(f"{name} must be one of {known}, got {getattr(arrangement, name)!r}")
    if not 0 <= arrangement.momentum <= 1:
        raise ValueError(f"momentum must be between 0 and 1, got {arrangement.momentum!r}")
    if not 0 <= arrangement.dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {arrangement.dropout!r}")
    for name in ("pool_size", "hidden", "embedding"):
        if getattr(arrangement, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(arrangement, name)!r}")
    return arrangement


class PositionTerm(Term):
    """Contrast of crops with a grid of base crops of the same volume, by how much they overlap.

    Takes the views of :class:`monai_cl.transforms.VolumeContrastCropsd`: under ``key`` a batch holds ``crops``
    (B, S, C, *r), ``bases`` (B, K, C, *r) and ``overlap`` (B, S, K). Options that are left out follow the variant, see
    :class:`monai_cl.methods.VolumeContrast`, which also describes the others.

    Args:
        loss: The loss; :class:`monai_cl.losses.VolumeContrastLoss` of the variant when left out.
        variant: ``"monai_cl"``, ``"cvpr"``, ``"10k"`` or ``"v2"``; that of ``loss`` when left out.
        key: Key of the views in a batch.
        group_key: Key of a batch; volumes are compared with others of the same value.
        bases_without_gradient: The encoder learns from crops alone.
        arrangement: The options ``levels``, ``pool_size``, ``hidden``, ``embedding``, ``norm``, ``dropout`` and
            ``dropout_kind``; and ``teacher``, ``momentum`` and ``momentum_schedule``, which the method makes a teacher
            of.

    Raises:
        ValueError: If an option is out of range.

    References:
        VoCo, arXiv 2402.17300; arXiv 2410.09890.
    """

    follows = True

    def __init__(
        self,
        loss: VolumeContrastLoss | None = None,
        *,
        variant: str | None = None,
        key: str = "image",
        group_key: str | None = None,
        bases_without_gradient: bool = False,
        **arrangement: Any,
    ) -> None:
        super().__init__()
        if variant is None:
            variant = "monai_cl" if loss is None else loss.variant
        self.arrangement = arrange(variant, **arrangement)
        self.key = key
        self.needs = frozenset({"encoder" if self.arrangement.levels == "all" else "deepest"})
        self.group_key = group_key
        self.bases_without_gradient = bases_without_gradient
        self.loss = VolumeContrastLoss(variant) if loss is None else loss
        self.projector: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the projector."""
        how, width = self.arrangement, self.pool(maps).shape[1]
        self.projector = Projector(width, how.hidden, how.embedding, norm=how.norm)

    def pool(self, maps: Maps) -> Tensor:
        """Pooled features (N, C)."""
        return pool_pyramid(maps.encoder, self.arrangement.pool_size)

    def project(self, pooled: Tensor) -> Tensor:
        """Embeddings (N, D) of pooled features, some of which are dropped in training."""
        how = self.arrangement
        drop = F.dropout1d if how.dropout_kind == "row" else F.dropout  # of (N, C), dropout1d drops whole rows
        embedding: Tensor = self.projector(drop(pooled, how.dropout, self.training))
        return embedding

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of views.

        Returns:
            The loss, and its parts; beside them ``position_accuracy`` (share of crops whose most similar base is the
            one that overlaps them most), ``embedding_std`` (spread of unit embeddings times the root of their width:
            near 1 when they fill the sphere, 0 when they have collapsed), ``positive_cosine`` and ``negative_cosine``
            (mean similarity of crops to bases that they overlap and to others), ``dead_pairs`` (share of the
            overlapping pairs without a gradient, see :meth:`monai_cl.losses.VolumeContrastLoss.dead_pairs`) and, with
            a teacher, ``teacher_gap`` (mean of one less the cosine between its embedding and the student's).

        Raises:
            ValueError: If the batch lacks ``group_key``, or the network cannot take the views.
        """
        views = batch[self.key]
        student, teacher = self.embed(extract, views["crops"], views["bases"])
        known = (None, None) if teacher is None else teacher
        group = self._group(batch, views["crops"].device)
        losses: dict[str, Tensor] = dict(self.loss(*student, views["overlap"], *known, group=group))
        loss = losses.pop("loss")
        return loss, {**losses, **step_signals(self.loss, student, teacher, views["overlap"])}

    def embed(self, extract: FeatureExtractor, crops: Tensor, bases: Tensor) -> tuple[Embedded, Embedded | None]:
        """Embeddings by the student, and by the teacher without gradient if one exists."""
        features, known = self._features(extract, crops, bases)
        student = _apart([self.project(f) for f in features], crops, bases)
        twin = extract.twin(self)
        if twin is None:
            return student, None
        head = twin.project if extract.has_teacher else twin.projector  # no dropout of what the student computed
        with torch.no_grad():
            return student, _apart([head(f) for f in known], crops, bases)

    def _features(self, extract: FeatureExtractor, crops: Tensor, bases: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Pooled features for the student's and for the teacher's projector, each as batches of images."""
        own = extract.has_teacher
        if not self.bases_without_gradient:
            together = _together(crops, bases)
            features = [self.pool(extract(views, name)) for views, name in together]
            if not own:
                return features, [f.detach() for f in features]  # one pass serves both
            return features, [self.pool(extract.fixed(views, name)) for views, name in together]
        learned = self.pool(extract(crops, "crop_size"))
        of_bases = self.pool(extract.fixed(bases, "base_size"))
        of_crops = self.pool(extract.fixed(crops, "crop_size")) if own else learned.detach()
        joined = crops.shape[2:] == bases.shape[2:]
        pairs = [learned, of_bases], [of_crops, of_bases]
        student, teacher = ([torch.cat(pair)] if joined else pair for pair in pairs)
        return student, teacher

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Embeddings of the views, and of the crops in another intensity."""
        views = batch[self.key]
        student, teacher = self.embed(extract, views["crops"], views["bases"])
        return student, teacher, views, self._judged(extract, 1.1 * views["crops"] + 0.05, views["bases"])

    def _judged(self, extract: FeatureExtractor, crops: Tensor, bases: Tensor) -> Tensor:
        """Embeddings of crops that represent the method: the teacher's if one exists."""
        head = extract.twin(self) or self
        look = extract.fixed if extract.has_teacher else extract
        return _apart(
            [head.project(self.pool(look(v, name))) for v, name in _together(crops, bases)], crops, bases
        ).crops

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Position accuracy and error, and the spread of the embeddings of the teacher, or else of the student.

        Returns:
            ``position_accuracy`` and ``position_error_mm`` beside what a blind guess gives (``chance_accuracy``,
            ``chance_error_mm``); ``alignment`` (squared distance between a crop and its brightened, stretched copy),
            ``uniformity`` (lower is more spread, 0 is collapse), ``effective_rank`` and ``dead_dimensions`` of the
            bases' embeddings; ``dead_pairs`` and ``teacher_gap`` as while training but without dropout; as samples
            ``positive_cosine`` and ``negative_cosine``, the similarities that the loss is made of.
        """
        signals = ProbeSignals()
        for student, teacher, views, changed in records:
            signals(self.loss, student, teacher, views, changed)
        return signals.values(with_teacher=records[0][1] is not None)

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which embeddings become alike."""
        causes = []
        if self.arrangement.pool_size == 1:
            causes.append(
                "pool_size=1: the global average of a normalised map is nearly the same for every crop; use 2"
            )
        if self.loss.regularizer_weight == 0:
            causes.append("regularizer_weight=0: nothing spreads the bases of a volume apart")
        return causes

    def _group(self, batch: Mapping[str, Any], device: torch.device) -> Tensor | None:
        if self.group_key is None:
            return None
        if self.group_key not in batch:
            raise ValueError(
                f"a batch must hold group_key {self.group_key!r}, got {sorted(map(str, batch))}; add it to the keys of "
                "the views, or leave group_key out"
            )
        names = batch[self.group_key]
        if not isinstance(names, Tensor):
            numbers = {name: number for number, name in enumerate(sorted(set(names)))}
            names = torch.tensor([numbers[name] for name in names])
        return names.to(device)


def _together(crops: Tensor, bases: Tensor) -> list[tuple[Tensor, str]]:
    """Views as batches of images: one where sizes agree, so that batch statistics cover crops and bases alike."""
    flat = [crops.flatten(0, 1), bases.flatten(0, 1)]
    if crops.shape[2:] == bases.shape[2:]:
        return [(torch.cat(flat), "crop_size")]
    return [(flat[0], "crop_size"), (flat[1], "base_size")]


def _apart(embedded: list[Tensor], crops: Tensor, bases: Tensor) -> Embedded:
    b, s, k = crops.shape[0], crops.shape[1], bases.shape[1]
    x, z = embedded[0].split([b * s, b * k]) if len(embedded) == 1 else embedded
    return Embedded(x.unflatten(0, (b, s)), z.unflatten(0, (b, k)))
