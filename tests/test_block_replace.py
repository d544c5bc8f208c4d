"""Blocks of an image and of a donor: counted, constant, bit-identical, repeatable."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

from monai_cl.transforms import BlockReplace, BlockReplaceD, BlockReplaced, BlockReplaceDict
from monai_cl.transforms.block_replace import kept_blocks, kept_count, replace_blocks

SIZES = [(8, 12), (16, 8, 8), (9, 10, 7)]


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


@pytest.mark.parametrize(
    ("blocks", "rate", "kept"),
    [(1728, 0.8, 345), (1728, 0.875, 216), (10, 0.9, 1), (10, 1.0, 0), (7, 0.0, 7), (1, 0.8, 0)],
)
def test_the_number_of_kept_blocks_is_the_floor_that_was_stated(blocks: int, rate: float, kept: int) -> None:
    assert kept_count(blocks, rate) == kept


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rate", [0.0, 0.5, 0.8, 1.0])
def test_each_voxel_is_the_images_or_the_donors_as_a_loop_over_blocks_says(size: tuple[int, ...], rate: float) -> None:
    image, donor = pair(2, *size)
    donor[0].view(-1)[0] = torch.nan  # nothing is computed with what is not taken
    replace = BlockReplace(rate, block=4, spatial_dims=len(size)).set_random_state(seed=1)
    chosen = replace.randomize(image.shape)
    found = replace.apply(image, donor, chosen)
    grid = [-(-side // 4) for side in size]
    kept = 0
    for block in itertools.product(*map(range, grid)):
        inside = (slice(None), *(slice(4 * b, 4 * b + 4) for b in block))
        source = image if chosen[(0, *block)] else donor
        kept += bool(chosen[(0, *block)])
        assert torch.equal(found[inside].view(torch.int32), source[inside].view(torch.int32))
    assert kept == kept_count(int(np.prod(grid)), rate)


def test_a_seed_repeats_the_draw_and_another_gives_another() -> None:
    image, donor = pair(1, 16, 16, 16)
    first, again, other = (BlockReplace(block=4).set_random_state(seed=seed)(image, donor) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_of_a_batch_have_blocks_of_their_own_and_as_many() -> None:
    image, donor = pair(5, 2, 16, 16, 16)
    found = BlockReplace(0.75, block=4).set_random_state(seed=0)(image, donor)
    kept = (found == image).all(1)  # b, voxels
    assert kept.flatten(1).sum(1).tolist() == [16 * 64] * 5
    assert len({tuple(mask.flatten().tolist()) for mask in kept}) == 5


@pytest.mark.parametrize("size", SIZES)
def test_the_operator_on_batches_keeps_as_many_by_whole_blocks(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kept = kept_blocks((4, 1, *size), spatial_dims=len(size), mask_rate=0.8, block=4)
    assert kept.shape == (4, 1, *size)
    corners = kept[(slice(None), 0, *[slice(0, None, 4)] * len(size))]
    assert corners.flatten(1).sum(1).tolist() == [kept_count(corners[0].numel(), 0.8)] * 4
    for axis, side in enumerate(size):  # constant within every block
        assert torch.equal(kept.index_select(axis + 2, torch.arange(side) // 4 * 4), kept)
    torch.manual_seed(0)
    assert torch.equal(kept, kept_blocks((4, 1, *size), spatial_dims=len(size), mask_rate=0.8, block=4))


def test_every_block_is_kept_as_often_as_any_other() -> None:
    torch.manual_seed(0)
    kept = kept_blocks((4000, 1, 4, 4), spatial_dims=2, mask_rate=0.75, block=1)
    assert ((kept.float().mean(0) - 0.25).abs() < 0.03).all()


def test_gradients_reach_the_donor_where_it_is_seen_and_the_image_elsewhere() -> None:
    image, donor = (t.double().requires_grad_() for t in pair(2, 1, 6, 6))
    kept = kept_blocks(image.shape, spatial_dims=2, mask_rate=0.5, block=2)
    assert torch.autograd.gradcheck(lambda a, b: replace_blocks(a, b, kept), (image, donor))
    replace_blocks(image, donor, kept).sum().backward()
    assert torch.equal(donor.grad, (~kept).double().expand_as(donor))
    assert torch.equal(image.grad, kept.double().expand_as(image))


@pytest.mark.parametrize("form", [torch.Tensor.numpy, torch.clone, lambda t: MetaTensor(t, affine=2 * torch.eye(4))])
def test_every_form_of_tensor_gives_the_same(form: object) -> None:
    image, donor = pair(1, 8, 8, 8)
    found = BlockReplace(block=4).set_random_state(seed=0)(form(image), form(donor))  # type: ignore[operator]
    assert torch.equal(torch.as_tensor(found), BlockReplace(block=4).set_random_state(seed=0)(image, donor))
    assert isinstance(found, MetaTensor)


def test_the_dictionary_class_follows_the_contract_and_draws_once_for_all_keys() -> None:
    assert BlockReplaceD is BlockReplaceDict is BlockReplaced
    assert issubclass(BlockReplaced, MapTransform)
    assert issubclass(BlockReplaced, Randomizable)
    image, donor = pair(1, 8, 8, 8)
    item = {"a": image, "b": image + 1, "donor": donor}
    replace = BlockReplaced(["a", "b"], "donor", block=2).set_random_state(seed=0)
    found = replace(item)
    assert torch.equal(found["a"] == image, found["b"] == image + 1)
    assert torch.equal(item["a"], image)
    assert torch.equal(found["a"], BlockReplace(block=2).set_random_state(seed=0)(image, donor))
    assert BlockReplaced("c", "donor", allow_missing_keys=True)(item).keys() == item.keys()
    with pytest.raises(KeyError, match="c"):
        BlockReplaced("c", "donor")(item)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mask_rate": 1.1}, "mask_rate"), ({"block": 0}, "block"), ({"spatial_dims": 0}, "spatial_dims")],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message} must be .* got"):
        BlockReplace(**options)


def test_images_that_do_not_fit_are_refused() -> None:
    image, donor = pair(1, 8, 8, 8)
    with pytest.raises(ValueError, match=r"one shape.*resample the donor onto the grid of the image"):
        BlockReplace()(image, donor[:, :4])
    with pytest.raises(ValueError, match="an axis of channels before its 3 spatial axes"):
        BlockReplace()(image[0], donor[0])
