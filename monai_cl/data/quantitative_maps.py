"""Quantitative MR maps from files: BIDS or hMRI names, units from the sidecar, one tensor in our units."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import SpaceKeys
from torch import Tensor

from monai_cl.data.intake.nifti import SUFFIXES, read_grid, stem
from monai_cl.qmri import limit_maps
from monai_cl.transforms._dicom import UnusableImageError

NAMES = ("pd", "t1", "t2", "t2_star", "mtsat", "b1", "b0")
_PERCENT = (0.1, 20.0)  # medians of MT saturation in p.u.: 0.9 in grey, 1.75 in white matter
_FRACTION = (5e-4, 0.05)
_UNSTATED = ("", "arbitrary", "a.u.", "au", "a.u", "none", "n/a", "unknown")
_SAMPLE = 1 << 18

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0}
_SECONDS |= {"ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3}
_RATES = dict.fromkeys(("1/s", "/s", "s-1", "s^-1", "s^(-1)", "hz", "1/sec", "sec-1"), 1.0)
_RATES |= dict.fromkeys(("1/ms", "/ms", "ms-1", "ms^-1", "ms^(-1)", "khz"), 1000.0)
_SHARES = dict.fromkeys(("p.u.", "pu", "p.u", "%", "percent", "percentage", "p.u. nominal fa"), 0.01)
_SHARES |= dict.fromkeys(("fraction", "1", "ratio", "relative", "unitless", "dimensionless"), 1.0)
_FREQUENCIES = {"hz": 1.0, "khz": 1e3, "rad/s": 1 / (2 * math.pi)}


@dataclass(frozen=True)
class _Kind:
    """What a file of one suffix holds: its name here, its units with their factors, the medians one can believe."""

    name: str
    units: Mapping[str, float]
    default: str | None  # unit where none is stated; None where it has to be read off the values
    plausible: tuple[float, float]
    inverse: bool = False


_T1, _T2, _T2_STAR = (0.05, 15.0), (2e-3, 5.0), (5e-4, 5.0)
_ANY = (0.0, math.inf)
_KINDS = {
    "T1map": _Kind("t1", _SECONDS, "s", _T1),
    "R1map": _Kind("t1", _RATES, "1/s", _T1, inverse=True),
    "T2map": _Kind("t2", _SECONDS, "s", _T2),
    "R2map": _Kind("t2", _RATES, "1/s", _T2, inverse=True),
    "T2starmap": _Kind("t2_star", _SECONDS, "s", _T2_STAR),
    "R2starmap": _Kind("t2_star", _RATES, "1/s", _T2_STAR, inverse=True),
    "PDmap": _Kind("pd", {}, "arbitrary", _ANY),
    "MTsat": _Kind("mtsat", _SHARES, None, _FRACTION),
    "TB1map": _Kind("b1", _SHARES, None, (0.2, 2.0)),
    "fieldmap": _Kind("b0", _FREQUENCIES, "hz", (-math.inf, math.inf)),
}
# Names of the hMRI toolbox, by what its files end on (perhaps with a fit after it, as in R2s_OLS).
_HMRI = {"R1": "R1map", "R2s": "R2starmap", "R2star": "R2starmap", "PD": "PDmap", "MTsat": "MTsat", "MT": "MTsat"}
_ALIASES = {"t1": "T1map", "t2": "T2map", "t2_star": "T2starmap", "pd": "PDmap", "mtsat": "MTsat", "b1": "TB1map"}
_ALIASES |= {"b0": "fieldmap", "T1": "T1map", "T2": "T2map", "R2": "R2map", "T2star": "T2starmap", **_HMRI}
_HMRI_FILE = re.compile(r"_(R1|R2s|PD|MTsat|MT)(_(OLS|WLS1|WLS3|robust))?$")


def find_maps(folder: str | os.PathLike[str]) -> dict[str, dict[str, Path]]:
    """Find the quantitative maps below a folder by their BIDS names, or by those of the hMRI toolbox.

    Args:
        folder: A BIDS dataset, a subject, or a folder of results of the hMRI toolbox.

    Returns:
        For each subject and session, named by what precedes the suffix (``sub-01_ses-2``), its files by BIDS suffix
        (``T1map``, ``R1map``, ``T2map``, ``R2map``, ``T2starmap``, ``R2starmap``, ``PDmap``, ``MTsat``, ``TB1map``,
        ``fieldmap``), sorted.

    Raises:
        ValueError: If there is none, or two files of a subject have one suffix.

    Source:
        Suffixes: BIDS specification, quantitative MRI appendix; hMRI toolbox, file names of its results.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"folder must be a folder with quantitative maps, got {os.fspath(folder)!r}")
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(p for suffix in SUFFIXES for p in root.rglob(f"*{suffix}") if p.is_file()):
        subject, kind = _named(path)
        if kind is None:
            continue
        files = found.setdefault(subject, {})
        if kind in files:
            raise ValueError(
                f"{subject} must have one {kind}, got {files[kind]} and {path}; give load_maps the file to use"
            )
        files[kind] = path
    if not found:
        raise ValueError(f"{root} must hold maps with BIDS suffixes {tuple(_KINDS)} or hMRI names, found none")
    return {subject: dict(sorted(found[subject].items())) for subject in sorted(found)}


def maps_by_name(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """The files of one subject by BIDS suffix, told by their names as :func:`find_maps` tells them.

    Raises:
        ValueError: If a name says nothing of a map, or two files hold one kind of map.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        kind = _named(path)[1]
        if kind is None:
            raise ValueError(f"{path.name} must end on a BIDS suffix of {tuple(_KINDS)} or an hMRI name, such as _R1")
        if kind in found:
            raise ValueError(f"one file is needed for each kind of map, got {found[kind].name} and {path.name}")
        found[kind] = path
    return found


def names_of_maps(paths: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Which of the channels of :func:`load_maps` the files of one subject give, in its order."""
    there = {_KINDS[kind].name for kind in maps_by_name(paths)}
    return tuple(name for name in NAMES if name in there)


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
    and in doubt the file is refused. Rates become times; a rate that is not positive becomes 0, a voxel without signal.

    Args:
        source: Folder of one subject, or files by BIDS suffix (``R1map``), hMRI name (``R1``, ``R2s``, ``PD``,
            ``MT``) or name here (``t1``).
        maps: Channels wanted, of ``pd``, ``t1``, ``t2``, ``t2_star``, ``mtsat``, ``b1``, ``b0``; all there are, in
            this order, when left out.
        units: Units by the same names as the files, where the sidecar has none or a wrong one.
        limit: Bring maps within what physics allows (:func:`monai_cl.qmri.limit_maps`) and record how many values
            changed.

    Returns:
        MetaTensor (M, X, Y, Z), float32: seconds, MT saturation as a fraction, transmit field relative to nominal,
        field offset in Hz, proton density as in the file. ``meta["mr_maps"]`` tells for each channel its file, its
        unit, where that comes from and what was done; under ``limited`` what limiting changed.

    Raises:
        ValueError: If a map is missing, twice there, unreadable or on another grid, a unit is unknown, ambiguous or
            contradicted by the values.
    """
    files = _files(source)
    given = {_suffix(name): text for name, text in (units or {}).items()}
    if unused := sorted(set(given) - set(files)):
        raise ValueError(f"units must be for maps that are there, {tuple(files)}, got some for {unused}")
    chosen = _chosen(files, maps)
    values: dict[str, Tensor] = {}
    record: dict[str, Any] = {}
    first: Any = None
    for name, kind in chosen.items():
        grid = _grid(files[kind])
        first = first or grid
        if grid.shape != first.shape or np.abs(grid.affine - first.affine).max() > 1e-3:
            raise ValueError(f"maps must lie on one grid, but {files[kind]} differs from the others; resample it first")
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


def _grid(path: Path) -> Any:
    try:
        return read_grid(path)
    except UnusableImageError as error:
        raise ValueError(f"cannot use {path}: {error}") from None


def _named(path: Path) -> tuple[str, str | None]:
    """Subject and suffix that a file name tells; no suffix where it is no map."""
    name = stem(path)
    if match := _HMRI_FILE.search(name):
        return name[: match.start()], _HMRI[match.group(1)]
    subject, _, suffix = name.rpartition("_")
    entities = [part for part in subject.split("_") if part.startswith(("sub-", "ses-"))]
    return "_".join(entities) or subject or path.parent.name, suffix if suffix in _KINDS else None


def _suffix(name: str) -> str:
    if name == "MTRmap":
        raise ValueError("MTRmap is the magnetisation transfer ratio, which is not the saturation MTsat")
    suffix = _ALIASES.get(name, name)
    if suffix not in _KINDS:
        raise ValueError(f"maps must be named {tuple(_KINDS)} or {tuple(_ALIASES)}, got {name!r}")
    return suffix


def _files(source: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]) -> dict[str, Path]:
    if isinstance(source, Mapping):
        files: dict[str, Path] = {}
        for name, path in source.items():
            if (kind := _suffix(name)) in files:
                raise ValueError(f"each map must be given once, got {kind} twice")
            files[kind] = Path(path)
        return files
    found = find_maps(source)
    if len(found) > 1:
        raise ValueError(
            f"a folder of one subject and session is needed, got {tuple(found)}; give load_maps one entry of find_maps"
        )
    return next(iter(found.values()))


def _chosen(files: Mapping[str, Path], maps: Sequence[str] | None) -> dict[str, str]:
    """Suffix to read for each channel; a time is preferred to a rate."""
    there: dict[str, str] = {}
    for kind in _KINDS:  # times come before rates
        if kind in files:
            there.setdefault(_KINDS[kind].name, kind)
    if maps is None:
        maps = [name for name in NAMES if name in there]
    if isinstance(maps, str) or (unknown := sorted(set(maps) - set(NAMES))):
        raise ValueError(f"maps must be a list of {NAMES}, got {maps if isinstance(maps, str) else unknown!r}")
    if not maps or (missing := [name for name in maps if name not in there]):
        lacking = missing if maps else "no map at all"
        raise ValueError(f"the maps {tuple(maps)} are wanted, but {lacking} cannot be had from {tuple(files)}")
    return {name: there[name] for name in maps}


def _read(path: Path, suffix: str, unit: str | None) -> tuple[Tensor, dict[str, Any]]:
    import nibabel

    kind = _KINDS[suffix]
    try:
        raw = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
    except Exception as error:  # nibabel and gzip raise many types
        raise ValueError(f"cannot read {path} ({type(error).__name__}); copy it again") from None
    values = torch.from_numpy(raw.reshape([size for n, size in enumerate(raw.shape) if n < 3]))
    origin = "given"
    if unit is None:
        unit, origin = _stated(path, suffix), "sidecar"
    text = " ".join(unit.lower().split())
    if suffix == "PDmap":
        return values, {"file": str(path), "suffix": suffix, "units": unit or "arbitrary", "units_from": origin}
    if text in _UNSTATED:
        text, origin = (kind.default, "BIDS") if kind.default else (_by_median(path, suffix, values), "median")
    factor = _factor(kind, text)
    if factor is None:
        raise ValueError(f"the unit of {path} must be one of {tuple(kind.units)}, got {unit!r}; give units={{...}}")
    values = values * factor
    if kind.inverse:
        usable = (values > 0) & (values < math.inf)
        values = torch.where(usable, 1 / torch.where(usable, values, 1.0), 0.0)
    _check_plausible(path, suffix, text, values)
    done = f"times {factor:.6g}" + (", then inverted" if kind.inverse else "")
    record = {"file": str(path), "suffix": suffix, "units": text, "units_from": origin, "converted": done}
    return values, record


def _factor(kind: _Kind, text: str) -> float | None:
    return kind.units.get(text.replace("⁻¹", "-1"))


def _stated(path: Path, suffix: str) -> str:
    """The unit a sidecar states; an empty text where none does."""
    for sidecar in _sidecars(path, suffix):
        try:
            content = json.loads(sidecar.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read the sidecar {sidecar} ({type(error).__name__}); repair it") from None
        for keys in (("Units",), ("history", "output", "units")):
            value: Any = content
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if isinstance(value, str):
                return value
    return ""


def _sidecars(path: Path, suffix: str) -> list[Path]:
    """The file's own sidecar, then those it inherits: of fewer entities, in its folder and above up to the dataset."""
    own = path.with_name(f"{stem(path)}.json")
    candidates = [own]
    entities = set(stem(path).split("_"))
    for folder in list(path.parents)[:4]:
        shared = [p for p in folder.glob(f"*{suffix}.json") if p != own and set(p.stem.split("_")) <= entities]
        candidates += sorted(shared, key=lambda p: -len(p.stem.split("_")))
        if (folder / "dataset_description.json").exists():
            break
    return [p for p in candidates if p.is_file()]


def _median(values: Tensor, keep: Callable[[Tensor], Tensor]) -> float:
    flat = values.flatten()
    flat = flat[keep(flat) & flat.isfinite()]
    return float(flat[:: max(flat.numel() // _SAMPLE, 1)].median()) if flat.numel() else math.nan


def _by_median(path: Path, suffix: str, values: Tensor) -> str:
    """Per cent or fraction, told by the median of positive values; refused where it could be either."""
    median = _median(values, lambda v: v > 0)
    percent, fraction = (_PERCENT, _FRACTION) if suffix == "MTsat" else ((20.0, 200.0), (0.2, 2.0))
    if percent[0] <= median <= percent[1]:
        return "p.u."
    if fraction[0] <= median <= fraction[1]:
        return "fraction"
    raise ValueError(
        f"the unit of {path} is ambiguous: no Units in its sidecar, and the median of its positive values is "
        f"{median:.4g}, neither p.u. ({percent[0]:g} to {percent[1]:g}) nor a fraction ({fraction[0]:g} to "
        f"{fraction[1]:g}); give units={{'{suffix}': 'p.u.'}} or 'fraction'"
    )


def _check_plausible(path: Path, suffix: str, unit: str, values: Tensor) -> None:
    kind = _KINDS[suffix]
    median = _median(values, lambda v: v > 0)
    low, high = kind.plausible
    if math.isfinite(low) and not math.isnan(median) and not low <= median <= high:
        raise ValueError(
            f"{path} read in {unit!r} gives a median {kind.name} of {median:.4g}, outside {low:g} to {high:g}; correct "
            f"Units in its sidecar or give units={{'{suffix}': ...}}"
        )
