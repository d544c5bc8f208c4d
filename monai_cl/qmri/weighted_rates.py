"""Quantitative maps in a form that may be averaged and interpolated: rates weighted by proton density."""

from collections.abc import Sequence

import torch
from torch import Tensor

_TIMES = ("t1", "t2", "t2_star")
_SHARES = ("mtsat",)


def to_weighted_rates(maps: Tensor, names: Sequence[str], *, dim: int = 0) -> Tensor:
    r"""Replace each map by what adds up when voxels are merged.

    $$\rho \mapsto \rho, \qquad T \mapsto \rho / T, \qquad \delta \mapsto \rho\,\delta$$

    Averages of these are those of a measurement that sees one pool: densities add up, rates and saturations are means
    weighted by density. Interpolated times would not do: next to air, where they are 0, they would fall and give a
    bright rim, and next to fluid white matter would turn into something that is no tissue. A voxel without $T_1$, which
    is dark in every sequence, has no density either, or its neighbours would get too long times of it. Without a map of
    proton density each voxel counts the same, also one without signal, which makes times next to air longer. Other
    channels (fields, fractions) stay as they are.

    Args:
        maps: Maps, with the channels along ``dim``; times in seconds, 0 without signal, as are values that are not
            finite.
        names: Names of the first channels, of ``pd``, ``t1``, ``t2``, ``t2_star``, ``mtsat`` and others.
        dim: Axis of the channels.

    Returns:
        A tensor of the same shape.

    Example:
        >>> two = torch.tensor([[70.0, 0.0], [0.8, 0.0]])  # white matter beside air: density, T1
        >>> middle = to_weighted_rates(two, ("pd", "t1")).mean(1, keepdim=True)
        >>> from_weighted_rates(middle, ("pd", "t1")).flatten().tolist()  # half of the density, T1 of white matter
        [35.0, 0.800000011920929]
    """
    # a density over a time of milliseconds is beyond half precision
    maps = maps if maps.dtype == torch.float64 else maps.float()
    channels = list(maps.unbind(dim))
    for place, name in enumerate(names):
        if name in ("pd", *_TIMES, *_SHARES):
            channels[place] = channels[place].nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    if "pd" in names and "t1" in names:
        place = list(names).index("pd")
        channels[place] = torch.where(channels[list(names).index("t1")] > 0, channels[place], 0.0)
    density = _density(channels, names)
    for place, name in enumerate(names):
        if name in _TIMES:
            channels[place] = torch.where(channels[place] > 0, density / channels[place], 0.0)
        elif name in _SHARES:
            channels[place] = density * channels[place]
    return torch.stack(channels, dim)


def from_weighted_rates(weighted: Tensor, names: Sequence[str], *, dim: int = 0) -> Tensor:
    """Maps from the result of :func:`to_weighted_rates`, also after interpolation; 0 without signal.

    Args:
        weighted: As :func:`to_weighted_rates` returns it.
        names: Names of the first channels.
        dim: Axis of the channels.
    """
    channels = list(weighted.unbind(dim))
    density = _density(channels, names)
    for place, name in enumerate(names):
        some = channels[place] > 0
        if name in _TIMES:
            channels[place] = torch.where(some, density / torch.where(some, channels[place], 1.0), 0.0)
        elif name in _SHARES:
            some = density > 0
            channels[place] = torch.where(some, channels[place] / torch.where(some, density, 1.0), 0.0)
    return torch.stack(channels, dim)


def _density(channels: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    return channels[list(names).index("pd")] if "pd" in names else torch.ones_like(channels[0])
