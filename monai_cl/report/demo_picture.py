"""Picture of the demo: views, pseudo-labels, curves, masks beside truth, and its finding."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from monai_cl.datalist import load_datalist
from monai_cl.engine import read_history, read_pseudo_labels
from monai_cl.engine.drawing import COLOURS, LINES, class_legend, new_figure, save, show_slice
from monai_cl.engine.prediction_picture import foreground_dice
from monai_cl.phantoms.heart import LABELS
from monai_cl.report.pictures import draw_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CONFIGS = ("pretrain", "dense", "small")
_MOMENTS = 6
_PLACES = ((0.35, 0.3), (0.65, 0.35), (0.5, 0.55), (0.3, 0.65), (0.68, 0.7))  # of a slice, as shares of its sides


class DemoArm(NamedTuple):
    """Results of an arm of the demo.

    Attributes:
        title: As in tables.
        run: Folder of its first run of fine-tuning.
        masks: Folder of its masks.
    """

    title: str
    run: Path
    masks: Path


def draw_demo(
    root: Path,
    arms: Sequence[DemoArm],
    dice: Mapping[str, Sequence[float]],
    sentence: str,
    *,
    settings: Mapping[str, Any],
) -> Path:
    """Draw what ``monai-cl demo`` left in ``root``.

    Args:
        root: Folder of the demo.
        arms: Trained arms; the first one has pseudo-labels.
        dice: Dice of each draw, by title.
        sentence: Sentence on the result, which becomes the caption.
        settings: Of the bundle, with which the volumes were prepared.
    """
    figure = new_figure(11, 13)
    rows: Any = figure.subfigures(4, 1, height_ratios=[1.15, 1.1, 1.15, 1.25])
    _draw_views(rows[0], root, settings)
    _draw_pseudo_labels(rows[1], arms[0].run)
    _draw_curves(rows[2], root, arms, dice)
    _draw_masks(rows[3], root, arms, dice)
    figure.suptitle("\n".join(textwrap.wrap(sentence, 120)), fontsize=11)
    return save(figure, root / "demo.png")


def _draw_views(figure: Any, root: Path, settings: Mapping[str, Any]) -> None:
    parser = ConfigParser()
    parser.read_config([str(root / f"bundle/configs/{name}.yaml") for name in _CONFIGS])
    parser.update({**settings, "bundle_root": str(root / "bundle")})
    prepare = parser.get_parsed_content("train#preprocessing")
    views = parser.get_parsed_content("views").set_random_state(seed=3)
    volume = prepare({"image": load_datalist(root / "scans/dataset.json", "unlabelled")[0]["image"]})["image"]
    image = torch.as_tensor(volume).as_subclass(Tensor)
    image = image[..., image.shape[-1] // 2]
    result = views({"image": image})
    whole, *rest = np.atleast_1d(figure.subplots(1, 1 + len(result["image"])))
    places = [tuple(share * side for share, side in zip(place, image.shape[1:], strict=True)) for place in _PLACES]
    show_slice(whole, image[0].numpy(), title="a slice of an unlabelled heart")
    _number(whole, image.shape[1], places)
    for number, (ax, view, coords, valid) in enumerate(
        zip(rest, result["image"], result["coords"], result["valid"], strict=True), start=1
    ):
        show_slice(ax, np.asarray(view[0]), title=f"view {number}")
        _number(ax, view.shape[1], [_nearest(coords, valid, place) for place in places])
    figure.suptitle(
        "Pretraining: the same places in two views of a slice are to look alike to the network", fontsize=10
    )


def _nearest(coords: Tensor, valid: Tensor, place: Sequence[float]) -> tuple[float, float] | None:
    """Pixel of a view that comes from a place of the source; None where none does."""
    distance = (coords - torch.tensor(place).view(-1, 1, 1)).norm(dim=0).where(valid, torch.inf)
    x, y = np.unravel_index(int(distance.argmin()), tuple(distance.shape))
    return (float(x), float(y)) if float(distance.min()) < 1 else None


def _number(ax: Axes, width: int, places: Sequence[Any]) -> None:
    for number, place in enumerate(places, start=1):
        if place is not None:  # slices are shown mirrored, the patient's right at the left
            where = (width - 1 - place[0], place[1])
            ax.text(*where, str(number), color=COLOURS[0], ha="center", va="center", weight="bold", fontsize=11)


def _draw_pseudo_labels(figure: Any, run: Path) -> None:
    moments = read_pseudo_labels(run / "pseudo_labels")
    if not moments:
        return
    chosen = [moments[i] for i in np.unique(np.linspace(0, len(moments) - 1, _MOMENTS).round().astype(int))]
    row = int(np.argmax([(each > 0).sum() for each in moments[-1].labels]))  # the slice with most of a heart
    axes = np.atleast_1d(figure.subplots(1, 1 + len(chosen)))
    show_slice(axes[0], chosen[0].image[row], title="an unlabelled slice")
    for ax, moment in zip(axes[1:], chosen, strict=True):
        show_slice(ax, moment.image[row], moment.labels[row], title=f"step {moment.step}")
    figure.suptitle("Self-training: labels that the teacher gives it, as they grow up", fontsize=10)


def _draw_curves(figure: Any, root: Path, arms: Sequence[DemoArm], dice: Mapping[str, Sequence[float]]) -> None:
    left, middle, right = figure.subplots(1, 3)
    draw_history(left, read_history(root / "bundle/runs/pretrain_dense/history.csv"))
    left.set_title("pretraining loss", fontsize=10)
    for arm in arms:
        draw_history(middle, read_history(arm.run / "history.csv"), label=arm.title)
    middle.set_title("fine-tuning loss, first draw", fontsize=10)
    middle.legend(fontsize=7)
    draws = np.arange(1, 1 + len(next(iter(dice.values()))))
    for number, (values, colour) in enumerate(zip(dice.values(), LINES, strict=False)):
        shift = 0.12 * (number - (len(dice) - 1) / 2)
        right.plot(draws + shift, values, "o", color=colour)
        right.axhline(float(np.mean(values)), color=colour, linestyle=":", linewidth=1.2)
    right.set_xticks(draws)
    right.set_xlim(0.5, draws[-1] + 0.5)
    right.set_xlabel("draw of the labels")
    right.grid(alpha=0.3)
    right.set_title("Dice on unseen hearts, dotted the means", fontsize=10)


def _draw_masks(figure: Any, root: Path, arms: Sequence[DemoArm], dice: Mapping[str, Sequence[float]]) -> None:
    item = load_datalist(root / "scans/dataset.json", "validation")[0]
    image, truth = _read(item["image"]), _read(item["label"])
    cut = truth.shape[-1] // 2
    axes = figure.subplots(1, 2 + len(arms))
    show_slice(axes[0], image[..., cut], title=f"unseen subject\n{item['case']}")
    show_slice(axes[1], image[..., cut], truth[..., cut], title="truth\n")
    for ax, arm in zip(axes[2:], arms, strict=True):
        (path,) = arm.masks.rglob("*_seg.nii.gz")
        mask = _read(path)
        own = foreground_dice(mask, truth)
        title = f"{arm.title}\nDice {own:.3f} here, {np.mean(dice[arm.title]):.3f} in all"
        show_slice(ax, image[..., cut], mask[..., cut], title=title)
    class_legend(figure, LABELS)


def _read(path: str | Path) -> np.ndarray:
    # phantoms and their masks are stored in RAS order already
    return np.asarray(nib.load(path).dataobj).squeeze()


__all__ = ["DemoArm", "draw_demo"]
