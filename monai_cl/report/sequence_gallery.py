"""Picture of one anatomy in eight simulated MR sequences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_cl.engine.drawing import new_figure, save
from monai_cl.phantoms import BrainMaps, brain_maps
from monai_cl.qmri import Protocol
from monai_cl.qmri.protocols import (
    BalancedSsfp,
    DoubleInversionRecovery,
    FastSpinEcho,
    InversionRecovery,
    Mp2rage,
    Mprage,
    SpoiledGradientEcho,
)

# Usual protocols at 3 T; the inversion times null fluid in FLAIR, fluid and white matter of the subject in DIR.
SEQUENCES: Mapping[str, Protocol] = {
    "T1w MPRAGE": Mprage(tr=2.3, ti=0.9, echo_spacing=0.007, te=0.003, flip_angle=9.0, num_pulses=176),
    "T1w MP2RAGE": Mp2rage(
        tr=5.0, ti1=0.7, ti2=2.5, echo_spacing=0.0065, te=0.003, flip_angle1=4.0, flip_angle2=5.0, num_pulses=160
    ),
    "PDw spin echo": FastSpinEcho(
        tr=4.0, echo_spacing=0.01, train_length=8, effective_echo=2, refocusing_angle=150.0
    ),
    "T2w spin echo": FastSpinEcho(
        tr=5.0, echo_spacing=0.01, train_length=16, effective_echo=10, refocusing_angle=150.0
    ),
    "FLAIR": InversionRecovery(
        tr=9.0, ti=2.5, echo_spacing=0.01, train_length=20, effective_echo=11, refocusing_angle=150.0
    ),
    "DIR": DoubleInversionRecovery(
        tr=9.0, ti1=2.85, ti2=0.494, echo_spacing=0.01, train_length=20, effective_echo=3, refocusing_angle=150.0
    ),
    "T2*w gradient echo": SpoiledGradientEcho(tr=0.7, te=0.03, flip_angle=20.0),
    "balanced SSFP": BalancedSsfp(tr=0.005, te=0.0025, flip_angle=45.0),
}  # fmt: skip


def gallery_subject(*, spacing: float = 1.5) -> BrainMaps:
    """The subject of the picture, with head and lesions."""
    return brain_maps(11, spacing=spacing, head=True, lesions=14)


def draw_gallery(path: str | Path, *, spacing: float = 1.5) -> Path:
    """Draw one anatomy in eight sequences.

    Args:
        path: The PNG to write.
        spacing: Voxel size in mm.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: If nilearn, which carries the tissue maps, is not installed.
    """
    subject = gallery_subject(spacing=spacing)
    figure = new_figure(11, 6.6)
    axes: Any = figure.subplots(2, 4).ravel()
    brain = subject.fractions[:3].sum(0) > 0.5
    cut = int(0.52 * brain.shape[2])
    for ax, (name, protocol) in zip(axes, SEQUENCES.items(), strict=True):
        image = subject.image(protocol)[0]
        low, high = (float(image[brain].quantile(q)) for q in (0.002, 0.998))
        low = low if isinstance(protocol, Mp2rage) else 0.0
        ax.imshow(image[:, :, cut].T.numpy(), cmap="gray", origin="lower", vmin=low, vmax=high)
        ax.invert_xaxis()
        ax.set_axis_off()
        ax.set_title(name, fontsize=10)
    return save(figure, Path(path))
