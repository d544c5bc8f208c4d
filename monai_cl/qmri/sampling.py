"""The named families with ranges around clinical practice at 1.5 to 3 T, and drawing from them by name.

Timings follow from one another, so that every draw can be played out: MPRAGE draws the train, then TI around it, then
TR around both; FLAIR, STIR and DIR take the exact null for the drawn train and detune it by some per cent.

>>> import numpy as np
>>> protocol = draw_protocol("flair", np.random.RandomState(0))
>>> protocol.sequence, 2.0 < protocol.ti < 3.0
('inversion_recovery', True)
"""

from collections.abc import Mapping

from monai_cl._words import suggestion
from monai_cl.qmri.families import (
    BalancedSsfpFamily,
    DoubleInversionRecoveryFamily,
    Family,
    FastSpinEchoFamily,
    InversionRecoveryFamily,
    Mp2rageFamily,
    MprageFamily,
    SpinEchoFamily,
    SpoiledGradientEchoFamily,
    SusceptibilityWeightedFamily,
)
from monai_cl.qmri.protocols import Protocol
from monai_cl.qmri.ranges import LogUniform, RandomSource, Uniform, WholeNumbers

_REFOCUSING = Uniform(120, 180)  # degrees
_INVERSION_SPACING = Uniform(0.007, 0.012)  # s
_INVERSION_EFFICIENCY = Uniform(0.92, 1.0)

_ALL = (
    MprageFamily(
        name="t1w_mprage",
        tr=Uniform(1.8, 2.6),
        ti=Uniform(0.7, 1.1),
        echo_spacing=Uniform(0.0055, 0.0085),
        te=Uniform(0.0018, 0.00425),
        flip_angle=Uniform(6, 12),
        num_pulses=WholeNumbers(120, 200),
        efficiency=Uniform(0.85, 1.0),
    ),
    Mp2rageFamily(
        name="t1w_mp2rage",
        tr=Uniform(5.0, 8.0),
        ti1=Uniform(0.6, 1.0),
        ti2=Uniform(2.0, 3.0),
        echo_spacing=Uniform(0.005, 0.0075),
        te=Uniform(0.002, 0.0035),
        flip_angle1=Uniform(3, 7),
        flip_angle2=Uniform(3, 7),
        num_pulses=WholeNumbers(120, 176),
        efficiency=Uniform(0.85, 1.0),
    ),
    SpoiledGradientEchoFamily(
        name="t1w_spgr", tr=LogUniform(0.010, 0.035), te=Uniform(0.002, 0.008), flip_angle=Uniform(15, 35)
    ),
    SpoiledGradientEchoFamily(
        name="pdw_spgr", tr=Uniform(0.020, 0.040), te=Uniform(0.002, 0.008), flip_angle=Uniform(3, 7)
    ),
    SpoiledGradientEchoFamily(
        name="mtw_spgr", tr=Uniform(0.020, 0.040), te=Uniform(0.002, 0.008), flip_angle=Uniform(5, 10), mt_pulse=True
    ),
    SpoiledGradientEchoFamily(
        name="t2sw_gre", tr=LogUniform(0.3, 1.5), te=LogUniform(0.015, 0.045), flip_angle=Uniform(10, 30)
    ),
    SusceptibilityWeightedFamily(
        name="swi", tr=Uniform(0.025, 0.050), te=Uniform(0.015, 0.022), flip_angle=Uniform(10, 20)
    ),
    SpinEchoFamily(name="t1w_se", tr=Uniform(0.40, 0.75), te=Uniform(0.008, 0.020)),
    FastSpinEchoFamily(
        name="pdw_fse",
        tr=Uniform(2.5, 5.0),
        te=Uniform(0.008, 0.030),
        echo_spacing=Uniform(0.007, 0.013),
        train_length=WholeNumbers(4, 12),
        refocusing_angle=_REFOCUSING,
    ),
    FastSpinEchoFamily(
        name="t2w_fse",
        tr=Uniform(3.0, 8.0),
        te=Uniform(0.070, 0.130),
        echo_spacing=Uniform(0.007, 0.013),
        train_length=WholeNumbers(8, 24),
        refocusing_angle=_REFOCUSING,
    ),
    InversionRecoveryFamily(
        name="flair",
        nulled="csf",
        detuning=Uniform(0.93, 1.07),
        tr=Uniform(7.0, 11.0),
        te=Uniform(0.080, 0.140),
        echo_spacing=_INVERSION_SPACING,
        train_length=WholeNumbers(12, 32),
        refocusing_angle=_REFOCUSING,
        efficiency=_INVERSION_EFFICIENCY,
    ),
    InversionRecoveryFamily(
        name="stir",
        nulled="fat",
        detuning=Uniform(0.93, 1.07),
        tr=Uniform(3.0, 6.0),
        te=Uniform(0.030, 0.060),
        echo_spacing=_INVERSION_SPACING,
        train_length=WholeNumbers(8, 20),
        refocusing_angle=_REFOCUSING,
        efficiency=_INVERSION_EFFICIENCY,
    ),
    DoubleInversionRecoveryFamily(
        name="dir",
        nulled=("csf", "white_matter"),
        detuning=Uniform(0.95, 1.05),
        tr=Uniform(7.0, 11.0),
        te=Uniform(0.020, 0.100),
        echo_spacing=_INVERSION_SPACING,
        train_length=WholeNumbers(12, 32),
        refocusing_angle=_REFOCUSING,
        efficiency=_INVERSION_EFFICIENCY,
    ),
    BalancedSsfpFamily(name="bssfp", tr=Uniform(0.0035, 0.007), flip_angle=Uniform(30, 60)),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}


def family(name: str) -> Family:
    """Look up a family by name.

    Args:
        name: One of the keys of ``FAMILIES``.

    Returns:
        The family; ``dataclasses.replace`` makes one with other ranges.

    Raises:
        ValueError: If no such family exists.
    """
    if name not in FAMILIES:
        hint = suggestion(name, FAMILIES, form="; did you mean {!r}?")
        raise ValueError(f"family must be one of {tuple(FAMILIES)}, got {name!r}{hint}")
    return FAMILIES[name]


def draw_protocol(which: str | Family, random_state: RandomSource, *, field_strength: float = 3.0) -> Protocol:
    """Draw a protocol that can be played out.

    Args:
        which: Name of a family, or a family of your own.
        random_state: Source of randomness, e.g. ``self.R`` of a MONAI transform; equal states give equal protocols.
        field_strength: Field in tesla, 1.5 to 7; it sets the T1 that inversion times null.

    Returns:
        The protocol.

    Raises:
        ValueError: If no such family exists.
        ConstraintError: If the ranges of a family of your own leave no protocol that can be played out.
    """
    chosen = which if isinstance(which, Family) else family(which)
    return chosen.draw(random_state, field_strength=field_strength)
