"""Volumes of a page in three planes and in 3-D: niivue (BSD-2), inlined, with the volumes beside it.

One canvas a panel; the panels of a set share their crosshair in mm, so that a point of one is shown in the others.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from monai_cl.engine.drawing import COLOURS
from monai_cl.engine.save_cases import SavedCase
from monai_cl.report._page import script, script_hash
from monai_cl.report._safety import inside

SCRIPT = Path(__file__).with_name("vendor") / "niivue-0.69.0.umd.js.gz"
MOST_VOXELS = 160  # along an axis; larger volumes are thinned out
MOST_BYTES = 24 << 20  # of all volumes of a page, beside 2.3 MB of niivue


@dataclass(frozen=True)
class Layer:
    """A volume of a panel.

    Args:
        name: Its name.
        kind: ``image``, or ``classes``.
        data: NIfTI file, compressed, in base 64.
    """

    name: str
    kind: str
    data: Markup


@dataclass(frozen=True)
class Panel:
    """A canvas.

    Args:
        name: Heading.
        layers: An image, and classes above it.
    """

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class VolumeSet:
    """Panels side by side with one crosshair.

    Args:
        title: Title of the panels.
        panels: The panels.
        note: Remark on thinned-out slices, or nothing.
    """

    title: str
    panels: tuple[Panel, ...]
    note: str = ""

    @property
    def size(self) -> int:
        """Bytes of its volumes in the page."""
        return sum(len(layer.data) for panel in self.panels for layer in panel.layers)


def case_volumes(folder: Path, case: SavedCase, title: str) -> VolumeSet:
    """Truth and prediction of a case above its image, side by side.

    Raises:
        ValueError: If its file lies elsewhere, or holds a slice and no volume.
    """
    if not inside(folder, folder / case.file):
        raise ValueError(f"{case.file} must lie in {folder}, it does not")
    with np.load(folder / case.file, allow_pickle=False) as file:
        image, truth, prediction = (np.asarray(file[name]) for name in ("image", "truth", "prediction"))
    if image.ndim != 3 or min(image.shape) < 2:
        raise ValueError("a slice, not a volume")
    thin = -(-max(image.shape) // MOST_VOXELS)
    spacing = [step * thin for step in (*case.spacing, 1.0, 1.0)[:3]]
    picture, first, second = (_encoded(part[::thin, ::thin, ::thin], spacing) for part in (image, truth, prediction))
    panels = (
        Panel("truth", (Layer("image", "image", picture), Layer("truth", "classes", first))),
        Panel("prediction", (Layer("image", "image", picture), Layer("prediction", "classes", second))),
    )
    return VolumeSet(title, panels, f"every {thin}. voxel along each axis" if thin > 1 else "")


def view_volumes(
    image: NDArray[np.floating], views: Sequence[tuple[str, Sequence[int], Sequence[int]]], title: str
) -> VolumeSet:
    """Views of one volume, each where it lies in it.

    Args:
        image: The volume, three axes.
        views: Name, first voxel and size of each view.
        title: Title of the volume.
    """
    low, high = np.percentile(image, [0.5, 99.5])
    grey = np.rint(255 * np.clip((image - low) / max(float(high - low), 1e-12), 0, 1)).astype(np.uint8)
    panels = []
    for name, start, size in views:
        begin = [max(int(one), 0) for one in start]  # a crop may reach into the padding
        end = [int(one) + int(step) for one, step in zip(start, size, strict=True)]
        part = grey[tuple(slice(*pair) for pair in zip(begin, end, strict=True))]
        panels.append(Panel(name, (Layer(name, "image", _encoded(part, [1.0] * 3, begin)),)))
    return VolumeSet(
        title, tuple(panels), "in voxels of the prepared volume, before the views are mirrored and changed"
    )


def fitting(sets: Sequence[VolumeSet], most: int = MOST_BYTES) -> tuple[list[VolumeSet], int]:
    """The first sets that fit into a page, and how many do not."""
    kept: list[VolumeSet] = []
    for one in sets:
        if sum(each.size for each in kept) + one.size <= most:
            kept.append(one)
    return kept, len(sets) - len(kept)


def niivue() -> str:
    """Program of niivue."""
    return gzip.decompress(SCRIPT.read_bytes()).decode("utf-8")


def volume_viewer() -> dict[str, Markup]:
    """Programs that show volumes, and what the page must allow them: data of its own, nothing from elsewhere."""
    program, own = Markup(niivue()), script("volumes.js")
    hashes = " ".join(f"'sha256-{script_hash(text)}'" for text in (program, own))
    policy = Markup(f" {hashes} 'wasm-unsafe-eval'; worker-src blob:; connect-src data: blob:")
    return {"policy": policy, "program": program, "script": own, "colours": Markup(json.dumps(list(COLOURS)))}


def _encoded(values: NDArray[np.uint8], spacing: Sequence[float], start: Sequence[int] = (0, 0, 0)) -> Markup:
    """A NIfTI file without any text, compressed, in base 64."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = np.multiply(start, spacing)
    content = nib.Nifti1Image(np.ascontiguousarray(values, np.uint8), affine).to_bytes()
    # markup, for the page takes paths out of plain text, and base 64 is full of slashes
    return Markup(base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii"))
