"""Self-training: unlabelled scans take part in fine-tuning, with labels that a mean teacher gives them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from monai_cl.engine.parts_loss import NOT_COUNTED
from monai_cl.engine.selftraining_contrast import ClassContrast, WithEmbedding
from monai_cl.engine.voxel_loss import ignored
from monai_cl.networks import MomentumTeacher
from monai_cl.transforms.copy_paste import copy_paste, draw_box, outside_of
from monai_cl.transforms.pseudo_labels import Pseudo, PseudoLabels

EXPORTS = ("teacher", "student")


class SelfTraining(nn.Module):
    r"""A network that learns, the teacher that follows it, and what the two do at a step.

    With a box drawn at each step, labelled image :math:`x` and unlabelled :math:`u` are mixed both ways, :math:`u`
    inside of the box and :math:`x` inside of the box, each pair of the batch giving two images. A box as large as the
    patch mixes nothing: the two images are :math:`u` and :math:`x`. The teacher labels :math:`u` before it is mixed.
    With the loss :math:`L` of an image's true part and of its other part,

    .. math::
        \operatorname{mean}_{images} \left[L_{true} + w(t)\, L_{pseudo}\right], \qquad
        \theta_t \leftarrow m(t)\, \theta_t + (1 - m(t))\, \theta_s, \qquad
        m(t) = \min(m, 1 - 1 / (t + 1)), \qquad w(t) = w e^{-5 (1 - r)^2}

    with :math:`r` rising from 0 to 1 over ``ramp_up``. In the first share ``supervised`` of the run labelled images
    are mixed with labelled ones, or whole, and the teacher's labels are not asked for.

    Args:
        student: The network that learns; the teacher starts as its copy.
        pseudo_labels: Makes labels of the teacher's logits.
        ratio: Edges of the box, as a share of the patch; 1 leaves labelled and unlabelled patches whole.
        u_weight: Weight :math:`w` of the loss of parts with pseudo-labels.
        supervised: Share of the run on labelled volumes alone.
        ramp_up: Share of the run, after that, over which the weight rises.
        momentum: Momentum :math:`m` of the teacher.
        exports: ``"teacher"`` or ``"student"``: the network that is exported.
        seed: Seed of the boxes; these are the same in all processes.
        ignore_index: True label of voxels that do not count.
        contrast: Contrast by class, whose weighted loss is added; None for none.
        agreement: Let a pseudo-label count only where the teacher predicts the same for the patch at another
            contrast, which takes a second pass of it.

    Attributes:
        last: Labels that the teacher gave at the last step; None where it was not asked.

    Raises:
        ValueError: If an option is out of range.

    References:
        Bidirectional copy-paste, arXiv 2305.00673; Mean Teacher, arXiv 1703.01780.
    """

    def __init__(
        self,
        student: nn.Module,
        pseudo_labels: PseudoLabels,
        *,
        ratio: float = 2 / 3,
        u_weight: float = 0.5,
        supervised: float = 1 / 3,
        ramp_up: float = 0.1,
        momentum: float = 0.99,
        exports: str = "teacher",
        seed: int = 0,
        ignore_index: int | None = None,
        contrast: ClassContrast | None = None,
        agreement: bool = False,
    ) -> None:
        super().__init__()
        for name, share in (("supervised", supervised), ("ramp_up", ramp_up), ("momentum", momentum)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {share!r}")
        if not 0 < ratio <= 1:
            raise ValueError(
                f"ratio must be above 0 and at most 1, got {ratio!r}; to paste nothing give 1 (box_ratio of a bundle)"
            )
        if not u_weight >= 0:
            raise ValueError(f"u_weight must be at least 0, got {u_weight!r}")
        if exports not in EXPORTS:
            raise ValueError(f"exports must be one of {EXPORTS}, got {exports!r}")
        self.student = student
        self.teacher = MomentumTeacher(student, average_buffers=True)
        self.pseudo_labels = pseudo_labels
        self.ratio = ratio
        self.u_weight = u_weight
        self.supervised = supervised
        self.ramp_up = ramp_up
        self.momentum = momentum
        self.exports = exports
        self.seed = seed
        self.ignore_index = ignore_index
        self.contrast = contrast
        self.agreement = agreement
        self.last: Pseudo | None = None

    @property
    def network(self) -> nn.Module:
        """Network for export."""
        return self.teacher.module if self.exports == "teacher" else self.student

    @property
    def learner(self) -> nn.Module:
        """Trained modules, the student or the student with the head of the contrast; for the optimiser."""
        return self.student if self.contrast is None else WithEmbedding(self.student, self.contrast)

    def touched(self) -> list[str]:
        """Names of the network's tensors that training moves: all."""
        return list(self.network.state_dict())

    def is_supervised(self, progress: float) -> bool:
        """Return whether labelled volumes are still alone at this share of the run."""
        return progress < self.supervised

    def weight(self, progress: float) -> float:
        """Weight of pseudo-labels at a share of the run."""
        if self.is_supervised(progress):
            return 0.0
        risen = min((progress - self.supervised) / self.ramp_up, 1.0) if self.ramp_up else 1.0
        return self.u_weight * math.exp(-5 * (1 - risen) ** 2)

    def follow(self, step: int) -> None:
        """Move the teacher after ``step``, counted from 1."""
        self.teacher.update(self.student, min(self.momentum, 1 - 1 / (step + 1)))

    @torch.no_grad()
    def label(self, images: Tensor) -> Pseudo:
        """Pseudo-labels of images by the teacher, and the voxels that count."""
        pseudo = self.pseudo_labels(self.teacher(images))
        return pseudo._replace(certain=pseudo.certain & self.stands(images, pseudo)) if self.agreement else pseudo

    @torch.no_grad()
    def stands(self, images: Tensor, pseudo: Pseudo) -> Tensor:
        """Voxels to which the teacher gives the same label when it sees the images at another contrast."""
        return self.pseudo_labels(self.teacher(at_another_contrast(images))).labels == pseudo.labels

    def mix(self, batch: dict[str, Tensor], step: int, progress: float, copies: int = 1) -> tuple[Tensor, Tensor]:
        r"""Images, and their targets (N, 2, \*S): the true ones, and those of the teacher; -1 where neither counts.

        Args:
            batch: ``image`` and ``label`` of labelled patches, ``unlabelled`` images, as many of these;
                ``unlabelled_changed``, the same patches with other intensities, if the student is to see these.
            step: Number of the step, which fixes the box.
            progress: Share of the run that is done.
            copies: Copies of each image in the batch, all first ones before all second ones
                (:class:`monai_cl.engine.TiedCopies`). The teacher sees the first ones, and labels all alike.

        Raises:
            ValueError: If ``unlabelled`` has another shape than ``image``.
        """
        image, label = batch["image"], self._counted(batch["label"])
        size = image.shape[2:]
        box = draw_box(size, self.ratio, np.random.default_rng([self.seed, step]))
        outside = outside_of(box, size, image.device)
        nothing = torch.full_like(label, NOT_COUNTED)
        self.last = None
        if self.is_supervised(progress):
            other = _neighbours(len(image) // copies, copies, image.device)
            mixed = copy_paste(image, image[other], outside)
            return mixed, torch.cat([copy_paste(label, label[other], outside), nothing], 1)
        unlabelled = batch["unlabelled"]
        if unlabelled.shape != image.shape:
            raise ValueError(
                f"unlabelled must have the shape of image, {tuple(image.shape)}, got {tuple(unlabelled.shape)}"
            )
        self.last = self.label(unlabelled[: len(unlabelled) // copies])
        pseudo = self.last.labels.to(label.dtype).masked_fill(~self.last.certain, NOT_COUNTED)
        pseudo = pseudo.repeat(copies, *[1] * (pseudo.ndim - 1))
        seen = batch.get("unlabelled_changed", unlabelled)
        images = [copy_paste(image, seen, outside), copy_paste(seen, image, outside)]
        true = [copy_paste(label, nothing, outside), copy_paste(nothing, label, outside)]
        of_teacher = [copy_paste(nothing, pseudo, outside), copy_paste(pseudo, nothing, outside)]
        return torch.cat(images), torch.cat([torch.cat(true), torch.cat(of_teacher)], 1)

    def _counted(self, label: Tensor) -> Tensor:
        label = label.long()  # small unsigned integers have no -1
        if self.ignore_index is None:
            return label
        dropped = ignored(label, self.pseudo_labels.num_classes, self.ignore_index)
        return label.masked_fill(dropped[:, None], NOT_COUNTED)


def at_another_contrast(images: Tensor, gamma: float = 1.5) -> Tensor:
    """Raise the intensities of each channel of images (N, C, *S), between their lowest and highest, to a power.

    Places stay as they are, flips left out: left and right may be two classes.
    """
    axes = tuple(range(2, images.ndim))
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    span = (high - low).clamp(min=torch.finfo(images.dtype).tiny)
    return low + span * ((images - low) / span).pow(gamma)


def _neighbours(number: int, copies: int, device: torch.device) -> Tensor:
    """Partner of each of a batch: the first and the second, the third and the fourth; a last one alone is its own.

    Copies have partners of their own number: across them, those of one image would no longer show the same.
    """
    partner = (torch.arange(number, device=device) ^ 1).clamp(max=number - 1)
    return torch.cat([partner + copy * number for copy in range(copies)])
