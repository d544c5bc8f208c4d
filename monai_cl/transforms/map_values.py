"""Quantitative MR maps and tissue fractions from files: units from the sidecar, one tensor in our units."""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import SpaceKeys
from torch import Tensor

from monai_cl.io.maps.files import grid_of, stated_unit, values_of
from monai_cl.io.maps.finding import find_maps
from monai_cl.io.maps.kinds import FRACTION, KINDS, NAMES, suffix_of
from monai_cl.io.maps.names import MapNames
from monai_cl.privacy.hidden_paths import HiddenPath, has_alias, shown
from monai_cl.privacy.plain import plain_or
from monai_cl.qmri import limit_maps

logger = logging.getLogger(__name__)

# Medians in p.u. and as fractions, of MT saturation 0.9 p.u. in grey and 1.75 in white matter, and what no fraction of
# tissue reaches but tissue in p.u. exceeds.
_READINGS = {"MTsat": ((0.1, 20.0), FRACTION, 0.5), "TB1map": ((20.0, 200.0), (0.2, 2.0), 10.0)}
_TINY = 1e-3  # share of values that errors of a fit may put anywhere
_HEAD = 0.01  # least share of a head in a field of view
_UNSTATED = ("", "arbitrary", "a.u.", "au", "a.u", "none", "n/a", "unknown")
_SAMPLE = 1 << 18
_ROUNDING = 1e-3  # of fractions, and of affines of files on one grid


def load_maps(
    source: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    *,
    maps: Sequence[str] | None = None,
    units: Mapping[str, str] | None = None,
    limit: bool = True,
) -> Tensor:
    """Read the quantitative maps of one subject in the units of :mod:`monai_cl.qmri`.

    A unit comes from ``units``, else from the JSON sidecar (``Units``, also inherited from folders above, or
    ``history.output.units`` of the hMRI toolbox), else from BIDS (seconds, 1/s, Hz). MT saturation and the transmit
    field have no unit one could rely on: there the median of the positive values decides between p.u. and fractions,
    and in doubt, as where values are too large for the fractions that the median suggests, the file is refused. Rates
    become times; a rate that is not positive becomes 0, a voxel without signal.

    Args:
        source: Folder of one subject, or files by BIDS suffix (``R1map``), hMRI name (``R1``, ``R2s``, ``PD``,
            ``MT``) or name here (``t1``).
        maps: Channels wanted, of ``pd``, ``t1``, ``t2``, ``t2_star``, ``mtsat``, ``b1``, ``b0``; all of them, in
            this order, when left out.
        units: Units by the same names as the files, where the sidecar has none or a wrong one.
        limit: Bring maps within what physics allows (:func:`monai_cl.qmri.limit_maps`) and record how many values
            changed.

    Returns:
        MetaTensor (M, X, Y, Z), float32: seconds, MT saturation as a fraction, transmit field relative to nominal,
        field offset in Hz, proton density as in the file. ``meta["mr_maps"]`` holds for each channel its file, its
        unit, where that comes from and what was done; under ``limited`` what limiting changed. In it, and in errors
        about a folder, pseudonyms take the place of names that are not of BIDS.

    Raises:
        ValueError: If a map is missing, twice there, unreadable or on another grid, a unit is unknown, ambiguous or
            contradicted by the values.
    """
    files = _files(source)
    given = {suffix_of(name): text for name, text in (units or {}).items()}
    if unused := sorted(set(given) - set(files)):
        raise ValueError(f"units must be for maps that exist, {tuple(files)}, got some for {unused}")
    chosen = _chosen(files, maps)
    values: dict[str, Tensor] = {}
    record: dict[str, Any] = {}
    first: Any = None
    for name, kind in chosen.items():
        grid = grid_of(files[kind], _shown(files[kind], kind))
        first = first or grid
        if grid.shape != first.shape or np.abs(grid.affine - first.affine).max() > 1e-3:
            raise ValueError(
                f"maps must lie on one grid, but {_shown(files[kind], kind)} differs from the others; resample it first"
            )
        values[name], record[name] = _read(files[kind], kind, given.get(kind))
    if limit:
        physical = {name: m for name, m in values.items() if name not in ("b1", "b0")}
        limited, changed = limit_maps(physical)
        values.update(limited)
        record["limited"] = changed
    meta = {
        "filename_or_obj": str(files[next(iter(chosen.values()))]),
        "spatial_shape": np.asarray(first.shape, dtype=np.int64),
        "space": SpaceKeys.RAS,
        "mr_maps": record,
    }
    affine = torch.as_tensor(first.affine, dtype=torch.float64)
    result: Tensor = MetaTensor(torch.stack(list(values.values())), affine=affine, meta=meta)
    return result


def _shown(path: HiddenPath, suffix: str) -> str:
    """Name of a file in errors, with its kind if a hash replaces the name."""
    return f"{path.shown} ({suffix})" if has_alias(path.shown) else path.shown


def _files(source: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]) -> dict[str, HiddenPath]:
    """Files by kind; those that the caller has named are called that in errors."""
    if isinstance(source, Mapping):
        files: dict[str, HiddenPath] = {}
        for name, path in source.items():
            if (kind := suffix_of(name)) in files:
                raise ValueError(f"each map must be given once, got {kind} twice")
            files[kind] = path if isinstance(path, HiddenPath) else HiddenPath(os.fspath(path), os.fspath(path))
        return files
    result, names = find_maps(source), MapNames(Path(source))
    if len(result) > 1:
        raise ValueError(
            f"a folder of one subject and session is needed, got {tuple(map(names.case, result))}; give load_maps one "
            "entry of find_maps"
        )
    return {kind: names.file(path) for kind, path in next(iter(result.values())).items()}


def _chosen(files: Mapping[str, HiddenPath], maps: Sequence[str] | None) -> dict[str, str]:
    """Suffix to read for each channel; a time is preferred to a rate."""
    kinds: dict[str, str] = {}
    for kind in KINDS:  # times come before rates
        if kind in files:
            kinds.setdefault(KINDS[kind].name, kind)
    if maps is None:
        maps = [name for name in NAMES if name in kinds]
    if isinstance(maps, str) or (unknown := sorted(set(maps) - set(NAMES))):
        raise ValueError(f"maps must be a list of {NAMES}, got {maps if isinstance(maps, str) else unknown!r}")
    if not maps or (missing := [name for name in maps if name not in kinds]):
        lacking = missing if maps else "no map at all"
        raise ValueError(f"the maps {tuple(maps)} are wanted, but {lacking} cannot be had from {tuple(files)}")
    return {name: kinds[name] for name in maps}


def _recorded(path: HiddenPath) -> str:
    """Name of a file in a record, also of one that the caller has named."""
    return path.shown if path.shown != str(path) else MapNames(Path(path).parent).file(path).shown


def _read(path: HiddenPath, suffix: str, unit: str | None) -> tuple[Tensor, dict[str, Any]]:
    kind, file = KINDS[suffix], _shown(path, suffix)
    values = torch.from_numpy(values_of(path, file))
    origin = "given"
    if unit is None:
        unit, origin = stated_unit(Path(path), suffix, file), "sidecar"
    text = " ".join(unit.lower().split())
    if suffix == "PDmap":
        stated = _without_free_text(unit) if origin == "sidecar" else unit
        return values, {"file": _recorded(path), "suffix": suffix, "units": stated or "arbitrary", "units_from": origin}
    if text in _UNSTATED:
        text, origin = (kind.default, "BIDS") if kind.default else (_by_median(file, suffix, values), "median")
    factor = kind.factor(text)
    if factor is None:
        got = repr(unit) if origin == "given" or path.shown == str(path) else _without_free_text(unit)
        raise ValueError(
            f"the unit of {file} must be one of {kind.usual_units} or a usual wording of them, got {got}; correct "
            f"Units in its sidecar or give units={{'{suffix}': ...}}"
        )
    values = values * factor
    if kind.inverse:
        usable = (values > 0) & (values < math.inf)
        values = torch.where(usable, 1 / torch.where(usable, values, 1.0), 0.0)
    _check_plausible(file, suffix, text, values, factor)
    done = f"times {factor:.6g}" + (", then inverted" if kind.inverse else "")
    record = {"file": _recorded(path), "suffix": suffix, "units": text, "units_from": origin, "converted": done}
    return values, record


def _without_free_text(unit: str) -> str:
    """The unit of a sidecar in records and messages; a text that is none might name somebody."""
    known = any(kind.factor(unit) is not None for kind in KINDS.values()) or unit.strip().lower() in _UNSTATED
    return unit if known else plain_or(unit, "a text that is no unit")


def _median(values: Tensor, keep: Callable[[Tensor], Tensor]) -> float:
    flat = values.flatten()
    flat = flat[keep(flat) & flat.isfinite()]
    return float(flat[:: max(flat.numel() // _SAMPLE, 1)].median()) if flat.numel() else math.nan


def _by_median(file: str, suffix: str, values: Tensor) -> str:
    """Scale of values, per cent or fraction, by the median of positive values; an ambiguous median is refused.

    Noise in air, where that is not masked, brings the median of a map in p.u. into the range of fractions. The tissue
    in it stays above what any fraction reaches, so the upper end has to agree.
    """
    median = _median(values, lambda v: v > 0)
    percent, fraction, largest = _READINGS[suffix]
    above = _share(values, largest, math.inf)
    if percent[0] <= median <= percent[1]:
        return "p.u."
    as_fraction = fraction[0] <= median <= fraction[1]
    if as_fraction and above <= _TINY:
        return "fraction"
    seen = (
        f"as of a fraction, but {above:.2%} of them are above {largest:g}, as in p.u.; noise in air that is not "
        "masked has such a median"
        if as_fraction
        else f"neither p.u. ({percent[0]:g} to {percent[1]:g}) nor a fraction ({fraction[0]:g} to {fraction[1]:g})"
    )
    raise ValueError(
        f"the unit of {file} is ambiguous: no Units in its sidecar, and the median of its positive values is "
        f"{median:.4g}, {seen}; write Units into the sidecar or give units={{'{suffix}': 'p.u.'}} or 'fraction'"
    )


def _share(values: Tensor, low: float, high: float) -> float:
    """Share of the positive finite values that lie between two limits."""
    flat = values[(values > 0) & values.isfinite()]
    return float(((flat > low) & (flat < high)).float().mean()) if flat.numel() else 0.0


def _check_plausible(file: str, suffix: str, unit: str, values: Tensor, factor: float) -> None:
    kind = KINDS[suffix]
    median = _median(values, lambda v: v > 0)
    low, high = kind.plausible
    if not math.isfinite(low) or math.isnan(median) or low <= median <= high:
        return
    # noise in air may bring the median down, if only this unit explains the values of a head
    in_air = suffix in _READINGS and median < low and _share(values, factor * _READINGS[suffix][2], high) >= _HEAD
    if not in_air or factor == 1:
        raise ValueError(
            f"{file} read in {unit!r} gives a median {kind.name} of {median:.4g}, outside {low:g} to {high:g}; correct "
            f"Units in its sidecar or give units={{'{suffix}': ...}}"
        )
    logger.warning(
        "%s read in %r gives a median %s of %.4g, outside %g to %g, as noise in air does: mask the air, or look "
        "whether the unit is right", file, unit, kind.name, median, low, high,
    )  # fmt: skip


def load_fractions(files: Mapping[str, str | os.PathLike[str]], tissues: Sequence[str], like: Any) -> Tensor:
    """Read tissue fractions on the grid of maps.

    Args:
        files: Files by tissue.
        tissues: Which of them, in the order of the channels.
        like: Maps (M, X, Y, Z) with an affine, on whose grid the fractions must lie.

    Returns:
        Fractions (T, X, Y, Z), float32, between 0 and 1; 0 where a file holds no number.

    Raises:
        ValueError: If a tissue is missing, or a file is unreadable, on another grid or holds no fractions.
    """
    if missing := [tissue for tissue in tissues if tissue not in files]:
        raise ValueError(f"fractions of {tuple(tissues)} are wanted, {missing} missing; available are {tuple(files)}")
    return torch.stack([_fraction(files[tissue], like) for tissue in tissues])


def _fraction(path: str | os.PathLike[str], like: Any) -> Tensor:
    file = shown(path)
    grid = grid_of(path, file)
    shape = tuple(like.shape[1:])
    if grid.shape != shape:
        raise ValueError(
            f"fractions must lie on the grid of the maps, but {file} has the shape {grid.shape} and the maps "
            f"{shape}; resample it to the maps"
        )
    if (apart := float(np.abs(grid.affine - np.asarray(like.affine)).max())) > _ROUNDING:
        raise ValueError(
            f"fractions must lie on the grid of the maps, but the affine of {file} differs by up to "
            f"{apart:.4g} mm; resample it to the maps"
        )
    values = torch.from_numpy(values_of(path, file)).nan_to_num(nan=0.0)
    low, high = (float(value) for value in values.aminmax())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"fractions must be between 0 and 1, got {low:.4g} to {high:.4g} in {file}; divide percent by 100"
        )
    return values.clamp(0, 1)
