"""Partial volume: tissues mix in the signal, not in their relaxation times."""

from collections.abc import Sequence

import torch
from torch import Tensor


def mix(fractions: Tensor, signals: Tensor | Sequence[Tensor], *, dim: int = 0, signed: bool = False) -> Tensor:
    r"""Signal of voxels that several tissues share.

    $$S = \Bigl| \sum_t f_t S_t \Bigr|$$

    of signed (or complex) tissue signals: next to a null, tissues of opposite sign cancel, which neither magnitudes nor
    averaged relaxation rates show. The rest of a voxel gives no signal.

    Args:
        fractions: Volume fractions of the tissues along ``dim``, between 0 and 1.
        signals: Coherent signals: a tensor with the tissues along ``dim``, one number a tissue as a vector, or a
            sequence with one tensor a tissue, numbers or maps without ``dim``.
        dim: Axis of the tissues in ``fractions``.
        signed: Keep the sign (or phase) instead of the magnitude, to mix further or to combine images.

    Returns:
        The mixture, of the shape of ``fractions`` without ``dim``.

    Raises:
        ValueError: If the numbers of tissues differ.

    Example:
        >>> half = torch.full((2, 1), 0.5)   # a voxel shared by two tissues, one before and one after its null
        >>> mix(half, torch.tensor([0.3, -0.3]))
        tensor([0.])
    """
    tissues = fractions.shape[dim]
    if isinstance(signals, Tensor):
        parts = list(signals) if signals.ndim == 1 else list(signals.movedim(dim, 0))
    else:
        parts = list(signals)
    if len(parts) != tissues:
        raise ValueError(f"one signal for each of the {tissues} tissues of fractions is needed, got {len(parts)}")
    total = _sum_of_products(list(fractions.movedim(dim, 0)), parts)
    return total if signed else total.abs()


def _sum_of_products(fractions: Sequence[Tensor], signals: Sequence[Tensor]) -> Tensor:
    """Sum over tissues of fraction times signal, without a stack of all products in memory."""
    total = fractions[0] * signals[0]
    for fraction, signal in zip(fractions[1:], signals[1:], strict=True):
        total = torch.add(total, fraction * signal)
    return total
