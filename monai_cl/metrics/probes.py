"""Probes: does the embedding already know the labels, or its own partner?"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.metrics.embedding_collapse import linear_probe_accuracy as monai_linear_probe
from torch import Tensor

from monai_cl.losses._checks import require_positive, require_shape
from monai_cl.metrics._base import BufferedMetric, as_numbers, as_rows, full_precision, unit

TIE = 1e-6  # cosines closer than this are equal


@full_precision
@torch.no_grad()
def retrieval_at_k(x: Tensor, y: Tensor, k: int = 1, chunk_size: int = 1024) -> Tensor:
    r"""Share of samples whose partner is among the ``k`` most similar of all candidates.

    :math:`\operatorname{mean}_i [\,|\{j \ne i : \cos(x_i, y_j) \ge \cos(x_i, y_i)\}| < k\,]`: equal similarity counts
    against the partner, so collapsed embeddings retrieve nothing. Guessing reaches k / N.

    Args:
        x: Queries, (N, D).
        y: Candidates, (N, D); row ``i`` is the partner of query ``i``.
        k: Places that count as found, between 1 and N - 1.
        chunk_size: Queries compared at a time.

    Returns:
        0-dim, between 0 and 1.

    Raises:
        ValueError: If shapes disagree, there are fewer than two pairs, or ``k`` is out of range.
        NonFiniteError: If an embedding holds NaN or infinity.

    Example:
        >>> retrieval_at_k(torch.eye(3), torch.eye(3)).item(), retrieval_at_k(torch.ones(3, 2), torch.ones(3, 2)).item()
        (1.0, 0.0)
    """
    x, y = as_rows("x", x, at_least=2), as_rows("y", y, at_least=2)
    require_shape("y", y, tuple(x.shape))
    require_positive(chunk_size=chunk_size)
    _check_k(k, len(x) - 1)
    queries, candidates = unit(x), unit(y)
    own = (queries * candidates).sum(1)
    better = [
        (part @ candidates.mT >= mine[:, None] - TIE).sum(1) - 1  # less the partner itself
        for part, mine in zip(queries.split(chunk_size), own.split(chunk_size), strict=True)
    ]
    return (torch.cat(better) < k).to(x.dtype).mean()


@full_precision
@torch.no_grad()
def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    k: int = 5,
    temperature: float = 0.1,
    chunk_size: int = 1024,
) -> Tensor:
    r"""Accuracy of the vote of the ``k`` nearest training samples.

    The predicted label is :math:`\arg\max_c \sum_{j \in N_k} [l_j = c]\, e^{\cos(x, x_j) / \tau}`. Samples as similar
    as the k-th (within 1e-6) vote too, so the result does not depend on the order of samples; collapsed embeddings
    score like the commonest label. A label never seen in training counts as wrong.

    Args:
        train: Embeddings with known labels, (N, D).
        train_labels: Their labels, (N,), whole numbers.
        test: Embeddings to label, (M, D).
        test_labels: Their true labels, (M,).
        k: Number of neighbours, between 1 and N.
        temperature: Sharpness of the weights, positive.
        chunk_size: Test samples compared at a time.

    Returns:
        0-dim, between 0 and 1.

    Raises:
        ValueError: If shapes disagree or ``k`` is out of range.
        NonFiniteError: If an embedding holds NaN or infinity.

    References:
        Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", arXiv 1805.01978.

    Example:
        >>> labels = torch.tensor([0, 1, 2])
        >>> knn_accuracy(torch.eye(3), labels, 2 * torch.eye(3), labels, k=1).item()
        1.0
    """
    train, test = as_rows("train", train), as_rows("test", test)
    require_shape("test", test, (len(test), train.shape[1]))
    known, truth = (
        as_numbers("train_labels", train_labels, len(train)),
        as_numbers("test_labels", test_labels, len(test)),
    )
    require_positive(temperature=temperature, chunk_size=chunk_size)
    _check_k(k, len(train))
    guess = _vote(test, train, known.to(train.device), None, None, k, temperature, chunk_size)
    return (guess == truth.to(train.device)).to(train.dtype).mean()


@full_precision
@torch.no_grad()
def leave_one_out_knn_accuracy(
    x: Tensor,
    labels: Tensor,
    *,
    groups: Tensor | None = None,
    k: int = 5,
    temperature: float = 0.1,
    chunk_size: int = 1024,
) -> Tensor:
    """:func:`knn_accuracy` of each sample among all others, or among those of other groups.

    Args:
        x: Embeddings, (N, D), at least two.
        labels: Labels, (N,), whole numbers.
        groups: What each sample belongs to, (N,), whole numbers: crops of one patient are alike whatever the network
            has learnt, so give the patient. Left out: each sample is a group.
        k: Number of neighbours, between 1 and the number of samples outside the largest group.
        temperature: Sharpness of the weights, positive.
        chunk_size: Samples compared at a time.

    Returns:
        0-dim, between 0 and 1.

    Raises:
        ValueError: If shapes disagree, there are fewer than two samples or groups, or ``k`` is out of range.
        NonFiniteError: If an embedding holds NaN or infinity.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> leave_one_out_knn_accuracy(x, torch.tensor([0, 0, 1, 1]), k=1).item()
        1.0
    """
    rows = as_rows("x", x, at_least=2)
    truth = as_numbers("labels", labels, len(rows)).to(rows.device)
    group = torch.arange(len(rows)) if groups is None else as_numbers("groups", groups, len(rows))
    require_positive(temperature=temperature, chunk_size=chunk_size)
    sizes = torch.unique(group, return_counts=True)[1]
    if len(sizes) < 2:
        raise ValueError("groups must hold at least two different values, got one; add samples of other groups")
    _check_k(k, len(rows) - int(sizes.max()))
    group = group.to(rows.device)
    guess = _vote(rows, rows, truth, group, group, k, temperature, chunk_size)
    return (guess == truth).to(rows.dtype).mean()


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
        groups: What each sample belongs to, (N,), whole numbers, for example patients. Left out: each is a group.
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


class RetrievalMetric(BufferedMetric):
    """:func:`retrieval_at_k` over an epoch: call with queries (B, D) and their partners (B, D). Needs no labels.

    Args:
        k: Places that count as found.
        chunk_size: Queries compared at a time.
    """

    def __init__(self, k: int = 1, chunk_size: int = 1024) -> None:
        super().__init__()
        require_positive(k=k, chunk_size=chunk_size)
        self.k = k
        self.chunk_size = chunk_size

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        if y is None:
            raise ValueError("retrieval needs the partners, got None; call the metric with both views")
        queries, partners = as_rows("queries", y_pred), as_rows("partners", y)
        require_shape("partners", partners, tuple(queries.shape))
        return [queries, partners]

    def aggregate(self) -> Tensor:
        """Share of partners found among those of the whole epoch, 0-dim."""
        queries, partners = self.gathered()
        return retrieval_at_k(queries, partners, self.k, self.chunk_size)


class _LabelledMetric(BufferedMetric):
    """Buffers embeddings (B, D), labels (B,) and, where given by name, ``groups`` (B,)."""

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        rows = as_rows("embeddings", y_pred)
        groups = kwargs.get("groups")
        extra = [] if groups is None else [as_numbers("groups", groups, len(rows))]
        return [rows, as_numbers("labels", y, len(rows)), *extra]

    def _all(self) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, labels, *groups = self.gathered()
        return rows, labels, groups[0] if groups else None


class KNNProbeMetric(_LabelledMetric):
    """:func:`leave_one_out_knn_accuracy` over an epoch: call with embeddings (B, D), labels (B,), ``groups`` by name.

    Args:
        k: Number of neighbours.
        temperature: Sharpness of the weights, positive.
        chunk_size: Samples compared at a time.

    Example:
        >>> metric = KNNProbeMetric(k=1)
        >>> _ = metric(torch.eye(2), torch.tensor([0, 1])), metric(torch.eye(2), torch.tensor([0, 1]))
        >>> metric.aggregate().item()
        1.0
    """

    def __init__(self, k: int = 5, temperature: float = 0.1, chunk_size: int = 1024) -> None:
        super().__init__()
        require_positive(k=k, temperature=temperature, chunk_size=chunk_size)
        self.k = k
        self.temperature = temperature
        self.chunk_size = chunk_size

    def aggregate(self) -> Tensor:
        """Accuracy over all samples, 0-dim."""
        rows, labels, groups = self._all()
        return leave_one_out_knn_accuracy(
            rows, labels, groups=groups, k=self.k, temperature=self.temperature, chunk_size=self.chunk_size
        )


class LinearProbeMetric(_LabelledMetric):
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


def _vote(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    query_groups: Tensor | None,
    bank_groups: Tensor | None,
    k: int,
    temperature: float,
    chunk_size: int,
) -> Tensor:
    """Label that the nearest of ``bank`` give each query; those of the query's own group have no vote."""
    classes, index = torch.unique(labels, return_inverse=True)
    one_hot = F.one_hot(index, len(classes)).to(bank.dtype)
    queries, bank = unit(queries), unit(bank)
    guesses = []
    for start in range(0, len(queries), chunk_size):
        similarity = queries[start : start + chunk_size] @ bank.mT  # q = query, n = sample of the bank
        if query_groups is not None and bank_groups is not None:
            same = query_groups[start : start + chunk_size, None] == bank_groups
            similarity = similarity.masked_fill(same, -torch.inf)
        best = similarity.topk(k, dim=1).values
        weight = ((similarity - best[:, :1]) / temperature).exp() * (similarity >= best[:, -1:] - TIE)
        guesses.append((weight @ one_hot).argmax(1))
    winners: Tensor = classes[torch.cat(guesses)]
    return winners


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


def _check_k(k: int, most: int) -> None:
    if not 1 <= k <= most:
        raise ValueError(f"k must be between 1 and the number of candidates ({most}), got {k}; lower k or add samples")
