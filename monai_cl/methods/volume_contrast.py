"""Volume contrast as a pretraining method."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks import eval_mode
from torch import Tensor, nn

from monai_cl.losses import VolumeContrastLoss
from monai_cl.methods._crop_size import FittingImages, pooled_width
from monai_cl.methods._volume_arrangement import Arrangement, arrange
from monai_cl.methods._volume_signals import Embedded, ProbeSignals, parameter_distance, step_signals
from monai_cl.methods.base import Method
from monai_cl.networks import (
    MomentumTeacher,
    Projector,
    encoder_features,
    encoder_modules,
    pool_pyramid,
    scheduled_momentum,
)


class _Embedder(nn.Module):
    """Encoder, pooling, dropout and projector: crops in, embeddings out."""

    def __init__(self, network: nn.Module, projector: nn.Module, arrangement: Arrangement) -> None:
        super().__init__()
        self.network = network
        self.projector = projector
        self.pool_size = arrangement.pool_size
        self.levels = arrangement.levels
        self.dropout = arrangement.dropout
        self.dropout_kind = arrangement.dropout_kind

    def pool(self, x: Tensor) -> Tensor:
        return pool_pyramid(encoder_features(self.network, x, levels=self.levels), self.pool_size)

    def project(self, pooled: Tensor) -> Tensor:
        drop = F.dropout1d if self.dropout_kind == "row" else F.dropout  # of (N, C), dropout1d drops whole rows
        embedding: Tensor = self.projector(drop(pooled, self.dropout, self.training))
        return embedding

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.pool(x))


class VolumeContrast(Method):
    """Learn where in the body a crop lies, by its likeness to a grid of base crops of the same volume.

    Takes the views of :class:`monai_cl.transforms.VolumeContrastCropsd`. The encoder of ``network`` is trained; its
    decoder is frozen and handed over untouched. What is around the loss follows the variant, and an option given wins
    over it:

    ==================== =================== ============= ============ ===============
    option               ``"monai_cl"``      ``"cvpr"``    ``"10k"``    ``"v2"``
    ==================== =================== ============= ============ ===============
    teacher              network             none          network      projector
    momentum             0.99 to 1, cosine                 0.9          0.9
    levels, pool_size    all, 2              deepest, 1    all, 1       all, 1
    hidden, embedding    512, 256            2048, 2048    2048, 2048   1024, 1024
    dropout              0.2 of elements     0             0            0.2 of rows
    ==================== =================== ============= ============ ===============

    The published code drew its teachers anew and moved them at each forward pass; here a teacher is a copy of the
    student and moves once an optimiser step.

    Args:
        network: A MONAI encoder-decoder (see :func:`monai_cl.networks.encoder_features`).
        crop_size: Edge lengths of the crops in voxels, or one for all axes; checked against the network here, so
            that a crop it cannot take stops the run before it starts.
        variant: ``"monai_cl"``, ``"cvpr"``, ``"10k"`` or ``"v2"``; that of ``loss`` when left out.
        key: Key of the views in a batch.
        group_key: Key of a batch that says for each volume which others it may be compared with, as a number or a
            name (a body region, a data source); any other of the batch when left out.
        loss: The loss; :class:`monai_cl.losses.VolumeContrastLoss` of the variant when left out.
        teacher: ``"network"``: encoder and projector; ``"projector"``: the projector alone, which sees the student's
            features (and saves the second pass through the encoder); ``"none"``: the student itself, held fixed.
        momentum: Momentum of the teacher at the start.
        momentum_schedule: ``"constant"``, or ``"cosine"``: rising to 1 along a half cosine.
        levels: Which feature maps are pooled; see :func:`monai_cl.networks.encoder_features`.
        pool_size: Cells an axis to which feature maps are averaged; see :func:`monai_cl.networks.pool_pyramid`.
        hidden: Width of the projector's hidden layers.
        embedding: Width of the embedding.
        norm: Normalisation in the projector, ``"batch"`` or ``"layer"``.
        dropout: Share of the student's pooled features that is dropped, in training only.
        bases_without_gradient: The encoder learns from crops alone: features of bases come from the teacher's encoder
            where it has one, else from the student's without gradient. The projector still learns from both. Saves up
            to half of a step and more; see the bundle's card for what it costs.
        dropout_kind: ``"element"``: single features; ``"row"``: all features of a crop, as published (such crops
            share one embedding).

    Raises:
        ValueError: If the network is unknown or cannot take ``crop_size``, or an option is out of range.

    References:
        VoCo, arXiv 2402.17300; arXiv 2410.09890.
    """

    def __init__(
        self,
        network: nn.Module,
        crop_size: int | Sequence[int],
        *,
        variant: str | None = None,
        key: str = "image",
        group_key: str | None = None,
        loss: VolumeContrastLoss | None = None,
        teacher: str | None = None,
        momentum: float | None = None,
        momentum_schedule: str | None = None,
        levels: str | None = None,
        pool_size: int | None = None,
        hidden: int | None = None,
        embedding: int | None = None,
        norm: str | None = None,
        dropout: float | None = None,
        dropout_kind: str | None = None,
        bases_without_gradient: bool = False,
    ) -> None:
        super().__init__()
        if variant is None:
            variant = "monai_cl" if loss is None else loss.variant
        self.arrangement = arrange(
            variant,
            teacher=teacher,
            momentum=momentum,
            momentum_schedule=momentum_schedule,
            levels=levels,
            pool_size=pool_size,
            hidden=hidden,
            embedding=embedding,
            norm=norm,
            dropout=dropout,
            dropout_kind=dropout_kind,
        )
        self.key = key
        self.group_key = group_key
        self.bases_without_gradient = bases_without_gradient
        self.loss = VolumeContrastLoss(variant) if loss is None else loss
        self.student = self._make_student(network, crop_size)
        self._require_fit = FittingImages(network, crop_size)
        self.teacher: MomentumTeacher | None = None
        if self.arrangement.teacher != "none":
            self.teacher = MomentumTeacher(self._followed)

    def _make_student(self, network: nn.Module, crop_size: int | Sequence[int]) -> _Embedder:
        how = self.arrangement
        width = pooled_width(network, crop_size, pool_size=how.pool_size, levels=how.levels)
        network.requires_grad_(False)
        for module in encoder_modules(network, levels=how.levels):
            module.requires_grad_(True)
        return _Embedder(network, Projector(width, how.hidden, how.embedding, norm=how.norm), how)

    @property
    def _followed(self) -> nn.Module:
        """What the teacher follows."""
        return self.student.projector if self.arrangement.teacher == "projector" else self.student

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        """The network being pretrained."""
        return self.student.network

    @property
    def steady_network(self) -> nn.Module:
        """The teacher's network where the teacher has one of its own."""
        if self.teacher is None or self.arrangement.teacher == "projector":
            return self.network
        network: nn.Module = self.teacher.module.network  # type: ignore[assignment]
        return network

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of views.

        Args:
            batch: ``batch[key]`` with ``crops`` (B, S, C, *r), ``bases`` (B, K, C, *r) and ``overlap`` (B, S, K).

        Returns:
            The parts of the loss, and what tells whether it works: ``position_accuracy`` (share of crops whose most
            similar base is the one that overlaps them most), ``embedding_std`` (spread of unit embeddings times the
            root of their width: near 1 when they fill the sphere, 0 when they have collapsed), ``positive_cosine``
            and ``negative_cosine`` (mean similarity of crops to bases that they overlap and to others),
            ``dead_pairs`` (share of the overlapping pairs without a gradient, see
            :meth:`monai_cl.losses.VolumeContrastLoss.dead_pairs`) and, with a teacher, ``teacher_gap`` (mean of one
            less the cosine between its embedding and the student's).

        Raises:
            ValueError: If the batch lacks ``group_key``, or the network cannot take the views.
        """
        views = batch[self.key]
        crops, bases, overlap = views["crops"], views["bases"], views["overlap"]
        self._require_fit(self.network, crops, "crop_size")
        self._require_fit(self.network, bases, "base_size")
        student, teacher = self._student_and_teacher(crops, bases)
        known = (None, None) if teacher is None else teacher
        group = self._group(batch, crops.device)
        losses: dict[str, Tensor] = self.loss(*student, overlap, *known, group=group)
        return {**losses, **step_signals(self.loss, student, teacher, overlap)}

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student."""
        if self.teacher is not None:
            how = self.arrangement
            self.teacher.update(self._followed, scheduled_momentum(progress, how.momentum, how.momentum_schedule))

    @torch.no_grad()
    def probe(self, batches: Iterable[dict[str, Any]]) -> dict[str, float | Tensor]:
        """Position accuracy and error, and the spread of the teacher's embeddings (the student's where there is none).

        Returns:
            ``position_accuracy`` and ``position_error_mm`` beside what a blind guess gives (``chance_accuracy``,
            ``chance_error_mm``); ``alignment`` (squared distance between a crop and its brightened, stretched copy),
            ``uniformity`` (lower is more spread, 0 is collapse), ``effective_rank`` and ``dead_dimensions`` of the
            bases' embeddings; ``dead_pairs`` and ``teacher_gap`` as while training but without dropout, and
            ``teacher_distance``, that of the parameters relative to their length; as samples ``positive_cosine`` and
            ``negative_cosine``, the similarities that the loss is made of.
        """
        signals = ProbeSignals()
        with eval_mode(self.student):
            for batch in batches:
                views = batch[self.key]
                changed = _embed(self._judged, 1.1 * views["crops"] + 0.05, views["bases"])
                student, teacher = self._student_and_teacher(views["crops"], views["bases"])
                signals(self.loss, student, teacher, views, changed.crops)
        values = signals.values(with_teacher=self.teacher is not None)
        if self.teacher is not None:
            values["teacher_distance"] = parameter_distance(self._followed, self.teacher.module)
        return values

    def causes_of_collapse(self) -> list[str]:
        """Settings of this method under which embeddings become alike."""
        causes = []
        if self.arrangement.pool_size == 1:
            causes.append(
                "pool_size=1: the global average of a normalised map is nearly the same for every crop; use 2"
            )
        if self.loss.regularizer_weight == 0:
            causes.append("regularizer_weight=0: nothing spreads the bases of a volume apart")
        return causes

    def _student_and_teacher(self, crops: Tensor, bases: Tensor) -> tuple[Embedded, Embedded | None]:
        """Embeddings by the student, and by the teacher without gradient."""
        features, known = self._features(crops, bases)
        student = _apart([self.student.project(f) for f in features], crops, bases)
        if self.teacher is None:
            return student, None
        head = self.teacher if self.arrangement.teacher == "projector" else self.teacher.module.project
        with torch.no_grad():
            return student, _apart([head(f) for f in known], crops, bases)  # type: ignore[operator]

    def _features(self, crops: Tensor, bases: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Pooled features for the student's and for the teacher's projector, each as batches of images."""
        own = self.teacher is not None and self.arrangement.teacher == "network"
        steady: _Embedder = self.teacher.module if own else self.student  # type: ignore[assignment,union-attr]
        if not self.bases_without_gradient:
            features = [self.student.pool(views) for views in _together(crops, bases)]
            if not own:
                return features, [f.detach() for f in features]  # one pass serves both
            with torch.no_grad():
                return features, [steady.pool(views) for views in _together(crops, bases)]
        learned = self.student.pool(crops.flatten(0, 1))
        with torch.no_grad():
            of_bases = steady.pool(bases.flatten(0, 1))
            of_crops = steady.pool(crops.flatten(0, 1)) if own else learned.detach()
        joined = crops.shape[2:] == bases.shape[2:]
        pairs = [learned, of_bases], [of_crops, of_bases]
        student, teacher = ([torch.cat(pair)] if joined else pair for pair in pairs)
        return student, teacher

    def _judged(self, x: Tensor) -> Tensor:
        """Embedding that stands for the method: the teacher's where there is one."""
        head = self.student.projector if self.teacher is None else self.teacher
        embedding: Tensor = head(x if self.arrangement.teacher == "network" else self.student.pool(x))
        return embedding

    def _group(self, batch: dict[str, Any], device: torch.device) -> Tensor | None:
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


def _together(crops: Tensor, bases: Tensor) -> list[Tensor]:
    """Views as batches of images: one where sizes agree, so that batch statistics cover crops and bases alike."""
    flat = [crops.flatten(0, 1), bases.flatten(0, 1)]
    return [torch.cat(flat)] if crops.shape[2:] == bases.shape[2:] else flat


def _apart(embedded: list[Tensor], crops: Tensor, bases: Tensor) -> Embedded:
    b, s, k = crops.shape[0], crops.shape[1], bases.shape[1]
    x, z = embedded[0].split([b * s, b * k]) if len(embedded) == 1 else embedded
    return Embedded(x.unflatten(0, (b, s)), z.unflatten(0, (b, k)))


def _embed(embedder: Callable[[Tensor], Tensor], crops: Tensor, bases: Tensor) -> Embedded:
    return _apart([embedder(views) for views in _together(crops, bases)], crops, bases)
