"""Remainder of a voxel beside known tissues: the maps that explain the rest of the measurement."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_DENSEST = 1.5  # density of water over that of white matter, about
_FARTHEST = 4.0  # times what was measured: noise and small remainders would give any rate
_LARGEST_SATURATION = 0.99


def remaining_maps(
    maps: Mapping[str, Tensor], fractions: Tensor, tissues: Sequence[Mapping[str, float]]
) -> dict[str, Tensor]:
    r"""Maps of the content of a voxel besides known tissues, in proportion to its amount.

    A measurement that sees one pool a voxel adds up densities and averages rates and saturations by density, so with
    fractions $f_t$ of known tissues the rest has

    $$\rho_r = \rho - \sum_t f_t \rho_t, \qquad \rho_r R_r = \rho R - \sum_t f_t \rho_t R_t$$

    with a density between $0$ and $(1 - \sum_t f_t)$ times 1.5 of that measured or known, whichever is higher, rates
    between a quarter and four times those measured, and saturations up to four times. Nothing is left where the
    fractions add up to 1 or the rest is air or bone, and where they are 0 the maps stay as they are; in between the
    rest changes continuously with the fractions and the maps.

    Args:
        maps: Maps of one shape: ``pd`` (any unit), and any of ``t1``, ``t2``, ``t2_star`` (seconds) and ``mtsat``
            (fraction).
        fractions: Volume fractions of the tissues, on the first axis, between 0 and 1.
        tissues: Values of each tissue by the same names, in the units of the maps. A tissue without a positive density
            or time gives no signal and is left to the rest.

    Returns:
        Maps by the same names.

    Example:
        >>> white, lesion = {"pd": 70.0, "t1": 0.8}, {"pd": 80.0, "t1": 1.3}
        >>> density = 0.25 * 70.0 + 0.75 * 80.0
        >>> rate = (0.25 * 70.0 / 0.8 + 0.75 * 80.0 / 1.3) / density
        >>> measured = {"pd": torch.tensor([density]), "t1": torch.tensor([1 / rate])}
        >>> rest = remaining_maps(measured, torch.tensor([[0.25]]), [white])
        >>> round(float(rest["pd"]) / 0.75, 4), round(float(rest["t1"]), 4)
        (80.0, 1.3)
    """
    needed = [name for name in maps if name != "mtsat"]
    known = [
        (share, tissue)
        for share, tissue in zip(fractions, tissues, strict=True)
        if all(0 < tissue[name] < torch.inf for name in needed)
    ]
    if not known:
        return dict(maps)
    shares = torch.stack([share for share, _ in known])
    densities = [tissue["pd"] for _, tissue in known]
    total = shares.sum(0)
    inside = total > 0
    density = maps["pd"]
    rest = density - _weighted(shares, densities)
    most = (1 - total).clamp(min=0) * _DENSEST * density.clamp(min=max(densities))
    amount = torch.minimum(rest.clamp(min=0), most)
    result = {"pd": torch.where(inside, amount, density)}
    for name in [name for name in maps if name != "pd"]:
        own = maps[name]
        usable = inside & (rest > 0) & (own > 0) & (own < torch.inf)
        # 1 where the divisor is 0, so that gradients stay finite
        measured, left = torch.where(usable, own, 1.0), torch.where(usable, rest, 1.0)
        rate = measured if name == "mtsat" else 1 / measured
        rates = [tissue[name] if name == "mtsat" else 1 / tissue[name] for _, tissue in known]
        of_known = _weighted(shares, [d * r for d, r in zip(densities, rates, strict=True)])
        ratio = ((density * rate - of_known) / (left * rate)).clamp(max=_FARTHEST)
        if name == "mtsat":
            found = torch.minimum(measured * ratio.clamp(min=0), own.clamp(min=_LARGEST_SATURATION))
        else:
            found = measured / ratio.clamp(min=1 / _FARTHEST)
        result[name] = torch.where(usable, found, own)
    return result


def _weighted(shares: Tensor, values: Sequence[float]) -> Tensor:
    """Sum over tissues of fraction times value."""
    total: Tensor = torch.tensordot(shares.new_tensor(values), shares, dims=1)
    return total
