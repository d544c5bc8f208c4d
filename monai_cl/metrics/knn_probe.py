"""Nearest neighbours: do samples whose embeddings are alike bear the same label?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_cl.losses._checks import require_positive, require_shape
from monai_cl.metrics._base import TIE, LabelledMetric, as_numbers, as_rows, check_k, full_precision, unit


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
    check_k(k, len(train))
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
        groups: Group of each sample, (N,), whole numbers: crops of one patient are alike whatever the network
            has learnt, so give the patient. Left out: each sample is a group.
        k: Number of neighbours, between 1 and the number of samples outside the largest group.
        temperature: Sharpness of the weights, positive.
        chunk_size: Samples compared at a time.

    Returns:
        0-dim, between 0 and 1.

    Raises:
        ValueError: If shapes disagree, fewer than two samples or groups are given, or ``k`` is out of range.
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
    check_k(k, len(rows) - int(sizes.max()))
    group = group.to(rows.device)
    guess = _vote(rows, rows, truth, group, group, k, temperature, chunk_size)
    return (guess == truth).to(rows.dtype).mean()


class KNNProbeMetric(LabelledMetric):
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
