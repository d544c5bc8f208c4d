"""A step of self-training against a supervised one, as ratios within one run: ``pytest -m benchmark -s``."""

from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from stopwatch import best_of
from torch import Tensor, nn

from monai_cl.engine import SelfTrainer, SelfTraining, class_contrast
from monai_cl.transforms import PseudoLabels

pytestmark = pytest.mark.benchmark

CASES = {"3-D": (56, 40, 24), "2-D": (128, 128)}
CLASSES = 3
LABELLED = 2  # patches, with as many unlabelled ones


def network(dims: int) -> nn.Module:
    torch.manual_seed(0)
    return DynUNet(dims, 1, CLASSES, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[8, 16, 32, 64])


def patches(size: tuple[int, ...]) -> dict[str, Tensor]:
    shape = (LABELLED, 1, *size)
    label = torch.zeros(shape, dtype=torch.uint8)
    for one in range(1, CLASSES):
        label[(..., *(slice(side // (one + 3), side // (one + 1)) for side in size))] = one
    return {"image": label + torch.rand(shape), "label": label, "unlabelled": label + torch.rand(shape)}


def trainer(size: tuple[int, ...], weight: float, **options: Any) -> SelfTrainer:
    learned = network(len(size))
    method = SelfTraining(
        learned,
        PseudoLabels(CLASSES),
        contrast=class_contrast(learned, weight, num_classes=CLASSES),
        **{"supervised": 0.0, "ramp_up": 0.0, **options},
    )
    run = SelfTrainer(
        method, [patches(size)], max_epochs=1, epoch_length=1, loss=DiceCELoss(to_onehot_y=True, softmax=True),
        optimizer=torch.optim.AdamW(method.learner.parameters(), lr=1e-3),
    )  # fmt: skip
    run.state.iteration = 1
    return run


@pytest.mark.parametrize("weight", [0.0, 0.1], ids=["plain", "class contrast"])
@pytest.mark.parametrize("name", CASES)
def test_a_step_beside_the_teachers_pass(benchmark: Any, name: str, weight: float) -> None:
    """1.6 at most is aimed at: what a step takes without the teacher's pass, in supervised steps of as many voxels."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        size = CASES[name]
        run = trainer(size, weight)
        batch = patches(size)
        images, labels = torch.cat([batch["image"], batch["unlabelled"]]), torch.cat([batch["label"]] * 2)
        learned, loss = network(len(size)).train(), DiceCELoss(to_onehot_y=True, softmax=True)
        optimizer = torch.optim.AdamW(learned.parameters(), lr=1e-3)

        def supervised() -> None:
            optimizer.zero_grad()
            loss(learned(images), labels).backward()
            optimizer.step()

        def step() -> None:
            run._iteration(run, batch)
            run.method.follow(1)

        teacher = best_of(lambda: run.method.teacher(batch["unlabelled"]))
        plain, mixed = best_of(supervised), best_of(step)
        benchmark.extra_info["steps beside the teacher's pass"] = round((mixed - teacher) / plain, 2)
        benchmark.extra_info["steps"] = round(mixed / plain, 2)
        benchmark(step)
        assert mixed - teacher < 2.5 * plain  # beside other work, so this floor only catches a loss
    finally:
        torch.set_num_threads(threads)
