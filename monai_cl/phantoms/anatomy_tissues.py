"""Tissues of random anatomies, and what a sequence of an MR scanner makes of them."""

from __future__ import annotations

import numpy as np
import torch

from monai_cl.qmri import FAMILIES, TISSUES, draw_protocol, simulate

MAPS = ("pd", "t1", "t2", "t2_star", "mtsat")
SEQUENCES = tuple(FAMILIES)
_KNOWN = 0.5  # share of labels that are of a tissue of the tables
_TABLED = tuple(entry for entry in TISSUES.values() if entry.field_strength == 3.0)
_T1, _T2 = np.log((0.2, 4.5)).tolist(), np.log((0.015, 2.0)).tolist()  # of times in seconds, of the others
_BRIGHT, _MOST = 0.9, 1.25  # share of the tissues whose signals are from 0 to 1, and the greatest signal of the others
_FLAT = 1e-6  # signals nearer to one another than this show nothing


def draw_tissues(rng: np.random.Generator, number: int) -> np.ndarray:
    """Properties (number, 5) of the tissue of each label, in the order of ``MAPS``; label 0 is air.

    Half of the labels are tissues of :data:`monai_cl.qmri.TISSUES`, drawn within their spread; the others have random
    properties with T2* <= T2 <= T1.
    """
    t1 = np.exp(rng.uniform(_T1[0], _T1[1], number))
    t2 = np.minimum(np.exp(rng.uniform(_T2[0], _T2[1], number)), t1)
    result = np.stack([rng.uniform(20, 100, number), t1, t2, t2 * rng.uniform(0.3, 1, number),
                      rng.uniform(0, 0.03, number)], axis=1)  # fmt: skip
    for label in np.flatnonzero(rng.random(number) < _KNOWN):
        values = _TABLED[int(rng.integers(len(_TABLED)))].draw(rng)
        result[label] = [getattr(values, name) for name in MAPS]
    result[0, 0] = 0.0
    return result.astype(np.float32)


def simulated_signals(rng: np.random.Generator, tissues: np.ndarray, sequences: tuple[str, ...]) -> np.ndarray:
    """Signals (number,) of tissues in a sequence drawn from ``sequences``, from 0 to a little above 1.

    The bright end is that of most tissues: a single one that is far brighter than all others would leave these dark.
    """
    protocol = draw_protocol(sequences[int(rng.integers(len(sequences)))], rng)
    maps = dict(zip(MAPS, torch.from_numpy(tissues).T, strict=True))
    signals = simulate(protocol, **{name: maps[name] for name in protocol.takes})
    signals = torch.nan_to_num(signals)  # of air, where a quotient of two images is none
    low, high = signals.min(), signals.quantile(_BRIGHT)
    result: np.ndarray = ((signals - low) / (high - low).clamp(min=_FLAT)).clamp(max=_MOST).numpy()
    return result
