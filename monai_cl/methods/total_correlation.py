"""Total correlation of two codes, by a discriminator between matched and shuffled pairs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from monai_cl.losses._gather import find_ranks, gather_rows


class TotalCorrelation(nn.Module):
    r"""Dependence of a common and a salient code, to be made small, and the loss of the discriminator that sees it.

    A perceptron :math:`D(c, s)` learns to separate codes of one image from a common code beside the salient one of
    another image; for the best one :math:`\mathbb{E}_{q(c, s)}[D]` is the divergence of :math:`q(c, s)` from
    :math:`q(c)\,q(s)`. Codes get the gradient of that mean alone and the discriminator that of its own loss alone, so
    that one optimiser steps both.

    Args:
        width: Width of both codes together.
        hidden: Width of the two hidden layers.
        gather: Take the codes of all processes, with gradients.

    References:
        FactorVAE, arXiv 1802.05983; on these codes SepVAE, arXiv 2307.06206.
    """

    def __init__(self, width: int, *, hidden: int = 128, gather: bool = True) -> None:
        super().__init__()
        self.gather = gather
        self.discriminator = nn.Sequential(
            nn.Linear(width, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, common: Tensor, salient: Tensor, patients: Tensor) -> tuple[Tensor, Tensor]:
        """Total correlation of the codes (N, C) and (N, S) of patients, and the discriminator's loss, 0-dim.

        Both are 0 with fewer than two patients: nothing can be shuffled.
        """
        ranks = find_ranks(common, gather=self.gather)
        rows = gather_rows(torch.cat([common, salient], dim=1), ranks)
        rows = rows[gather_rows(patients, ranks)]
        if len(rows) < 2:
            nothing: Tensor = self.discriminator(rows.new_zeros(1, rows.shape[1])).sum() * 0.0 + rows.sum() * 0.0
            return nothing, nothing
        width = common.shape[1]
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        correlation: Tensor = functional_call(self.discriminator, fixed, (rows,)).mean()
        still = rows.detach()
        shuffled = torch.cat([still[:, :width], still[:, width:].roll(1, 0)], dim=1)
        together, apart = self.discriminator(still), self.discriminator(shuffled)
        loss = (F.softplus(-together).mean() + F.softplus(apart).mean()) / 2
        return correlation, loss
