"""Kinds of families: ranges, drawn in an order in which every draw can be played out.

A family is a frozen dataclass of ranges, named and in units as in its class of :mod:`monai_cl.qmri.protocols`. A number
fixes a parameter, a pair draws it uniformly, and the classes of :mod:`monai_cl.qmri.ranges` draw otherwise. Later
parameters are drawn from what the earlier ones leave.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from monai_cl.qmri.constraints import ConstraintError
from monai_cl.qmri.nulls import double_inversion_null, inversion_null
from monai_cl.qmri.protocols import (
    BalancedSsfp,
    DoubleInversionRecovery,
    FastSpinEcho,
    InversionRecovery,
    Mp2rage,
    Mprage,
    Protocol,
    SpinEcho,
    SpoiledGradientEcho,
    SusceptibilityWeighted,
)
from monai_cl.qmri.ranges import RandomSource, Range, WholeNumbers, as_range
from monai_cl.qmri.tissues import typical_t1

ATTEMPTS = 100  # draws are conditional, so the first one fits unless somebody has changed the ranges
_GAP = 1e-3  # s; a scanner needs some time between the end of a readout and the next excitation


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """Ranges of one kind of protocol.

    Attributes:
        name: Name of the family; it is recorded in every protocol.
    """

    name: str

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.type, type) and issubclass(field.type, Range):
                value = as_range(value)
                if not isinstance(value, Range):
                    raise ValueError(f"{field.name} must be a number, a pair or a range, got {value!r}")
            object.__setattr__(self, field.name, value)

    def draw(self, random_state: RandomSource, *, field_strength: float = 3.0) -> Protocol:
        """Draw a protocol that can be played out.

        Args:
            random_state: Source of randomness, e.g. ``self.R`` of a MONAI transform; equal states give equal protocols.
            field_strength: Field in tesla, 1.5 to 7; it sets the T1 that inversion times null.

        Returns:
            The protocol.

        Raises:
            ConstraintError: If the ranges of the family leave (almost) no protocol that can be played out.
        """
        for _ in range(ATTEMPTS):
            try:
                return self._draw(random_state, field_strength)
            except ConstraintError as error:
                reason = error
        raise ConstraintError(
            f"none of {ATTEMPTS} draws of family {self.name!r} can be played out, the last because: {reason}; "
            "change its ranges"
        )

    @abstractmethod
    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        """Draw a protocol in one attempt."""


@dataclass(frozen=True, kw_only=True)
class SpoiledGradientEchoFamily(Family):
    """Spoiled gradient echoes."""

    tr: Range
    te: Range
    flip_angle: Range
    mt_pulse: bool = False

    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        tr = self.tr.draw(random_state)
        te = self.te.limited(high=0.95 * tr).draw(random_state)
        angle = self.flip_angle.draw(random_state)
        return SpoiledGradientEcho(family=self.name, tr=tr, te=te, flip_angle=angle, mt_pulse=self.mt_pulse)


@dataclass(frozen=True, kw_only=True)
class SusceptibilityWeightedFamily(Family):
    """Susceptibility weighting."""

    tr: Range
    te: Range
    flip_angle: Range

    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        tr = self.tr.draw(random_state)
        te = self.te.limited(high=0.95 * tr).draw(random_state)
        return SusceptibilityWeighted(family=self.name, tr=tr, te=te, flip_angle=self.flip_angle.draw(random_state))


@dataclass(frozen=True, kw_only=True)
class BalancedSsfpFamily(Family):
    """Balanced SSFP with the echo in the middle of the repetition."""

    tr: Range
    flip_angle: Range

    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        tr = self.tr.draw(random_state)
        return BalancedSsfp(family=self.name, tr=tr, te=tr / 2, flip_angle=self.flip_angle.draw(random_state))


@dataclass(frozen=True, kw_only=True)
class SpinEchoFamily(Family):
    """Spin echoes."""

    tr: Range
    te: Range

    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        tr = self.tr.draw(random_state)
        return SpinEcho(family=self.name, tr=tr, te=self.te.limited(high=0.95 * tr).draw(random_state))


@dataclass(frozen=True, kw_only=True)
class FastSpinEchoFamily(Family):
    """Fast spin echoes.

    Attributes:
        te: Effective echo time in seconds; the nearest multiple of the echo spacing within the range is taken.
        train_length: Number of echoes, at least as many as the effective echo.
    """

    tr: Range
    te: Range
    echo_spacing: Range
    train_length: Range
    refocusing_angle: Range

    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        train = self._train(random_state)
        tr = self.tr.limited(low=train.last_echo + _GAP).draw(random_state)
        return FastSpinEcho(family=self.name, tr=tr, **train.fields())

    def _train(self, random_state: RandomSource) -> "_Train":
        spacing = self.echo_spacing.draw(random_state)
        possible = WholeNumbers(
            max(math.ceil(self.te.low / spacing), 1), min(self.te.high / spacing, self.train_length.high)
        )
        wanted = round(self.te.draw(random_state) / spacing)
        echo = min(max(wanted, math.ceil(possible.low)), math.floor(possible.high))
        length = WholeNumbers(self.train_length.low, self.train_length.high).limited(low=echo).draw(random_state)
        return _Train(spacing, length, echo, self.refocusing_angle.draw(random_state))


@dataclass(frozen=True)
class _Train:
    echo_spacing: float
    train_length: int
    effective_echo: int
    refocusing_angle: float

    @property
    def last_echo(self) -> float:
        return self.train_length * self.echo_spacing

    def fields(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class InversionRecoveryFamily(FastSpinEchoFamily):
    """Inversion recovery that nulls a tissue.

    Attributes:
        nulled: Name of the tissue whose T1 at the field sets the inversion time.
        detuning: Factor on the exact null.
    """

    nulled: str
    detuning: Range
    efficiency: Range

    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        train = self._train(random_state)
        tr = self.tr.limited(low=train.last_echo + _GAP).draw(random_state)
        efficiency = self.efficiency.draw(random_state)
        t1 = typical_t1(self.nulled, field_strength)
        null = inversion_null(t1, tr=tr, last_echo=train.last_echo, efficiency=efficiency)
        ti = null * self.detuning.draw(random_state)
        return InversionRecovery(family=self.name, tr=tr, ti=ti, efficiency=efficiency, **train.fields())


@dataclass(frozen=True, kw_only=True)
class DoubleInversionRecoveryFamily(FastSpinEchoFamily):
    """Double inversion recovery that nulls two tissues.

    Attributes:
        nulled: Names of the tissues whose T1 at the field set the inversion times, the longer T1 first.
        detuning: Factor on each of the two exact times, drawn for each.
    """

    nulled: tuple[str, str]
    detuning: Range
    efficiency: Range

    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        train = self._train(random_state)
        tr = self.tr.limited(low=train.last_echo + _GAP).draw(random_state)
        efficiency = self.efficiency.draw(random_state)
        t1_long, t1_short = (typical_t1(name, field_strength) for name in self.nulled)
        ti1, ti2 = double_inversion_null(t1_long, t1_short, tr=tr, last_echo=train.last_echo, efficiency=efficiency)
        ti1, ti2 = (ti * self.detuning.draw(random_state) for ti in (ti1, ti2))
        return DoubleInversionRecovery(
            family=self.name, tr=tr, ti1=ti1, ti2=ti2, efficiency=efficiency, **train.fields()
        )


@dataclass(frozen=True, kw_only=True)
class MprageFamily(Family):
    """MPRAGE.

    Attributes:
        te: Echo time in seconds; its upper end is also half of the echo spacing.
    """

    tr: Range
    ti: Range
    echo_spacing: Range
    te: Range
    flip_angle: Range
    num_pulses: Range
    efficiency: Range

    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        spacing = self.echo_spacing.draw(random_state)
        pulses = int(self.num_pulses.draw(random_state))
        half = pulses * spacing / 2
        ti = self.ti.limited(low=half).draw(random_state)
        return Mprage(
            family=self.name,
            tr=self.tr.limited(low=ti + half).draw(random_state),
            ti=ti,
            echo_spacing=spacing,
            te=self.te.limited(high=spacing / 2).draw(random_state),
            flip_angle=self.flip_angle.draw(random_state),
            num_pulses=pulses,
            efficiency=self.efficiency.draw(random_state),
        )


@dataclass(frozen=True, kw_only=True)
class Mp2rageFamily(Family):
    """MP2RAGE; the upper end of ``te`` is also the echo spacing."""

    tr: Range
    ti1: Range
    ti2: Range
    echo_spacing: Range
    te: Range
    flip_angle1: Range
    flip_angle2: Range
    num_pulses: Range
    efficiency: Range

    def _draw(self, random_state: RandomSource, field_strength: float) -> Protocol:
        spacing = self.echo_spacing.draw(random_state)
        pulses = int(self.num_pulses.draw(random_state))
        train = pulses * spacing
        ti1 = self.ti1.limited(low=train / 2).draw(random_state)
        ti2 = self.ti2.limited(low=ti1 + train).draw(random_state)
        return Mp2rage(
            family=self.name,
            tr=self.tr.limited(low=ti2 + train / 2).draw(random_state),
            ti1=ti1,
            ti2=ti2,
            echo_spacing=spacing,
            te=self.te.limited(high=spacing).draw(random_state),
            flip_angle1=self.flip_angle1.draw(random_state),
            flip_angle2=self.flip_angle2.draw(random_state),
            num_pulses=pulses,
            efficiency=self.efficiency.draw(random_state),
        )
