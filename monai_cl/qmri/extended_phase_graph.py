r"""Echo trains with refocusing angles below 180 degrees: the extended phase graph, exact and without loops over voxels.

Every coherence pathway to echo $k$ spends a whole number $n$ of the $k$ echo spacings $\tau$ along the field, where it
decays with $T_1$, and the rest transverse. So the amplitude is a polynomial in one quantity per voxel,

$$E_k = e^{-k\tau/T_1} \sum_{j=1}^{k} b_j\, y^j, \qquad y = e^{-\tau (1/T_2 - 1/T_1)},$$

whose coefficients depend on the refocusing angle alone: $b_{k-n}$ is the sum of the pathways with $n$ intervals along
the field. The graph is run once per angle on *pathways* instead of once per voxel on amplitudes. The absolute
coefficients sum to about 2 at most, so float32 keeps its digits. A long polynomial has a shorter one within 1e-6 of it
on [0, 1]. The coefficients in turn are polynomials in the cosine of the refocusing angle, which serves maps of the
transmit field.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Kernel, Parameter, evaluate, spare
from monai_cl.qmri._relaxation import RADIANS, faded, fading, is_number, plus, scaled, sines
from monai_cl.qmri.constraints import check_refocusing_train

MOST_ANGLES = 4096  # refocusing angles up to which each has coefficients; beyond, the series in the cosine
TOLERANCE = 1e-6  # of the magnetisation in equilibrium: a signal of a fiftieth of it still has four digits


def echo_amplitudes(
    t1: Tensor,
    t2: Tensor,
    *,
    echo_spacing: Parameter,
    train_length: int,
    refocusing_angle: Parameter = 180.0,
    b1: Parameter = 1.0,
) -> Tensor:
    r"""Amplitudes of all echoes of a CPMG train after an excitation of 90 degrees, relative to equilibrium.

    Three families of states, $F_m$ (dephasing), $G_m$ (rephasing) and $Z_m$ (along the field), start from
    $F_0 = G_0 = \sin(90^\circ b_1)$. Each half echo spacing relaxes them and moves $F_{m+1} \leftarrow F_m$,
    $G_{m-1} \leftarrow G_m$, $F_0 \leftarrow G_0$; each pulse of angle $a = b_1 \cdot$ ``refocusing_angle`` about the
    axis of the magnetisation mixes them,

    $$\begin{pmatrix} F' \\ G' \\ Z' \end{pmatrix} = \begin{pmatrix}
    \cos^2\tfrac a2 & \sin^2\tfrac a2 & \sin a \\ \sin^2\tfrac a2 & \cos^2\tfrac a2 & -\sin a \\
    -\tfrac12\sin a & \tfrac12\sin a & \cos a \end{pmatrix} \begin{pmatrix} F \\ G \\ Z \end{pmatrix}.$$

    At 180 degrees $E_k = e^{-k\tau/T_2}$. A $T_2$ above $T_1$, which no tissue has, is taken as equal to $T_1$.

    Args:
        t1: Longitudinal relaxation time in seconds.
        t2: Transverse relaxation time in seconds, broadcastable to ``t1``.
        echo_spacing: Time between echoes in seconds.
        train_length: Number of echoes.
        refocusing_angle: Angle of the refocusing pulses in degrees.
        b1: Transmit field relative to nominal, number or map; it scales all pulses.

    Returns:
        Amplitudes, of shape ``(train_length, *broadcast shape)``; negative where T2 is so short that pathways along the
        field dominate.

    Raises:
        ConstraintError: If a time is not positive, or the angle is outside (0, 180].

    Source:
        Hennig, J. Magn. Reson. 78 (1988) 397; Weigel, J. Magn. Reson. Imaging 41 (2015) 266.

    Example:
        >>> t2 = torch.tensor(0.08)
        >>> echoes = echo_amplitudes(torch.tensor(1.0), t2, echo_spacing=0.01, train_length=3)
        >>> torch.allclose(echoes, torch.exp(-torch.tensor([0.01, 0.02, 0.03]) / t2))
        True
    """
    check_refocusing_train(echo_spacing=echo_spacing, train_length=train_length, refocusing_angle=refocusing_angle)
    echoes = []
    for number in range(1, train_length + 1):
        train = EchoReadout.of(echo_spacing, number, refocusing_angle, b1)
        amplitude = evaluate(
            train.amplitude, torch.ones_like(t1), (t1, t2), fields=train.fields, parameters=train.parameters,
            prepare=train.prepare,
        )  # fmt: skip
        echoes.append(amplitude)
    return torch.stack(echoes)


@dataclass(frozen=True)
class EchoReadout:
    """Echo of a train as an elementwise function: ``amplitude(t1, t2, *prepare(*fields, *parameters))``.

    Attributes:
        amplitude: The function, which gives the factors of the amplitude.
        fields: Angles in degrees, numbers or maps.
        parameters: Echo spacing, number of the echo, coefficients.
        prepare: Function of them that is computed once.
    """

    amplitude: Kernel
    fields: tuple[Parameter, ...]
    parameters: tuple[Parameter, ...]
    prepare: Callable[..., tuple[Tensor, ...]]

    @staticmethod
    def of(
        echo_spacing: Parameter, echo: Parameter, refocusing_angle: Parameter, b1: Parameter, *, exact: bool = True
    ) -> "EchoReadout":
        """Choose the form by what the refocusing angle is: 180 degrees, a few angles, or a map.

        Args:
            echo_spacing: Time between echoes in seconds.
            echo: Number of the echo, counted from 1.
            refocusing_angle: Angle of the refocusing pulses in degrees.
            b1: Transmit field relative to nominal.
            exact: Keep all terms of a polynomial; otherwise those that matter more than 1e-6.
        """
        if is_number(refocusing_angle, 180) and is_number(b1, 1):
            return EchoReadout(_single_pathway, (), (echo_spacing, echo), _prepare_single)
        angle, excitation = scaled(refocusing_angle, b1), scaled(90.0, b1)
        if not isinstance(angle, Tensor) or angle.numel() <= MOST_ANGLES:
            coefficients = _cached_polynomial(angle, echo)
            short = coefficients if exact else shortened(coefficients)
            if len(short) < len(coefficients) - 2:  # the change of variable takes as long as two terms
                return EchoReadout(_few_terms, (excitation,), (echo_spacing, echo, *short), _prepare_few)
            return EchoReadout(_few_angles, (excitation,), (echo_spacing, echo, *coefficients), _prepare_few)
        series = cosine_series(echo)
        return EchoReadout(_map_of_angles, (excitation, angle), (echo_spacing, echo, *series), _prepare_map)


def polynomial(refocusing_angle: Parameter, echo: Parameter) -> tuple[Tensor, ...]:
    """Coefficients $b_1 ... b_K$ of an echo, float64, each of the broadcast shape of angle and echo number.

    Args:
        refocusing_angle: Angle in degrees.
        echo: Number of the echo, counted from 1; a tensor may hold another number for each sample.

    Returns:
        K tensors, K the largest number of an echo.
    """
    angle = torch.as_tensor(refocusing_angle, dtype=torch.float64).nan_to_num(nan=0.0)
    number = torch.as_tensor(echo, device=angle.device).long()
    longest = int(number.max())
    paths = (_pathways if angle.numel() <= longest + 1 else _pathways_of_many)(angle.flatten(), longest)
    which = torch.arange(angle.numel(), device=angle.device).reshape(angle.shape)
    return tuple(_by_power(paths, which, number).unbind(-1))


def _cached_polynomial(angle: Parameter, echo: Parameter) -> tuple[Tensor, ...]:
    if isinstance(angle, Tensor) or isinstance(echo, Tensor):
        return polynomial(angle, echo)
    return _polynomial_of_numbers(float(angle), int(echo))


@functools.lru_cache(maxsize=1024)
def _polynomial_of_numbers(angle: float, echo: int) -> tuple[Tensor, ...]:
    return polynomial(angle, echo)


def cosine_series(echo: Parameter) -> tuple[Tensor, ...]:
    r"""Coefficients $d_{ij}$ of $b_j = \sum_{i=0}^{K} d_{ij} \cos(i a)$, exact for every refocusing angle $a$.

    Args:
        echo: Number of the echo, counted from 1; a tensor may hold another number for each sample.

    Returns:
        (K + 1) K tensors, j running fastest.
    """
    number = torch.as_tensor(echo).long()
    longest = int(number.max())
    nodes, transform = _cosine_transform(longest, number.device)
    paths = _pathways(nodes / RADIANS, longest)
    which = torch.arange(longest + 1, device=number.device).reshape(-1, *[1] * number.ndim)
    at_nodes = _by_power(paths, which, number)  # (nodes, *samples, powers of y)
    series = torch.tensordot(transform, at_nodes, dims=1)
    return tuple(row for order in series for row in order.unbind(-1))


def _pathways(angle: Tensor, length: int) -> Tensor:
    """Sum of the pathways to each echo by their intervals along the field, (angles, echoes, intervals 0..length)."""
    sin, cos, versed = sines(angle)
    s2, c2 = versed / 2, 1 - versed / 2  # squares of sine and cosine of half the angle
    rows = ((c2, s2, sin), (s2, c2, -sin), (-sin / 2, sin / 2, cos))
    pulse = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    # a = angle, s = state (F, G, Z), m = order, n = intervals spent along the field
    states = angle.new_zeros((len(angle), 3, length + 1, length + 1))
    states[:, :2, 0, 0] = 1
    echoes = []
    for _ in range(length):
        states = torch.einsum("ars,asmn->armn", pulse, _dephase(states))
        f, g, z = _dephase(states).unbind(1)
        echoes.append(f[:, 0])
        z = torch.cat([torch.zeros_like(z[..., :1]), z[..., :-1]], dim=-1)
        states = torch.stack([f, g, z], dim=1)
    return torch.stack(echoes, dim=1)


def _pathways_of_many(angle: Tensor, length: int) -> Tensor:
    """The same for many angles by way of few: pathways are polynomials in the cosine, of the degree of their echo."""
    nodes, transform = _cosine_transform(length, angle.device)
    orders = torch.cos(torch.outer(angle * RADIANS, torch.arange(length + 1, device=angle.device)))
    paths: Tensor = torch.tensordot(orders @ transform, _pathways(nodes / RADIANS, length), dims=1)
    return paths


def _cosine_transform(degree: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Angles at which to sample a polynomial in the cosine, in radians, and (orders, angles) from samples to orders."""
    nodes = math.pi * (torch.arange(degree + 1, dtype=torch.float64, device=device) + 0.5) / (degree + 1)
    transform = torch.cos(torch.outer(torch.arange(degree + 1, device=device), nodes)) * 2 / (degree + 1)
    transform[0] /= 2
    return nodes, transform


def _dephase(states: Tensor) -> Tensor:
    """Half an echo spacing: F one order up, G one order down; orders that cannot come back in time drop out."""
    f, g, z = states.unbind(1)
    g = torch.cat([g[:, 1:], torch.zeros_like(g[:, :1])], dim=1)
    return torch.stack([torch.cat([g[:, :1], f[:, :-1]], dim=1), g, z], dim=1)


def _by_power(paths: Tensor, which: Tensor, echo: Tensor) -> Tensor:
    """Coefficients by the power of y, 1..K on the last axis: power j is k - j intervals along the field."""
    which, echo = torch.broadcast_tensors(which, echo)
    intervals = echo[..., None] - torch.arange(1, paths.shape[1] + 1, device=paths.device)
    chosen = paths[which, echo - 1].gather(-1, intervals.clamp_min(0))
    return chosen * (intervals >= 0)


def _prepare_single(spacing: Tensor, echo: Tensor) -> tuple[Tensor, ...]:
    return (fading(spacing * echo),)


def _single_pathway(t1: Tensor, t2: Tensor, whole: Tensor) -> tuple[Tensor]:
    return (faded(whole, t2),)


def _prepare_few(excitation: Tensor, spacing: Tensor, echo: Tensor, *coefficients: Tensor) -> tuple[Tensor, ...]:
    transverse = torch.sin(excitation * RADIANS).abs()
    return echo, fading(spacing), *(transverse * c for c in coefficients)


def _few_angles(t1: Tensor, t2: Tensor, echo: Tensor, interval: Tensor, *coefficients: Tensor) -> tuple[Tensor, ...]:
    slow, y = _slow_and_fast(t1, t2, echo, interval)
    return slow, _horner(coefficients, y)


def _few_terms(t1: Tensor, t2: Tensor, echo: Tensor, interval: Tensor, *coefficients: Tensor) -> tuple[Tensor, ...]:
    slow, y = _slow_and_fast(t1, t2, echo, interval)
    return slow, _horner(coefficients, 2 * y - 1)


def _prepare_map(
    excitation: Tensor, angle: Tensor, spacing: Tensor, echo: Tensor, *series: Tensor
) -> tuple[Tensor, ...]:
    transverse = torch.sin(excitation * RADIANS).abs()
    return transverse, torch.cos(angle * RADIANS), echo, fading(spacing), *series


def _map_of_angles(
    t1: Tensor, t2: Tensor, transverse: Tensor, cosine: Tensor, echo: Tensor, interval: Tensor, *series: Tensor
) -> tuple[Tensor, ...]:
    slow, y = _slow_and_fast(t1, t2, echo, interval)
    length = math.isqrt(len(series))  # (K + 1) K coefficients
    # Clenshaw's recurrence for the sum of cosines, from the highest order down.
    ahead = behind = torch.zeros_like(cosine)
    for order in range(length, 0, -1):
        row = _horner(series[order * length : (order + 1) * length], y)
        ahead, behind = torch.addcmul(row - behind, cosine, ahead, value=2), ahead
    total = torch.addcmul(_horner(series[:length], y) - behind, cosine, ahead)
    return transverse, slow, total


def _slow_and_fast(t1: Tensor, t2: Tensor, echo: Tensor, interval: Tensor) -> tuple[Tensor, Tensor]:
    """Decay along the field but for one interval, and y, the further decay of a transverse interval."""
    along = torch.div(interval, t1)
    further = (torch.div(interval, t2) - along).clamp_max_(0)
    return plus(further, echo, along, out=spare(along, further, echo)).exp2_(), further.exp2()


def _horner(coefficients: Sequence[Tensor], y: Tensor) -> Tensor:
    """Polynomial in y from the constant term up."""
    *rest, total = coefficients
    if rest:
        total = plus(rest.pop(), total, y)
    out = spare(total, y, *rest[:1])
    for coefficient in reversed(rest):
        total = torch.addcmul(coefficient, total, y, out=out)
    return total


def shortened(coefficients: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Coefficients of a polynomial in x = 2 y - 1 that stays within ``TOLERANCE`` of another one in y.

    Args:
        coefficients: Coefficients of the polynomial in y from the constant term up, float64, each shaped as a batch.

    Returns:
        Coefficients of the polynomial in x from the constant term up; for a batch as many as its longest needs.
    """
    powers = torch.stack(tuple(coefficients), -1)
    series = powers @ _series_of_powers(powers.shape[-1]).to(powers.device)
    left_out = series.detach().abs().flip(-1).cumsum(-1).flip(-1)  # at place n: error without the terms from n on
    kept = max(int((left_out > TOLERANCE).sum(-1).max()), 1)
    return tuple((series[..., :kept] @ _powers_of_series(kept).to(powers.device)).unbind(-1))


@functools.lru_cache(maxsize=64)
def _series_of_powers(length: int) -> Tensor:
    """Coefficient of T_n in y^j, row j and column n."""
    rows = [
        [(2 if n else 1) * math.comb(2 * j, j - n) / 4**j if n <= j else 0.0 for n in range(length)]
        for j in range(length)
    ]
    return torch.tensor(rows, dtype=torch.float64)


@functools.lru_cache(maxsize=64)
def _powers_of_series(length: int) -> Tensor:
    """Coefficient of x^j in T_n, row n and column j."""
    rows = torch.eye(length, dtype=torch.float64)
    for n in range(2, length):
        rows[n] = 2 * rows[n - 1].roll(1) - rows[n - 2]
    return rows
