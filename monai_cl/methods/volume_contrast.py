"""Volume contrast as a pretraining method."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from monai_cl.losses import VolumeContrastLoss
from monai_cl.methods.base import Method
from monai_cl.methods.position_term import PositionTerm
from monai_cl.methods.teacher import Teacher

# The teacher's network and projector, or with a teacher of the projector its layers by their numbers.
_TEACHER = {
    "teacher.module.network.": ("teacher.module.network.",),
    "teacher.module.projector.": ("teacher.module.terms.position.projector.",),
    "teacher.module.terms.": ("teacher.module.terms.",),
    "teacher.module.": ("teacher.module.terms.position.projector.",),
}


class VolumeContrast(Method):
    """Learn where in the body a crop lies, by its likeness to a grid of base crops of the same volume.

    Takes the views of :class:`monai_cl.transforms.VolumeContrastCropsd`. The encoder of ``network`` is trained; its
    decoder is frozen and exported unchanged. The settings around the loss follow the variant, and an option given wins
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
        group_key: Key of a batch; volumes are compared with others of the same value, a number or a
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

    size_name = "crop_size"
    tells_terms = False
    renamed: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "student.network.": ("network.",),
        "student.projector.": ("terms.position.projector.",),
        **_TEACHER,
    }

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
        term = PositionTerm(
            loss,
            variant=variant,
            key=key,
            group_key=group_key,
            bases_without_gradient=bases_without_gradient,
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
        super().__init__(network, {"position": term}, teacher=_teacher(term), image_size=crop_size)


def _teacher(term: PositionTerm) -> Teacher | None:
    """Teacher of the arrangement of a term."""
    how = term.arrangement
    if how.teacher == "none":
        return None
    return Teacher("all" if how.teacher == "network" else "heads", how.momentum, how.momentum_schedule)
