"""Random shallow networks of intensities against a loop, closed forms, and MONAI's contract."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_cl.transforms import (
    RandNonlinearIntensity,
    RandNonlinearIntensityD,
    RandNonlinearIntensityd,
    RandNonlinearIntensityDict,
)


def mapped_by_loops(image: np.ndarray, transform: RandNonlinearIntensity) -> np.ndarray:
    """The equation voxel by voxel, for a channel (H, W)."""
    hidden = image[None]
    for number, (weight, bias) in enumerate(transform.network, start=1):
        w, b = weight.double().numpy(), bias.double().numpy()
        half = w.shape[-1] // 2
        result = np.zeros((w.shape[0], *image.shape))
        for out, row, column in np.ndindex(*result.shape):
            total = b[out]
            for inside, i, j in np.ndindex(*w.shape[1:]):
                at = np.clip(row + i - half, 0, image.shape[0] - 1), np.clip(column + j - half, 0, image.shape[1] - 1)
                total += w[out, inside, i, j] * hidden[inside][at]
            last = number == len(transform.network)
            result[out, row, column] = total if last or total > 0 else 0.01 * total
        hidden = result
    output = hidden[0]
    matched = image.mean() + (output - output.mean()) / output.std() * image.std()
    return transform.alpha * matched + (1 - transform.alpha) * image


@pytest.mark.parametrize("seed", range(4))
def test_the_mapping_is_that_of_the_equation(seed: int) -> None:
    transform = RandNonlinearIntensity(prob=1.0).set_random_state(seed=seed)
    image = np.random.default_rng(seed).random((2, 6, 5))
    changed = transform(torch.from_numpy(image))
    for channel in range(2):
        np.testing.assert_allclose(changed[channel], mapped_by_loops(image[channel], transform), atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_one_layer_of_single_voxels_keeps_or_mirrors_the_contrast(seed: int) -> None:
    transform = RandNonlinearIntensity(prob=1.0, layers=1, kernel_sizes=[1]).set_random_state(seed=seed)
    image = torch.rand(1, 7, 6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    changed = transform(image)
    sign = float(transform.network[0].weight.sign())
    expected = image.mean() + (transform.alpha * sign + 1 - transform.alpha) * (image - image.mean())
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 9), (2, 9, 8), (1, 9, 8, 1)])
def test_mean_stays_and_spread_does_not_grow(shape: Sequence[int]) -> None:
    image = 1000 * torch.rand(*shape) - 300
    changed = RandNonlinearIntensity(prob=1.0).set_random_state(seed=1)(image)
    axes = tuple(range(1, len(shape)))
    torch.testing.assert_close(changed.mean(axes), image.mean(axes), rtol=1e-4, atol=1e-2)
    assert bool((changed.std(axes) <= image.std(axes) * 1.0001).all())
    assert not torch.equal(changed, image)


def test_a_flat_image_stays_as_it_is() -> None:
    changed = RandNonlinearIntensity(prob=1.0).set_random_state(seed=0)(torch.full((1, 6, 6, 6), 3.0))
    torch.testing.assert_close(changed, torch.full((1, 6, 6, 6), 3.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_type_and_header_are_kept(dtype: torch.dtype) -> None:
    image = MetaTensor(torch.rand(1, 6, 5, 4), affine=torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0]))).to(dtype)
    changed = RandNonlinearIntensity(prob=1.0).set_random_state(seed=0)(image)
    assert isinstance(changed, MetaTensor)
    assert changed.dtype == dtype
    torch.testing.assert_close(changed.affine, image.affine)
    assert isinstance(RandNonlinearIntensity(prob=1.0)(np.random.default_rng(0).random((1, 5, 5))), torch.Tensor)


def test_nothing_is_changed_at_probability_zero() -> None:
    image = torch.rand(1, 5, 5)
    assert torch.equal(RandNonlinearIntensity(prob=0.0)(image), image)
    assert torch.equal(RandNonlinearIntensityd("image", prob=0.0)({"image": image})["image"], image)


def test_as_many_images_change_as_were_asked_for() -> None:
    transform = RandNonlinearIntensityd("image", prob=0.3).set_random_state(seed=0)
    image = torch.rand(1, 4, 4)
    changed = sum(not torch.equal(transform({"image": image})["image"], image) for _ in range(400))
    assert 90 < changed < 150


def test_one_network_serves_all_keys_and_labels_stay() -> None:
    image = torch.rand(1, 6, 6)
    item = {"a": image, "b": image.clone(), "label": torch.ones(1, 6, 6)}
    transform = RandNonlinearIntensityd(["a", "b", "c"], prob=1.0, allow_missing_keys=True).set_random_state(seed=3)
    changed = pickle.loads(pickle.dumps(transform))(item)
    assert torch.equal(changed["a"], changed["b"])
    assert not torch.equal(changed["a"], image)
    assert torch.equal(item["a"], image)
    assert torch.equal(transform(item)["a"], changed["a"])
    assert RandNonlinearIntensityD is RandNonlinearIntensityDict is RandNonlinearIntensityd
    with pytest.raises(KeyError, match="c"):
        RandNonlinearIntensityd("c")(item)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prob": 1.5}, r"prob must be between 0 and 1, got 1\.5"),
        ({"layers": 0}, r"layers and width must be at least 1, got 0 and 2"),
        ({"kernel_sizes": [2]}, r"kernel_sizes must be odd numbers of voxels, got \(2,\)"),
        ({"kernel_sizes": []}, r"kernel_sizes must be odd numbers of voxels, got \(\)"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    for make in (RandNonlinearIntensity, lambda **given: RandNonlinearIntensityd("image", **given)):
        with pytest.raises(ValueError, match=message):
            make(**options)  # type: ignore[arg-type]
