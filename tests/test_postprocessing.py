"""Post-processing of predictions: flips of the image, and the largest component of classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.utils import set_determinism
from test_bundle_runs import run, tiny_network
from torch import Tensor, nn

from monai_cl import bundles, weights
from monai_cl.engine import FlipInferer, flipped, random_state


def uneven(x: Tensor) -> Tensor:
    """Logits that depend on the place, so that a flip changes them."""
    ramp = torch.arange(x.shape[-1]) / x.shape[-1]
    return torch.cat([x * ramp, -x + ramp, x * 0.5], 1)


@pytest.mark.parametrize("axes", [[0], [0, 1], [0, 1, 2]])
def test_probabilities_are_those_of_a_slow_loop(axes: list[int]) -> None:
    image = torch.randn(2, 1, 4, 5, 6)
    found = FlipInferer(SimpleInferer(), axes)(image, uneven).softmax(1)
    total, number = torch.zeros_like(found), 0
    for bits in range(2**3):
        chosen = [axis for axis in range(3) if bits >> axis & 1]
        if set(chosen) <= set(axes):
            turned = [2 + axis for axis in chosen]
            total += uneven(image.flip(turned)).softmax(1).flip(turned)
            number += 1
    assert number == 2 ** len(axes)
    torch.testing.assert_close(found, total / number)


def test_a_network_that_knows_no_direction_gives_the_same() -> None:
    image = torch.randn(1, 1, 8, 8)
    network = nn.Conv2d(1, 3, 1)
    found = FlipInferer(SlidingWindowInferer((4, 4), mode="gaussian"), [0, 1])(image, network)
    torch.testing.assert_close(found.softmax(1), network(image).softmax(1), rtol=1e-4, atol=1e-5)


def test_probabilities_of_zero_stay_finite() -> None:
    found = FlipInferer(SimpleInferer(), [0])(torch.ones(1, 1, 4, 4), lambda x: torch.cat([x * 1e4, -x * 1e4], 1))
    assert bool(found.isfinite().all())


def test_without_axes_the_inferer_is_what_it_was() -> None:
    inferer = SimpleInferer()
    assert flipped(inferer, []) is inferer
    with pytest.raises(ValueError, match=r"tta_flips must be different axes among 0, 1 and 2, got \[0, 0\]"):
        flipped(inferer, [0, 0])
    with pytest.raises(ValueError, match=r"tta_flips must be axes of the image, which has 2, got \[2\]"):
        flipped(inferer, [2])(torch.ones(1, 1, 4, 4), uneven)


# --- in the bundles


@pytest.fixture
def undisturbed() -> Iterator[None]:
    states = random_state.capture()
    yield
    set_determinism(seed=None)
    random_state.restore(states)


@pytest.mark.parametrize("name", bundles.names())
@pytest.mark.parametrize("step", ["evaluate", "inference"])
def test_only_the_largest_component_of_the_classes_is_kept(name: str, step: str) -> None:
    root = bundles.path(name)
    files = ["train.yaml", "evaluate.yaml"] if step == "evaluate" else ["inference.yaml"]
    probability = torch.zeros(3, 1, 1, 8)
    probability[0] = 0.5
    for label, place in ((1, 0), (1, 1), (1, 3), (2, 5), (2, 7), (2, 6)):
        probability[label, ..., place] = 1
    expected: dict[Any, list[int]] = {"all": [1, 1, 0, 0, 0, 2, 2, 2]}
    expected |= {"[2]": [1, 1, 0, 1, 0, 2, 2, 2], "[]": [1, 1, 0, 1, 0, 2, 2, 2]}
    for asked, labels in expected.items():
        parser = ConfigParser()
        parser.read_config([str(root / "configs" / file) for file in files])
        parser["out_channels"] = 3
        parser["keep_largest"] = asked if asked == "all" else [] if asked == "[]" else [2]
        if step == "inference":
            parser["postprocessing#transforms"] = parser["postprocessing#transforms"][2:]  # nothing to turn back
            found = parser.get_parsed_content("postprocessing")({"pred": probability})["pred"]
        else:
            prepared = parser.get_parsed_content("validate#postprocessing")
            found = prepared({"pred": probability, "label": torch.zeros(1, 1, 1, 8)})["pred"].argmax(0)
        assert torch.as_tensor(found).flatten().int().tolist() == labels


@pytest.mark.usefixtures("undisturbed")
def test_flips_and_components_are_asked_for_on_the_command_line(study: Path, tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    weights.save_network(tiny_network(root, study), root / "models/model.pt", contract={})
    masks = []
    asked: list[dict[str, Any]] = [{}, {"tta_flips": [0], "keep_largest": "all"}]
    for number, options in enumerate(asked):
        run(root, "inference", study, output_dir=str(tmp_path / f"out_{number}"), **options)
        file = min((tmp_path / f"out_{number}").rglob("*.nii.gz"))
        masks.append(np.asarray(nib.load(file).dataobj))
    assert not np.array_equal(masks[0], masks[1])
