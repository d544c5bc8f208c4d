"""Templates of sequences: cut at their place, padded at the rim, learnt where they stood in, bounded in memory."""

import itertools

import pytest
import torch

from monai_cl.networks import ModalityTemplates, PlainDecoder, lay_channels_last


def filled(size: tuple[int, ...] = (7, 6, 5), *, rule: str = "gradient", **options: bool) -> ModalityTemplates:
    templates = ModalityTemplates(["a", "b"], size, rule=rule, **options)
    with torch.no_grad():
        templates.values.copy_(torch.randn(2, *size, generator=torch.Generator().manual_seed(0)))
    return templates.double()


@pytest.mark.parametrize("rule", ["mean", "gradient"])
def test_templates_start_at_exactly_zero(rule: str) -> None:
    templates = ModalityTemplates(["a"], (4, 4, 4), rule=rule)
    assert not templates(torch.tensor([0]), torch.tensor([[0, 0, 0]]), (4, 4, 4)).any()
    assert not templates.images()["a"].any()


@pytest.mark.parametrize("size", [(7, 6), (7, 6, 5)])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("rule", ["mean", "gradient"])
def test_crops_are_those_of_a_loop_and_zero_beyond_the_rim(size: tuple[int, ...], normalise: bool, rule: str) -> None:
    templates, crop = filled(size, normalise=normalise, rule=rule), (4, 5, 3)[: len(size)]
    gain = 10.0 if rule == "gradient" else 1.0
    sequence = torch.tensor([1, 0, 1])
    place = torch.tensor([[0, 1, 2], [-2, 4, -9], [6, -1, 3]])[:, : len(size)]
    found = templates(sequence, place, crop).detach()
    assert found.shape == (3, 1, *crop)
    for b, at in itertools.product(range(3), itertools.product(*map(range, crop))):
        there = [int(p) + i for p, i in zip(place[b], at, strict=True)]
        expected = 0.0
        if all(0 <= t < side for t, side in zip(there, size, strict=True)):
            whole = gain * templates.values.detach()[sequence[b]]
            low, high = (whole.min(), whole.max()) if normalise else (0.0, 1.0)
            expected = float((whole[tuple(there)] - low) / (high - low))
        assert float(found[(b, 0, *at)]) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("normalise", [False, True])
def test_gradients_are_exact(normalise: bool) -> None:
    templates = filled((4, 3, 3), normalise=normalise)
    place = torch.tensor([[0, -1, 1], [2, 0, 0]])

    def cut(values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.func.functional_call(
            templates, {"values": values}, (torch.tensor([0, 1]), place, (2, 3, 2))
        )
        return found

    assert torch.autograd.gradcheck(cut, (templates.values.detach().clone().requires_grad_(),))


def test_images_are_what_stands_in() -> None:
    for templates in (filled(), filled(normalise=True)):
        whole = templates(torch.tensor([0, 1]), torch.zeros(2, 3, dtype=torch.long), templates.size)
        for number, image in enumerate(templates.images().values()):
            torch.testing.assert_close(image, whole[number, 0].detach())


def test_a_flat_template_can_be_normalised() -> None:
    templates = ModalityTemplates(["a"], (4, 4, 4), rule="gradient", normalise=True)
    found = templates(torch.tensor([0]), torch.tensor([[0, 0, 0]]), (4, 4, 4))
    found.sum().backward()
    assert not found.any()
    assert bool(templates.values.grad.isfinite().all())


@pytest.mark.parametrize("normalise", [False, True])
def test_a_template_learns_the_common_structure_of_noisy_copies_and_one_never_seen_stays_zero(normalise: bool) -> None:
    """With a reconstruction that copies its input, and masks of the half of the voxels."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(6, 6, 6, generator=generator)
    templates = ModalityTemplates(["seen", "never"], (6, 6, 6), rule="gradient", normalise=normalise)
    optimizer = torch.optim.AdamW(templates.parameters(), 3e-3, weight_decay=0.01)
    for _ in range(300):
        x = truth + 0.3 * torch.randn(4, 1, 6, 6, 6, generator=generator)
        stood_in = templates(torch.zeros(4, dtype=torch.long), torch.zeros(4, 3, dtype=torch.long), (6, 6, 6))
        kept = torch.rand(4, 1, 6, 6, 6, generator=generator) < 0.5
        optimizer.zero_grad()
        (torch.where(kept, x, stood_in) - x).square().mean().backward()
        optimizer.step()
    learnt = templates.images()
    correlation = torch.corrcoef(torch.stack([learnt["seen"].flatten(), truth.flatten()]))[0, 1]
    assert float(correlation) > 0.9
    assert not learnt["never"].any()
    assert not templates.values[1].any()
    if not normalise:
        assert float((learnt["seen"] - truth).abs().mean()) < 0.1


def crops_of(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Crops of 4 x 4, of which many overlap and some reach beyond a template of 6 x 5."""
    crops = torch.randn(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    return (
        crops,
        torch.randint(2, (count,), generator=generator),
        torch.randint(-2, 4, (count, 2), generator=generator),
    )


def test_a_mean_is_the_loop_over_all_crops_that_came_in_whatever_batches() -> None:
    given = crops_of(12, torch.Generator().manual_seed(0))
    total, count = torch.zeros(3, 6, 5, dtype=torch.float64), torch.zeros(3, 6, 5, dtype=torch.float64)
    for crop, sequence, place in zip(*given, strict=True):
        for i, j in itertools.product(range(4), range(4)):
            x, y = int(place[0]) + i, int(place[1]) + j
            if 0 <= x < 6 and 0 <= y < 5:
                total[sequence, x, y] += crop[0, i, j]
                count[sequence, x, y] += 1
    assert count.max() > 3
    for batch in (1, 5, 12):
        templates = ModalityTemplates(["a", "b", "never"], (6, 5)).double()
        for start in range(0, 12, batch):
            templates.observe(*(part[start : start + batch] for part in given))
        torch.testing.assert_close(templates.values.data, total / count.clamp(min=1), rtol=1e-12, atol=1e-12)
        assert not templates.images()["never"].any()


def test_a_mean_is_the_minimum_of_the_error_where_templates_stand_in_for_all() -> None:
    """The gradient of the squared error is 0 there; voxels of crops beyond the rim have none."""
    crops, sequence, place = crops_of(12, torch.Generator().manual_seed(1))
    templates = ModalityTemplates(["a", "b"], (6, 5)).double()
    templates.observe(crops, sequence, place)
    values = templates.values.detach().clone().requires_grad_()
    stood_in = torch.func.functional_call(templates, {"values": values}, (sequence, place, (4, 4)))
    (stood_in - crops).square().sum().backward()
    assert values.grad is not None
    assert float(values.grad.abs().max()) < 1e-12


def test_a_mean_has_no_gradient_and_gradients_keep_no_mean() -> None:
    by_mean, by_gradient = (ModalityTemplates(["a"], (4, 4), rule=rule) for rule in ("mean", "gradient"))
    assert [p.requires_grad for p in by_mean.parameters()] == [False, False]
    assert by_gradient.seen is None
    by_gradient.observe(torch.ones(1, 1, 4, 4), torch.tensor([0]), torch.zeros(1, 2, dtype=torch.long))
    assert not by_gradient.values.any()
    assert (by_mean.times_in_training, by_gradient.times_in_training) == (2, 4)


def test_memory_is_stated_and_bounded() -> None:
    assert ModalityTemplates(["a", "b"], (64, 64, 64)).mib == 2.0
    with pytest.raises(ValueError, match=r"at most 1 MiB, 2 of \(64, 64, 64\) voxels take 2, and 2 times"):
        ModalityTemplates(["a", "b"], (64, 64, 64), max_mib=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "a"], (4,)), r"each once, got \['a', 'a'\]"),
        (([], (4,)), "one name or several"),
        ((["a"], (0,)), "at least 1 voxel"),
    ],
)
def test_what_cannot_be_a_template_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModalityTemplates(*arguments)
    with pytest.raises(ValueError, match="gain must be above 0, got 0"):
        ModalityTemplates(["a"], (4,), gain=0)
    with pytest.raises(ValueError, match=r"rule must be one of \('mean', 'gradient'\), got 'median'"):
        ModalityTemplates(["a"], (4,), rule="median")


@pytest.mark.parametrize("stride", [(8, 8, 8), (8, 4, 1), (3, 6, 2), (1, 1, 1)])
def test_the_plain_decoder_reaches_the_size_of_the_image(stride: tuple[int, ...]) -> None:
    decoder = PlainDecoder(3, 32, stride, 2)
    assert decoder(torch.rand(1, 32, 2, 2, 2)).shape == (1, 2, *(2 * s for s in stride))


def test_templates_keep_their_layout_beside_kernels_with_channels_last() -> None:
    templates, crops = ModalityTemplates(["a", "b"], (4, 5, 6)), torch.rand(1, 1, 4, 5, 6)
    both = torch.nn.ModuleList([templates, torch.nn.Conv2d(2, 3, 3)])
    lay_channels_last(both)
    assert both[1].weight.is_contiguous(memory_format=torch.channels_last)
    templates.observe(crops, torch.tensor([1]), torch.zeros(1, 3, dtype=torch.int64))
    assert torch.equal(templates.values[1], crops[0, 0])
