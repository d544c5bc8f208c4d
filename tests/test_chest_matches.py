"""Places of one chest in another one whose every voxel is known: what boxes, registration and features find.

``pytest -m slow tests/test_chest_matches.py -s`` prints the shares and medians.
"""

import copy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from dense_encoder import learn_places
from monai.data import MetaTensor
from monai.networks.nets import SegResNet
from monai.transforms import Compose, RandAffined, RandScaleIntensityd, RandSpatialCropd
from torch import Tensor

from monai_cl.data import AffineRegistration, BodyBoxes, EmbeddingMatches
from monai_cl.data.pairs.anatomy import anatomy_of
from monai_cl.phantoms import chest_ct_phantom
from monai_cl.phantoms.deformation import exponentiate, sample, voxel_grid
from monai_cl.phantoms.volume import smooth_noise
from monai_cl.transforms import RandViewsd

SHAPE, SPACING = (56, 46, 40), 7.0  # mm
NEAR = 2 * SPACING
POINTS = 200


def displacement(seed: int) -> Tensor:
    """Where each voxel of a second patient lies in the first: smooth and one to one, then turned, scaled, shifted."""
    rng = np.random.default_rng([9, seed])
    fields = [smooth_noise(rng, SHAPE, 50.0 / SPACING) for _ in range(3)]
    smooth = exponentiate(8.0 / SPACING * torch.stack(fields))
    angle, scale = rng.uniform(-0.1, 0.1), torch.from_numpy(rng.uniform(0.9, 1.1, 3)).float()
    turn = torch.eye(3)
    turn[:2, :2] = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = torch.from_numpy(rng.uniform(-15, 15, 3) / SPACING).float().reshape(3, 1, 1, 1)
    grid = voxel_grid(SHAPE)
    centre = torch.tensor([(n - 1) / 2 for n in SHAPE]).reshape(3, 1, 1, 1)
    # i, j = axis
    posed = torch.einsum("ij,jxyz->ixyz", turn * scale, grid + smooth - centre) + centre + shift
    moved: Tensor = posed - grid
    return moved


def patients(seed: int) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
    """A chest and the same one in another body, with noise of its own; organ voxels of this, and where they belong."""
    first = chest_ct_phantom(seed, shape=SHAPE, spacing=(SPACING,) * 3)
    places = voxel_grid(SHAPE) + displacement(seed)
    noise = 20 * smooth_noise(np.random.default_rng([8, seed]), SHAPE, 0.6)
    second = sample(first.image.clamp(-1000, 400), places) + noise
    images = [((image.clamp(-1000, 400) + 1000) / 1400) for image in (first.image, second)]
    volumes = [
        {"image": MetaTensor(image, affine=first.affine), "case": f"{seed}{n}"} for n, image in enumerate(images)
    ]
    organs = sample(first.label.float(), places)[0] > 0.5
    inside = ((places >= 0) & (places <= torch.tensor(SHAPE).reshape(3, 1, 1, 1) - 1)).all(0)
    points = (organs & inside).nonzero()
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:POINTS]]
    x, y, z = points.T
    return volumes, points, places[:, x, y, z].T


def test_a_point_of_the_second_chest_shows_what_its_place_in_the_first_shows() -> None:
    """So the correspondence is known: values agree up to noise, and the map folds nowhere."""
    volumes, points, places = patients(1)
    values = sample(volumes[0]["image"].as_tensor(), places.T.reshape(3, -1, 1, 1))[0, :, 0, 0]
    x, y, z = points.T
    assert float((values - volumes[1]["image"].as_tensor()[0, x, y, z]).abs().median()) < 0.03
    moved = voxel_grid(SHAPE) + displacement(1)
    jacobian = torch.stack([torch.stack(torch.gradient(each)) for each in moved]).permute(2, 3, 4, 0, 1)
    assert float(torch.linalg.det(jacobian).min()) > 0


def pretrained(network: SegResNet, steps: int) -> SegResNet:
    """The network after learning to find voxels of one view of a chest again in another one."""
    geometry = RandAffined("image", prob=1.0, rotate_range=[0.2] * 3, scale_range=[(-0.2, 0.2)] * 3,
                           spatial_size=(32, 32, 24), padding_mode="zeros")  # fmt: skip
    changed = Compose([geometry, RandScaleIntensityd("image", prob=0.8, factors=0.2)])
    crop = RandSpatialCropd("image", (44, 44, 34), random_size=False)
    views = Compose([crop, RandViewsd("image", changed, unit="mm")])
    volumes = [patients(seed)[0][1] for seed in range(10, 16)]
    learn_places(network, volumes, views, exclusion_radius=3 * SPACING, steps=steps)
    return network


@pytest.mark.slow
def test_registration_and_learnt_features_find_more_of_another_chest_than_boxes_and_untrained_ones_less() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SegResNet(init_filters=8, blocks_down=(1, 1, 2), blocks_up=(1, 1))
    learnt = pretrained(copy.deepcopy(network), 100)
    errors: dict[str, list[Tensor]] = {}
    for seed in range(4):
        volumes, points, places = patients(seed)
        bodies: list[Any] = [anatomy_of(volume) for volume in volumes]
        ways: dict[str, Any] = {
            "box": BodyBoxes(bodies),
            "registration": AffineRegistration(volumes, bodies, grid_mm=SPACING),
            "features, untrained": EmbeddingMatches(volumes, bodies, network, step=2),
            "features": EmbeddingMatches(volumes, bodies, learnt, step=2),
            "features around box": EmbeddingMatches(volumes, bodies, learnt, step=2, within=30.0),
        }
        still = (bodies[1].points[::20]).float()
        for name, way in ways.items():
            if name != "registration":  # whose optimiser may stop a little beside
                torch.testing.assert_close(way(1, 1, still).places, still, rtol=0, atol=1e-3)
            errors.setdefault(name, []).append(SPACING * (way(1, 0, points).places - places).norm(dim=1))
    shares = {name: float((torch.cat(each) <= NEAR).float().mean()) for name, each in errors.items()}
    medians = {name: float(torch.cat(each).median()) for name, each in errors.items()}
    for name, share in shares.items():
        sys.stdout.write(f"{name:22} within {NEAR:g} mm {share:.2f}, median {medians[name]:.1f} mm\n")
    for name in ("registration", "features", "features around box"):
        assert shares[name] > shares["box"] + 0.1
        assert medians[name] < medians["box"]
    assert shares["features, untrained"] < shares["box"]
