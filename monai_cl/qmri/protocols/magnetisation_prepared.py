"""Protocols of gradient echo trains after an inversion: MPRAGE and MP2RAGE."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from monai_cl.qmri import constraints
from monai_cl.qmri._elementwise import Parameter
from monai_cl.qmri.mp2rage import mp2rage, mp2rage_images, uniform_image
from monai_cl.qmri.mprage import mprage
from monai_cl.qmri.protocols.protocol import Maps, Protocol, needed, numbers


@dataclass(frozen=True, kw_only=True)
class Mprage(Protocol):
    """MPRAGE: arguments of :func:`~monai_cl.qmri.mprage.mprage`."""

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
        constraints.check_mprage(**numbers(self))

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        return (mprage(maps["pd"], maps["t1"], maps["t2_star"], b1=b1, signed=True, **numbers(self)),)


@dataclass(frozen=True, kw_only=True)
class Mp2rage(Protocol):
    """MP2RAGE: arguments of :func:`~monai_cl.qmri.mp2rage.mp2rage`, the signed UNI, which needs no T2*.

    Where T2* is given, it weighs the two images: tissues that share a voxel, and signal against noise.
    """

    sequence: ClassVar[str] = "mp2rage"
    needs: ClassVar[tuple[str, ...]] = ("pd", "t1")
    optional: ClassVar[tuple[str, ...]] = ("t2_star",)
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
        constraints.check_mp2rage(**numbers(self))

    def _coherent(self, maps: Maps, b1: Parameter, off_resonance: Parameter | None) -> tuple[Tensor, ...]:
        return mp2rage_images(maps["pd"], maps["t1"], maps.get("t2_star"), b1=b1, **numbers(self))

    def combine(self, *coherent: Tensor) -> Tensor:
        """Signed uniform image of the two."""
        return uniform_image(*coherent)

    def signal(self, *, b1: Parameter = 1.0, off_resonance: Parameter | None = None, **maps: Tensor | None) -> Tensor:
        """The signed uniform image; what the two images share is computed once."""
        given = needed(self, maps)
        return mp2rage(given["pd"], given["t1"], given.get("t2_star"), b1=b1, **numbers(self))
