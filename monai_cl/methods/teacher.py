"""The momentum teacher of a method: what it copies, and how fast it follows."""

from dataclasses import dataclass

import torch
from torch import nn

from monai_cl.networks import MomentumTeacher, scheduled_momentum

_COPIED = ("all", "heads")
_SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Teacher:
    """Options of a momentum teacher.

    Args:
        of: ``"all"``: the network and the heads of those terms that follow one; ``"heads"``: these heads alone, which
            see the features of the network that learns.
        momentum: Momentum at the start.
        schedule: ``"constant"``, or ``"cosine"``: rising to 1 along a half cosine.

    Raises:
        ValueError: If an option is out of range.

    References:
        Mean Teacher, arXiv 1703.01780; MoCo, arXiv 1911.05722.
    """

    of: str = "all"
    momentum: float = 0.99
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        """Refuse options out of range."""
        for name, known in (("of", _COPIED), ("schedule", _SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} of a teacher must be one of {known}, got {getattr(self, name)!r}")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {self.momentum!r}")

    def move(self, copy: MomentumTeacher, followed: nn.Module, progress: float) -> None:
        """Move a copy towards what it follows; ``progress`` is the share of training that is done."""
        copy.update(followed, scheduled_momentum(progress, self.momentum, self.schedule))


class Followed(nn.Module):
    """Parts that a teacher follows: the network, or none, and the terms that it copies."""

    def __init__(self, network: nn.Module | None, terms: nn.ModuleDict) -> None:
        super().__init__()
        self.network = network
        self.terms = terms


@torch.no_grad()
def parameter_distance(student: nn.Module, teacher: nn.Module) -> float:
    r"""Relative distance of two copies of a module, :math:`\lVert\theta_t-\theta_s\rVert / \lVert\theta_s\rVert`."""
    pairs = list(zip(student.parameters(), teacher.parameters(), strict=True))
    apart = torch.stack([(a - b).float().norm() for a, b in pairs]).norm()
    return float(apart / torch.stack([a.float().norm() for a, _ in pairs]).norm())
