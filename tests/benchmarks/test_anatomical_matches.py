"""Landmarks of one patient's atrium found in another one, in mm, and the matcher against a loop.

``pytest -m benchmark tests/benchmarks/test_anatomical_matches.py -s`` on the left atria of ``../shared/data`` writes
the table of the card of ``volume_contrast``; ``MATCH_STEPS`` sets the steps of pretraining. On a busy machine, add
``--timeout 0``.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dense_encoder import learn_places
from monai.networks.nets import SegResNet
from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandScaleIntensityd, RandSpatialCropd
from stopwatch import best_of
from torch import Tensor

from monai_cl import recipes
from monai_cl.data import (
    AffineRegistration,
    BodyBoxes,
    EmbeddingMatches,
    PreparedDataset,
    load_datalist,
    match_points,
)
from monai_cl.data.pairs.anatomy import anatomy_of
from monai_cl.transforms import RandViewsd

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "la"
PAIRS = 48  # of the 16 volumes that are not pretrained on
NEAR = 10.0  # mm
STEPS = int(os.environ.get("MATCH_STEPS", "150"))


def prepared(section: str, *, labelled: bool) -> PreparedDataset:
    items = load_datalist(DATA / "dataset.json", section, dataset_dir=DATA, labelled=labelled)
    return PreparedDataset(items, recipes.load("small_mr"), max_faults=0.1)


def landmarks(label: Tensor, spacing: Tensor) -> Tensor:
    """Centre of a structure and the middles of its outermost 2 % along each axis (7, 3), in voxels."""
    places = (label[0] == 1).nonzero().float()
    found = [places.mean(0)]
    for axis in range(3):
        order = places[places[:, axis].argsort()]
        count = max(len(order) // 50, 1)
        found += [order[:count].mean(0), order[-count:].mean(0)]
    return torch.stack(found)


def pretrained(steps: int) -> SegResNet:
    """An encoder that has learned to find voxels of one view in another one of the same patient."""
    torch.manual_seed(0)
    network = SegResNet(init_filters=8, blocks_down=(1, 1, 2), blocks_up=(1, 1), out_channels=2)
    if not steps:
        return network
    size = (32, 32, 24)
    geometry = RandAffined("image", prob=1.0, rotate_range=[0.26] * 3, scale_range=[(-0.3, 0.2)] * 3,
                           spatial_size=size, padding_mode="zeros")  # fmt: skip
    chain = Compose([geometry, RandAdjustContrastd("image", prob=0.5, gamma=(0.6, 1.6)),
                     RandScaleIntensityd("image", prob=0.8, factors=0.3)])  # fmt: skip
    crop = RandSpatialCropd("image", (48, 48, 36), random_size=False)
    views = Compose([crop, RandViewsd("image", chain, unit="mm")])
    learn_places(network, prepared("training", labelled=False), views, exclusion_radius=8.0, steps=steps)
    return network


@pytest.mark.benchmark
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the left atria in ../shared/data")
def test_landmarks_are_found_in_other_patients(benchmark: Any) -> None:
    torch.set_num_threads(1)
    volumes = prepared("validation", labelled=True)
    anatomies: list[Any] = [anatomy_of(volumes[index]) for index in range(len(volumes))]
    points = [landmarks(torch.as_tensor(volumes[i]["label"]), anatomies[i].spacing) for i in range(len(volumes))]
    embedding = EmbeddingMatches(volumes, anatomies, pretrained(STEPS), threshold=0.7, step=2)
    back = EmbeddingMatches(volumes, anatomies, pretrained(0), threshold=0.7, step=2)
    ways: dict[str, Callable[..., Any]] = {
        "box": BodyBoxes(anatomies),
        "registration": AffineRegistration(volumes, anatomies),
        "embedding": embedding,
        "embedding, untrained": back,
    }
    rng = np.random.default_rng(0)
    every = [(a, b) for a in range(len(volumes)) for b in range(len(volumes)) if a != b]
    pairs = [every[number] for number in rng.permutation(len(every))[:PAIRS]]
    found = {name: _errors(way, pairs, points, anatomies) for name, way in ways.items()}
    for name in ("embedding", "embedding, untrained"):
        way: Any = ways[name]
        for option, distance in (("back", NEAR), ("within", 2 * NEAR)):
            setattr(way, option, distance)
            found[f"{name}, {option}"] = _errors(way, pairs, points, anatomies)
            setattr(way, option, None)
    sys.stdout.write(f"\n{PAIRS} pairs of {len(volumes)} volumes, 7 landmarks, {STEPS} steps\n")
    for name, (error, accepted) in found.items():
        for which, rows in (("centre", error[:, :1]), ("all", error)):
            kept = accepted[:, :1] if which == "centre" else accepted
            told = rows[kept]
            near = [
                float((each <= NEAR).float().mean()) if len(each) else float("nan") for each in (told, rows.flatten())
            ]
            middle = float(told.median()) if len(told) else float("nan")
            sys.stdout.write(
                f"{name:32} {which:7} accepted {float(kept.float().mean()):.3f}  within {NEAR:g} mm {near[0]:.3f} of "
                f"them, {near[1]:.3f} of all  median {middle:.1f} mm of them, {float(rows.median()):.1f} of all\n"
            )
    shares = {name: float((error <= NEAR).float().mean()) for name, (error, _) in found.items()}
    benchmark.extra_info["within 10 mm"] = shares
    benchmark.pedantic(lambda: embedding(0, 1, points[0]), rounds=1)
    assert all(e.isfinite().all() for e, _ in found.values())


def _errors(way: Any, pairs: list[tuple[int, int]], points: list[Tensor], anatomies: Any) -> tuple[Tensor, Tensor]:
    """Distances in mm (pairs, 7) and which matches are accepted."""
    errors, accepted = [], []
    for a, b in pairs:
        matches = way(a, b, points[a])
        errors.append(((matches.places - points[b]) * anatomies[b].spacing).norm(dim=1))
        accepted.append(matches.accepted)
    return torch.stack(errors), torch.stack(accepted)


@pytest.mark.benchmark
def test_the_matcher_against_a_loop_over_points_and_cells(benchmark: Any) -> None:
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    queries, keys = (F.normalize(torch.randn(n, 160, generator=g), dim=1) for n in (16, 20000))

    def loop() -> list[int]:
        found = []
        for query in queries:
            best, place = -2.0, -1
            for index in range(0, len(keys), 10):  # a tenth of the cells: the whole loop takes minutes
                likeness = float(torch.dot(query, keys[index]))
                if likeness > best:
                    best, place = likeness, index
            found.append(place)
        return found

    slow, fast = 10 * best_of(loop, 1), best_of(lambda: match_points(queries, keys))
    benchmark.extra_info["times as fast as a loop"] = round(slow / fast)
    sys.stdout.write(f"\ntimes as fast as a loop: {slow / fast:.0f}\n")
    benchmark.pedantic(lambda: match_points(queries, keys), rounds=1)
    assert slow > 20 * fast
