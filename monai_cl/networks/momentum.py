"""Momentum teacher: a slowly following copy of a network that gives steady targets."""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn


def cosine_momentum(progress: float, start: float, end: float = 1.0) -> float:
    r"""Momentum at ``progress`` in [0, 1]: :math:`m = end - (end - start)(1 + \cos \pi p)/2`.

    Example:
        >>> cosine_momentum(0.0, 0.99), cosine_momentum(1.0, 0.99)
        (0.99, 1.0)
    """
    return end - (end - start) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def scheduled_momentum(progress: float, start: float, schedule: str) -> float:
    """Momentum at ``progress`` in [0, 1]: ``start`` throughout (``"constant"``) or rising to 1 (``"cosine"``).

    Raises:
        ValueError: If the schedule is neither.
    """
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"schedule must be 'constant' or 'cosine', got {schedule!r}")
    return start if schedule == "constant" else cosine_momentum(progress, start)


class MomentumTeacher(nn.Module):
    r"""A copy of ``student`` that follows it: :math:`\theta_t \leftarrow m\,\theta_t + (1 - m)\,\theta_s`.

    It starts equal to the student, never receives a gradient (so optimisers and gradient buckets pass it by) and stays
    in evaluation mode. Call :meth:`update` once an optimiser step.

    Args:
        student: The module to follow.
        average_buffers: Let floating-point buffers, such as the statistics of batch normalisation, follow as
            parameters do. Otherwise, and for the other buffers always, each update copies the student's.

    References:
        Mean Teacher, arXiv 1703.01780; MoCo, arXiv 1911.05722.
    """

    def __init__(self, student: nn.Module, *, average_buffers: bool = False) -> None:
        super().__init__()
        self.average_buffers = average_buffers
        self.module = deepcopy(student).requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "MomentumTeacher":
        """Stay in evaluation mode whatever the method around it does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Tensor) -> Tensor:
        """Run the copy without gradient."""
        result: Tensor = self.module(*args)
        return result

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Move towards ``student``.

        Raises:
            ValueError: If ``momentum`` is outside [0, 1].
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum!r}")
        mine = [p.data for p in self.module.parameters()]
        theirs = [p.data for p in student.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - momentum)
        for own, other in zip(self.module.buffers(), student.buffers(), strict=True):
            if self.average_buffers and own.is_floating_point():
                own.lerp_(other, 1 - momentum)
            else:
                own.copy_(other)
