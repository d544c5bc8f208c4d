r"""Dependence of relaxation on the field strength.

$T_1 = a\,(\gamma B_0)^b$ with $\gamma B_0$ in Hz; $R_2$ and $R_2^*$ are linear in $B_0$ between 1.5 and 7 T. A map is
moved to another field by the ratio of the laws, so it keeps what distinguishes its voxels. Proton density does not
change; magnetisation transfer saturation belongs to the pulse and is not rescaled.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from monai_cl._words import suggestion

GYROMAGNETIC_RATIO = 42.577e6  # Hz / T

# Rooney et al., MRM 57 (2007) 308; unverified, the factor of grey matter solved from T1 at 3 T.
_T1_LAW: Mapping[str, tuple[float, float]] = {
    "white_matter": (0.00071, 0.382),
    "grey_matter": (0.00139, 0.376),
    "arterial_blood": (0.00335, 0.340),
    "csf": (4.3, 0.0),
}
# 1/s and 1/(s T): least squares through T2 of PubMed 20593370.
_R2_LAW: Mapping[str, tuple[float, float]] = {
    "white_matter": (9.7, 1.6),
    "grey_matter": (8.3, 1.8),
    "occipital_grey_matter": (9.8, 1.7),
    "csf": (0.5, 0.0),
}
# 1/s and 1/(s T): least squares through the table of tissues; unverified.
_R2_STAR_LAW: Mapping[str, tuple[float, float]] = {
    "white_matter": (8.0, 4.1),
    "grey_matter": (6.0, 3.4),
    "csf": (1.0, 0.0),
}


LOWEST, HIGHEST = 1.5, 7.0  # tesla, between which all laws hold
MOVABLE = tuple(name for name in _T1_LAW if name in _R2_LAW and name in _R2_STAR_LAW)  # by change_field


def t1_at(tissue: str, field_strength: float) -> float:
    r"""Longitudinal relaxation time by $T_1 = a\,(\gamma B_0)^b$.

    Args:
        tissue: ``white_matter``, ``grey_matter``, ``arterial_blood`` or ``csf``.
        field_strength: Field in tesla, 0.2 to 7.

    Returns:
        Seconds.

    Raises:
        ValueError: If no law covers the tissue, or the field is outside.

    Source:
        Rooney et al., MRM 57 (2007) 308 (coefficients unverified).

    Example:
        >>> round(t1_at("white_matter", 3.0), 2)
        0.89
    """
    factor, exponent = _law(_T1_LAW, tissue)
    _check_field(field_strength, 0.2)
    return factor * math.pow(GYROMAGNETIC_RATIO * field_strength, exponent)


def r2_at(tissue: str, field_strength: float) -> float:
    r"""Transverse relaxation rate, linear in the field.

    Args:
        tissue: ``white_matter``, ``grey_matter`` (frontal), ``occipital_grey_matter`` or ``csf``.
        field_strength: Field in tesla, 1.5 to 7.

    Returns:
        Rate in 1/s.

    Raises:
        ValueError: If no law covers the tissue, or the field is outside.

    Source:
        Least squares through T2 at 1.5, 3 and 7 T, PubMed 20593370.
    """
    return _linear(_R2_LAW, tissue, field_strength)


def r2_star_at(tissue: str, field_strength: float) -> float:
    r"""Effective transverse relaxation rate, linear in the field.

    Args:
        tissue: ``white_matter``, ``grey_matter`` or ``csf``.
        field_strength: Field in tesla, 1.5 to 7.

    Returns:
        Rate in 1/s.

    Raises:
        ValueError: If no law covers the tissue, or the field is outside.

    Source:
        Linear dependence: Li et al., MRM 62 (2009) 1652; coefficients by least squares through the table of tissues.
    """
    return _linear(_R2_STAR_LAW, tissue, field_strength)


def change_field(
    t1: Tensor, t2: Tensor, t2_star: Tensor, *, tissue: str, measured_at: float, wanted_at: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Relaxation times of one tissue class at another field strength: each map times the ratio of its law.

    T2 stays at most T1 and T2* at most T2, which the ratios alone would not promise on the way to a lower field.

    Args:
        t1: Longitudinal relaxation time in seconds.
        t2: Transverse relaxation time in seconds.
        t2_star: Effective transverse relaxation time in seconds.
        tissue: ``white_matter``, ``grey_matter`` or ``csf``.
        measured_at: Field of the maps in tesla, 1.5 to 7.
        wanted_at: Wanted field in tesla, 1.5 to 7.

    Returns:
        The three maps at the wanted field.

    Raises:
        ValueError: If no law covers the tissue, or a field is outside.
    """
    t1 = t1 * (t1_at(tissue, wanted_at) / t1_at(tissue, measured_at))
    t2 = t2 * (r2_at(tissue, measured_at) / r2_at(tissue, wanted_at))
    t2_star = t2_star * (r2_star_at(tissue, measured_at) / r2_star_at(tissue, wanted_at))
    t2 = torch.where(t1 > 0, torch.minimum(t2, t1), t2)
    return t1, t2, torch.minimum(t2_star, t2)


def _linear(law: Mapping[str, tuple[float, float]], tissue: str, field_strength: float) -> float:
    constant, slope = _law(law, tissue)
    _check_field(field_strength, LOWEST)
    return constant + slope * field_strength


def _law(laws: Mapping[str, tuple[float, float]], tissue: str) -> tuple[float, float]:
    if tissue not in laws:
        hint = suggestion(tissue, laws, form="; did you mean {!r}?")
        raise ValueError(f"tissue must be one of {tuple(laws)}, got {tissue!r}{hint}")
    return laws[tissue]


def _check_field(field_strength: float, lowest: float) -> None:
    if not lowest <= field_strength <= HIGHEST:
        raise ValueError(
            f"field_strength must be {lowest:g} to {HIGHEST:g} tesla, where the law was fitted, got {field_strength!r}"
        )
