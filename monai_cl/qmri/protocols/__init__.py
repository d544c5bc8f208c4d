"""Acquisition protocols: typed, checked when made, plain JSON for the metadata, and replayed exactly.

>>> record = Mprage(tr=2.3, ti=0.9, echo_spacing=0.007, te=0.003, flip_angle=9.0, num_pulses=176).to_dict()
>>> protocol_from_dict(record).flip_angle
9.0
"""

from monai_cl.qmri.protocols.gradient_echo import BalancedSsfp, SpoiledGradientEcho, SusceptibilityWeighted
from monai_cl.qmri.protocols.magnetisation_prepared import Mp2rage, Mprage
from monai_cl.qmri.protocols.protocol import Protocol
from monai_cl.qmri.protocols.replay import SEQUENCES, protocol_from_dict, simulate
from monai_cl.qmri.protocols.spin_echo import DoubleInversionRecovery, FastSpinEcho, InversionRecovery, SpinEcho

__all__ = [
    "SEQUENCES",
    "BalancedSsfp",
    "DoubleInversionRecovery",
    "FastSpinEcho",
    "InversionRecovery",
    "Mp2rage",
    "Mprage",
    "Protocol",
    "SpinEcho",
    "SpoiledGradientEcho",
    "SusceptibilityWeighted",
    "protocol_from_dict",
    "simulate",
]
