r"""Longitudinal magnetisation before a readout that leaves none.

Saturation, inversion and double inversion recovery are sums of recoveries, $\sum_i w_i (1 - e^{-t_i/T_1})$. Delays are
tenths of seconds and more, so that in float32 the difference keeps five digits even where $T_1$ is 20 s. Terms are
listed flat, weights first: ``(w1, ..., wn, t1, ..., tn)``.
"""

from collections.abc import Sequence

from torch import Tensor

from monai_cl.qmri._elementwise import Parameter, spare
from monai_cl.qmri._relaxation import faded, fading, plus

Terms = tuple[Parameter, ...]


def saturation_terms(recovery: Parameter) -> Terms:
    """No inversion: recovery from the last readout to the excitation."""
    return 1.0, recovery


def inversion_terms(recovery: Parameter, ti: Parameter, efficiency: Parameter) -> Terms:
    """Terms of an inversion; ``recovery`` is the time from the last readout to the excitation."""
    return 1 + efficiency, -efficiency, ti, recovery


def double_inversion_terms(recovery: Parameter, ti1: Parameter, ti2: Parameter, efficiency: Parameter) -> Terms:
    """Terms of a double inversion: ``ti1`` between both, ``ti2`` from the second to the excitation."""
    return (
        1 + efficiency, -efficiency * (1 + efficiency), efficiency * efficiency,
        ti2, ti1 + ti2, recovery,
    )  # fmt: skip


def prepared(terms: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Prepare for :func:`recovered`: the sum of the weights, each with the other sign, and the fading of the delays."""
    weights, delays = terms[: len(terms) // 2], terms[len(terms) // 2 :]
    return (sum(weights[1:], start=weights[0]), *(-w for w in weights), *(fading(d) for d in delays))


def recovered(t1: Tensor, total: Tensor, *terms: Tensor) -> Tensor:
    """Magnetisation relative to equilibrium for :func:`prepared` terms of any of the above."""
    for weight, delay in zip(terms[: len(terms) // 2], terms[len(terms) // 2 :], strict=True):
        left = faded(delay, t1)
        total = plus(total, weight, left, out=spare(left, total, weight))
    return total
