"""Alignment of tokens by attention: equivariance, invariance, and the value of loops over tokens and heads."""

import math

import pytest
import torch
from torch import Tensor

from monai_cl.networks import CrossAttentionAlign, PrototypeHead

B, L, M, Q, K = 2, 5, 7, 6, 4


def block(**options: int) -> CrossAttentionAlign:
    torch.manual_seed(0)
    return CrossAttentionAlign(Q, K, **{"heads": 2, "head_features": 3, "hidden": 8, **options}).double()


def tokens() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(B, L, Q, generator=g, dtype=torch.float64), torch.randn(
        B, M, K, generator=g, dtype=torch.float64
    )


@torch.no_grad()
def reference(align: CrossAttentionAlign, query: Tensor, key: Tensor) -> Tensor:
    d = align.query.out_features // align.heads
    rows = []
    for b in range(B):
        for i in range(L):
            gathered = []
            keys = align.norm_key(key[b])
            for head in range(align.heads):
                part = slice(head * d, (head + 1) * d)
                q = align.query(align.norm_query(query[b, i]))[part]
                scores = [math.exp(float(q @ align.key(k)[part]) / math.sqrt(d)) for k in keys]
                values = [align.value(k)[part] for k in keys]
                gathered.append(sum(s / sum(scores) * v for s, v in zip(scores, values, strict=True)))
            a = query[b, i] + align.join(torch.cat(gathered))
            rows.append(a + align.perceptron(a))
    return torch.stack(rows).unflatten(0, (B, L))


def test_value_is_that_of_loops_over_tokens_and_heads() -> None:
    align, (query, key) = block(), tokens()
    torch.testing.assert_close(align(query, key).detach(), reference(align, query, key))


def test_queries_in_another_order_give_the_result_in_that_order() -> None:
    align, (query, key) = block(), tokens()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(align(query[:, order], key), align(query, key)[:, order])


def test_keys_in_another_order_change_nothing_and_other_keys_do() -> None:
    align, (query, key) = block(), tokens()
    torch.testing.assert_close(align(query, key.flip(1)), align(query, key))
    assert not torch.allclose(align(query, key.roll(1, dims=2)), align(query, key))


def test_a_result_may_have_a_width_of_its_own() -> None:
    align, (query, key) = block(features=9), tokens()
    assert align(query, key).shape == (B, L, 9)
    assert isinstance(block().enter, torch.nn.Identity)


def test_gradients_reach_queries_keys_and_every_parameter() -> None:
    align, (query, key) = block(features=9), tokens()
    align(query.requires_grad_(), key.requires_grad_()).square().sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in (query, key, *align.parameters()))


def test_tokens_of_another_width_and_numbers_below_one_are_refused() -> None:
    query = tokens()[0]
    with pytest.raises(ValueError, match=r"key must be tokens \(B, L, 4\), got \(2, 5, 6\)"):
        block()(query, query)
    with pytest.raises(ValueError, match="heads must be at least 1, got 0"):
        block(heads=0)


def test_the_last_layer_of_a_prototype_head_gives_cosines() -> None:
    torch.manual_seed(0)
    head = PrototypeHead(Q, 8, 4, 5)
    rows = torch.randn(20, Q)
    found = head(rows)
    inner = head.perceptron(rows)
    for row in range(20):
        for direction in range(5):
            cosine = torch.cosine_similarity(inner[row], head.directions[direction], dim=0)
            torch.testing.assert_close(found[row, direction], cosine)
    before = found.clone()
    with torch.no_grad():
        head.directions.mul_(torch.rand(5, 1) + 0.5)
    torch.testing.assert_close(head(rows), before)  # lengths of the directions mean nothing
