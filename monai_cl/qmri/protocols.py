"""Acquisition protocols: typed, checked when made, plain JSON for the metadata, and replayed exactly.

>>> record = Mprage(tr=2.3, ti=0.9, echo_spacing=0.007, te=0.003, flip_angle=9.0, num_pulses=176).to_dict()
>>> protocol_from_dict(record).flip_angle
9.0
"""

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from monai_cl.qmri import constraints
from monai_cl.qmri._elementwise import Parameter
from monai_cl.qmri.constraints import ConstraintError
from monai_cl.qmri.fast_spin_echo import fast_spin_echo
from monai_cl.qmri.gradient_echo import spoiled_gradient_echo
from monai_cl.qmri.mp2rage import mp2rage, mp2rage_images, uniform_image
from monai_cl.qmri.mprage import mprage
from monai_cl.qmri.spin_echo import spin_echo
from monai_cl.qmri.ssfp import balanced_ssfp
from monai_cl.qmri.susceptibility import susceptibility_weighted

Maps = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """Timings and angles of one acquisition. Subclasses add the fields of their sequence.

    Attributes:
        family: Name of the family it was drawn from, for the record; no effect on the image.
    """

    sequence: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    family: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(field.name, field.type, getattr(self, field.name)))
        self._check()

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps it needs, from ``pd``, ``t1``, ``t2``, ``t2_star``, ``mtsat``."""
        return self.needs

    @abstractmethod
    def _check(self) -> None:
        """Raise :class:`ConstraintError` if it cannot be played out."""

    @abstractmethod
    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        """Signed signals; ``maps`` holds those of :attr:`maps`."""

    def coherent(
        self, *, b1: Parameter = 1.0, off_resonance: Parameter | None = None, **maps: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Signed signals before :meth:`combine`: those to mix where tissues share a voxel.

        Args:
            b1: Transmit field relative to nominal, number or map.
            off_resonance: Field offset in Hz, number or map, for the sequences it matters to.
            **maps: ``pd`` (any unit), ``t1``, ``t2``, ``t2_star`` (seconds), ``mtsat`` (fraction); at least
                :attr:`maps`.

        Returns:
            One image; two for MP2RAGE.

        Raises:
            ValueError: If a map that the sequence needs is missing, or a name is unknown.
        """
        return self._coherent(_needed(self, maps), b1, off_resonance)

    def combine(self, *coherent: Tensor) -> Tensor:
        """The image of coherent signals: the magnitude, or the signed combination of MP2RAGE."""
        return coherent[0].abs()

    def signal(self, *, b1: Parameter = 1.0, off_resonance: Parameter | None = None, **maps: Tensor | None) -> Tensor:
        """The image: :meth:`coherent`, then :meth:`combine`, with the same arguments and errors."""
        return self.combine(*self.coherent(b1=b1, off_resonance=off_resonance, **maps))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings for ``meta["mr_protocol"]``; :func:`protocol_from_dict` undoes it exactly."""
        return {"sequence": self.sequence, **dataclasses.asdict(self)}


@dataclass(frozen=True, kw_only=True)
class SpoiledGradientEcho(Protocol):
    """Spoiled gradient echo; see :func:`~monai_cl.qmri.gradient_echo.spoiled_gradient_echo`.

    Attributes:
        tr: Repetition time in seconds.
        te: Echo time in seconds.
        flip_angle: Excitation angle in degrees.
        mt_pulse: Whether a magnetisation transfer pulse is played; then an ``mtsat`` map is needed.
    """

    sequence: ClassVar[str] = "spoiled_gradient_echo"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2_star")
    tr: float
    te: float
    flip_angle: float
    mt_pulse: bool = False

    @property
    def maps(self) -> tuple[str, ...]:
        """Maps needed."""
        return (*self.needs, "mtsat") if self.mt_pulse else self.needs

    def _check(self) -> None:
        constraints.check_gradient_echo(tr=self.tr, te=self.te, flip_angle=self.flip_angle)

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        angles: dict[str, Parameter] = {"flip_angle": self.flip_angle, "b1": b1, "mtsat": maps.get("mtsat", 0.0)}
        return (spoiled_gradient_echo(maps["pd"], maps["t1"], maps["t2_star"], tr=self.tr, te=self.te, **angles),)


@dataclass(frozen=True, kw_only=True)
class SusceptibilityWeighted(Protocol):
    """Susceptibility weighting; see :func:`~monai_cl.qmri.susceptibility.susceptibility_weighted`.

    Attributes:
        tr: Repetition time in seconds.
        te: Echo time in seconds.
        flip_angle: Excitation angle in degrees.
        mask_power: How often the phase mask is multiplied in.
    """

    sequence: ClassVar[str] = "susceptibility_weighted"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2_star")
    tr: float
    te: float
    flip_angle: float
    mask_power: int = 4

    def _check(self) -> None:
        constraints.check_gradient_echo(tr=self.tr, te=self.te, flip_angle=self.flip_angle)
        if self.mask_power < 0:
            raise ConstraintError(f"mask_power must be at least 0, got {self.mask_power!r}")

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        image = susceptibility_weighted(
            maps["pd"], maps["t1"], maps["t2_star"], tr=self.tr, te=self.te, flip_angle=self.flip_angle,
            mask_power=self.mask_power, b1=b1, off_resonance=0.0 if off_resonance is None else off_resonance,
        )  # fmt: skip
        return (image,)


@dataclass(frozen=True, kw_only=True)
class BalancedSsfp(Protocol):
    """Balanced SSFP; see :func:`~monai_cl.qmri.ssfp.balanced_ssfp`.

    Attributes:
        tr: Repetition time in seconds.
        te: Echo time in seconds.
        flip_angle: Excitation angle in degrees.
    """

    sequence: ClassVar[str] = "balanced_ssfp"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2")
    tr: float
    te: float
    flip_angle: float

    def _check(self) -> None:
        constraints.check_gradient_echo(tr=self.tr, te=self.te, flip_angle=self.flip_angle)

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        image = balanced_ssfp(
            maps["pd"], maps["t1"], maps["t2"], tr=self.tr, te=self.te, flip_angle=self.flip_angle, b1=b1,
            off_resonance=off_resonance,
        )  # fmt: skip
        return (image,)


@dataclass(frozen=True, kw_only=True)
class SpinEcho(Protocol):
    """Spin echo; see :func:`~monai_cl.qmri.spin_echo.spin_echo`.

    Attributes:
        tr: Repetition time in seconds.
        te: Echo time in seconds.
    """

    sequence: ClassVar[str] = "spin_echo"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2")
    tr: float
    te: float

    def _check(self) -> None:
        constraints.check_spin_echo(tr=self.tr, te=self.te)

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        return (spin_echo(maps["pd"], maps["t1"], maps["t2"], tr=self.tr, te=self.te, b1=b1),)


@dataclass(frozen=True, kw_only=True)
class FastSpinEcho(Protocol):
    """Fast spin echo; see :func:`~monai_cl.qmri.fast_spin_echo.fast_spin_echo`.

    Attributes:
        tr: Repetition time in seconds.
        echo_spacing: Time between echoes in seconds.
        train_length: Number of echoes.
        effective_echo: Number of the echo at the centre of k-space, from 1.
        refocusing_angle: Degrees.
    """

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

    def _inversions(self) -> dict[str, Any]:
        return {}

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        image = fast_spin_echo(
            maps["pd"], maps["t1"], maps["t2"], tr=self.tr, echo_spacing=self.echo_spacing,
            train_length=self.train_length, effective_echo=self.effective_echo,
            refocusing_angle=self.refocusing_angle, b1=b1, signed=True, **self._inversions(),
        )  # fmt: skip
        return (image,)


@dataclass(frozen=True, kw_only=True)
class InversionRecovery(FastSpinEcho):
    """Inversion recovery with a fast spin echo readout (FLAIR, STIR).

    Attributes:
        ti: Time from inversion to excitation in seconds.
        efficiency: Share of the magnetisation that is inverted.
    """

    sequence: ClassVar[str] = "inversion_recovery"
    ti: float
    efficiency: float = 1.0

    def _check(self) -> None:
        super()._check()
        constraints.check_inversion(tr=self.tr, ti=self.ti, last_echo=self.last_echo, efficiency=self.efficiency)

    def _inversions(self) -> dict[str, Any]:
        return {"ti": self.ti, "efficiency": self.efficiency}


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

    def _inversions(self) -> dict[str, Any]:
        return {"ti": (self.ti1, self.ti2), "efficiency": self.efficiency}


@dataclass(frozen=True, kw_only=True)
class Mprage(Protocol):
    """MPRAGE; see :func:`~monai_cl.qmri.mprage.mprage`.

    Attributes:
        tr: Time from inversion to inversion in seconds.
        ti: Time from inversion to the middle of the train in seconds.
        echo_spacing: Time from pulse to pulse in seconds.
        te: Echo time in seconds.
        flip_angle: Excitation angle in degrees.
        num_pulses: Number of pulses in the train.
        efficiency: Share of the magnetisation that is inverted.
    """

    sequence: ClassVar[str] = "mprage"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2_star")
    tr: float
    ti: float
    echo_spacing: float
    te: float
    flip_angle: float
    num_pulses: int
    efficiency: float = 0.96

    def _check(self) -> None:
        constraints.check_mprage(**_numbers(self))

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        return (mprage(maps["pd"], maps["t1"], maps["t2_star"], b1=b1, signed=True, **_numbers(self)),)


@dataclass(frozen=True, kw_only=True)
class Mp2rage(Protocol):
    """MP2RAGE; its image is the signed UNI of :func:`~monai_cl.qmri.mp2rage.mp2rage`.

    Attributes:
        tr: Time from inversion to inversion in seconds.
        ti1: Time from inversion to the middle of the first train in seconds.
        ti2: Time from inversion to the middle of the second train in seconds.
        echo_spacing: Time from pulse to pulse in seconds.
        te: Echo time in seconds.
        flip_angle1: Excitation angle of the first train in degrees.
        flip_angle2: Excitation angle of the second train in degrees.
        num_pulses: Number of pulses in each train.
        efficiency: Share of the magnetisation that is inverted.
    """

    sequence: ClassVar[str] = "mp2rage"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1", "t2_star")
    tr: float
    ti1: float
    ti2: float
    echo_spacing: float
    te: float
    flip_angle1: float
    flip_angle2: float
    num_pulses: int
    efficiency: float = 0.96

    def _check(self) -> None:
        constraints.check_mp2rage(**_numbers(self))

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        return mp2rage_images(maps["pd"], maps["t1"], maps["t2_star"], b1=b1, **_numbers(self))

    def combine(self, *coherent: Tensor) -> Tensor:
        """Signed uniform image of the two."""
        return uniform_image(*coherent)

    def signal(self, *, b1: Parameter = 1.0, off_resonance: Parameter | None = None, **maps: Tensor | None) -> Tensor:
        """The signed uniform image; what the two images share is computed once."""
        given = _needed(self, maps)
        return mp2rage(given["pd"], given["t1"], given["t2_star"], b1=b1, **_numbers(self))


SEQUENCES: Mapping[str, type[Protocol]] = {
    kind.sequence: kind
    for kind in (
        SpoiledGradientEcho,
        SusceptibilityWeighted,
        BalancedSsfp,
        SpinEcho,
        FastSpinEcho,
        InversionRecovery,
        DoubleInversionRecovery,
        Mprage,
        Mp2rage,
    )
}


def protocol_from_dict(record: Mapping[str, Any]) -> Protocol:
    """Rebuild a protocol from its record, e.g. ``meta["mr_protocol"]``.

    Args:
        record: What :meth:`Protocol.to_dict` gave, perhaps by way of JSON.

    Returns:
        A protocol equal to the one recorded.

    Raises:
        ValueError: If the sequence is unknown, a field is missing or unknown, or the protocol cannot be played out.
    """
    fields = dict(record)
    name = fields.pop("sequence", None)
    if name not in SEQUENCES:
        close = difflib.get_close_matches(str(name), SEQUENCES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"sequence must be one of {tuple(SEQUENCES)}, got {name!r}{hint}")
    kind = SEQUENCES[name]
    known = dataclasses.fields(kind)
    required = {f.name for f in known if f.default is dataclasses.MISSING}
    missing, unknown = sorted(required - set(fields)), sorted(set(fields) - {f.name for f in known})
    if missing or unknown:
        raise ValueError(f"{name} needs {sorted(required)}, got a record without {missing} and with unknown {unknown}")
    return kind(**fields)


def simulate(protocol: Protocol | Mapping[str, Any], **maps: Any) -> Tensor:
    """Image of a protocol or of its record; see :meth:`Protocol.signal` for the arguments and errors.

    Example:
        >>> import torch
        >>> record = SpinEcho(tr=0.5, te=0.01).to_dict()
        >>> image = simulate(record, pd=torch.ones(2), t1=torch.tensor([0.86, 1.45]), t2=torch.tensor([0.07, 0.08]))
        >>> bool(image[0] > image[1])
        True
    """
    protocol = protocol if isinstance(protocol, Protocol) else protocol_from_dict(protocol)
    return protocol.signal(**maps)


def _numbers(protocol: Protocol) -> dict[str, Any]:
    """The fields that the signal equation of the same names takes."""
    return {f.name: getattr(protocol, f.name) for f in dataclasses.fields(protocol) if f.name != "family"}


def _needed(protocol: Protocol, maps: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    unknown = sorted(set(maps) - {"pd", "t1", "t2", "t2_star", "mtsat"})
    if unknown:
        raise ValueError(f"maps are named pd, t1, t2, t2_star and mtsat, got {unknown}")
    given = {name: m for name, m in maps.items() if m is not None}
    missing = [name for name in protocol.maps if name not in given]
    if missing:
        remedy = "; T2* does not stand in for T2: draw one with monai_cl.qmri.maps.draw_t2" if "t2" in missing else ""
        raise ValueError(f"{protocol.sequence} needs the maps {protocol.maps}, missing {missing}{remedy}")
    return {name: given[name] for name in protocol.maps}


def _plain(name: str, kind: Any, value: Any) -> Any:
    """A Python number of the declared type, so that records are plain and equal after a round trip."""
    if kind is str or kind is bool:
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be {kind.__name__}, got {value!r}")
        return value
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if kind is int and float(value) != int(value):
        raise ConstraintError(f"{name} must be a whole number, got {value!r}")
    return kind(value)
