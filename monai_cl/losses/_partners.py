"""Partners: the volume of a batch that each volume is compared with."""

import torch
from torch import Tensor


def random_derangement(n: int, device: torch.device | str = "cpu") -> Tensor:
    """A random permutation of ``range(n)`` that leaves no element in place (one random cycle), ``n >= 2``."""
    order = torch.randperm(n).to(device)
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def ring(n: int, device: torch.device | str = "cpu") -> Tensor:
    """The next element of ``range(n)`` for each, the first for the last."""
    return torch.arange(n, device=device).roll(-1)


def partners_within(group: Tensor, kind: str) -> Tensor:
    """For each volume the index of its partner, which has the same ``group``; its own where it is alone.

    Args:
        group: Group of each volume, (B,).
        kind: ``"random"`` or ``"ring"``.
    """
    labels = group.cpu()
    partner = torch.arange(len(labels))
    for label in labels.unique():  # a batch has few groups
        members = (labels == label).nonzero().flatten()
        if len(members) > 1:
            partner[members] = members[_choose(len(members), kind, "cpu")]
    return partner.to(group.device)


def choose_partners(n: int, kind: str, *, device: torch.device | str = "cpu", group: Tensor | None = None) -> Tensor:
    """Partners of ``n`` volumes, (n,); a volume that is alone, or alone in its group, is its own."""
    if group is not None:
        return partners_within(group.to(device), kind)
    return _choose(n, kind, device) if n > 1 else torch.zeros(n, dtype=torch.long, device=device)


def _choose(n: int, kind: str, device: torch.device | str) -> Tensor:
    return ring(n, device) if kind == "ring" else random_derangement(n, device)
