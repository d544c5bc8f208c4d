"""Nearest neighbours: the crops of other patients that the pretrained network finds most like a crop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_cl.engine.drawing import ORANGE, new_figure
from monai_cl.networks import encoder_features, pool_pyramid
from monai_cl.report._drawing import Picture, draw_box, draw_slice, page_style, to_svg
from monai_cl.report._sources import NotAvailableError, PreparedVolume, Sources, networks
from monai_cl.report.tables import Table

MOST_VOLUMES = 12
_CROPS = 8  # a volume
_QUERIES = 4
_NEAREST = 3

Watch = Callable[[Iterable[PreparedVolume], int, str], Iterable[PreparedVolume]]


@dataclass(frozen=True)
class _Crops:
    """N crops.

    Attributes:
        images: Their voxels (N, C, *r).
        subjects: Their patients.
        centres: Where their centres lie, as shares of the volume's edges (N, nd).
        planes: The slice of the volume through each centre, and
        corners: where in it the crop begins (N, 2).
    """

    images: Tensor
    subjects: NDArray[np.str_]
    centres: NDArray[np.float64]
    planes: list[NDArray[np.float32]]
    corners: NDArray[np.int64]


def draw_neighbours(sources: Sources, watch: Watch) -> tuple[Picture, Table]:
    """Queries with their nearest crops of other patients, and how near those lie to the query's own place.

    Args:
        sources: Where volumes, settings and network come from.
        watch: Shows how far the preparation of the volumes is.

    Raises:
        NotAvailableError: If one of these is unavailable, or only one patient is given.
    """
    result = networks(sources.found.bundles, sources.settings, trusted=sources.found.trusted)
    crops = _gather(sources, watch)
    similarity = {name: _similarity(network, crops) for name, network in result.items()}
    return _draw(crops, next(iter(similarity.values()))), _table(crops, similarity)


def _gather(sources: Sources, watch: Watch) -> _Crops:
    cut = sources.crops(_CROPS, flip_prob=0.0, intensity_prob=0.0).set_random_state(seed=0)
    images, subjects, centres, planes, corners = [], [], [], [], []
    for volume in watch(sources.volumes(MOST_VOLUMES), MOST_VOLUMES, "nearest neighbours"):
        plan = cut.randomize(tuple(volume.image.shape[1:]))
        images.append(cut.apply(volume.image, plan)["crops"])
        subjects += [volume.subject] * _CROPS
        starts = plan.crop_starts + plan.canvas_start - plan.padding[:, 0]
        middles = starts + np.asarray(cut.crop_size) / 2
        centres.append(middles / np.asarray(volume.image.shape[1:]))
        planes += [_plane(volume.image, middle) for middle in middles]
        corners.append(starts[:, :2])
    if len(set(subjects)) < 2:
        raise NotAvailableError("crops of at least two patients are needed to look for neighbours")
    return _Crops(torch.cat(images), np.array(subjects), np.concatenate(centres), planes, np.concatenate(corners))


@torch.no_grad()
def _similarity(network: nn.Module, crops: _Crops) -> NDArray[np.float64]:
    """Cosine between the standardised features of crops (N, N); minus infinity between those of one patient."""
    batches = crops.images.split(_CROPS)
    features = torch.cat([pool_pyramid(encoder_features(network, batch), 2) for batch in batches]).double()
    # levels differ in scale, and the part shared by all crops separates nothing
    standard = (features - features.mean(0)) / features.std(0).clamp_min(1e-6)
    cosine = F.normalize(standard, dim=1) @ F.normalize(standard, dim=1).T
    own = crops.subjects[:, None] == crops.subjects[None]
    return np.where(own, -np.inf, cosine.numpy())


def _table(crops: _Crops, similarity: dict[str, NDArray[np.float64]]) -> Table:
    distance = np.linalg.norm(crops.centres[:, None] - crops.centres[None], axis=-1)
    other = crops.subjects[:, None] != crops.subjects[None]
    rows = [
        (name, round(float(np.median(distance[np.arange(len(distance)), values.argmax(1)])), 3))
        for name, values in similarity.items()
    ]
    rows.append(("by chance", round(float(np.median(distance[other])), 3)))
    note = "a small distance shows that the network knows the place of a crop, not that it knows its content"
    count = f"{len(crops.images)} crops of {len(set(crops.subjects))} patients"
    return Table(
        "How far from its own place a crop's nearest neighbour lies",
        ("features", "median distance, in edges of the volume"),
        tuple(rows),
        (count, note),
    )


def _draw(crops: _Crops, similarity: NDArray[np.float64]) -> Picture:
    # one query a row, each of another patient
    _, firsts = np.unique(crops.subjects, return_index=True)
    queries = [int(first) + row % _CROPS for row, first in enumerate(firsts[:_QUERIES])]
    words: list[str] = []
    with page_style():
        figure = new_figure(9.0, 2.5 * len(queries))
        axes = figure.subplots(len(queries), 1 + _NEAREST, squeeze=False)
        for number, (row, query) in enumerate(zip(axes, queries, strict=True), start=1):
            nearest = _nearest(similarity[query], crops.subjects)
            cosines = [f"cosine {similarity[query, result]:.2f}" for result in nearest]
            for ax in row[1 + len(nearest) :]:
                ax.set_axis_off()
            for ax, crop, title in zip(row, [query, *nearest], [f"query {number}", *cosines], strict=False):
                draw_slice(ax, crops.planes[crop], title)
                draw_box(ax, crops.corners[crop], crops.images.shape[2:], "", ORANGE)
            words.append(f"Query {number}: {', '.join(cosines)}.")
        svg = to_svg(figure, f"Crops and their nearest crops of other patients. {' '.join(words)}", "neighbours")
    return Picture(svg, "Left the query, then its nearest crops, each of another patient, in the slices they come from")


def _nearest(similarity: NDArray[np.float64], subjects: NDArray[np.str_]) -> list[int]:
    """The best crop of each patient, best first."""
    chosen: dict[str, int] = {}
    for index in np.argsort(-similarity):
        if np.isfinite(similarity[index]):
            chosen.setdefault(str(subjects[index]), int(index))
    return list(chosen.values())[:_NEAREST]


def _plane(image: Tensor, middle: NDArray[np.float64]) -> NDArray[np.float32]:
    volume = np.asarray(image[0])
    return volume if volume.ndim == 2 else volume[..., int(np.clip(middle[2], 0, volume.shape[2] - 1))]
