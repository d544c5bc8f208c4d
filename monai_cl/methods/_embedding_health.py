"""Health of embeddings in every probe: agreement of views, and use of the space."""

from torch import Tensor

from monai_cl.metrics import (
    DeadDimensionsMetric,
    EffectiveRankMetric,
    InstanceAlignmentMetric,
    InstanceUniformityMetric,
)

ENOUGH = 8  # embeddings, below which rank and spread are no sign of a collapse
HEALTH = frozenset({"alignment", "uniformity", "effective_rank", "dead_dimensions"})


class EmbeddingHealth:
    """Alignment of pairs and spread of rows over the batches of a probe, those of the other processes included.

    Args:
        fewest: Rows below which their spread is not reported.

    Attributes:
        rows: Rows of this process whose spread is measured.
    """

    def __init__(self, *, fewest: int = 0) -> None:
        self.fewest = fewest
        self.rows = 0
        self._alignment = InstanceAlignmentMetric()
        self._spread = {
            "uniformity": InstanceUniformityMetric(),
            "effective_rank": EffectiveRankMetric(),
            "dead_dimensions": DeadDimensionsMetric(),
        }

    def __call__(self, x: Tensor, y: Tensor, *, rows: Tensor) -> None:
        """Take pairs (N, D) twice, and the rows (M, D) whose spread is measured."""
        self._alignment(x, y)
        for metric in self._spread.values():
            metric(rows)
        self.rows += len(rows)

    def values(self) -> dict[str, Tensor]:
        """``alignment`` and, of enough rows, ``uniformity``, ``effective_rank`` and ``dead_dimensions``."""
        spread = self._spread if self.rows >= self.fewest else {}
        return {"alignment": self._alignment.aggregate()} | {name: m.aggregate() for name, m in spread.items()}
