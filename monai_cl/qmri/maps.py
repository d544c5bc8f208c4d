"""Maps of one subject: limits that physics sets, and a transverse relaxation time where none was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_cl.qmri.fields import r2_at, t1_at
from monai_cl.qmri.ranges import RandomSource
from monai_cl.qmri.tissues import Quantity

MAP_NAMES = ("pd", "t1", "t2", "t2_star", "mtsat")
CLASSES = ("white_matter", "grey_matter", "csf")  # in the order of their T1

_SPREAD = 0.10  # of R2 between subjects; T2 of one tissue varies by 8 to 12 % in the table


def limit_maps(maps: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Bring maps within what physics allows: PD >= 0, T >= 0, T2 <= T1, T2* <= T2, 0 <= MTsat < 1.

    A relaxation time of 0 marks a voxel without signal, so it is left alone, and not finite values become 0.

    Args:
        maps: Any of ``pd``, ``t1``, ``t2``, ``t2_star`` (seconds) and ``mtsat`` (fraction), of one shape.

    Returns:
        The maps, and how many values each rule has changed, e.g. ``{"t2 <= t1": 12}``, with rules that changed none
        left out.

    Raises:
        ValueError: If a name is unknown.

    Example:
        >>> maps, changed = limit_maps({"t1": torch.tensor([1.0, 1.0]), "t2": torch.tensor([0.1, 1.5])})
        >>> changed
        {'t2 <= t1': 1}
    """
    unknown = set(maps) - set(MAP_NAMES)
    if unknown:
        raise ValueError(f"maps must be named {MAP_NAMES}, got {sorted(unknown)}")
    result: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def limit(name: str, rule: str, limited: Tensor) -> None:
        changed = int((limited != result[name]).sum())
        result[name] = limited
        if changed:
            counts[rule] = changed

    for name, values in maps.items():
        result[name] = values
        limit(name, f"{name} finite", values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
        limit(name, f"{name} >= 0", result[name].clamp_min(0))
    if "mtsat" in result:
        limit("mtsat", "mtsat < 1", result["mtsat"].clamp_max(_largest_saturation(result["mtsat"].dtype)))
    for shorter, longer in (("t2", "t1"), ("t2_star", "t2"), ("t2_star", "t1")):
        if shorter in result and longer in result:
            least = torch.minimum(result[shorter], result[longer])
            limit(shorter, f"{shorter} <= {longer}", torch.where(result[longer] > 0, least, result[shorter]))
    return result, counts


def draw_t2(
    t2_star: Tensor,
    random_state: RandomSource,
    *,
    t1: Tensor | None = None,
    fractions: Tensor | None = None,
    tissues: Sequence[str] = CLASSES,
    field_strength: float = 3.0,
) -> tuple[Tensor, dict[str, Any]]:
    r"""A transverse relaxation time where only T2* was measured: a drawn prior, never T2* itself.

    A rate $R_{2,t}$ is drawn for each tissue (10 % around its value at the field). With fractions $f_t$ the prior of a
    voxel is $\sum_t f_t R_{2,t} / \sum_t f_t$; with a T1 map it is interpolated over $1/T_1$ between white matter, grey
    matter and fluid. Dephasing cannot be negative, so

    $$R_2 = \min(R_2^*, R_2^{prior}), \qquad R_2' = R_2^* - R_2 \ge 0.$$

    Args:
        t2_star: Effective transverse relaxation time in seconds; voxels that are not positive and finite give 0.
        random_state: Source of randomness, e.g. ``self.R`` of a MONAI transform.
        t1: Longitudinal relaxation time in seconds, to separate the tissues.
        fractions: Tissue fractions with tissues on the first axis, in the order of ``tissues``.
        tissues: Names of the tissues of ``fractions``, those of :func:`~monai_cl.qmri.fields.r2_at`.
        field_strength: Field in tesla, 1.5 to 7.

    Returns:
        T2 in seconds, at least T2* and, where a T1 map is given, at most T1 (unless T2* is longer); and a record for
        the metadata: the drawn rates, what they were assigned by, and the share of voxels in which R2* was the limit.

    Raises:
        ValueError: If neither or both of ``t1`` and ``fractions`` are given, or the tissues do not fit.
    """
    if (t1 is None) == (fractions is None):
        came = "neither" if t1 is None else "both"
        raise ValueError(f"draw_t2 needs one of t1 and fractions to separate tissues, got {came}; pass one")
    if fractions is not None and len(fractions) != len(tissues):
        raise ValueError(f"fractions needs one map for each of {tuple(tissues)}, got {len(fractions)}")
    t2_star = t2_star if t2_star.is_floating_point() else t2_star.float()  # rates of whole numbers would be cut off
    names = CLASSES if fractions is None else tuple(tissues)
    rates = {n: Quantity(r2_at(n, field_strength), _SPREAD, "fields.r2_at").draw(random_state) for n in names}
    drawn = t2_star.new_tensor(list(rates.values()))
    if fractions is not None:
        prior = _by_fraction(fractions, drawn)
    elif t1 is not None:
        prior = _by_t1(t1, drawn, field_strength)
    inside = (t2_star > 0) & (t2_star < torch.inf)
    r2_star = 1 / torch.where(inside, t2_star, 1.0)
    r2 = torch.minimum(r2_star, prior)
    record = {
        "t2": "drawn below R2*, not measured",
        "assigned_by": "t1" if fractions is None else "fractions",
        "field_strength": float(field_strength),
        "r2": rates,
        "limited_by_r2_star": float((inside & (r2_star <= prior)).sum() / inside.sum().clamp_min(1)),
    }
    t2 = torch.maximum(1 / r2, t2_star)  # which rounding would miss
    if t1 is not None:
        t2 = torch.where(t1 > 0, torch.minimum(t2, torch.maximum(t1, t2_star)), t2)
    return torch.where(inside, t2, 0.0), record


def _largest_saturation(dtype: torch.dtype) -> float:
    """Below 1 in every type: half precision has nothing nearer to it."""
    return 1 - max(1e-6, torch.finfo(dtype).eps) if dtype.is_floating_point else 1 - 1e-6


def _by_fraction(fractions: Tensor, rates: Tensor) -> Tensor:
    """Mean rate of the tissues in a voxel; the mean of all tissues in a voxel without any."""
    total = fractions.sum(0)
    weighted = torch.tensordot(rates, fractions, dims=1)
    return torch.where(total > 0, weighted / torch.where(total > 0, total, 1.0), rates.mean())


def _by_t1(t1: Tensor, rates: Tensor, field_strength: float) -> Tensor:
    """Rates between those of the classes, linear in 1/T1 between their T1, constant outside."""
    r1 = 1 / torch.where(t1 > 0, t1, 1.0)
    white, grey, fluid = (1 / t1_at(name, field_strength) for name in CLASSES)
    to_grey = ((r1 - grey) / (white - grey)).clamp(0, 1)  # 1 in white matter
    to_fluid = ((grey - r1) / (grey - fluid)).clamp(0, 1)  # 1 in fluid
    return rates[1] + to_grey * (rates[0] - rates[1]) + to_fluid * (rates[2] - rates[1])
