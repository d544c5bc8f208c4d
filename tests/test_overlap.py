import itertools

import pytest
import torch

from monai_cl.transforms import overlap_fractions

GEOMETRIES = [
    ((4, 4, 1), (6, 6, 5), None),
    ((3, 3, 2), (4, 5, 6), None),
    ((2, 3), (8, 4), None),
    ((5,), (3,), None),
    ((2, 2, 2), (5, 3, 4), (4, 4, 4)),
]


def starts_of(grid: tuple[int, ...], crop: tuple[int, ...], base: tuple[int, ...], n: int = 40) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    highest = [n_ * b - r for n_, b, r in zip(grid, base, crop, strict=True)]
    return torch.stack([torch.randint(0, h + 1, (n,), generator=g) for h in highest], dim=1)


@pytest.mark.parametrize(("grid", "crop", "base"), GEOMETRIES)
def test_equals_counting_the_voxels_of_an_index_volume(
    grid: tuple[int, ...], crop: tuple[int, ...], base: tuple[int, ...] | None
) -> None:
    base = base or crop
    index = torch.arange(int(torch.tensor(grid).prod())).reshape(grid)
    for axis, b in enumerate(base):
        index = index.repeat_interleave(b, dim=axis)
    starts = starts_of(grid, crop, base)
    result = overlap_fractions(starts + torch.tensor(crop) / 2, grid, crop, base_size=base)
    for start, row in zip(starts, result, strict=True):
        window = index[tuple(slice(int(s), int(s) + r) for s, r in zip(start, crop, strict=True))]
        counted = torch.bincount(window.flatten(), minlength=row.numel()) / window.numel()
        torch.testing.assert_close(row, counted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("grid", "crop", "base"), GEOMETRIES)
def test_rows_of_crops_inside_the_canvas_sum_to_one(
    grid: tuple[int, ...], crop: tuple[int, ...], base: tuple[int, ...] | None
) -> None:
    centers = starts_of(grid, crop, base or crop) + torch.tensor(crop) / 2
    result = overlap_fractions(centers, grid, crop, base_size=base)
    assert bool((result >= 0).all())
    torch.testing.assert_close(result.sum(1), torch.ones(len(centers)), atol=1e-6, rtol=0)


def test_a_crop_on_a_base_is_one_hot() -> None:
    cells = list(itertools.product(range(3), range(2), range(2)))
    centers = [[(i + 0.5) * 4, (j + 0.5) * 6, (k + 0.5) * 8] for i, j, k in cells]
    torch.testing.assert_close(overlap_fractions(centers, (3, 2, 2), (4, 6, 8)), torch.eye(12))


def test_a_crop_halfway_between_two_bases_is_half_in_each() -> None:
    assert overlap_fractions([[8.0, 4.0]], (2, 1), (8, 8)).tolist() == [[0.5, 0.5]]


def test_one_layer_of_cells_is_the_published_area_overlap() -> None:
    starts = starts_of((4, 4, 1), (6, 6, 5), (6, 6, 5))
    with_depth = overlap_fractions(starts + torch.tensor([3.0, 3.0, 2.5]), (4, 4, 1), (6, 6, 5))
    in_plane = overlap_fractions(starts[:, :2] + 3.0, (4, 4), (6, 6))
    torch.testing.assert_close(with_depth, in_plane)


def test_permuting_axes_permutes_the_cells() -> None:
    centers = torch.tensor([[7.0, 9.0, 5.0]])
    plain = overlap_fractions(centers, (3, 2, 2), (4, 6, 8)).reshape(3, 2, 2)
    permuted = overlap_fractions(centers[:, [2, 0, 1]], (2, 3, 2), (8, 4, 6)).reshape(2, 3, 2)
    torch.testing.assert_close(plain.permute(2, 0, 1), permuted)


def test_outside_the_grid_the_row_sums_to_the_share_inside() -> None:
    assert overlap_fractions([[0.0, 4.0]], (2, 2), (8, 8)).sum().item() == pytest.approx(0.5)


def test_rows_of_half_precision_sum_to_one_as_well() -> None:
    centers = torch.tensor([[41.5, 20.5, 33.0]], dtype=torch.float16)
    found = overlap_fractions(centers, (3, 3, 2), (21, 19, 23), base_size=(24, 21, 25))
    torch.testing.assert_close(found, overlap_fractions(centers.double(), (3, 3, 2), (21, 19, 23),
                                                        base_size=(24, 21, 25)).float())  # fmt: skip
    assert found.sum().item() == pytest.approx(1.0, abs=1e-6)


def test_gradient_with_respect_to_the_centre_is_right() -> None:
    centers = torch.tensor([[5.3, 6.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: overlap_fractions(c, (3, 2), (4, 6)), (centers,))


def test_mismatched_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must match the 3 axes of grid"):
        overlap_fractions([[1.0, 2.0]], (2, 2, 2), (4, 4, 4))
    with pytest.raises(ValueError, match="must be positive"):
        overlap_fractions([[1.0, 2.0]], (2, 0), (4, 4))
