"""Cost of the two spaces within a step of pretraining on healthy and patients: ``pytest -m benchmark -s``."""

from typing import Any

import pytest
import torch
from monai.networks.nets import SegResNet
from stopwatch import best_of

from monai_cl.losses import SepCLRLoss
from monai_cl.methods import CasesAndControls

pytestmark = pytest.mark.benchmark

SIZE, VOLUMES, WIDTH = 32, 8, 32


def test_the_four_terms_of_both_spaces_take_less_than_a_twentieth_of_a_step(benchmark: Any) -> None:
    """Forward and backward of the loss on embeddings, against those of the whole step."""
    torch.set_num_threads(1)
    network = SegResNet(out_channels=3, init_filters=16, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1))
    method, loss = CasesAndControls(network, SIZE), SepCLRLoss()
    labels = torch.arange(VOLUMES) % 2
    batch = {"image": torch.rand(VOLUMES, 2, 1, SIZE, SIZE, SIZE), "patient": labels}
    embeddings = [torch.rand(VOLUMES, WIDTH, requires_grad=True) for _ in range(4)]

    def step() -> None:
        method(batch)["loss"].backward()

    def part() -> None:
        loss(*embeddings, labels)["loss"].backward()

    share = best_of(part, 5) / best_of(step, 1)
    benchmark.extra_info["share of a step"] = round(share, 4)
    benchmark.pedantic(part, rounds=1)
    assert share < 0.05
