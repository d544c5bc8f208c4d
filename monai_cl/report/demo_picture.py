"""The picture of the demo: views, curves, predictions beside truth."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_cl.datalist import load_datalist
from monai_cl.engine import read_history
from monai_cl.engine.drawing import class_legend, new_figure, save, show_slice
from monai_cl.engine.prediction_picture import foreground_dice
from monai_cl.report.pictures import draw_history, draw_views
from monai_cl.transforms import VolumeContrastCrops

CLASSES = {1: "grey matter", 2: "white matter", 3: "CSF"}


def draw_demo(root: Path, arms: list[str], dice: dict[str, float]) -> Path:
    """Draw what ``monai-cl demo`` left in ``root``: a row of views, one of curves, one of masks."""
    figure = new_figure(11, 10)
    rows: Any = figure.subfigures(3, 1, height_ratios=[1, 1.1, 1.5])
    views, curves, masks = rows
    _draw_views(views, root)
    _draw_curves(curves, root, arms)
    _draw_masks(masks, root, arms, dice)
    return save(figure, root / "demo.png")


def _draw_views(figure: Any, root: Path) -> None:
    item = load_datalist(root / "scans/dataset.json", "unlabelled")[0]
    volume = _read(item["image"])
    crops = VolumeContrastCrops((2, 2, 2), (16, 16, 16), 4, flip_prob=0.0).set_random_state(seed=3)
    whole, *rest = figure.subplots(1, 5, width_ratios=[1.4, 1, 1, 1, 1])
    show_slice(whole, volume[..., volume.shape[-1] // 2], title="an unlabelled brain")
    draw_views(rest, crops(volume[None]))
    figure.suptitle("Pretraining: random crops, and how much of each lies in which base crop", fontsize=11)


def _draw_curves(figure: Any, root: Path, arms: list[str]) -> None:
    left, middle, right = figure.subplots(1, 3)
    pretraining = read_history(root / "bundle/runs/pretrain/history.csv")
    draw_history(left, pretraining)
    left.set_title("pretraining loss", fontsize=10)
    draw_history(middle, pretraining, name="position_accuracy")
    middle.axhline(1 / 8, color="gray", linestyle=":", label="chance")
    middle.set_title("crops placed in the right base", fontsize=10)
    middle.legend(fontsize=8)
    for arm in arms:
        history = read_history(root / f"bundle/runs/train_{arm.replace(' ', '_')}/history.csv")
        draw_history(right, history, label=arm)
    right.set_title("fine-tuning loss", fontsize=10)
    right.legend(fontsize=8)


def _draw_masks(figure: Any, root: Path, arms: list[str], dice: dict[str, float]) -> None:
    item = load_datalist(root / "scans/dataset.json", "validation")[0]
    image, truth = _read(item["image"]), _read(item["label"])
    cut = truth.shape[-1] // 2
    axes = figure.subplots(1, 2 + len(arms))
    show_slice(axes[0], image[..., cut], title=f"unseen subject {item['case']}")
    show_slice(axes[1], image[..., cut], truth[..., cut], title="truth")
    for ax, arm in zip(axes[2:], arms, strict=True):
        (path,) = (root / "masks" / arm.replace(" ", "_")).rglob("*_seg.nii.gz")
        mask = _read(path)
        own = foreground_dice(mask, truth)
        show_slice(ax, image[..., cut], mask[..., cut], title=f"{arm}\nDice {own:.3f} here, {dice[arm]:.3f} over all")
    class_legend(figure, CLASSES)


def _read(path: str | Path) -> np.ndarray:
    # phantoms and their masks are stored in RAS order already
    return np.asarray(nib.load(path).dataobj).squeeze()
