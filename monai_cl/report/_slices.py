"""Cases of an evaluation, slice by slice: a grey picture a slice, outlines of the classes as lines above it.

The lines stay sharp at any zoom and the grey values are those of the file; one ``<input type="range">`` a case shows
one slice at a time. No maintained viewer that works from a single file sets a truth beside a prediction (nilearn's
shows one statistical map on a canvas, plotly weighs 4 MB); a range input does it in a dozen lines and brings keyboard
and screen reader support.
"""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import contour_generator
from markupsafe import Markup
from numpy.typing import NDArray

from monai_cl.engine.drawing import COLOURS
from monai_cl.engine.save_cases import SavedCase
from monai_cl.report._safety import inside

MOST_SLICES = 64
MOST_PIXELS = 192
_GAP = 4.0  # mm between the panels

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Viewer:
    """A case to scroll through.

    Attributes:
        title: Which case it is.
        slices: An ``<svg>`` a slice: image, truth, prediction side by side.
        start: The slice that is shown first.
        numbers: Which slice of the volume each is, from 1.
        depth: Number of slices of the volume.
        note: Remark on thinned-out slices, or nothing.
    """

    title: str
    slices: tuple[Markup, ...]
    start: int
    numbers: tuple[int, ...]
    depth: int
    note: str


def viewer(folder: Path, case: SavedCase, title: str) -> Viewer:
    """Build the viewer of a case that :class:`monai_cl.report.SaveCases` kept in ``folder``."""
    if not inside(folder, folder / case.file):
        raise ValueError(f"{case.file} must lie in {folder}, it does not")
    with np.load(folder / case.file, allow_pickle=False) as file:
        stacks = [_as_stack(file[name]) for name in ("image", "truth", "prediction")]
    image, truth, _ = stacks
    depth = image.shape[-1]
    stride = -(-depth // MOST_SLICES)
    thin = -(-max(image.shape[:2]) // MOST_PIXELS)
    fullest = int((truth > 0).sum(axis=(0, 1)).argmax())
    chosen = list(range(fullest % stride, depth, stride))
    spacing = [step * thin for step in (*case.spacing, 1.0)[:2]]
    slices = tuple(
        _slice([stack[::thin, ::thin, z] for stack in stacks], spacing, f"{title}, slice {z + 1} of {depth}")
        for z in chosen
    )
    return Viewer(title, slices, chosen.index(fullest), tuple(z + 1 for z in chosen), depth, _note(stride, thin))


def _note(stride: int, thin: int) -> str:
    parts = [f"every {stride}. slice"] if stride > 1 else []
    parts += [f"every {thin}. voxel of a slice"] if thin > 1 else []
    return f"shown: {' and '.join(parts)}" if parts else ""


def _as_stack(volume: Bytes) -> Bytes:
    return volume if volume.ndim == 3 else volume[..., None]


def _slice(planes: list[Bytes], spacing: list[float], alt: str) -> Markup:
    """Image, truth and prediction of one slice, side by side."""
    image, truth, prediction = planes
    # array axes (right, anterior); on screen the patient's right is at the left and anterior at the top
    grey, first, second = (part[::-1, ::-1].T for part in planes)
    height, width = grey.shape
    across, down = width * spacing[0], height * spacing[1]
    name = f"i{_checksum(alt, image):x}"
    picture = (
        f'<image id="{name}" width="{across:g}" height="{down:g}" preserveAspectRatio="none" href="{_png(grey)}"/>'
    )
    panels = [(picture, ""), (f'<use href="#{name}"/>', _outlines(first, spacing))]
    panels.append((panels[1][0], _outlines(second, spacing)))
    drawn = "".join(
        f'<g transform="translate({index * (across + _GAP):g})">{base}{lines}</g>'
        for index, (base, lines) in enumerate(panels)
    )
    box = f"0 0 {3 * across + 2 * _GAP:g} {down:g}"
    classes = f"truth shows {_listed(truth)}, prediction {_listed(prediction)}"
    return Markup(f'<svg viewBox="{box}" role="img" aria-label="{Markup.escape(alt)}: {classes}">{drawn}</svg>')


def _checksum(text: str, image: Bytes) -> int:
    """Checksum that identifies a picture of a page and is the same at each run."""
    return zlib.crc32(np.ascontiguousarray(image).tobytes(), zlib.crc32(text.encode()))


def _listed(mask: Bytes) -> str:
    labels = [str(label) for label in np.unique(mask) if label > 0]
    return f"class {', '.join(labels)}" if labels else "no class"


def _png(grey: Bytes) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _outlines(mask: Bytes, spacing: list[float]) -> str:
    """A path a class around its voxels, tinted inside."""
    paths = []
    for label in (int(value) for value in np.unique(mask) if value > 0):
        # a border of nothing closes the lines of what touches the edge
        lines: Any = contour_generator(z=np.pad((mask == label).astype(np.float64), 1)).lines(0.5)
        colour = COLOURS[(label - 1) % len(COLOURS)]
        paths.append(f'<path d="{"".join(map(_path, lines))}" fill="{colour}" stroke="{colour}"/>')
    # in half voxels, see _path
    scale = f"scale({spacing[0] / 2:g} {spacing[1] / 2:g})"
    return f'<g class="mask" transform="{scale}">{"".join(paths)}</g>' if paths else ""


def _path(line: NDArray[np.float64]) -> str:
    """A closed line in whole numbers of half voxels: contours of a mask run through middles between voxels."""
    # a pixel's centre lies half a pixel in, and the border moved all by one
    points = np.rint(2 * (line - 0.5)).astype(int)
    steps = np.diff(points, axis=0)
    bends = np.flatnonzero(np.any(steps[1:] != steps[:-1], axis=1)) + 1
    corners = points[np.concatenate([[0], bends])]
    moves = "".join(f"{x} {y} " for x, y in np.diff(corners, axis=0)).replace(" -", "-").rstrip()
    return f"M{corners[0][0]} {corners[0][1]}l{moves}z"
