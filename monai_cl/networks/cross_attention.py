"""Alignment of two sets of tokens: each of the first gathers what belongs to it from the second."""

import torch.nn.functional as F
from torch import Tensor, nn


class CrossAttentionAlign(nn.Module):
    r"""Attention of queries to keys, then a perceptron in each token, both added to what comes in.

    With :math:`q` the queries, brought to the width of the result by a linear map :math:`e` where theirs is another,

    .. math::
        a = e(q) + \operatorname{attention}(q, k, k), \qquad y = a + \operatorname{perceptron}(a)

    Places are not encoded: a permutation of the queries permutes the result alike, one of the keys changes nothing.
    Memory is that of queries times keys for each head at most.

    Args:
        query_features: Width of a query.
        key_features: Width of a key, which is its value too.
        features: Width of the result; that of a query when left out.
        heads: Number of heads.
        head_features: Width of each.
        hidden: Width of the perceptron; four times that of the result when left out.

    Shapes:
        ``query`` (B, L, Q) and ``key`` (B, M, K); the result is (B, L, features).

    Raises:
        ValueError: If a number is below 1, or tokens have another width.

    References:
        Attention, arXiv 1706.03762; as alignment of encoder and decoder in Alice, Jiang et al. 2023.

    Example:
        >>> import torch
        >>> CrossAttentionAlign(16, 8)(torch.rand(2, 5, 16), torch.rand(2, 7, 8)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        query_features: int,
        key_features: int,
        *,
        features: int | None = None,
        heads: int = 8,
        head_features: int = 64,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        features = query_features if features is None else features
        hidden = 4 * features if hidden is None else hidden
        given = {"query_features": query_features, "key_features": key_features, "features": features, "heads": heads,
                 "head_features": head_features, "hidden": hidden}  # fmt: skip
        for name, value in given.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        self.heads = heads
        inner = heads * head_features
        self.norm_query = nn.LayerNorm(query_features)
        self.norm_key = nn.LayerNorm(key_features)
        self.query = nn.Linear(query_features, inner, bias=False)
        self.key = nn.Linear(key_features, inner, bias=False)
        self.value = nn.Linear(key_features, inner, bias=False)
        self.join = nn.Linear(inner, features)
        self.enter = nn.Identity() if features == query_features else nn.Linear(query_features, features)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features)
        )

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Align keys (B, M, K) with queries (B, L, Q)."""
        for name, tokens, width in (("query", query, self.query.in_features), ("key", key, self.key.in_features)):
            if tokens.ndim != 3 or tokens.shape[2] != width:
                raise ValueError(f"{name} must be tokens (B, L, {width}), got {tuple(tokens.shape)}")
        q, k = self.norm_query(query), self.norm_key(key)
        # (B, L, heads * d) -> (B, heads, L, d)
        parts = [
            each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (self.query(q), self.key(k), self.value(k))
        ]
        attended = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        aligned = self.enter(query) + self.join(attended)
        result: Tensor = aligned + self.perceptron(aligned)
        return result
