"""Templates of sequences: cut at their place, padded at the rim, learnt where they stood in, bounded in memory."""

import itertools

import pytest
import torch

from monai_cl.networks import ModalityTemplates, PlainDecoder


def filled(size: tuple[int, ...] = (7, 6, 5), **options: bool) -> ModalityTemplates:
    templates = ModalityTemplates(["a", "b"], size, **options)
    with torch.no_grad():
        templates.values.copy_(torch.randn(2, *size, generator=torch.Generator().manual_seed(0)))
    return templates.double()


def test_templates_start_at_exactly_zero() -> None:
    templates = ModalityTemplates(["a"], (4, 4, 4))
    assert not templates(torch.tensor([0]), torch.tensor([[0, 0, 0]]), (4, 4, 4)).any()
    assert not templates.images()["a"].any()


@pytest.mark.parametrize("size", [(7, 6), (7, 6, 5)])
@pytest.mark.parametrize("normalise", [False, True])
def test_crops_are_those_of_a_loop_and_zero_beyond_the_rim(size: tuple[int, ...], normalise: bool) -> None:
    templates, crop = filled(size, normalise=normalise), (4, 5, 3)[: len(size)]
    sequence = torch.tensor([1, 0, 1])
    place = torch.tensor([[0, 1, 2], [-2, 4, -9], [6, -1, 3]])[:, : len(size)]
    found = templates(sequence, place, crop).detach()
    assert found.shape == (3, 1, *crop)
    for b, at in itertools.product(range(3), itertools.product(*map(range, crop))):
        there = [int(p) + i for p, i in zip(place[b], at, strict=True)]
        expected = 0.0
        if all(0 <= t < side for t, side in zip(there, size, strict=True)):
            whole = 10.0 * templates.values.detach()[sequence[b]]
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
    templates = ModalityTemplates(["a"], (4, 4, 4), normalise=True)
    found = templates(torch.tensor([0]), torch.tensor([[0, 0, 0]]), (4, 4, 4))
    found.sum().backward()
    assert not found.any()
    assert bool(templates.values.grad.isfinite().all())


@pytest.mark.parametrize("normalise", [False, True])
def test_a_template_learns_the_common_structure_of_noisy_copies_and_one_never_seen_stays_zero(normalise: bool) -> None:
    """With a reconstruction that copies its input, and masks of the half of the voxels."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(6, 6, 6, generator=generator)
    templates = ModalityTemplates(["seen", "never"], (6, 6, 6), normalise=normalise)
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


def test_memory_is_stated_and_bounded() -> None:
    assert ModalityTemplates(["a", "b"], (64, 64, 64)).mib == 2.0
    with pytest.raises(ValueError, match=r"at most 1 MiB, 2 of \(64, 64, 64\) voxels take 2, and four times"):
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


@pytest.mark.parametrize("stride", [(8, 8, 8), (8, 4, 1), (3, 6, 2), (1, 1, 1)])
def test_the_plain_decoder_reaches_the_size_of_the_image(stride: tuple[int, ...]) -> None:
    decoder = PlainDecoder(3, 32, stride, 2)
    assert decoder(torch.rand(1, 32, 2, 2, 2)).shape == (1, 2, *(2 * s for s in stride))
