"""Proton density, relaxation times and magnetisation transfer of tissues at 1.5, 3 and 7 T.

No value here is *the* value: published T1 of white matter at 3 T spans 0.6 to 1.1 s, most of it explained by
magnetisation transfer (arXiv 2409.05318). Tables hold the middle of what is published and a spread; draw from them.
``uncertain`` marks what was not checked against its source, or is an estimate of ours.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from monai_cl._words import suggestion
from monai_cl.qmri.fields import HIGHEST, LOWEST, MOVABLE
from monai_cl.qmri.ranges import RandomSource

_WIDEST = 2.5  # standard deviations; draws beyond are pulled in

_GESSE = "gradient echo sampling of a spin echo at 1.5, 3 and 7 T, PubMed 20593370"
_AJNR = "table in AJNR: T1 864 ms, R2* 20.1 / s"
_CORTEX = "PMC3442114: T2* 32.2 ms over the cortex at 7 T"
_STANISZ = "Stanisz et al., MRM 54 (2005) 507"
_PETERS = "Peters et al., Magn. Reson. Imaging 25 (2007) 748"
_ROONEY = "Rooney et al., MRM 57 (2007) 308"
_MIDDLE = "middle of the published range"
_ESTIMATE = "estimate"
_HELMS = "Helms et al., MRM 60 (2008) 1396, for its pulse"


@dataclass(frozen=True)
class Quantity:
    """A tissue property.

    Attributes:
        value: Middle of the published values; p.u. for proton density, seconds for times, a fraction for MTsat.
        spread: Standard deviation of the logarithm between subjects and studies.
        source: Where it comes from.
        uncertain: Whether it still has to be checked against the source.
    """

    value: float
    spread: float
    source: str
    uncertain: bool = False

    def draw(self, random_state: RandomSource) -> float:
        """Draw a value, log-normal within 2.5 standard deviations."""
        steps = min(max(float(random_state.standard_normal()), -_WIDEST), _WIDEST)
        return self.value * math.exp(self.spread * steps)


@dataclass(frozen=True)
class TissueValues:
    """Properties of one tissue in one subject, as the signal equations take them.

    Attributes:
        pd: Proton density in p.u. (water is 100).
        t1: Longitudinal relaxation time in seconds.
        t2: Transverse relaxation time in seconds, at most ``t1``.
        t2_star: Effective transverse relaxation time in seconds, at most ``t2``.
        mtsat: Magnetisation transfer saturation as a fraction.
    """

    pd: float
    t1: float
    t2: float
    t2_star: float
    mtsat: float


@dataclass(frozen=True)
class Tissue:
    """Properties of a tissue at a field strength, with spreads and sources.

    Attributes:
        name: Name of the tissue.
        field_strength: Field in tesla.
        pd: Proton density, p.u.
        t1: Longitudinal relaxation time, seconds.
        t2: Transverse relaxation time, seconds.
        t2_star: Effective transverse relaxation time, seconds.
        mtsat: Magnetisation transfer saturation, fraction; it belongs to the pulse as much as to the tissue.
    """

    name: str
    field_strength: float
    pd: Quantity
    t1: Quantity
    t2: Quantity
    t2_star: Quantity
    mtsat: Quantity

    def typical(self) -> TissueValues:
        """The middle values."""
        return TissueValues(self.pd.value, self.t1.value, self.t2.value, self.t2_star.value, self.mtsat.value)

    def draw(self, random_state: RandomSource) -> TissueValues:
        """Draw one subject's values; T2* <= T2 <= T1 and a proton density of at most 100 always hold.

        Args:
            random_state: Source of randomness, e.g. ``self.R`` of a MONAI transform.

        Returns:
            The drawn values.
        """
        pd = min(self.pd.draw(random_state), 100.0)
        t1 = self.t1.draw(random_state)
        t2 = min(self.t2.draw(random_state), t1)
        t2_star = min(self.t2_star.draw(random_state), t2)
        return TissueValues(pd, t1, t2, t2_star, self.mtsat.draw(random_state))


def tissue(name: str, field_strength: float = 3.0) -> Tissue:
    """Look up a tissue.

    Args:
        name: ``white_matter``, ``grey_matter``, ``csf``, ``arterial_blood``, ``fat``, ``muscle`` or
            ``white_matter_lesion`` (a demyelinated or ischaemic spot, as in multiple sclerosis or with age).
        field_strength: 1.5, 3 or 7 tesla.

    Returns:
        Its properties.

    Raises:
        ValueError: If the table has no such tissue, or not at this field.

    Example:
        >>> tissue("white_matter").t1.value
        0.86
    """
    if name not in NAMES:
        hint = suggestion(name, NAMES, form="; did you mean {!r}?")
        raise ValueError(f"tissue must be one of {NAMES}, got {name!r}{hint}")
    if (name, field_strength) not in TISSUES:
        known = tuple(field for tissue_name, field in TISSUES if tissue_name == name)
        follows_laws = name in MOVABLE and LOWEST <= field_strength <= HIGHEST
        hint = " and change it with monai_cl.qmri.change_field" if follows_laws else ""
        raise ValueError(
            f"field_strength must be one of {known} tesla, where {name} is tabulated, got {field_strength!r}; "
            f"take the nearest{hint}"
        )
    return TISSUES[name, field_strength]


def typical_t1(name: str, field_strength: float) -> float:
    """T1 of a tissue in seconds, interpolated between the tabulated fields over the logarithm of the field.

    Raises:
        ValueError: If the table has no such tissue, or the field is outside the tabulated ones.

    Example:
        >>> typical_t1("fat", 3.0)
        0.37
    """
    if (name, field_strength) in TISSUES or name not in NAMES:
        return tissue(name, field_strength).t1.value
    points = sorted((field, entry.t1.value) for (other, field), entry in TISSUES.items() if other == name)
    for (low, t1_low), (high, t1_high) in itertools.pairwise(points):
        if low < field_strength < high:
            share = math.log(field_strength / low) / math.log(high / low)
            return t1_low + share * (t1_high - t1_low)
    raise ValueError(
        f"field_strength must be {points[0][0]:g} to {points[-1][0]:g} tesla, between which T1 of {name} is tabulated, "
        f"got {field_strength!r}"
    )


def _q(value: float, spread: float, source: str) -> Quantity:
    return Quantity(float(value), spread, source)


def _u(value: float, spread: float, source: str) -> Quantity:
    return Quantity(float(value), spread, source, uncertain=True)


# Proton density does not depend on the field, and MTsat is not rescaled between fields.
_PD_WHITE, _PD_GREY, _PD_FLUID = _u(69, 0.03, _MIDDLE), _u(82, 0.03, _MIDDLE), _q(100, 0.01, "water, by definition")
_PD_BLOOD, _PD_FAT, _PD_MUSCLE = _u(85, 0.05, _MIDDLE), _u(95, 0.05, _MIDDLE), _u(78, 0.05, _MIDDLE)
_MT_WHITE, _MT_GREY, _MT_FLUID = _u(0.0175, 0.12, _HELMS), _u(0.0090, 0.12, _HELMS), _u(0.0005, 0.3, _HELMS)
_MT_NONE, _MT_MUSCLE = _u(1e-4, 0.3, _ESTIMATE), _u(0.02, 0.2, _ESTIMATE)
# Lesions of white matter vary from swelling to loss of all tissue: the estimates are of chronic ones, wide on purpose.
_PD_LESION, _MT_LESION = _u(82, 0.04, _ESTIMATE), _u(0.0095, 0.2, _ESTIMATE)

# tissue, field in T, proton density in p.u., then T1, T2, T2* in s (value, spread), MTsat as a fraction
_ENTRIES = (
    Tissue(
        "white_matter", 1.5, _PD_WHITE,
        _u(0.70, 0.12, f"{_ROONEY}: 0.68 s, {_STANISZ}: 0.88 s"), _q(0.080, 0.08, _GESSE), _u(0.066, 0.10, _PETERS),
        _MT_WHITE,
    ),
    Tissue(
        "white_matter", 3.0, _PD_WHITE,
        _q(0.86, 0.12, _AJNR), _q(0.070, 0.08, _GESSE), _q(0.050, 0.10, _AJNR), _MT_WHITE,
    ),
    Tissue(
        "white_matter", 7.0, _PD_WHITE,
        _u(1.22, 0.10, _ROONEY), _q(0.047, 0.08, _GESSE), _u(0.027, 0.12, _PETERS), _MT_WHITE,
    ),
    Tissue(
        "grey_matter", 1.5, _PD_GREY,
        _u(1.15, 0.12, f"{_STANISZ}: 1.12 s, {_ROONEY}: 1.20 s"), _q(0.087, 0.08, _GESSE),
        _u(0.078, 0.10, f"below T2; {_PETERS}: 0.084 s"), _MT_GREY,
    ),
    Tissue(
        "grey_matter", 3.0, _PD_GREY,
        _u(1.45, 0.12, f"{_MIDDLE}, 1.33 to 1.82 s"), _u(0.080, 0.10, f"{_GESSE}: 0.068 to 0.076 s; others to 0.110 s"),
        _u(0.062, 0.10, _PETERS), _MT_GREY,
    ),
    Tissue(
        "grey_matter", 7.0, _PD_GREY,
        _u(2.00, 0.10, f"{_MIDDLE}, 1.94 to 2.13 s"), _q(0.047, 0.08, _GESSE), _q(0.0322, 0.10, _CORTEX), _MT_GREY,
    ),
    Tissue(
        "csf", 1.5, _PD_FLUID,
        _u(4.3, 0.05, _ROONEY), _u(2.0, 0.12, _MIDDLE), _u(1.2, 0.2, _ESTIMATE), _MT_FLUID,
    ),
    Tissue(
        "csf", 3.0, _PD_FLUID,
        _u(4.3, 0.05, _ROONEY), _u(2.0, 0.12, _MIDDLE), _u(1.0, 0.2, _ESTIMATE), _MT_FLUID,
    ),
    Tissue(
        "csf", 7.0, _PD_FLUID,
        _u(4.4, 0.05, _ROONEY), _u(1.0, 0.12, _MIDDLE), _u(0.5, 0.3, _ESTIMATE), _MT_FLUID,
    ),
    Tissue(
        "arterial_blood", 1.5, _PD_BLOOD,
        _u(1.48, 0.06, f"{_STANISZ}: 1.44 s"), _u(0.290, 0.15, _STANISZ), _u(0.150, 0.2, _ESTIMATE), _MT_NONE,
    ),
    Tissue(
        "arterial_blood", 3.0, _PD_BLOOD,
        _u(1.80, 0.06, f"{_STANISZ}: 1.93 s; others 1.65 s"), _u(0.275, 0.15, _STANISZ), _u(0.080, 0.2, _ESTIMATE),
        _MT_NONE,
    ),
    Tissue(
        "arterial_blood", 7.0, _PD_BLOOD,
        _u(2.35, 0.08, _MIDDLE), _u(0.085, 0.15, _MIDDLE), _u(0.030, 0.2, _ESTIMATE), _MT_NONE,
    ),
    Tissue(
        "fat", 1.5, _PD_FAT,
        _u(0.29, 0.08, _MIDDLE), _u(0.100, 0.25, f"{_MIDDLE}, 0.060 to 0.165 s"), _u(0.050, 0.2, _ESTIMATE), _MT_NONE,
    ),
    Tissue(
        "fat", 3.0, _PD_FAT,
        _u(0.37, 0.08, _MIDDLE), _u(0.100, 0.2, f"{_MIDDLE}, 0.070 to 0.130 s"), _u(0.035, 0.2, _ESTIMATE), _MT_NONE,
    ),
    Tissue(
        "fat", 7.0, _PD_FAT,
        _u(0.40, 0.10, _MIDDLE), _u(0.050, 0.2, _MIDDLE), _u(0.015, 0.2, _ESTIMATE), _MT_NONE,
    ),
    Tissue(
        "muscle", 1.5, _PD_MUSCLE,
        _u(1.01, 0.06, _STANISZ), _u(0.044, 0.10, _STANISZ), _u(0.035, 0.2, _ESTIMATE), _MT_MUSCLE,
    ),
    Tissue(
        "muscle", 3.0, _PD_MUSCLE,
        _u(1.41, 0.06, _STANISZ), _u(0.050, 0.10, _STANISZ), _u(0.030, 0.2, _ESTIMATE), _MT_MUSCLE,
    ),
    Tissue(
        "white_matter_lesion", 1.5, _PD_LESION,
        _u(1.05, 0.12, _ESTIMATE), _u(0.135, 0.12, _ESTIMATE), _u(0.105, 0.15, _ESTIMATE), _MT_LESION,
    ),
    Tissue(
        "white_matter_lesion", 3.0, _PD_LESION,
        _u(1.30, 0.12, _ESTIMATE), _u(0.120, 0.12, _ESTIMATE), _u(0.080, 0.15, _ESTIMATE), _MT_LESION,
    ),
    Tissue(
        "white_matter_lesion", 7.0, _PD_LESION,
        _u(1.75, 0.12, _ESTIMATE), _u(0.080, 0.12, _ESTIMATE), _u(0.045, 0.15, _ESTIMATE), _MT_LESION,
    ),
)  # fmt: skip
TISSUES: Mapping[tuple[str, float], Tissue] = {(entry.name, entry.field_strength): entry for entry in _ENTRIES}
NAMES = tuple(dict.fromkeys(entry.name for entry in _ENTRIES))
