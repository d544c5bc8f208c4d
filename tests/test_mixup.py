import re

import pytest
import torch
from monai.losses import DiceCELoss

from monai_cl.engine import MixupBatch


def batch(n: int = 6) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {"image": torch.rand(n, 1, 4, 5, generator=g), "label": torch.randint(0, 3, (n, 1, 4, 5), generator=g)}


def hot(label: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()


def test_images_and_labels_are_mixed_in_the_same_proportion() -> None:
    given = batch()
    x, y = given["image"], hot(given["label"])
    image, label = MixupBatch(3, alpha=0.5, seed=1)(given)
    mixed = 0
    for i in range(len(x)):
        # each result is a x_i + (1 - a) x_j for one j, with one a in image and label
        fits = []
        for j in range(len(x)):
            step = x[i] - x[j]
            a = torch.tensor(1.0) if i == j else ((image[i] - x[j]) * step).sum() / step.square().sum()
            same = torch.allclose(image[i], a * x[i] + (1 - a) * x[j], atol=1e-5)
            if same and torch.allclose(label[i], a * y[i] + (1 - a) * y[j], atol=1e-4) and -1e-5 <= a <= 1 + 1e-5:
                fits.append(j)
                mixed += int(0.01 < a < 0.99)
        assert fits
    assert mixed >= 2
    torch.testing.assert_close(label.sum(1), torch.ones(6, 4, 5))


def test_without_alpha_labels_are_one_hot_and_images_are_themselves() -> None:
    given = batch()
    image, label = MixupBatch(3)(given)
    assert torch.equal(image, given["image"])
    assert torch.equal(label, hot(given["label"]))


def test_shares_follow_a_beta_distribution() -> None:
    n, alpha = 4000, 0.2
    given = {"image": torch.arange(float(n)).reshape(n, 1, 1, 1), "label": torch.zeros(n, 1, 1, 1)}
    mix = MixupBatch(2, alpha=alpha, seed=0)
    mix.set_random_state(seed=0)
    image = mix(given)[0].flatten()
    mix.set_random_state(seed=0)
    mix.R.rand()  # whether to mix at all, which is certain
    share = torch.from_numpy(mix.R.beta(alpha, alpha, n)).float()
    order = torch.from_numpy(mix.R.permutation(n))
    torch.testing.assert_close(image, share * torch.arange(n) + (1 - share) * order, rtol=1e-4, atol=1e-2)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)  # of Beta(a, a)


def test_the_seed_fixes_the_draws_which_differ_from_batch_to_batch() -> None:
    one, two = (MixupBatch(3, alpha=0.5, seed=3) for _ in range(2))
    first, second = one(batch())[0], one(batch())[0]
    assert torch.equal(first, two(batch())[0])
    assert not torch.equal(first, second)


def test_the_loss_of_soft_labels_of_mixed_equals_that_of_hard_ones_without_mixing() -> None:
    given = batch()
    logits = torch.randn(6, 3, 4, 5)
    _, label = MixupBatch(3)(given)
    soft, hard = DiceCELoss(softmax=True), DiceCELoss(softmax=True, to_onehot_y=True)
    torch.testing.assert_close(soft(logits, label), hard(logits, given["label"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1,), "num_classes must be at least 2, background included, got 1"), ((3, -0.1), "alpha must be at least 0 (0")],
)
def test_wrong_options_are_named(arguments: tuple[int, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MixupBatch(*arguments)
