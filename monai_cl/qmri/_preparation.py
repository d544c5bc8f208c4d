r"""Longitudinal magnetisation before a readout that leaves none.

Saturation, inversion and double inversion recovery are sums of recoveries, $\sum_i w_i (1 - e^{-t_i/T_1})$, which in
this form lose no digits where $T_1$ is long. Terms are listed flat, weights first: ``(w1, ..., wn, t1, ..., tn)``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Parameter
from monai_cl.qmri._relaxation import lost

Terms = tuple[Parameter, ...]


def saturation_terms(recovery: Parameter) -> Terms:
    """No inversion: recovery from the last readout to the excitation."""
    return 1.0, recovery


def inversion_terms(recovery: Parameter, ti: Parameter, efficiency: Parameter) -> Terms:
    """One inversion; ``recovery`` is the time from the last readout to the excitation."""
    return 1 + efficiency, -efficiency, ti, recovery


def double_inversion_terms(recovery: Parameter, ti1: Parameter, ti2: Parameter, efficiency: Parameter) -> Terms:
    """Two inversions: ``ti1`` between them, ``ti2`` from the second to the excitation."""
    return (
        1 + efficiency, -efficiency * (1 + efficiency), efficiency * efficiency,
        ti2, ti1 + ti2, recovery,
    )  # fmt: skip


def recovered(t1: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """Magnetisation relative to equilibrium for terms of any of the above."""
    weights, delays = terms[: len(terms) // 2], terms[len(terms) // 2 :]
    total = -weights[0] * lost(delays[0], t1)
    for weight, delay in zip(weights[1:], delays[1:], strict=True):
        total = torch.addcmul(total, weight, lost(delay, t1), value=-1)
    return total
