"""A picture of what a recipe does to one volume: before and after, three planes and the values."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monai_cl import recipes
from monai_cl._files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from numpy.typing import NDArray

# (name, fixed axis, axis across, axis up, letters at left and right, bottom and top). Axes are Right, Anterior,
# Superior; the radiological view has the patient's right at the left, and a face in profile looks to the left.
_PLANES = (
    ("axial", 2, 0, 1, "RL", "PA"),
    ("coronal", 1, 0, 2, "RL", "IS"),
    ("sagittal", 0, 1, 2, "AP", "IS"),
)
_FOOTNOTE = "Radiological view: the patient's right is at the left of the axial and coronal planes."
_DOTS_PER_INCH = 80


@dataclass(frozen=True)
class _Volume:
    """A volume with axes towards Right, Anterior, Superior."""

    values: NDArray[np.float32]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> NDArray[np.float64]:
        lengths: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return lengths

    def voxel_of(self, point: NDArray[np.float64]) -> NDArray[np.int64]:
        index = np.linalg.solve(self.affine, [*point, 1.0])[:3]
        return np.clip(np.rint(index), 0, np.array(self.values.shape) - 1).astype(np.int64)


def preview(recipe: str | Path, image: str | Path, out_png: str | Path, **overrides: Any) -> Path:
    """Draw a volume as it is stored and as a recipe prepares it, to one PNG.

    Both rows show the same point of the patient in three planes, at the true aspect ratio, and the histogram. Titles
    give the grid, the spacing and the range of the values.

    Args:
        recipe: Name of a recipe, or path of a recipe file.
        image: File or folder that the recipe can load.
        out_png: Target; its folder is made when it is missing. The file appears whole or not at all.
        **overrides: Parameters of the recipe, as for :func:`monai_cl.recipes.load`.

    Returns:
        Path of the picture.

    Raises:
        ValueError: If no such recipe exists or parameter, the target is no ``.png``, or the image is not one
            three-dimensional volume.
    """
    target = Path(out_png)
    if target.suffix.lower() != ".png":
        raise ValueError(f"the preview is written as .png, got {target.name!r}; give a name that ends in .png")
    prepare = recipes.load(recipe, **overrides)
    before = _volume(prepare.transforms[0]({"image": str(image)})["image"])
    after = _volume(prepare({"image": str(image)})["image"])
    figure = _draw(Path(recipe).stem, recipes.purpose(recipe), before, after)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        _save(figure, temporary)
    return target


def _save(figure: Figure, path: Path) -> None:
    """PNG with a palette: grey scale noise takes half the bytes, and no version of a library enters the file."""
    from PIL import Image

    full = io.BytesIO()
    figure.savefig(full, format="png", dpi=_DOTS_PER_INCH)
    with Image.open(full) as picture:
        picture.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)


def _volume(image: Any) -> _Volume:
    from monai.transforms import Orientation

    if image.ndim != 4:
        raise ValueError(f"a preview needs one volume with three spatial axes, got a tensor of shape {image.shape}")
    oriented = Orientation(axcodes="RAS", labels=None)(image)
    values = oriented.as_tensor()[0].to(torch.float32).numpy()
    return _Volume(values=values, affine=oriented.affine.numpy().astype(np.float64))


def _draw(name: str, purpose: str, before: _Volume, after: _Volume) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 6.6), layout="constrained", facecolor="white")
    figure.suptitle(f"{name}: {purpose}", fontsize=10)
    figure.supxlabel(_FOOTNOTE, fontsize=8)
    point = _centre(after)
    grid = figure.add_gridspec(2, 1)
    _draw_row(figure.add_subfigure(grid[0]), "input", before, point)
    _draw_row(figure.add_subfigure(grid[1]), "prepared", after, point)
    return figure


def _draw_row(row: SubFigure, title: str, volume: _Volume, point: NDArray[np.float64]) -> None:
    row.suptitle(f"{title}: {_describe(volume)}", fontsize=9)
    axes = row.subplots(1, 4, width_ratios=(1, 1, 1, 0.9))
    for axis, plane in zip(axes, _PLANES, strict=False):
        _draw_plane(axis, volume, plane, volume.voxel_of(point))
    _draw_histogram(axes[3], volume)


def _centre(volume: _Volume) -> NDArray[np.float64]:
    """Point in millimetres at the middle of what is brighter than the mean, or of a volume that is flat."""
    bright = np.argwhere(volume.values > volume.values.mean())
    index = bright.mean(0) if len(bright) else (np.array(volume.values.shape) - 1) / 2
    point: NDArray[np.float64] = (volume.affine @ np.array([*index, 1.0]))[:3]
    return point


def _describe(volume: _Volume) -> str:
    grid = " x ".join(str(n) for n in volume.values.shape)
    spacing = " x ".join(f"{s:.3g}" for s in volume.spacing)
    return f"{grid} voxels of {spacing} mm, values {volume.values.min():.4g} to {volume.values.max():.4g}"


def _draw_plane(axis: Axes, volume: _Volume, plane: tuple[str, int, int, int, str, str], at: NDArray[np.int64]) -> None:
    from matplotlib.patheffects import withStroke

    name, fixed, across, up, horizontal, vertical = plane
    # After removing the fixed axis the lower of the two others comes first: transpose, so that rows go up.
    section = np.take(volume.values, int(at[fixed]), axis=fixed).T
    low, high = np.percentile(volume.values, (0.5, 99.5))
    width, height = (volume.values.shape[a] * volume.spacing[a] for a in (across, up))
    # The index grows towards Right and Anterior: mirrored, R is at the left, and so is A in the sagittal plane.
    axis.imshow(
        section[:, ::-1],
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        origin="lower",
        extent=(0, width, 0, height),
        interpolation="nearest",
    )
    axis.set_title(f"{name}, slice {int(at[fixed])}", fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    letters = (
        (0.03, 0.5, horizontal[0]),
        (0.97, 0.5, horizontal[1]),
        (0.5, 0.04, vertical[0]),
        (0.5, 0.96, vertical[1]),
    )
    outline = [withStroke(linewidth=2, foreground="black")]
    style: dict[str, Any] = {"color": "#ffd24a", "fontsize": 8, "weight": "bold", "ha": "center", "va": "center"}
    for x, y, letter in letters:
        axis.text(x, y, letter, transform=axis.transAxes, path_effects=outline, **style)


def _draw_histogram(axis: Axes, volume: _Volume) -> None:
    axis.hist(volume.values.ravel(), bins=80, color="#4878a8", log=True)
    axis.set_title("voxels per value (logarithmic)", fontsize=8)
    axis.tick_params(labelsize=7)
