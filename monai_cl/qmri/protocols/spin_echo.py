"""Protocols of spin echoes: conventional, in trains, and in trains after one inversion or two."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from monai_cl.qmri import constraints
from monai_cl.qmri._elementwise import Parameter
from monai_cl.qmri.fast_spin_echo import fast_spin_echo
from monai_cl.qmri.protocols.protocol import Maps, Protocol, numbers
from monai_cl.qmri.spin_echo import spin_echo


@dataclass(frozen=True, kw_only=True)
class SpinEcho(Protocol):
    """Spin echo: arguments of :func:`~monai_cl.qmri.spin_echo.spin_echo`."""

    sequence: ClassVar[str] = "spin_echo"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2")
    tr: float
    te: float

    def _check(self) -> None:
        constraints.check_spin_echo(**numbers(self))

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        return (spin_echo(maps["pd"], maps["t1"], maps["t2"], b1=b1, **numbers(self)),)


@dataclass(frozen=True, kw_only=True)
class FastSpinEcho(Protocol):
    """Fast spin echo: arguments of :func:`~monai_cl.qmri.fast_spin_echo.fast_spin_echo`."""

    sequence: ClassVar[str] = "fast_spin_echo"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2")
    tr: float
    echo_spacing: float
    train_length: int
    effective_echo: int
    refocusing_angle: float = 180.0

    @property
    def te(self) -> float:
        """Effective echo time in seconds."""
        return self.effective_echo * self.echo_spacing

    @property
    def last_echo(self) -> float:
        """Time from excitation to the last echo in seconds."""
        return self.train_length * self.echo_spacing

    def _check(self) -> None:
        constraints.check_fast_spin_echo(
            tr=self.tr, echo_spacing=self.echo_spacing, train_length=self.train_length,
            effective_echo=self.effective_echo, refocusing_angle=self.refocusing_angle,
        )  # fmt: skip

    def _arguments(self) -> dict[str, Any]:
        return numbers(self)

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        given = maps["pd"], maps["t1"], maps["t2"]
        return (fast_spin_echo(*given, b1=b1, signed=True, **self._arguments()),)


@dataclass(frozen=True, kw_only=True)
class InversionRecovery(FastSpinEcho):
    """Inversion recovery with a fast spin echo readout (FLAIR, STIR)."""

    sequence: ClassVar[str] = "inversion_recovery"
    ti: float
    efficiency: float = 1.0

    def _check(self) -> None:
        super()._check()
        constraints.check_inversion(tr=self.tr, ti=self.ti, last_echo=self.last_echo, efficiency=self.efficiency)


@dataclass(frozen=True, kw_only=True)
class DoubleInversionRecovery(FastSpinEcho):
    """Double inversion recovery with a fast spin echo readout (DIR).

    Attributes:
        ti1: Time between the inversions in seconds.
        ti2: Time from the second inversion to the excitation in seconds.
        efficiency: Share of the magnetisation that each pulse inverts.
    """

    sequence: ClassVar[str] = "double_inversion_recovery"
    ti1: float
    ti2: float
    efficiency: float = 1.0

    def _check(self) -> None:
        super()._check()
        constraints.check_double_inversion(
            tr=self.tr, ti1=self.ti1, ti2=self.ti2, last_echo=self.last_echo, efficiency=self.efficiency
        )

    def _arguments(self) -> dict[str, Any]:
        arguments = super()._arguments()
        arguments["ti"] = arguments.pop("ti1"), arguments.pop("ti2")
        return arguments
