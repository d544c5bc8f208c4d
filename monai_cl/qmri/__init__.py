"""Physics of quantitative MR with torch alone: maps and a protocol in, an image out.

The signal equations are in :mod:`monai_cl.qmri.signal`, echo trains in :mod:`monai_cl.qmri.extended_phase_graph`. Times
are in seconds, rates in 1/s, angles in degrees, fields in tesla, frequencies in Hz, proton density in p.u. (water is
100) where tabulated, magnetisation transfer saturation is a fraction.

    >>> import numpy as np, torch
    >>> protocol = draw_protocol("t1w_mprage", np.random.RandomState(0))
    >>> brain = [tissue(name).typical() for name in ("white_matter", "grey_matter", "csf")]
    >>> maps = {name: torch.tensor([getattr(t, name) for t in brain]) for name in protocol.maps}
    >>> image = simulate(protocol.to_dict(), **maps)   # the record replays the protocol
    >>> bool((image.diff() < 0).all())
    True
"""

from monai_cl.qmri.constraints import ConstraintError
from monai_cl.qmri.extended_phase_graph import echo_amplitudes
from monai_cl.qmri.families import Family
from monai_cl.qmri.fields import change_field
from monai_cl.qmri.maps import draw_t2, limit_maps
from monai_cl.qmri.mixing import mix
from monai_cl.qmri.nulls import double_inversion_null, inversion_null
from monai_cl.qmri.protocols import Protocol, protocol_from_dict, simulate
from monai_cl.qmri.sampling import FAMILIES, draw_protocol
from monai_cl.qmri.tissues import TISSUES, Tissue, TissueValues, tissue
from monai_cl.qmri.weighted_rates import from_weighted_rates, to_weighted_rates

__all__ = [
    "FAMILIES",
    "TISSUES",
    "ConstraintError",
    "Family",
    "Protocol",
    "Tissue",
    "TissueValues",
    "change_field",
    "double_inversion_null",
    "draw_protocol",
    "draw_t2",
    "echo_amplitudes",
    "from_weighted_rates",
    "inversion_null",
    "limit_maps",
    "mix",
    "protocol_from_dict",
    "simulate",
    "tissue",
    "to_weighted_rates",
]
