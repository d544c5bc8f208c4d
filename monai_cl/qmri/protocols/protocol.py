"""Acquisition protocols: plain numbers, checked when made, played on maps, written down and replayed."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from monai_cl.qmri._elementwise import Parameter
from monai_cl.qmri.constraints import ConstraintError

Maps = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """Timings and angles of one acquisition. Subclasses add the fields of their sequence.

    Attributes:
        family: Name of the family it was drawn from, for the record; no effect on the image.
    """

    sequence: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    family: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(field.name, field.type, getattr(self, field.name)))
        self._check()

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps it needs, from ``pd``, ``t1``, ``t2``, ``t2_star``, ``mtsat``."""
        return self.needs

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of the maps it looks at: :attr:`maps`, and those that it does without where they are not given."""
        return (*self.maps, *self.optional)

    @abstractmethod
    def _check(self) -> None:
        """Raise :class:`ConstraintError` if it cannot be played out."""

    @abstractmethod
    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        """Signed signals; ``maps`` holds those of :attr:`maps`, and of :attr:`takes` what was given."""

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
        return self._coherent(needed(self, maps), b1, off_resonance)

    def combine(self, *coherent: Tensor) -> Tensor:
        """The image of coherent signals: the magnitude, or the signed combination of MP2RAGE."""
        return coherent[0].abs()

    def signal(self, *, b1: Parameter = 1.0, off_resonance: Parameter | None = None, **maps: Tensor | None) -> Tensor:
        """The image: :meth:`coherent`, then :meth:`combine`, with the same arguments and errors."""
        return self.combine(*self.coherent(b1=b1, off_resonance=off_resonance, **maps))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings for ``meta["mr_protocol"]``; :func:`protocol_from_dict` undoes it exactly."""
        return {"sequence": self.sequence, **dataclasses.asdict(self)}


def numbers(protocol: Protocol) -> dict[str, Any]:
    """The fields that the signal equation of the same names takes."""
    return {f.name: getattr(protocol, f.name) for f in dataclasses.fields(protocol) if f.name != "family"}


def needed(protocol: Protocol, maps: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Maps that a protocol uses of those given by name; :meth:`Protocol.coherent` explains refusals."""
    unknown = sorted(set(maps) - {"pd", "t1", "t2", "t2_star", "mtsat"})
    if unknown:
        raise ValueError(f"maps are named pd, t1, t2, t2_star and mtsat, got {unknown}")
    given = {name: m for name, m in maps.items() if m is not None}
    missing = [name for name in protocol.maps if name not in given]
    if missing:
        remedy = "; T2* does not stand in for T2: draw one with monai_cl.qmri.maps.draw_t2" if "t2" in missing else ""
        raise ValueError(f"{protocol.sequence} needs the maps {protocol.maps}, missing {missing}{remedy}")
    return {name: given[name] for name in protocol.takes if name in given}


def _plain(name: str, kind: Any, value: Any) -> Any:
    """A Python number of the declared type, so that records are plain and equal after a round trip."""
    if kind is str or kind is bool:
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be {kind.__name__}, got {value!r}")
        return value
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if kind is int and not float(value).is_integer():
        raise ConstraintError(f"{name} must be a whole number, got {value!r}")
    return kind(value)
