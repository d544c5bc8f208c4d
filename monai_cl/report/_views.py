"""The views of a volume and what relates them, drawn as the method sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from monai_cl.engine.drawing import new_figure
from monai_cl.report._drawing import INK, Picture, colours, draw_box, draw_slice, page_style, to_svg
from monai_cl.report._sources import NotAvailableError, Sources
from monai_cl.report._volumes import VolumeSet, view_volumes
from monai_cl.transforms import CropPlan, VolumeContrastCrops

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 6


def draw_correspondences(sources: Sources) -> list[Picture]:
    """A slice of one volume with the grid of bases and the random crops, their overlaps, and the crops themselves.

    Raises:
        NotAvailableError: If no volume or no setting is available to draw from.
    """
    crops = sources.crops().set_random_state(seed=0)
    volume = next(sources.volumes(1), None)
    if volume is None:
        raise NotAvailableError("no volume of the datalist could be prepared")
    if volume.image.ndim - 1 != len(crops.grid) or len(crops.grid) < 2:
        raise NotAvailableError("views are drawn for volumes with two or three axes that the grid fits")
    plan = crops.randomize(tuple(volume.image.shape[1:]))
    views = crops.apply(volume.image, plan)
    image, overlap = np.asarray(volume.image[0]), np.asarray(views["overlap"])
    return [_scene(image, crops, plan, overlap), _cut_out(views)]


def two_views(sources: Sources) -> list[VolumeSet]:
    """The crop and the base of one volume that overlap most, side by side where each lies in the volume.

    Raises:
        NotAvailableError: If no setting is available to draw from.
    """
    crops = sources.crops().set_random_state(seed=0)
    volume = next(sources.volumes(1), None)
    if volume is None or volume.image.ndim != 4 or len(crops.grid) != 3:
        return []
    plan = crops.randomize(tuple(volume.image.shape[1:]))
    overlap = np.asarray(crops.apply(volume.image, plan)["overlap"])
    crop, base = np.unravel_index(int(overlap.argmax()), overlap.shape)
    origin = plan.canvas_start - plan.padding[:, 0]
    cell = np.array(np.unravel_index(base, crops.grid))
    views = [
        (f"crop {_letter(int(crop))}", plan.crop_starts[crop] + origin, crops.crop_size),
        (f"base {base}", origin + cell * np.array(crops.base_size), crops.base_size),
    ]
    title = f"Two views of a volume: {100 * overlap[crop, base]:.0f} % of the crop lies in the base"
    return [view_volumes(np.asarray(volume.image[0]), views, title)]


def _scene(image: np.ndarray, crops: VolumeContrastCrops, plan: CropPlan, overlap: np.ndarray) -> Picture:
    origin = plan.canvas_start - plan.padding[:, 0]
    starts = plan.crop_starts + origin
    cut = _central_cut(image, starts, crops.crop_size)
    with page_style():
        figure = new_figure(9.0, 3.9)
        whole, canvas, shares = figure.subplots(1, 3, width_ratios=[0.8, 1.2, 1.1])
        for ax in (whole, canvas):
            draw_slice(ax, image if cut is None else image[..., cut])
        whole.set_title("a training volume" if cut is None else f"a training volume,\nslice {cut + 1}")
        draw_box(whole, origin, crops.canvas_size, "", "#FFFFFF")
        crossing = _draw_boxes(canvas, crops, origin, starts, cut)
        _draw_overlap(shares, overlap)
        alt = (
            f"One slice of a training volume with a grid of {' by '.join(map(str, crops.grid))} base crops and the "
            f"{len(crossing)} of {len(starts)} random crops that cross it; beside it the share of each crop in each "
            "base. " + " ".join(_in_words(number, row) for number, row in enumerate(overlap))
        )
        caption = "Base crops (numbered, dashed) and the random crops (lettered) that cross this slice; their overlap"
        return Picture(to_svg(figure, alt, "scene"), caption)


def _central_cut(image: np.ndarray, starts: np.ndarray, size: tuple[int, ...]) -> int | None:
    """Index along the third axis that most crops cross, the middlemost of such."""
    if image.ndim == 2:
        return None
    index = np.arange(image.shape[2])
    crossed = sum(((index >= start[2]) & (index < start[2] + size[2])).astype(int) for start in starts)
    best = np.flatnonzero(crossed == np.max(crossed))
    return int(best[len(best) // 2])


def _draw_boxes(
    ax: Axes, crops: VolumeContrastCrops, origin: np.ndarray, starts: np.ndarray, cut: int | None
) -> list[int]:
    """Zoom to the canvas and draw every base and crop that crosses the slice; the numbers of these crops."""
    for cell in np.ndindex(*crops.grid):
        corner = origin + np.array(cell) * crops.base_size
        if _crosses(corner, crops.base_size, cut):
            draw_box(ax, corner, crops.base_size, str(np.ravel_multi_index(cell, crops.grid)), "#FFFFFF", dashed=True)
    crossing = [number for number, start in enumerate(starts) if _crosses(start, crops.crop_size, cut)]
    for crop, colour in zip(crossing, colours(len(crossing)), strict=True):
        draw_box(ax, starts[crop], crops.crop_size, _letter(crop), colour)
    margin = max(crops.canvas_size) / 16
    ax.set_xlim(origin[0] + crops.canvas_size[0] + margin, origin[0] - margin)
    ax.set_ylim(origin[1] - margin, origin[1] + crops.canvas_size[1] + margin)
    ax.set_title("grid and crops")
    return crossing


def _crosses(corner: np.ndarray, size: tuple[int, ...], cut: int | None) -> bool:
    return cut is None or bool(corner[2] <= cut < corner[2] + size[2])


def _draw_overlap(ax: Axes, overlap: np.ndarray) -> None:
    ax.imshow(overlap, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    few = overlap.size <= 160
    for (row, column), share in np.ndenumerate(overlap):
        if few and share > 0.005:
            dark = "#FFFFFF" if share > 0.5 else "#000000"
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=dark)
    ax.set_xticks(range(overlap.shape[1]))
    ax.set_yticks(range(overlap.shape[0]), [_letter(number) for number in range(overlap.shape[0])])
    ax.set_title("% of each crop inside each base")
    ax.set_xlabel("base")
    ax.tick_params(length=0)
    ax.spines[:].set_color(INK)


def _cut_out(views: dict[str, Any]) -> Picture:
    overlap = np.asarray(views["overlap"])[:_SHOWN]
    with page_style():
        figure = new_figure(9.0, 2.3)
        axes = figure.subplots(1, max(len(overlap), 4), squeeze=False)[0]
        for ax in axes[len(overlap) :]:
            ax.set_axis_off()
        for number, (ax, crop, shares) in enumerate(zip(axes, np.asarray(views["crops"]), overlap, strict=False)):
            best = [f"{100 * shares[k]:.0f} % in {k}" for k in np.argsort(-shares)[:2] if shares[k] > 0.005]
            middle = crop[0] if crop.ndim == 3 else crop[0, ..., crop.shape[-1] // 2]
            draw_slice(ax, middle, f"crop {_letter(number)}")
            ax.text(0, -0.05, "\n".join(best), transform=ax.transAxes, va="top", fontsize=8)
        alt = f"The middle slice of {len(overlap)} random crops. " + " ".join(map(_in_words, range(99), overlap))
        return Picture(
            to_svg(figure, alt, "crops"), "The crops as the network sees them, mirrored and changed in intensity"
        )


def _in_words(number: int, shares: np.ndarray) -> str:
    best = int(np.argmax(shares))
    return f"Crop {_letter(number)} lies {100 * shares[best]:.0f} % in base {best}."


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"A{number}"
