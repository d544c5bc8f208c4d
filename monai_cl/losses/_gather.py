"""Rows of all processes, with gradients: forward gathers, backward sums over processes what each owes to a row."""

from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class Ranks(NamedTuple):
    """Spread of the rows of a batch over the processes.

    Attributes:
        counts: Rows of each process.
        rank: This process's number.
    """

    counts: tuple[int, ...]
    rank: int

    @property
    def world(self) -> int:
        """Number of processes."""
        return len(self.counts)

    @property
    def start(self) -> int:
        """Index of this process's first row among all rows."""
        return sum(self.counts[: self.rank])

    def times(self, factor: int) -> "Ranks":
        """The same for ``factor`` rows in place of each."""
        return Ranks(tuple(count * factor for count in self.counts), self.rank)


def find_ranks(rows: Tensor, *, gather: bool) -> Ranks:
    """Ask every process for its number of rows; one process without ``gather`` or without a process group."""
    if not (gather and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return Ranks((len(rows),), 0)
    mine = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    return Ranks(tuple(int(count) for count in counts), dist.get_rank())


def gather_rows(rows: Tensor, ranks: Ranks) -> Tensor:
    """Rows of all processes in order of rank, (sum of counts, ...), differentiable; the rows themselves for one."""
    if ranks.world == 1:
        return rows
    return cast(Tensor, _GatherRows.apply(rows, ranks))


def sum_over(values: Tensor, ranks: Ranks) -> Tensor:
    """Sum of a tensor over the processes, without gradient."""
    total = values.detach().clone()
    if ranks.world > 1:
        dist.all_reduce(total)
    return total


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        missing = max(ranks.counts) - len(rows)  # collectives need equal shapes
        padded = F.pad(rows.detach(), [0, 0] * (rows.ndim - 1) + [0, missing]).contiguous()
        parts = [torch.empty_like(padded) for _ in ranks.counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, ranks.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ranks: Ranks = ctx.ranks
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ranks.start : ranks.start + ranks.counts[ranks.rank]], None
