"""Preparation of images that weights expect: orientation, voxel size, range and scaling of intensities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cl import recipes

_SCALINGS = {
    "ScaleIntensityRange": "window",
    "ScaleIntensityRangePercentiles": "percentiles",
    "NormalizeIntensity": "z-score",
    "ScaleIntensity": "min-max",
}
_AXES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
_TOLERANCE = 0.1  # of an edge of a voxel


@dataclass(frozen=True)
class Preparation:
    """Preparation of images that a network was pretrained with; ``None`` for unstated parts.

    Attributes:
        axcodes: Orientation of the axes, such as ``"RAS"``.
        spacing: Voxel size in mm along right-left, front-back, head-foot; 0 keeps that of the scanner.
        scaling: ``"window"`` (a fixed range of values to another), ``"percentiles"``, ``"min-max"`` or ``"z-score"``.
        window: Values of the image, such as Hounsfield units, that become
        range: these.
    """

    axcodes: str | None = None
    spacing: tuple[float, float, float] | None = None
    scaling: str | None = None
    window: tuple[float, float] | None = None
    range: tuple[float, float] | None = None

    def __str__(self) -> str:
        size = "" if self.spacing is None else " x ".join(f"{edge:g}" if edge else "scanner's" for edge in self.spacing)
        parts = [self.axcodes or "", f"{size} mm" if size else "", self.scaling or ""]
        if self.window is not None:
            parts[-1] = f"{self.window[0]:g}..{self.window[1]:g}"
        if self.range is not None:
            parts[-1] += f"{' to ' if parts[-1] else ''}{self.range[0]:g}..{self.range[1]:g}"
        return ", ".join(filter(None, parts)) or "not stated"


def preparation_of(recipe: str | Path, options: Mapping[str, Any] | None = None) -> Preparation:
    """Preparation that a recipe carries out, read off its transforms.

    Example:
        >>> print(preparation_of("ct_abdomen"))
        RAS, 1.5 x 1.5 x 1.5 mm, -175..250 to 0..1
    """
    result: dict[str, Any] = {"spacing": (0.0, 0.0, 0.0)}  # that of the scanner
    axcodes = None
    for step in recipes.load(recipe, **dict(options or {})).transforms:
        kind = type(step).__name__.removeprefix("Keyed").removesuffix("d").removesuffix("Dict").removesuffix("D")
        if kind == "Orientation":
            axcodes = result["axcodes"] = str(step.ornt_transform.axcodes)
        elif kind == "Spacing":
            result["spacing"] = _by_world(step.spacing_transform.pixdim, axcodes)
        elif kind == "ShortAxisOrientation":
            result["axcodes"] = None
        elif kind in _SCALINGS:
            result.update(_scaling(kind, step))
    return Preparation(**result)


def differences(expected: Preparation, used: Preparation) -> tuple[str, ...]:
    """Differences between the preparation that weights expect and the one in use, where both are stated."""
    differences = []
    if expected.axcodes and used.axcodes and expected.axcodes != used.axcodes:
        differences.append(f"orientation {used.axcodes}, pretrained with {expected.axcodes}")
    if expected.spacing and used.spacing and not _alike(expected.spacing, used.spacing):
        differences.append(f"voxels of {_size(used.spacing)}, pretrained at {_size(expected.spacing)}")
    comparable = expected.scaling or expected.range  # of made images the range alone is known
    alike = _intensities(expected) == _intensities(used) if expected.scaling else expected.range == used.range
    if comparable and used.scaling and not alike:
        differences.append(f"intensities by {_intensities(used)}, pretrained with {_intensities(expected)}")
    return tuple(differences)


def _scaling(kind: str, step: Any) -> dict[str, Any]:
    inner: Any = getattr(step, "scaler", None)
    result: dict[str, Any] = {"scaling": _SCALINGS[kind], "window": None, "range": None}
    if kind == "ScaleIntensityRange":
        result.update(window=(float(inner.a_min), float(inner.a_max)), range=(inner.b_min, inner.b_max))
    elif kind == "ScaleIntensityRangePercentiles":
        result.update(range=(inner.b_min, inner.b_max))
    elif kind == "ScaleIntensity":
        result.update(range=(inner.minv, inner.maxv))
    return result


def _by_world(spacing: Any, axcodes: str | None) -> tuple[float, float, float]:
    """Edges along right-left, front-back, head-foot, of those along the axes of the image."""
    edges = [float(edge) for edge in spacing][:3]
    edges += edges[-1:] * (3 - len(edges))
    order = [_AXES[code] for code in axcodes or "RAS"]
    placed = [edges[order.index(axis)] if axis in order else 0.0 for axis in range(3)]
    return placed[0], placed[1], placed[2]


def _alike(expected: Sequence[float], used: Sequence[float]) -> bool:
    return all(not e or abs(u - e) <= _TOLERANCE * e for e, u in zip(expected, used, strict=True))


def _size(spacing: Sequence[float]) -> str:
    if not any(spacing):
        return "the scanner"
    return " x ".join(f"{edge:g}" if edge else "scanner's" for edge in spacing) + " mm"


def _intensities(one: Preparation) -> str:
    return str(Preparation(scaling=one.scaling, window=one.window, range=one.range))
