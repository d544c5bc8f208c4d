"""Settings read off the objects that train: no argument of a loss, a method or a transform changes unnoticed."""

import copy
import functools
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from monai.transforms import Compose, Lambdad, RandAffined, RandGaussianNoised, RandScaleIntensityd
from torch import nn

from monai_cl import losses, recipes, transforms
from monai_cl.engine.resolved import describe, differences
from monai_cl.methods import MaskedReconstruction, VolumeContrast

# arguments without a default, for which any value will do
NEEDED: dict[str, Any] = {
    "spatial_dims": 2, "grid": (2, 2, 2), "crop_size": (8, 8, 8), "num_crops": 2, "keys": "image", "lambd": 0.1,
    "transform": RandScaleIntensityd("image", factors=0.1),
}  # fmt: skip
# texts with a second value, by name of the argument
OTHER_TEXT = {
    "variant": "cvpr", "mode": "gd-", "background": "min", "reduction": "sum", "unit": "mm", "origin": "centre",
    "coords_key": "places", "valid_key": "inside", "key": "pair",
}  # fmt: skip


def classes() -> list[Any]:
    found = [getattr(losses, name) for name in losses.__all__]
    found += [transforms.VolumeContrastCrops, transforms.VolumeContrastCropsd]
    return [one for one in found if inspect.isclass(one) and not issubclass(one, Exception)]


def another(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 + 0.013
    return OTHER_TEXT.get(name)


def cases() -> list[Any]:
    return [
        pytest.param(one, name, another(name, parameter.default), id=f"{one.__name__}-{name}")
        for one in classes()
        for name, parameter in inspect.signature(one).parameters.items()
        if parameter.default is not inspect.Parameter.empty and another(name, parameter.default) is not None
    ]


def make(kind: Any, **changed: Any) -> Any:
    parameters = inspect.signature(kind).parameters
    needed = {name: NEEDED[name] for name, p in parameters.items() if p.default is p.empty and name in NEEDED}
    return kind(**{**needed, **changed})


@pytest.mark.parametrize(("kind", "name", "value"), cases())
def test_every_argument_of_a_loss_or_transform_shows(kind: Any, name: str, value: Any) -> None:
    try:
        changed = make(kind, **{name: value})
    except (ValueError, TypeError) as error:
        pytest.skip(f"{kind.__name__} does not take {name}={value!r}: {error}")
    assert differences(describe(make(kind)), describe(changed))


def network(channels: int = 4) -> nn.Module:
    return UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(channels, 8), strides=(2,))


def contrast(**changed: Any) -> nn.Module:
    return VolumeContrast(network(), **{"crop_size": 8, "hidden": 16, "embedding": 8, **changed})


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"bases_without_gradient": True}, "bases_without_gradient: False -> True"),
        ({"embedding": 12}, "projector"),
        ({"variant": "10k"}, "loss.variant: 'monai_cl' -> '10k'"),
        ({"group_key": "region"}, "group_key: None -> 'region'"),
        ({"dropout": 0.4}, "dropout: 0.2 -> 0.4"),
    ],
)
def test_arguments_of_a_method_show(changed: dict[str, Any], named: str) -> None:
    assert any(named in text for text in differences(describe(contrast()), describe(contrast(**changed))))


def test_the_structure_of_a_network_shows_and_its_weights_do_not() -> None:
    first, again = describe(MaskedReconstruction(network())), describe(MaskedReconstruction(network()))
    assert first == again
    assert differences(first, describe(MaskedReconstruction(network(6))))


def test_descriptions_are_plain_and_survive_a_restricted_load(tmp_path: Path) -> None:
    description = describe(contrast())
    assert json.loads(json.dumps(description)) == description
    torch.save(description, tmp_path / "d.pt")
    assert torch.load(tmp_path / "d.pt", weights_only=True) == description


def test_drawing_from_a_transform_leaves_its_random_state_out() -> None:
    chain = Compose([RandGaussianNoised("image", prob=1.0), RandScaleIntensityd("image", factors=0.1, prob=1.0)])
    chain.set_random_state(seed=3)
    before = describe(chain)
    chain.set_random_state(seed=4)
    assert differences(before, describe(chain)) == []


def test_arguments_deep_in_a_chain_of_transforms_show() -> None:
    chain = [Compose([RandAffined("image", prob=0.5, rotate_range=[angle] * 3)]) for angle in (0.2, 0.3)]
    (text,) = differences(*map(describe, chain))
    assert text.startswith("transforms.0.rand_affine.rand_affine_grid.rotate_range: [0.2, 0.2, 0.2] -> [0.3, 0.3, 0.3]")


def test_code_and_closures_of_functions_show() -> None:
    def scaled(factor: float) -> Any:
        return lambda image: image * factor

    assert differences(describe(Lambdad("image", scaled(1.0))), describe(Lambdad("image", scaled(2.0))))
    assert differences(describe(lambda x: x + 1), describe(lambda x: x + 2))
    assert describe(functools.partial(np.sum, axis=1)) != describe(functools.partial(np.sum, axis=0))


def test_places_and_devices_do_not_show() -> None:
    class Reader:
        def __init__(self, folder: Path, device: str) -> None:
            self.folder, self.device, self.size = folder, torch.device(device), 3

    assert describe(Reader(Path("/a"), "cpu")) == describe(Reader(Path("/b"), "meta"))


def test_an_object_that_holds_itself_is_described_once() -> None:
    class Knot:
        def __init__(self) -> None:
            self.own, self.size = self, 3

    assert describe(Knot())["size"] == 3


def test_long_values_are_given_by_a_digest() -> None:
    values = list(range(1000))
    other = copy.copy(values)
    other[500] = 0
    assert str(describe(values)).startswith("1000 values ")
    assert describe(values) != describe(other)
    assert describe(np.zeros(1000)) != describe(np.ones(1000))


def test_between_versions_only_settings_that_both_know_are_compared() -> None:
    then, now = {"a": 1, "structure": "x"}, {"a": 1, "b": 2, "structure": "y"}
    assert differences(then, now, alike=False) == []
    assert differences(then, {**now, "a": 3}, alike=False) == ["a: 1 -> 3"]
    assert differences(then, now) == ["b: absent -> 2", "structure: 'x' -> 'y'"]


def test_of_a_part_of_another_class_its_class_alone_is_named() -> None:
    then, now = (
        {"part": describe(part), "scale": scale} for part, scale in ((nn.BatchNorm1d(4), 1), (nn.LayerNorm(4), 2))
    )
    assert [text.split(":")[0] for text in differences(then, now)] == ["part.class", "scale"]
    wider = {"part": describe(nn.BatchNorm1d(6)), "scale": 1}
    assert "part.parameters: 8 -> 12" in differences(then, wider)


@pytest.mark.parametrize("name", recipes.names())
def test_preparing_a_volume_changes_nothing_in_a_recipe(name: str, study: Path) -> None:
    recipe = recipes.load(name)
    before = describe(recipe)
    recipe({"image": str(study / "images" / "case_0.nii.gz"), "label": str(study / "labels" / "case_0.nii.gz")})
    assert differences(before, describe(recipe)) == []


def test_parameters_of_a_recipe_show() -> None:
    first, second = (describe(recipes.load("small_mr", spacing=spacing)) for spacing in (1.0, 2.0))
    assert any("pixdim" in text for text in differences(first, second))
