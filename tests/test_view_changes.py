"""Turns, blur, bias fields and noise of views: against loops and MONAI, places unharmed, the same when drawn again."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from monai_cl.transforms import VolumeContrastCrops, VolumeContrastCropsd
from monai_cl.transforms._view_changes import ViewChanges, changed, field_terms

N = 5


def changes(dims: int = 3, **given: Any) -> ViewChanges:
    none = {"turns": np.zeros(N, int), "blurs": np.zeros(N), "noises": np.zeros(N), "seed": 3}
    return ViewChanges(**{**none, "biases": np.zeros((N, len(field_terms(dims)))), **given})


def views(*size: int) -> torch.Tensor:
    return torch.rand(N, 2, *(size or (8, 8, 6)), generator=torch.Generator().manual_seed(0))


def test_nothing_drawn_changes_nothing() -> None:
    assert torch.equal(changed(views(), changes()), views())


def test_turns_are_those_of_each_view() -> None:
    turns = np.array([0, 1, 2, 3, 1])
    expected = torch.stack([torch.rot90(v, int(k), (1, 2)) for v, k in zip(views(), turns, strict=True)])
    assert torch.equal(changed(views(), changes(turns=turns)), expected)


@pytest.mark.parametrize("size", [(9, 8, 12), (9, 8), (12,)])
def test_a_blur_is_a_gaussian_of_each_view(size: tuple[int, ...]) -> None:
    sigmas = np.array([0.0, 0.6, 1.0, 0.0, 1.5])
    found = changed(views(*size), changes(len(size), blurs=sigmas))
    for view, sigma, result in zip(views(*size), sigmas, found, strict=True):
        if sigma == 0:
            assert torch.equal(result, view)
            continue
        for channel, expected in zip(result, view.double().numpy(), strict=True):
            blurred = torch.as_tensor(gaussian_filter(expected, sigma, mode="nearest", truncate=8.0))
            torch.testing.assert_close(channel.double(), blurred, atol=2e-4, rtol=0)  # of what lies beyond 4 sigma


def test_a_field_is_the_exponential_of_a_polynomial() -> None:
    terms = field_terms(2)
    coefficients = np.random.RandomState(0).uniform(-0.3, 0.3, (N, len(terms)))
    found = changed(torch.ones(N, 1, 5, 4), changes(2, biases=coefficients))
    for n in range(N):
        for i, x in enumerate(np.linspace(-1, 1, 5)):
            for j, y in enumerate(np.linspace(-1, 1, 4)):
                log = sum(c * x**a * y**b for c, (a, b) in zip(coefficients[n], terms, strict=True))
                assert float(found[n, 0, i, j]) == pytest.approx(np.exp(log), rel=1e-5)
    assert len(field_terms(3)) == 19  # of third order in three variables, less the constant


def test_noise_has_the_strength_of_each_view_and_repeats() -> None:
    strengths = np.array([0.0, 0.1, 0.2, 0.5, 0.0])
    given = changes(noises=strengths)
    noise = changed(torch.zeros(N, 1, 24, 24, 24), given)
    assert noise.flatten(1).std(1).tolist() == pytest.approx(strengths.tolist(), rel=0.03)
    assert torch.equal(noise, changed(torch.zeros(N, 1, 24, 24, 24), given))
    assert not torch.equal(noise[1] / 0.1, noise[2] / 0.2)


ALL = {"rot90_prob": 0.5, "blur_prob": 0.5, "bias_prob": 0.5, "noise_prob": 0.5}


def test_a_plan_replays_and_the_same_seed_draws_it_again() -> None:
    image = torch.rand(1, 20, 20, 10)
    crops = VolumeContrastCrops((2, 2, 1), (8, 8, 10), 3, **ALL).set_random_state(seed=1)
    plan = crops.randomize((20, 20, 10))
    first, second = crops.apply(image, plan), crops.apply(image, plan)
    third = VolumeContrastCrops((2, 2, 1), (8, 8, 10), 3, **ALL).set_random_state(seed=1)(image)
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert torch.equal(value, third[name])


def test_turned_views_are_traced_to_the_volume() -> None:
    volume = torch.arange(20 * 20 * 10).reshape(1, 20, 20, 10).float()
    crops = VolumeContrastCrops((2, 2, 1), (8, 8, 10), 3, rot90_prob=0.8, intensity_prob=0.0)
    found = crops.set_random_state(seed=0)(volume)
    assert found["crop_turns"].unique().numel() > 1 or found["base_turns"].unique().numel() > 1
    for kind in ("crop", "base"):
        for view, start, flip, turn in zip(
            found[f"{kind}s"], found[f"{kind}_starts"], found[f"{kind}_flips"], found[f"{kind}_turns"], strict=True
        ):
            straight = torch.rot90(view, -int(turn), (1, 2)).flip([int(a) + 1 for a in flip.nonzero()[:, 0]])
            low = start.tolist()
            window = volume[(slice(None), *(slice(a, a + n) for a, n in zip(low, view.shape[1:], strict=True)))]
            assert torch.equal(straight, window)
    plain = VolumeContrastCrops((2, 2, 1), (8, 8, 10), 3, intensity_prob=0.0).set_random_state(seed=0)(volume)
    assert torch.equal(found["overlap"], plain["overlap"])
    assert "crop_turns" not in plain


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="same length along their first two axes for rot90_prob above 0, got"):
        VolumeContrastCrops((2, 2), (8, 4), rot90_prob=0.2)
    with pytest.raises(ValueError, match="noise_prob must be between 0 and 1, got 2"):
        VolumeContrastCrops((2, 2), (8, 8), noise_prob=2)
    with pytest.raises(ValueError, match="blur_sigma must be two positive numbers"):
        VolumeContrastCrops((2, 2), (8, 8), blur_sigma=(0.0, 1.0))
    with pytest.raises(ValueError, match="noise_std must be at least 0"):
        VolumeContrastCrops((2, 2), (8, 8), noise_std=-1.0)
    with pytest.raises(ValueError, match="intensity_keys must be among keys"):
        VolumeContrastCropsd("image", (2, 2), (8, 8), intensity_keys="label")


def test_each_key_has_noise_of_its_own() -> None:
    nothing = torch.zeros(1, 20, 20)
    crops = VolumeContrastCropsd(["a", "b"], (2, 2), (8, 8), intensity_prob=0.0, noise_prob=1.0)
    found = crops.set_random_state(seed=0)({"a": nothing, "b": nothing})
    first, second = found["a"]["bases"].flatten(), found["b"]["bases"].flatten()
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.3
    assert len({float(v.std()) for v in found["a"]["bases"]}) == 4
    again = VolumeContrastCrops((2, 2), (8, 8), intensity_prob=0.0, noise_prob=1.0).set_random_state(seed=0)(nothing)
    assert torch.equal(found["a"]["bases"], again["bases"])


def test_labels_keep_their_values_and_lie_where_the_image_does() -> None:
    label = torch.randint(0, 3, (1, 20, 20))
    both = {"image": label.float(), "label": label}
    crops = VolumeContrastCropsd(
        ["image", "label"], (2, 2), (8, 8), intensity_keys="image", intensity_prob=1.0, **ALL
    ).set_random_state(seed=0)
    found = crops(both)
    assert set(found["label"]["crops"].unique().tolist()) <= {0.0, 1.0, 2.0}
    assert not torch.equal(found["label"]["crops"], found["image"]["crops"])
    plain = VolumeContrastCropsd("image", (2, 2), (8, 8), intensity_prob=0.0, rot90_prob=0.5)
    plan = crops.crops.randomize((20, 20))
    straight = plain.crops.apply(label, plan, intensities=False)
    assert torch.equal(crops.crops.apply(label, plan, intensities=False)["bases"], straight["bases"])
