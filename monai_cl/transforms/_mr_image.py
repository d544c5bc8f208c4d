"""Arithmetic of a simulated image: the signal of each voxel, of tissues that share one, and what the scanner adds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_cl.qmri import Protocol, draw_t2, mix
from monai_cl.qmri.protocols import BalancedSsfp, Mp2rage
from monai_cl.qmri.remainder import remaining_maps
from monai_cl.transforms.mr_artefacts import degrade, root_sum_of_squares, smooth_field, uniform_of_coils

FIELDS = ("b1", "b0")
_SECONDS = (20.0, "in seconds", "divide milliseconds by 1000")
# largest median that can be in our unit, that unit, and what to do about others
_UNITS = {
    "t1": _SECONDS, "t2": _SECONDS, "t2_star": _SECONDS, "mtsat": (0.1, "a fraction", "divide p.u. by 100"),
}  # fmt: skip
_SAMPLE = 1 << 16  # voxels that a median is taken of
_COARSE = 1 << 15  # voxels, about, of a subject that a change of intensities is taken from


def simulated(
    protocol: Protocol,
    record: dict[str, Any],
    maps: dict[str, Tensor],
    shares: Mapping[str, Tensor],
    *,
    purity: float,
    field_strength: float,
    spacing: Sequence[float],
) -> Tensor:
    """Image of a protocol with all else that was drawn.

    Args:
        protocol: Protocol to play.
        record: Drawn values; facts about a T2 that had to be drawn are added.
        maps: Maps (*S) by name, fields among them; may be empty where the record holds drawn tissues.
        shares: Fractions (*S) of each voxel, between 0 and 1, by tissue; empty where voxels are not mixed.
        purity: Fraction from which a voxel counts as one tissue.
        field_strength: Field in tesla at which the maps were measured, where the record lacks it.
        spacing: Voxel size along each axis.

    Returns:
        Image (*S).
    """
    like = next(iter((*maps.values(), *shares.values())))
    artefacts = record.get("artefacts", {})
    fields: dict[str, Any] = {"b1": maps.pop("b1", 1.0), "off_resonance": maps.pop("b0", None)}
    if "b1" in artefacts:
        fields["b1"] = fields["b1"] * (1 + smooth_field(artefacts["b1"], like))
    if not isinstance(protocol, BalancedSsfp):
        fields["off_resonance"] = None
    elif "b0" in artefacts:
        offset = smooth_field(artefacts["b0"], like)
        fields["off_resonance"] = offset if fields["off_resonance"] is None else fields["off_resonance"] + offset
    if "t2" in record:
        seed = record["t2"]["seed"]
        maps["t2"], facts = draw_t2(
            maps["t2_star"], np.random.RandomState(seed), t1=maps["t1"],
            field_strength=record.get("field_strength", field_strength),
        )  # fmt: skip
        record["t2"] = {**facts, "seed": seed}
    _check_units({name: values for name, values in maps.items() if name in protocol.takes})
    after = {name: drawn for name, drawn in artefacts.items() if name not in FIELDS}
    if not shares and not after:
        return protocol.signal(**fields, **maps)
    if not shares:
        images = list(protocol.coherent(**fields, **maps))
    else:
        images = _mixed(protocol, maps, shares, fields, record, purity)
    if not after:
        return protocol.combine(*images)
    coils = degrade(images, after, spacing)
    return uniform_of_coils(*coils) if isinstance(protocol, Mp2rage) else root_sum_of_squares(*coils)


def coarse(maps: MetaTensor) -> MetaTensor:
    """Maps (M, *S) of a subject in large steps, with voxels enough for percentiles of its images."""
    step = max(int((maps[0].numel() / _COARSE) ** (1 / (maps.ndim - 1))), 1)
    window = (slice(None), *(slice(None, None, step) for _ in maps.shape[1:]))
    return MetaTensor(maps.as_tensor()[window].float(), affine=scanner_axes(maps))


def scanner_axes(maps: MetaTensor) -> Tensor:
    """Affine along the axes of the array: the size of a voxel alone."""
    spacing = [*maps.pixdim.tolist(), 1.0, 1.0][:3]
    return torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))


def _mixed(
    protocol: Protocol,
    maps: Mapping[str, Tensor],
    shares: Mapping[str, Tensor],
    fields: Mapping[str, Any],
    record: Mapping[str, Any],
    purity: float,
) -> list[Tensor]:
    """Coherent images in which tissues share voxels, with what they leave of a voxel."""
    fractions = torch.stack(tuple(shares.values()))
    if "tissues" in record:
        values = [record["tissues"][name] for name in shares]
        rest: list[Tensor] = []
    else:
        names = [name for name in protocol.takes if name in maps]
        values = [_purest(maps, share, names, purity) for share in fractions]
        fractions = torch.where(fractions.amax(0) < purity, fractions, 0.0)  # pure voxels have their own maps
        left = remaining_maps({name: maps[name] for name in names}, fractions, values)
        rest = list(protocol.coherent(**fields, **left))
    pure = [
        protocol.coherent(**fields, **{name: fractions.new_tensor(v[name]) for name in protocol.takes if name in v})
        for v in values
    ]
    images = [mix(fractions, parts, signed=True) for parts in zip(*pure, strict=True)]
    return [image + one for image, one in zip(images, rest, strict=True)] if rest else images


def _purest(maps: Mapping[str, Tensor], share: Tensor, names: Sequence[str], purity: float) -> dict[str, float]:
    """Medians of the maps where a tissue fills the voxel, or where it comes nearest to that."""
    chosen = (share >= min(purity, 0.95 * float(share.max()))).flatten().nonzero()[:, 0]
    chosen = chosen[:: max(chosen.numel() // _SAMPLE, 1)]
    return {name: float(maps[name].flatten()[chosen].nanmedian()) for name in names}


def _check_units(maps: Mapping[str, Tensor]) -> None:
    """Refuse milliseconds and per cent, by the median of a sample of positive values."""
    for name, (largest, wanted, remedy) in _UNITS.items():
        if name not in maps:
            continue
        values = maps[name].detach().flatten()
        values = values[:: max(values.numel() // _SAMPLE, 1)]
        values = values[(values > 0) & (values < torch.inf)]
        if values.numel() and (median := float(values.median())) > largest:
            raise ValueError(
                f"{name} must be {wanted}, got a median of {median:.4g}; {remedy} "
                "(monai_cl.data.load_maps reads the unit from the sidecar)"
            )
