"""Kinds of quantitative maps: their names in BIDS, in the hMRI toolbox and here, and their units."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monai_cl.io.suffixes import stem

NAMES = ("pd", "t1", "t2", "t2_star", "mtsat", "b1", "b0")
FRACTION = (5e-4, 0.05)  # medians of MT saturation one can believe

_SECOND = ("s", "sec", "secs", "second", "seconds")
_MILLISECOND = ("ms", "msec", "msecs", "millisecond", "milliseconds")
_PER = ("1/{}", "/{}", "{}-1", "{}^-1", "{}^(-1)", "{}^{{-1}}", "{}**-1", "per{}")
_SECONDS = dict.fromkeys(_SECOND, 1.0) | dict.fromkeys(_MILLISECOND, 1e-3)
_RATES = dict.fromkeys((form.format(unit) for unit in _SECOND for form in _PER), 1.0)
_RATES |= dict.fromkeys((form.format(unit) for unit in _MILLISECOND for form in _PER), 1000.0)
_RATES |= {"hz": 1.0, "hertz": 1.0, "khz": 1000.0, "kilohertz": 1000.0}
_SHARES = dict.fromkeys(("p.u.", "pu", "p.u", "%", "percent", "percentage", "p.u.nominalfa"), 0.01)
_SHARES |= dict.fromkeys(("fraction", "1", "ratio", "relative", "unitless", "dimensionless"), 1.0)
_FREQUENCIES = {"hz": 1.0, "hertz": 1.0, "khz": 1e3, "rad/s": 1 / (2 * math.pi)}


@dataclass(frozen=True)
class Kind:
    """Content of files of one suffix: its name here, its units with their factors, the medians one can believe."""

    name: str
    units: Mapping[str, float]  # wordings in small letters and without spaces
    default: str | None  # unit where none is stated; None where it has to be read off the values
    plausible: tuple[float, float]
    inverse: bool = False

    def factor(self, unit: str) -> float | None:
        """Factor for values in a unit; None where the unit is unknown."""
        return self.units.get("".join(unit.lower().replace("⁻¹", "-1").split()))

    @property
    def usual_units(self) -> tuple[str, ...]:
        """Usual spelling of each unit."""
        first: dict[float, str] = {}
        for wording, factor in self.units.items():
            first.setdefault(factor, wording)
        return tuple(first.values())


_T1, _T2, _T2_STAR = (0.05, 15.0), (2e-3, 5.0), (5e-4, 5.0)
_ANY = (0.0, math.inf)
KINDS = {
    "T1map": Kind("t1", _SECONDS, "s", _T1),
    "R1map": Kind("t1", _RATES, "1/s", _T1, inverse=True),
    "T2map": Kind("t2", _SECONDS, "s", _T2),
    "R2map": Kind("t2", _RATES, "1/s", _T2, inverse=True),
    "T2starmap": Kind("t2_star", _SECONDS, "s", _T2_STAR),
    "R2starmap": Kind("t2_star", _RATES, "1/s", _T2_STAR, inverse=True),
    "PDmap": Kind("pd", {}, "arbitrary", _ANY),
    "MTsat": Kind("mtsat", _SHARES, None, FRACTION),
    "TB1map": Kind("b1", _SHARES, None, (0.2, 2.0)),
    "fieldmap": Kind("b0", _FREQUENCIES, "hz", (-math.inf, math.inf)),
}
# Names of the hMRI toolbox, by what its files end on (perhaps with a fit after it, as in R2s_OLS).
_HMRI = {"R1": "R1map", "R2s": "R2starmap", "R2star": "R2starmap", "PD": "PDmap", "MTsat": "MTsat", "MT": "MTsat"}
_ALIASES = {"t1": "T1map", "t2": "T2map", "t2_star": "T2starmap", "pd": "PDmap", "mtsat": "MTsat", "b1": "TB1map"}
_ALIASES |= {"b0": "fieldmap", "T1": "T1map", "T2": "T2map", "R2": "R2map", "T2star": "T2starmap", **_HMRI}
_HMRI_FILE = re.compile(r"_(R1|R2s|PD|MTsat|MT)(_(OLS|WLS1|WLS3|robust))?$")


def named(path: Path) -> tuple[str, str | None]:
    """Subject and suffix by a file name; no suffix if it is not a map."""
    name = stem(path)
    if match := _HMRI_FILE.search(name):  # also MTsat of BIDS
        subject, suffix = name[: match.start()], _HMRI[match.group(1)]
    else:
        subject, _, suffix = name.rpartition("_")
    return case_of(subject) or subject or path.parent.name, suffix if suffix in KINDS else None


def case_of(name: str) -> str:
    """Subject and session of a name of BIDS, ``sub-01_ses-2``; an empty text where it has neither."""
    return "_".join(part for part in name.split("_") if part.startswith(("sub-", "ses-")))


def suffix_of(name: str) -> str:
    """BIDS suffix of a kind of map under any of its names.

    Raises:
        ValueError: If the name is unknown, or that of the magnetisation transfer ratio.
    """
    if name == "MTRmap":
        raise ValueError("MTRmap is the magnetisation transfer ratio, which is not the saturation MTsat")
    suffix = _ALIASES.get(name, name)
    if suffix not in KINDS:
        raise ValueError(f"maps must be named {tuple(KINDS)} or {tuple(_ALIASES)}, got {name!r}")
    return suffix
