"""Self-training: unlabelled scans take part in fine-tuning, with labels that a mean teacher gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from monai_cl.engine import distributed
from monai_cl.engine.precision import PrecisionInferer, supervised_precision
from monai_cl.engine.selftraining_contrast import ClassContrast, Embedded, WithEmbedding
from monai_cl.engine.tied_copies import TiedCopies
from monai_cl.engine.voxel_loss import Maps, VoxelLoss, ignored
from monai_cl.networks import MomentumTeacher
from monai_cl.transforms.copy_paste import copy_paste, draw_box, outside_of
from monai_cl.transforms.pseudo_labels import Pseudo, PseudoLabels

NOT_COUNTED = -1  # of a target, where the other part lies
EXPORTS = ("teacher", "student")


class SelfTraining(nn.Module):
    r"""A network that learns, the teacher that follows it, and what the two do at a step.

    With a box drawn at each step, labelled image :math:`x` and unlabelled :math:`u` are mixed both ways, :math:`u`
    inside of the box and :math:`x` inside of the box, each pair of the batch giving two images. The teacher labels
    :math:`u` before it is mixed. With the loss :math:`L` of an image's true part and of its other part,

    .. math::
        \operatorname{mean}_{images} \left[L_{true} + w(t)\, L_{pseudo}\right], \qquad
        \theta_t \leftarrow m(t)\, \theta_t + (1 - m(t))\, \theta_s, \qquad
        m(t) = \min(m, 1 - 1 / (t + 1)), \qquad w(t) = w e^{-5 (1 - r)^2}

    with :math:`r` rising from 0 to 1 over ``ramp_up``. In the first share ``supervised`` of the run labelled images
    are mixed with labelled ones, and the teacher's labels are not asked for.

    Args:
        student: The network that learns; the teacher starts as its copy.
        pseudo_labels: Makes labels of the teacher's logits.
        ratio: Edges of the box, as a share of the patch.
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
            raise ValueError(f"ratio must be above 0 and at most 1, got {ratio!r}")
        if not u_weight >= 0:
            raise ValueError(f"u_weight must be at least 0, got {u_weight!r}")
        if exports not in EXPORTS:
            raise ValueError(f"exports must be one of {EXPORTS}, got {exports!r}")
        self.student = student
        self.teacher = MomentumTeacher(student)
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
            other = _neighbours(len(image), image.device)
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


def _neighbours(number: int, device: torch.device) -> Tensor:
    """Partner of each of a batch: the first and the second, the third and the fourth; a last one alone is its own."""
    return (torch.arange(number, device=device) ^ 1).clamp(max=number - 1)


class PartsLoss(nn.Module):
    """Loss of the true part of each image, and of the other with a weight; the mean over all images.

    Each part is a loss of its own voxels alone: cross-entropy is normalised by their number, and Dice counts no other.
    With a contrast by class its weighted loss is added.

    Args:
        loss: Loss of MONAI of logits and labels, voxel by voxel.
        contrast: Contrast by class; None for none.
        copies: Ties the features of copies of an image; None for none.

    Attributes:
        contrasted: Contrast of the last call before it was weighted; None if none exists.
    """

    def __init__(
        self, loss: nn.Module, contrast: ClassContrast | None = None, copies: TiedCopies | None = None
    ) -> None:
        super().__init__()
        self.of_part = VoxelLoss(loss, ignore_index=NOT_COUNTED)
        self.contrast = contrast
        self.copies = copies
        self.weight = 0.0
        self.contrasted: Tensor | None = None

    def forward(self, output: Maps | Embedded, targets: Tensor) -> Tensor:
        r"""The loss of maps (N, K, \*S), or of several of deep supervision, and targets (N, 2, \*S).

        Args:
            output: The maps; with embedded voxels beside them if a contrast is used.
            targets: True labels and those of the teacher, -1 if none exists.
        """
        maps = output.maps if isinstance(output, Embedded) else output
        loss = self._mean(maps, targets[:, :1])
        if self.weight > 0:
            loss = loss + self.weight * self._mean(maps, targets[:, 1:])
        if self.contrast is not None and isinstance(output, Embedded):
            contrasted = self.contrast(output.embedding, targets, pseudo=self.weight > 0)
            self.contrasted = contrasted.detach()
            loss = loss + self.contrast.weight * contrasted
        if self.copies is not None and (tie := self.copies.take_tie()) is not None:
            loss = loss + self.copies.weight * tie
        return loss

    def _mean(self, maps: Maps, target: Tensor) -> Tensor:
        # one image after the other: an image in which nothing counts is a zero in the mean, on whichever process it is
        each = [
            self.of_part(maps[i : i + 1] if isinstance(maps, Tensor) else [m[i : i + 1] for m in maps], one[None])
            for i, one in enumerate(target)
        ]
        return torch.stack(each).mean()


class SelfTrainer(SupervisedTrainer):
    """MONAI's trainer, whose batches are mixed with unlabelled images and whose teacher follows each step.

    ``state.output`` has MONAI's keys: the mixed images, their targets, predictions and the loss; and
    ``class_contrast``, before it is weighted, where the method has one. Under several processes the network is wrapped.
    :class:`monai_cl.engine.Checkpoint` saves and resumes it, bit for bit with a loader of
    :func:`monai_cl.data.mixed_loader`.

    Args:
        method: Student, teacher and their options.
        train_data_loader: Batches with ``image``, ``label`` and ``unlabelled``.
        max_epochs: Number of epochs, of
        epoch_length: steps.
        loss: Loss of MONAI of logits and labels, voxel by voxel, as ``DiceCELoss``.
        optimizer: Optimiser of the parameters of ``method.learner``.
        device: Where to train.
        scheduler: Learning-rate schedule, stepped once a step.
        inferer: Runs the student on a batch; with :class:`monai_cl.engine.TiedCopies` each image has as many copies,
            whose features are tied, and the teacher sees the first of an unlabelled one.
        precision: As that of :func:`monai_cl.engine.fine_tuning`.
        mixup: That of :class:`monai_cl.engine.MixupBatch`, which must be 0: copy-paste is in its place.
        train_handlers: Handlers with an ``attach`` method.

    Raises:
        ValueError: If the optimiser lacks the head of the contrast, or ``mixup`` is not 0.
    """

    def __init__(
        self,
        method: SelfTraining,
        train_data_loader: Iterable[Any],
        *,
        max_epochs: int,
        epoch_length: int,
        loss: nn.Module,
        optimizer: Optimizer,
        device: str | torch.device = "cpu",
        scheduler: LRScheduler | None = None,
        inferer: Inferer | None = None,
        precision: str = "auto",
        mixup: float = 0.0,
        train_handlers: Sequence[Any] = (),
    ) -> None:
        if mixup:
            raise ValueError(f"mixup must be 0 in self-training, which mixes images by copy-paste, got {mixup!r}")
        _require_head(optimizer, method)
        device = torch.device(device)
        self.precision = supervised_precision(precision, device)
        self.method = method.to(device)
        self.copies = inferer if isinstance(inferer, TiedCopies) else TiedCopies(1)
        self.scheduler = scheduler
        self.last_checkpoint: Path | None = None
        self.resolved: dict[str, Any] | None = None
        self.states: dict[str, Callable[[], dict[str, Any]]] = {}
        self.resumed: dict[str, dict[str, Any]] = {}
        self._no_scaler = torch.amp.GradScaler(device.type, enabled=False)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=distributed.parallel(method.learner, device),
            optimizer=optimizer,
            loss_function=PartsLoss(loss, method.contrast, self.copies),
            epoch_length=epoch_length,
            inferer=PrecisionInferer(inferer, self.precision),
            prepare_batch=self._mix,
            amp=self.precision.name == "fp16",
            decollate=False,
            train_handlers=train_handlers,
        )
        self.add_event_handler(IterationEvents.MODEL_COMPLETED, self._after_step)

    @property
    def inner_method(self) -> SelfTraining:
        """Student and teacher, without the wrapper of several processes."""
        return self.method

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return int(self.state.max_epochs * self.state.epoch_length)

    @property
    def grad_scaler(self) -> torch.amp.GradScaler:
        """Scaler of the loss, which does nothing outside of mixed precision."""
        return self._no_scaler if self.scaler is None else self.scaler

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        output: dict[str, Any] = super()._iteration(engine, batchdata)
        result = output["pred"]
        maps = result.maps if isinstance(result, Embedded) else result
        # for handlers, which need no graph
        output["pred"] = maps.detach() if isinstance(maps, Tensor) else [one.detach() for one in maps]
        output["loss"] = output["loss"].detach()
        if self.loss_function.contrasted is not None:
            output["class_contrast"] = self.loss_function.contrasted
        return output

    def _mix(
        self, batch: dict[str, Any], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        tensors = {
            key: torch.as_tensor(batch[key]).as_subclass(Tensor).to(device, non_blocking=non_blocking, **kwargs)
            for key in ("image", "label", "unlabelled", "unlabelled_changed")
            if key in batch
        }
        progress = (self.state.iteration - 1) / self.total_steps
        self.loss_function.weight = self.method.weight(progress)
        apart: dict[str, Tensor] = {key: self.copies.apart(tensors[key]) for key in tensors if key != "label"}
        apart["label"] = self.copies.repeated(tensors["label"])
        with self.precision.autocast():
            return self.method.mix(apart, self.state.iteration, progress, self.copies.copies)

    def _after_step(self) -> None:
        self.method.follow(self.state.iteration)
        if self.scheduler is not None:
            self.scheduler.step()


def _require_head(optimizer: Optimizer, method: SelfTraining) -> None:
    learning = {id(one) for group in optimizer.param_groups for one in group["params"]}
    if method.contrast is not None and not all(id(one) in learning for one in method.contrast.parameters()):
        raise ValueError(
            "optimizer must move the head of class_contrast, which it does not hold; make it of method.learner in "
            "place of the network, or set class_contrast to 0"
        )
