"""Protocols of gradient echoes: spoiled, susceptibility-weighted and balanced."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from monai_cl.qmri import constraints
from monai_cl.qmri._elementwise import Parameter
from monai_cl.qmri.constraints import ConstraintError
from monai_cl.qmri.gradient_echo import spoiled_gradient_echo
from monai_cl.qmri.protocols.protocol import Maps, Protocol, numbers
from monai_cl.qmri.ssfp import balanced_ssfp
from monai_cl.qmri.susceptibility import susceptibility_weighted


@dataclass(frozen=True, kw_only=True)
class _GradientEcho(Protocol):
    """Times and angle of a gradient echo, and their limits."""

    tr: float
    te: float
    flip_angle: float

    def _check(self) -> None:
        constraints.check_gradient_echo(tr=self.tr, te=self.te, flip_angle=self.flip_angle)


@dataclass(frozen=True, kw_only=True)
class SpoiledGradientEcho(_GradientEcho):
    """Spoiled gradient echo: arguments of :func:`~monai_cl.qmri.gradient_echo.spoiled_gradient_echo`.

    Attributes:
        mt_pulse: Whether a magnetisation transfer pulse is played; then an ``mtsat`` map is needed.
    """

    sequence: ClassVar[str] = "spoiled_gradient_echo"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2_star")
    mt_pulse: bool = False

    @property
    def maps(self) -> tuple[str, ...]:
        """Maps needed."""
        return (*self.needs, "mtsat") if self.mt_pulse else self.needs

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        angles: dict[str, Parameter] = {"flip_angle": self.flip_angle, "b1": b1, "mtsat": maps.get("mtsat", 0.0)}
        return (spoiled_gradient_echo(maps["pd"], maps["t1"], maps["t2_star"], tr=self.tr, te=self.te, **angles),)


@dataclass(frozen=True, kw_only=True)
class SusceptibilityWeighted(_GradientEcho):
    """Susceptibility weighting: arguments of :func:`~monai_cl.qmri.susceptibility.susceptibility_weighted`."""

    sequence: ClassVar[str] = "susceptibility_weighted"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2_star")
    mask_power: int = 4

    def _check(self) -> None:
        super()._check()
        if self.mask_power < 0:
            raise ConstraintError(f"mask_power must be at least 0, got {self.mask_power!r}")

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        offset = 0.0 if off_resonance is None else off_resonance
        given = maps["pd"], maps["t1"], maps["t2_star"]
        return (susceptibility_weighted(*given, b1=b1, off_resonance=offset, **numbers(self)),)


@dataclass(frozen=True, kw_only=True)
class BalancedSsfp(_GradientEcho):
    """Balanced SSFP: arguments of :func:`~monai_cl.qmri.ssfp.balanced_ssfp`."""

    sequence: ClassVar[str] = "balanced_ssfp"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2")

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        given = maps["pd"], maps["t1"], maps["t2"]
        return (balanced_ssfp(*given, b1=b1, off_resonance=off_resonance, **numbers(self)),)
