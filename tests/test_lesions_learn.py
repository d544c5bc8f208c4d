"""Heads with spots on one side, labelled healthy or patient alone: ``pytest -m slow``.

Kinds of disease that no label names come apart in the salient space, and the autoencoder shows the spots. The set-up is
that of sections 2 and 6 of ``tutorials/09_hospital_studies.ipynb``.
"""

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import UNet
from monai.transforms import Compose, RandGaussianNoised
from sklearn.metrics import roc_auc_score
from torch import Tensor

from monai_cl.engine import adamw, warmup_cosine
from monai_cl.engine.separation import separate
from monai_cl.engine.spaces import embed_spaces
from monai_cl.losses import SepVAELoss
from monai_cl.methods import CasesAndControls, Method, SeparateVAETerm
from monai_cl.phantoms import spotted_head
from monai_cl.transforms import RandViewsd

SIDE, TRAINED, TESTED = 24, 240, 120
SIDES: tuple[Literal["left", "right"] | None, ...] = (None, "left", None, "right")


def head(number: int) -> dict[str, Any]:
    """Healthy, or with spots on the left or the right, in turn."""
    side = SIDES[number % 4]
    image, spots = spotted_head((5, number), side, size=SIDE)
    return {
        "image": image, "spots": spots[0], "patient": int(side is not None), "side": side, "case": f"head {number}",
        "subject": str(number),
    }  # fmt: skip


def moved(images: Tensor) -> Tensor:
    """Turned, scaled and shifted a little, brighter or darker, with noise."""
    n = len(images)
    turn, scale, shift = 0.2 * torch.randn(n), 1 + 0.08 * torch.randn(n), 0.06 * torch.randn(2, n)
    rows = [scale * turn.cos(), -scale * turn.sin(), shift[0], scale * turn.sin(), scale * turn.cos(), shift[1]]
    places = F.affine_grid(torch.stack(rows, 1).reshape(-1, 2, 3), list(images.shape), align_corners=False)
    found = F.grid_sample(images, places, align_corners=False)
    return found * (1 + 0.1 * torch.randn(n, 1, 1, 1)) + 0.1 * torch.randn_like(found)


@pytest.fixture(scope="module")
def heads() -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    return [head(number) for number in range(TRAINED + TESTED)]


def train(method: Method, heads: list[dict[str, Any]], *, steps: int, size: int, views: int) -> None:
    """Steps of as many healthy as patients."""
    images = torch.stack([item["image"] for item in heads[:TRAINED]])
    labels = torch.tensor([item["patient"] for item in heads[:TRAINED]])
    optimizer = adamw(method, 3e-3)
    scheduler = warmup_cosine(optimizer, steps)
    for _ in range(steps):
        kinds = [torch.nonzero(labels == kind)[torch.randint(TRAINED // 2, (size // 2,)), 0] for kind in (0, 1)]
        drawn = torch.cat(kinds)
        optimizer.zero_grad()
        made = torch.stack([moved(images[drawn]) for _ in range(views)], 1)
        method({"image": made, "patient": labels[drawn]})["loss"].backward()
        optimizer.step()
        scheduler.step()


def network() -> UNet:
    return UNet(2, 1, 2, channels=(8, 16, 32), strides=(2, 2))


@pytest.mark.slow
def test_sides_of_lesions_come_apart_in_the_salient_space_more_than_in_the_common_one(
    heads: list[dict[str, Any]],
) -> None:
    torch.manual_seed(0)
    method = CasesAndControls(network(), SIDE, pool_size=3)
    train(method, heads, steps=250, size=64, views=2)
    noisy = RandViewsd("image", Compose([RandGaussianNoised("image", prob=1.0, std=0.1)]), num_views=2)
    spaces = embed_spaces(method, heads[TRAINED:], noisy, attributes=["side"], draws=1)
    known = {(row["label"], row["space"]): row["accuracy"] for row in spaces.probes(folds=4)}
    assert known["patient", "salient"] > 0.95
    assert known["side", "salient"] > 0.95
    assert known["side", "salient"] > known["side", "common"] + 0.1
    assert known["patient", "salient"] > known["patient", "common"] + 0.1


@pytest.mark.slow
def test_what_the_salient_code_adds_to_an_image_lies_where_the_spots_are(heads: list[dict[str, Any]]) -> None:
    """In heads not trained on; the weight of the common code is 6 over the number of voxels."""
    torch.manual_seed(0)
    loss = SepVAELoss(common_weight=1e-2, salient_weight=1e-3)
    options = {"pool_size": 6, "hidden": 256, "width": 16, "doublings": 2}
    term = SeparateVAETerm([SIDE, SIDE], loss, **options)  # type: ignore[arg-type]
    method = Method(network(), {"separation": term}, image_size=SIDE)
    train(method, heads, steps=200, size=32, views=1)
    sick = [item for item in heads[TRAINED:] if item["patient"]]
    shown = separate(method, torch.stack([item["image"] for item in sick]))["pathology"][:, 0]
    spots = torch.stack([item["spots"] for item in sick])
    assert roc_auc_score(spots.flatten().numpy(), shown.flatten().numpy()) > 0.8
    assert float(shown[spots].mean()) > 2 * float(shown[~spots].abs().mean())
