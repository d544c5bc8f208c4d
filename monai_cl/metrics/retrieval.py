"""Retrieval: is a sample's partner among those most like it?"""

from typing import Any

import torch
from torch import Tensor

from monai_cl.losses._checks import require_positive, require_shape
from monai_cl.metrics._base import TIE, BufferedMetric, as_rows, check_k, full_precision, unit


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
        ValueError: If shapes disagree, fewer than two pairs are given, or ``k`` is out of range.
        NonFiniteError: If an embedding holds NaN or infinity.

    Example:
        >>> retrieval_at_k(torch.eye(3), torch.eye(3)).item(), retrieval_at_k(torch.ones(3, 2), torch.ones(3, 2)).item()
        (1.0, 0.0)
    """
    x, y = as_rows("x", x, at_least=2), as_rows("y", y, at_least=2)
    require_shape("y", y, tuple(x.shape))
    require_positive(chunk_size=chunk_size)
    check_k(k, len(x) - 1)
    queries, candidates = unit(x), unit(y)
    own = (queries * candidates).sum(1)
    better = [
        (part @ candidates.mT >= mine[:, None] - TIE).sum(1) - 1  # less the partner itself
        for part, mine in zip(queries.split(chunk_size), own.split(chunk_size), strict=True)
    ]
    return (torch.cat(better) < k).to(x.dtype).mean()


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
        """Share of partners retrieved among all samples of the epoch, 0-dim."""
        queries, partners = self.gathered()
        return retrieval_at_k(queries, partners, self.k, self.chunk_size)
