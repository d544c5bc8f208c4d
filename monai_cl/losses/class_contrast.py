"""Contrast by class: each voxel against the means of the other classes, with the mean of its own as positive."""

import torch
from torch import Tensor

from monai_cl.losses._anchored import require_choice
from monai_cl.losses._checks import require_finite, require_positive, require_shape, require_whole
from monai_cl.losses._directed import log_sum
from monai_cl.losses._gather import Ranks, find_ranks, gather_rows, sum_over
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision, unit_rows

FORMS = ("softmax", "published")
_MOST_CLASSES = 255  # 255 itself is the usual mark of voxels that do not count


class ClassContrastiveLoss(PlainLoss):
    r"""Contrast of a foreground voxel against the means of all other classes, with the mean of its own as positive.

    With :math:`m_k` the mean feature of class :math:`k` over the batch and :math:`s_{ak}` the cosine of voxel
    :math:`a` and :math:`m_k` over the temperature, over the classes :math:`K` that are present, background among them,

    .. math::
        L = \operatorname{mean}_{c \in K, c > 0}\ \operatorname{mean}_{a \in c}
            \left[-\log \frac{e^{s_{ac}}}{\sum_{k \in K} e^{s_{ak}}}\right]

    ``form="published"`` leaves the positive, :math:`k = c`, out of the denominator, as the published code does. That
    is a defect, for which it is not the default: zero is no lower bound then, and voxels that are separated already
    are pulled on, down to :math:`-2 / \tau` of two classes. Here the means are those of the batch; there they are those
    of pairs of images.

    A class that no valid voxel has is left out and counted in ``empty``; an anchor without negatives, since
    its class is the only one, is counted in ``skipped``. Without any anchor the loss is zero, and can be derived.

    Args:
        spatial_dims: 2 or 3.
        temperature: Divisor of the cosine similarities.
        num_anchors: Voxels drawn of each class in each process; None, or a number not below their count, takes all.
        form: ``"softmax"`` or ``"published"``.
        gather: Take means and anchors over all processes, with gradients.
        num_classes: Classes with the background; when left out, one more than the highest label.

    Attributes:
        empty: Number of classes that the last call left out; a 0-dim tensor. None before the first call.
        skipped: Number of anchors of this process that the last call left out; likewise.

    Shapes:
        ``features`` (B, C, \*S); ``labels`` (B, \*S) whole numbers, 0 the background; ``valid`` (B, \*S), true where a
        voxel counts: the label of another may be anything.

    Raises:
        ValueError: If shapes disagree, a label that counts is out of range, or an option is.
        NonFiniteError: If a feature is NaN or infinite.

    References:
        Local contrastive loss with pseudo-label based self-training, arXiv 2112.09645.

    Example:
        >>> features = torch.eye(2).reshape(1, 2, 1, 2)  # two voxels at right angles
        >>> ClassContrastiveLoss(2, temperature=1.0)(features, torch.tensor([[[0, 1]]]))  # log(1 + 1 / e)
        tensor(0.3133)
    """

    empty: Tensor | None
    skipped: Tensor | None

    def __init__(
        self,
        spatial_dims: int,
        temperature: float = 0.1,
        num_anchors: int | None = 256,
        form: str = "softmax",
        gather: bool = False,
        *,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
        require_positive(temperature=temperature)
        require_choice("form", form, FORMS)
        if num_anchors is not None:
            require_positive(num_anchors=num_anchors)
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, background included, got {num_classes!r}")
        self.spatial_dims = spatial_dims
        self.temperature = temperature
        self.num_anchors = num_anchors
        self.form = form
        self.gather = gather
        self.num_classes = num_classes
        self.empty = None
        self.skipped = None

    def extra_repr(self) -> str:
        """Temperature, form and whether means are those of all processes."""
        return f"temperature={self.temperature}, form={self.form!r}, gather={self.gather}"

    def forward(self, features: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
        r"""Compute the loss.

        Args:
            features: Maps, (B, C, \*S).
            labels: Class of each voxel, (B, \*S).
            valid: True where a voxel counts; everywhere when left out.
        """
        labels, counts = self._check(features, labels, valid)
        with fixed_precision(features):
            ranks = find_ranks(features, gather=self.gather)
            number = self._number_of_classes(labels, ranks)
            rows = features.movedim(1, -1).flatten(0, -2)  # (N, C)
            rows = rows if rows.dtype == torch.float64 else rows.float()
            label = labels.flatten().masked_fill(~counts.flatten(), number)  # a class of its own, dropped below
            means, present = _class_means(rows, label, number, ranks)
            anchors = _draw(label, number, self.num_anchors)
            return self._reduce(unit_rows(rows[anchors]), label[anchors], unit_rows(means), present, ranks)

    def _reduce(self, rows: Tensor, label: Tensor, means: Tensor, present: Tensor, ranks: Ranks) -> Tensor:
        self.empty = (~present).sum()
        similar = rows @ means.mT / self.temperature  # a = anchor, k = class
        own = torch.arange(len(means), device=label.device) == label[:, None]
        kept = (present & ~own).any(1)
        self.skipped = (~kept).sum()
        denominator = log_sum(similar, present & ~own if self.form == "published" else present.expand_as(own))
        costs = torch.where(kept, denominator - (similar * own).sum(1), 0.0)
        of_class = sum_over(torch.zeros_like(means[:, 0]).index_add(0, label, kept.to(costs.dtype)), ranks)
        weights = 1 / of_class.clamp(min=1)[label] / (of_class > 0).sum().clamp(min=1)
        local = (costs * weights).sum()
        loss = local * ranks.world
        # the value of all processes, the gradient of this one
        return loss if ranks.world == 1 else loss + (sum_over(local, ranks) - loss).detach()

    def _check(self, features: Tensor, labels: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        if features.ndim != self.spatial_dims + 2 or not features.is_floating_point():
            raise ValueError(
                f"features must be floating-point maps (B, C, *S) of {self.spatial_dims} spatial dimensions, "
                f"got {features.dtype} {tuple(features.shape)}"
            )
        expected = (len(features), *features.shape[2:])
        require_shape("labels", labels, expected)
        require_finite(features=features)
        counts = torch.ones_like(labels, dtype=torch.bool)
        if valid is not None:
            require_shape("valid", valid, expected)
            counts = valid.bool()
        counted = labels[counts]
        require_whole(labels=counted)
        most = self.num_classes or _MOST_CLASSES
        if counted.numel() and (counted.min() < 0 or counted.max() >= most):
            low, high = (float(value) for value in counted.aminmax())
            raise ValueError(
                f"labels must be classes from 0 to {most - 1}, got values from {low:g} to {high:g}; "
                "leave voxels that do not count out with `valid`"
            )
        return labels.long(), counts

    def _number_of_classes(self, labels: Tensor, ranks: Ranks) -> int:
        if self.num_classes is not None:
            return self.num_classes
        inside = labels[(labels >= 0) & (labels < _MOST_CLASSES)]
        highest = inside.amax()[None] if inside.numel() else labels.new_zeros(1)
        return int(gather_rows(highest, Ranks((1,) * ranks.world, ranks.rank)).amax()) + 1


def _class_means(rows: Tensor, label: Tensor, number: int, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Mean of the rows of each class over all processes, (K, C), and which classes have any."""
    sums = rows.new_zeros(number + 1, rows.shape[1]).index_add(0, label, rows)[:-1]
    counts = sum_over(torch.bincount(label, minlength=number + 1)[:-1], ranks)
    every = gather_rows(sums, Ranks((number,) * ranks.world, ranks.rank)).unflatten(0, (ranks.world, number))
    return every.sum(0) / counts.clamp(min=1)[:, None], counts > 0


def _draw(label: Tensor, number: int, most: int | None) -> Tensor:
    """Indices of at most ``most`` voxels of each foreground class, in order."""
    foreground = ((label > 0) & (label < number)).nonzero()[:, 0]
    kind = label[foreground]
    counts = torch.bincount(kind, minlength=number)
    if most is None or bool((counts <= most).all()):
        return foreground
    shuffled = torch.randperm(len(kind), device=kind.device)
    by_class = shuffled[kind[shuffled].argsort(stable=True)]
    place = torch.arange(len(kind), device=kind.device) - (counts.cumsum(0) - counts)[kind[by_class]]
    return foreground[by_class[place < most].sort().values]
