"""The sum of exponentials over some entries: against logsumexp, its gradient, and rows without any."""

import pytest
import torch

from monai_cl.losses._directed import log_sum


def plain(s: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return s.masked_fill(~others, -torch.inf).logsumexp(-1)


@pytest.mark.parametrize("scale", [1.0, 10.0, 500.0])
def test_value_and_gradient_are_those_of_logsumexp(scale: float) -> None:
    torch.manual_seed(0)
    others = torch.rand(3, 7, 50) > 0.5
    s = (scale * torch.randn(3, 7, 50)).requires_grad_()
    weights = torch.randn(3, 7)
    found, expected = log_sum(s, others), plain(s, others)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((value * weights).sum(), s)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_entries_left_out_may_be_far_above_those_that_count() -> None:
    s = torch.tensor([[1000.0, -1000.0, -1001.0]])
    others = torch.tensor([[False, True, True]])
    torch.testing.assert_close(log_sum(s, others), plain(s, others))


def test_rows_without_others_are_finite_and_have_no_gradient() -> None:
    s = torch.randn(2, 4, requires_grad=True)
    others = torch.tensor([[False] * 4, [True] * 4])
    found = log_sum(s, others)
    assert found.isfinite().all()
    (gradient,) = torch.autograd.grad(found.sum(), s)
    assert gradient[0].eq(0).all()
    torch.testing.assert_close(gradient[1], s[1].softmax(0).detach())


def test_the_gradient_is_that_of_differences_in_double_precision() -> None:
    torch.manual_seed(0)
    s = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    others = torch.rand(4, 9) > 0.3
    assert torch.autograd.gradcheck(lambda x: log_sum(x, others), (s,))
