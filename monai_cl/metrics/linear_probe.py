"""Linear probe: accuracy of a linear map from embeddings to labels."""

import numpy as np
import torch
from monai.metrics.embedding_collapse import linear_probe_accuracy as monai_linear_probe
from torch import Tensor

from monai_cl.losses._checks import require_positive, require_shape
from monai_cl.metrics._base import LabelledMetric, as_numbers, as_rows, full_precision


@full_precision
@torch.no_grad()
def linear_probe_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, max_iter: int = 1000
) -> Tensor:
    """Accuracy of a logistic regression on frozen embeddings, fitted by scikit-learn through MONAI.

    Each dimension is first brought to mean 0 and standard deviation 1 over the training samples, so the scale of the
    embedding does not act as regularisation. A label never seen in training counts as wrong.

    Args:
        train: Embeddings to fit on, (N, D).
        train_labels: Their labels, (N,), whole numbers of at least two values.
        test: Embeddings to score on, (M, D), of other patients.
        test_labels: Their labels, (M,).
        max_iter: Largest number of iterations of the fit; scikit-learn warns where it is not enough.

    Returns:
        0-dim float32, between 0 and 1.

    Raises:
        ValueError: If shapes disagree or the training labels are all the same.
        NonFiniteError: If an embedding holds NaN or infinity.
        ImportError: If scikit-learn is not installed.

    Example:
        >>> x, labels = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> linear_probe_accuracy(x, labels, x, labels).item()
        1.0
    """
    train, test = as_rows("train", train, at_least=2), as_rows("test", test)
    require_shape("test", test, (len(test), train.shape[1]))
    known, truth = (
        as_numbers("train_labels", train_labels, len(train)),
        as_numbers("test_labels", test_labels, len(test)),
    )
    if len(known.unique()) < 2:
        raise ValueError(
            f"a linear probe needs at least two different labels to fit, got {known.unique().tolist()}; add samples"
        )
    std, mean = torch.std_mean(train, dim=0)
    std = std.clamp_min(1e-6 * float(std.max()) + torch.finfo(std.dtype).tiny)
    accuracy: Tensor = monai_linear_probe((train - mean) / std, known, (test - mean) / std, truth, max_iter=max_iter)
    return accuracy


@full_precision
@torch.no_grad()
def cross_validated_probe_accuracy(
    x: Tensor, labels: Tensor, *, groups: Tensor | None = None, folds: int = 5, max_iter: int = 1000
) -> Tensor:
    """:func:`linear_probe_accuracy` by cross-validation: each sample is scored by a fit that has not seen its group.

    Groups are dealt to the folds by label, then by number (samples without groups by the embedding itself), so the
    result does not depend on the order of samples.

    Args:
        x: Embeddings, (N, D).
        labels: Labels, (N,), whole numbers of at least two values.
        groups: Group of each sample, (N,), whole numbers, for example patients. Left out: each is a group.
        folds: Number of folds, between 2 and the number of groups.
        max_iter: Largest number of iterations of each fit.

    Returns:
        0-dim float32: share of samples labelled rightly.

    Raises:
        ValueError: If shapes disagree, ``folds`` is out of range, or a fit has one label only.
        NonFiniteError: If an embedding holds NaN or infinity.
        ImportError: If scikit-learn is not installed.

    Example:
        >>> x, labels = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> cross_validated_probe_accuracy(x, labels, folds=2).item()
        1.0
    """
    rows = as_rows("x", x, at_least=2)
    known = as_numbers("labels", labels, len(rows)).to(rows.device)
    if groups is not None:
        groups = as_numbers("groups", groups, len(rows)).to(rows.device)
    order = _canonical_order(rows, known, groups)
    rows, known = rows[order], known[order]
    group = torch.arange(len(rows)) if groups is None else groups[order].cpu()
    fold = _deal(group, folds).to(rows.device)
    right = rows.new_zeros((), dtype=torch.float32)
    for number in range(folds):
        test = fold == number
        accuracy = linear_probe_accuracy(rows[~test], known[~test], rows[test], known[test], max_iter=max_iter)
        right += accuracy.to(right.device) * test.sum()
    return right / len(rows)


class LinearProbeMetric(LabelledMetric):
    """:func:`cross_validated_probe_accuracy` over an epoch: call like :class:`KNNProbeMetric`.

    Args:
        folds: Number of folds, at least 2.
        max_iter: Largest number of iterations of each fit.
    """

    def __init__(self, folds: int = 5, max_iter: int = 1000) -> None:
        super().__init__()
        if folds < 2:
            raise ValueError(f"folds must be at least 2, got {folds}")
        require_positive(max_iter=max_iter)
        self.folds = folds
        self.max_iter = max_iter

    def aggregate(self) -> Tensor:
        """Cross-validated accuracy over all samples, 0-dim."""
        rows, labels, groups = self._all()
        return cross_validated_probe_accuracy(rows, labels, groups=groups, folds=self.folds, max_iter=self.max_iter)


def _canonical_order(rows: Tensor, labels: Tensor, groups: Tensor | None) -> Tensor:
    """Order by label, group, embedding: the same for the same samples however they came in."""
    number = torch.zeros_like(labels) if groups is None else groups
    keys = (*rows.cpu().numpy().T, number.cpu().numpy(), labels.cpu().numpy())  # the last key counts most
    return torch.from_numpy(np.lexsort(keys)).to(rows.device)


def _deal(group: Tensor, folds: int) -> Tensor:
    """Fold of each sample: groups in order of appearance of their label, then of their number, dealt in turn."""
    numbers, index = torch.unique(group, return_inverse=True)
    if not 2 <= folds <= len(numbers):
        raise ValueError(
            f"folds must be between 2 and the number of groups ({len(numbers)}), got {folds}; "
            "use fewer folds or samples of more groups"
        )
    first = torch.full((len(numbers),), len(group)).scatter_reduce(0, index, torch.arange(len(group)), "amin")
    place: Tensor = first.argsort().argsort()
    return (place % folds)[index]
