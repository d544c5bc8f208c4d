"""Replay of a record: the protocol and its image."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from monai_cl._words import suggestion
from monai_cl.qmri.protocols.gradient_echo import BalancedSsfp, SpoiledGradientEcho, SusceptibilityWeighted
from monai_cl.qmri.protocols.magnetisation_prepared import Mp2rage, Mprage
from monai_cl.qmri.protocols.protocol import Protocol
from monai_cl.qmri.protocols.spin_echo import DoubleInversionRecovery, FastSpinEcho, InversionRecovery, SpinEcho

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
        record: Result of :meth:`Protocol.to_dict`, perhaps by way of JSON.

    Returns:
        A protocol equal to the one recorded.

    Raises:
        ValueError: If the sequence is unknown, a field is missing or unknown, or the protocol cannot be played out.
    """
    fields = dict(record)
    name = fields.pop("sequence", None)
    if name not in SEQUENCES:
        hint = suggestion(name, SEQUENCES, form="; did you mean {!r}?")
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
