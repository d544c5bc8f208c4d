"""Cost of templates and of the replacement of blocks within a step of pretraining: ``pytest -m benchmark -s``."""

from typing import Any

import pytest
import torch
from monai.networks.nets import SegResNet
from stopwatch import best_of

from monai_cl.engine import adamw
from monai_cl.methods import MissingSequences

pytestmark = pytest.mark.benchmark

SIZE, STUDIES = 48, 2


@pytest.mark.parametrize("rule", ["mean", "gradient"])
def test_replacement_and_templates_take_less_than_a_twentieth_of_a_step(benchmark: Any, rule: str) -> None:
    """Forward and backward of both, and what the templates learn by, against the whole step."""
    torch.set_num_threads(1)
    network = SegResNet(out_channels=3, init_filters=16, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1))
    options = {"contrast_start": 0.0, "donor_start": 0.0, "template_rule": rule}
    method = MissingSequences(network, ["a", "b", "c"], SIZE, template_size=(64, 72, 64), **options)  # type: ignore[arg-type]
    batch = {
        "image": {
            "target": torch.rand(STUDIES, 1, SIZE, SIZE, SIZE),
            "donor": torch.rand(STUDIES, 1, SIZE, SIZE, SIZE),
            "has_donor": torch.ones(STUDIES, dtype=torch.bool),
            "sequence": torch.arange(STUDIES),
            "place": torch.tensor([[8, 12, 8], [-4, 30, 2]]),
        }
    }
    whole = adamw(method, 1e-3)
    own = adamw(method.templates, 1e-3) if rule == "gradient" else None

    def step() -> None:
        whole.zero_grad()
        method(batch)["loss"].backward()
        whole.step()

    def part() -> None:
        made = method.with_views(batch)["image"]["views"]
        if own is None:
            method.templates.observe(*(batch["image"][name] for name in ("target", "sequence", "place")))
            return
        own.zero_grad()
        made.sum().backward()
        own.step()

    share = best_of(part, 3) / best_of(step, 2)
    benchmark.extra_info["share of a step"] = round(share, 4)
    benchmark.pedantic(part, rounds=1)
    assert share < 0.05
