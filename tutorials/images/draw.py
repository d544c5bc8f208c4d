"""Draw the pictures of the concepts and the front page, from phantoms and records: ``python tutorials/images/draw.py``.

Colours are those of Okabe and Ito, which people of any colour vision can tell apart, on white, so that a picture reads the
same on a dark page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.patches import ConnectionPatch, Rectangle
from monai.networks.nets import UNet
from monai.transforms import Compose, RandAdjustContrast, RandAffine, RandGaussianNoise, RandSpatialCrop, ScaleIntensity
from monai.utils import set_determinism

from monai_cl.engine.drawing import BLUE, COLOURS, ORANGE, class_legend, new_figure, save, show_slice
from monai_cl.phantoms import abdomen_ct_phantom, cardiac_mr_phantom
from monai_cl.transforms import PseudoLabels, RandViews
from monai_cl.transforms.copy_paste import Box, copy_paste, outside_of
from monai_cl.transforms.overlap import overlap_fractions

HERE = Path(__file__).parent
RECORDS = HERE.parents[1] / "bundles/global_local_contrast/docs/records"
# record, arm, words: self-training as it is the default
MEASURED = (
    ("acdc_labels", "dense_selftrain", "hearts, 1 label,\npretrained too"),
    ("acdc_two_labels", "dense_selftrain", "hearts, 2 labels,\npretrained too"),
    ("hippocampus_two_labels", "selftrain", "hippocampus,\n2 labels"),
)
HEART = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}


def volume_contrast() -> None:
    """Canvas of base crops on a CT slice, a random crop, and the share of it in each base."""
    image = abdomen_ct_phantom(0).image[0, :, :, 26].numpy().clip(-175, 250)
    size, corner, crop = 24, (12, 4), (27, 18)  # voxels; the crop's first corner
    shares = overlap_fractions([[c - o + size / 2 for c, o in zip(crop, corner)]], (3, 3), (size, size))[0].numpy()
    figure = new_figure(8.6, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    left.imshow(image.T, cmap="gray", origin="lower")
    for k in range(9):
        x, y = corner[0] + size * (k // 3), corner[1] + size * (k % 3)
        left.add_patch(Rectangle((x - 0.5, y - 0.5), size, size, fill=False, edgecolor=COLOURS[1], linewidth=1.2))
        left.text(x + 1, y + 1, str(k), color=COLOURS[1], va="bottom")
    left.add_patch(Rectangle((crop[0] - 0.5, crop[1] - 0.5), size, size, fill=False, edgecolor=ORANGE, linewidth=2.4))
    left.set(xticks=[], yticks=[], title="a canvas of base crops and one random crop")
    right.bar(range(9), shares, color=[ORANGE if share else "#bbbbbb" for share in shares])
    right.set(xticks=range(9), xlabel="base crop", ylabel="share of the crop", ylim=(0, 1))
    right.set_title("target: the crop's similarity to each base")
    save(figure, HERE / "volume_contrast.png")


def heart(seed: int, cut: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Slice of a synthetic heart from 0 to 1, and its labels; both (1, X, Y)."""
    volume = cardiac_mr_phantom(seed)
    window = (..., slice(16, 96), slice(16, 96), cut)
    return ScaleIntensity()(volume.image[window].float()).as_tensor(), volume.label[window].long()


def two_views() -> dict[str, Any]:
    """Two views of one slice, with the place of every pixel in it."""
    chain = Compose(
        [
            RandAffine(prob=1, rotate_range=0.6, scale_range=0.15, padding_mode="zeros"),
            RandSpatialCrop((64, 64), random_size=False),
            RandAdjustContrast(prob=1, gamma=(0.5, 2.0)),
            RandGaussianNoise(prob=1, std=0.04),
        ]
    )
    views = RandViews(chain).set_random_state(seed=4)(heart(0)[0])
    return {key: np.asarray(value) for key, value in views.items()}


def joined(left: Any, right: Any, views: dict[str, Any], points: int = 5) -> None:
    """Draw two views and lines between pixels at the same place."""
    for ax, view, title in ((left, 0, "view 1"), (right, 1, "view 2: other geometry and intensities")):
        ax.imshow(views["views"][view, 0].T, cmap="gray", origin="lower")
        ax.set(xticks=[], yticks=[], title=title)
    first, second = views["coords"]
    places = [(32, 32), (20, 40), (44, 24), (40, 46), (24, 18), (50, 40)]
    drawn = 0
    for place in places:
        distance = np.linalg.norm(second - first[:, place[0], place[1]][:, None, None], axis=0)
        distance[~views["valid"][1]] = np.inf
        if drawn < points and views["valid"][0][place] and distance.min() < 0.8:
            other = np.unravel_index(distance.argmin(), distance.shape)
            colour = COLOURS[drawn]
            line = {"coordsA": "data", "coordsB": "data", "axesA": left, "axesB": right, "color": colour, "lw": 1.3}
            left.figure.add_artist(ConnectionPatch(place, other, **line))
            left.plot(*place, "o", color=colour, markeredgecolor="white")
            right.plot(*other, "o", color=colour, markeredgecolor="white")
            drawn += 1


def dense_contrast() -> None:
    """Two views of one slice; pixels at the same place are joined."""
    figure = new_figure(7.6, 3.8)
    joined(*figure.subplots(1, 2), two_views())
    save(figure, HERE / "dense_contrast.png")


def small_network(steps: int, labelled: int = 3) -> UNet:
    """Network trained for ``steps`` on slices of a few synthetic hearts, labels known."""
    set_determinism(seed=0)
    slices = [heart(seed, cut) for seed in range(labelled) for cut in range(2, 9)]
    images, labels = (torch.stack(each) for each in zip(*slices))
    network = UNet(2, 1, 4, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, norm="instance")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels[:, 0]).backward()
        optimizer.step()
    return network.eval()


def pseudo_labels(network: UNet, image: torch.Tensor) -> torch.Tensor:
    """Labels of an unlabelled slice by a network, the largest component of each class; (1, X, Y)."""
    with torch.no_grad():
        return PseudoLabels(4)(network(image[None])).labels[0]


def self_training() -> None:
    """A labelled and an unlabelled slice, pasted into each other with their labels."""
    (image, label), (other, _) = heart(0), heart(11)
    guessed = pseudo_labels(small_network(200), other)
    outside = outside_of(Box((14, 18), (52, 52)), (80, 80))
    figure = new_figure(11, 3.4)
    axes = figure.subplots(1, 4)
    show_slice(axes[0], image[0].numpy(), label[0].numpy(), title="labelled slice")
    show_slice(axes[1], other[0].numpy(), guessed[0].numpy(), title="unlabelled slice, pseudo-labels")
    mixed, targets = copy_paste(image, other, outside), copy_paste(label, guessed, outside)
    show_slice(axes[2], mixed[0].numpy(), title="the second pasted into the first")
    show_slice(axes[3], mixed[0].numpy(), targets[0].numpy(), title="what the network learns from")
    class_legend(figure, HEART)
    save(figure, HERE / "self_training.png")


def difference(record: str, arm: str, comparison: str) -> tuple[float, float, float] | None:
    """Difference of an arm to scratch in Dice points with its interval; None where the record lacks it."""
    for table in json.loads((RECORDS / f"{record}.json").read_text(encoding="utf-8"))["tables"]:
        if table["caption"].startswith(f"Dice, difference at {comparison}"):
            (column,) = (i for i, name in enumerate(table["columns"]) if name.startswith(f"{arm} less "))
            cell = table["rows"][0][column]
            return 100 * cell["value"], 100 * cell["low"], 100 * cell["high"]
    return None


def gains(ax: Any) -> None:
    """Differences of self-training to scratch on several data sets, from the records."""
    comparisons = (("equal steps", "as many steps", BLUE, -0.14), ("equal compute", "as much time", ORANGE, 0.14))
    for comparison, title, colour, shift in comparisons:
        label: str | None = title
        for row, (record, arm, _) in enumerate(MEASURED):
            if (points := difference(record, arm, comparison)) is not None:
                value, low, high = points
                error = [[value - low], [high - value]]
                ax.errorbar(value, row + shift, xerr=error, color=colour, marker="o", capsize=3, label=label)
                label = None
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set_yticks(range(len(MEASURED)), [words for *_, words in MEASURED])
    ax.set_xlabel("Dice points ahead of scratch")
    ax.set_ylim(len(MEASURED) - 0.5, -0.5)
    ax.legend(loc="upper center", bbox_to_anchor=(0.35, -0.18), ncols=2, fontsize=8, columnspacing=1)


def overview() -> None:
    """Views, pseudo-labels and measured gains: the picture of the front page."""
    figure = new_figure(13, 3.5)
    pair, scans, measured = figure.subfigures(1, 3, width_ratios=[1.25, 1.25, 1])
    axes = pair.subplots(1, 2)
    joined(*axes, two_views())
    for ax in axes:
        ax.set_title("")
    pair.suptitle("1. Pretrain: the same place in two views", fontsize=10)
    other, truth = heart(11)
    axes = scans.subplots(1, 2)
    for ax, steps in zip(axes, (30, 200)):
        show_slice(ax, other[0].numpy(), pseudo_labels(small_network(steps), other)[0].numpy(), title=f"step {steps}")
    scans.suptitle("2. Fine-tune: pseudo-labels of a scan without labels", fontsize=10)
    gains(measured.subplots())
    measured.suptitle("3. Measure: 5 seeds, 95 % intervals", fontsize=10)
    save(figure, HERE / "overview.png")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with matplotlib.rc_context(STYLE):
        volume_contrast()
        dense_contrast()
        self_training()
        overview()
