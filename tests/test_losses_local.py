import math

import pytest
import torch
from contrastive_loops import cos, mean, pair
from torch import Tensor

from monai_cl.losses import (
    CrossVolumeLocalContrastiveLoss,
    DenseContrastiveLoss,
    LocalRegionContrastiveLoss,
    VICRegLoss,
)


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def same(fast: Tensor, slow: Tensor, *inputs: Tensor) -> None:
    assert fast.item() == pytest.approx(slow.item(), rel=1e-10)
    for mine, theirs in zip(torch.autograd.grad(fast, inputs), torch.autograd.grad(slow, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def window(f: Tensor, corner: list[int], k: int) -> Tensor:
    cut = f[(slice(None), *(slice(c, c + k) for c in corner))]
    return cut.movedim(0, -1).flatten()


@pytest.mark.parametrize(("size", "k", "layout"), [
    ((16, 15), 3, "grid"), ((9, 10), 1, "grid"), ((15, 16, 15), 3, "grid"), ((12, 12), 3, "tf13"), ((9, 9), 1, "tf13"),
])  # fmt: skip
def test_regions_equal_the_loop(size: tuple[int, ...], k: int, layout: str) -> None:
    f1, f2 = maps(2, 3, *size), maps(2, 3, *size, seed=1)
    loss = LocalRegionContrastiveLoss(len(size), k, layout=layout)
    found = loss.regions(size)
    corners, terms = found.corners.tolist(), []
    for a, b in ((f1, f2), (f2, f1)):
        for i in range(2):
            for r, row in enumerate(found.negatives):
                near = row.nonzero().flatten().tolist()
                negatives = [window(f[i], corners[n], k) for f in (a, b) for n in near]
                terms.append(pair(window(a[i], corners[r], k), window(b[i], corners[r], k), negatives, 0.1))
    same(loss(f1, f2), mean(terms), f1, f2)
    assert loss(f2, f1).item() == pytest.approx(loss(f1, f2).item(), rel=1e-12)


@pytest.mark.parametrize(("size", "count"), [((15, 21), 13), ((15, 16, 40), 35)])
def test_regions_are_distinct_inside_and_apart_from_their_negatives(size: tuple[int, ...], count: int) -> None:
    found = LocalRegionContrastiveLoss(len(size)).regions(size)
    assert len({tuple(c) for c in found.corners.tolist()}) == count
    assert bool((found.corners + 3 <= torch.tensor(size)).all())
    assert found.negatives.sum(1).tolist() == [5] * count
    for r, row in enumerate(found.negatives):
        assert bool(((found.corners[row] - found.corners[r]).abs() >= 3).any(1).all())


def test_constant_maps_cost_the_logarithm_of_the_crowd_also_in_half_precision() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        f = torch.ones(2, 4, 20, 20, dtype=dtype, requires_grad=True)
        volumes = torch.tensor([0, 0]), torch.tensor([0, 1])
        for loss, expected in (
            (LocalRegionContrastiveLoss(2, 1, temperature=0.01)(f, f), 11),
            (CrossVolumeLocalContrastiveLoss(2, 1, temperature=0.01)(f, f, *volumes), 9),
            (DenseContrastiveLoss(2, 0.01)(f, f), 799),
        ):
            assert loss.dtype == torch.float32
            assert loss.item() == pytest.approx(math.log(expected), rel=1e-4)
            assert bool(torch.autograd.grad(loss, f)[0].isfinite().all())


def test_a_singleton_axis_with_given_corners_is_two_dimensional() -> None:
    f1, f2 = maps(1, 2, 16, 16), maps(1, 2, 16, 16, seed=1)
    flat = LocalRegionContrastiveLoss(2)
    corners = [[*c, 0] for c in flat.regions((16, 16)).corners.tolist()]
    deep = LocalRegionContrastiveLoss(3, (3, 3, 1), corners=corners)
    assert deep(f1[..., None], f2[..., None]).item() == pytest.approx(flat(f1, f2).item(), rel=1e-12)


def test_cross_volume_equals_the_loop_and_its_published_scale() -> None:
    f1, f2 = maps(5, 2, 12, 12), maps(5, 2, 12, 12, seed=1)
    part, volume = [0, 1, 0, 1, 0], [0, 0, 1, 1, 1]
    loss = CrossVolumeLocalContrastiveLoss(2, layout="tf13")
    found = loss.regions((12, 12))
    corners, terms = found.corners.tolist(), []
    for i in range(5):
        for r, row in enumerate(found.negatives):
            near = row.nonzero().flatten().tolist()
            others = [f2[i], *(f1[j] for j in range(5) if part[j] == part[i] and volume[j] != volume[i])]
            for m in others:
                negatives = [window(f, corners[n], 3) for f in (f1[i], m) for n in near]
                terms.append(pair(window(f1[i], corners[r], 3), window(m, corners[r], 3), negatives, 0.1))
    ids = torch.tensor(part), torch.tensor(volume)
    same(loss(f1, f2, *ids), mean(terms), f1, f2)
    tf1 = CrossVolumeLocalContrastiveLoss(2, layout="tf13", scale="tf1")
    assert tf1(f1, f2, *ids).item() == pytest.approx(1.5 * loss(f1, f2, *ids).item())


def dense_loop(f1: Tensor, f2: Tensor, t: float, radius: float, valid: Tensor) -> Tensor:
    terms = []
    for i in range(len(f1)):
        rows = [f[i].flatten(1).mT for f in (f1, f2)]
        at = torch.cartesian_prod(*(torch.arange(float(n)) for n in f1.shape[2:]))
        ok = valid[i].flatten().tolist()
        for v in range(2):
            for a in range(len(at)):
                far = [k for k in range(len(at)) if k != a and ok[k] and (at[k] - at[a]).norm() > radius]
                if ok[a] and far:
                    negatives = [rows[w][k] for w in range(2) for k in far]
                    terms.append(pair(rows[v][a], rows[1 - v][a], negatives, t))
    return mean(terms)


@pytest.mark.parametrize(("size", "radius", "chunk"), [((3, 4), 0.0, 5), ((4, 4), 1.0, 99), ((2, 3, 2), 1.5, 3)])
def test_dense_equals_the_loop_in_chunks_with_mask_and_radius(size: tuple[int, ...], radius: float, chunk: int) -> None:
    f1, f2 = maps(2, 3, *size), maps(2, 3, *size, seed=1)
    valid = torch.rand(2, *size, generator=torch.Generator().manual_seed(2)) < 0.8
    loss = DenseContrastiveLoss(len(size), 0.2, None, radius, chunk)
    same(loss(f1, f2, valid=valid), dense_loop(f1, f2, 0.2, radius, valid), f1, f2)
    at = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij")).expand(2, -1, *size)
    with_places = loss(f1, f2, at, at, valid)
    assert with_places.item() == pytest.approx(loss(f1, f2, valid=valid).item(), rel=1e-10)
    (gradient,) = torch.autograd.grad(with_places, f1)
    assert not gradient.movedim(1, -1)[~valid].any()


def test_flips_and_quarter_turns_are_found_exactly_by_their_coordinates() -> None:
    f1, f2 = maps(1, 3, 4, 4), maps(1, 3, 4, 4, seed=1)
    at = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"))[None]
    loss = DenseContrastiveLoss(2, num_anchors=None)
    plain = loss(f1, f2).item()
    for turn in (lambda x: x.flip(-1), lambda x: x.rot90(1, (-2, -1))):
        assert loss(f1, turn(f2), at, turn(at)).item() == pytest.approx(plain, rel=1e-10)


def test_sampled_anchors_are_a_part_of_all() -> None:
    f1, f2 = maps(1, 3, 4, 4), maps(1, 3, 4, 4, seed=1)
    every = DenseContrastiveLoss(2, num_anchors=16, reduction="none")(f1, f2).flatten().tolist()
    some = DenseContrastiveLoss(2, num_anchors=5, reduction="none")(f1, f2)
    assert some.shape == (1, 2, 5)
    assert all(min(abs(x - y) for y in every) < 1e-12 for x in some.flatten().tolist())


def test_anchors_are_drawn_where_the_other_view_may_show_the_same_place() -> None:
    torch.manual_seed(0)
    f1, f2 = torch.randn(2, 1, 4, 12, 12)
    grid = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij"))[None]
    shifted = grid + 9  # a corner of 3 x 3 voxels is shared
    costs = DenseContrastiveLoss(2, num_anchors=9, reduction="none")(f1, f2, grid, shifted)
    assert costs.shape == (1, 2, 9)
    assert int((costs > 0).sum()) == 18
    every = DenseContrastiveLoss(2, num_anchors=None, reduction="none")(f1, f2, grid, shifted)
    assert torch.allclose(costs.sort().values, every.sort().values[..., -9:])
    with pytest.warns(UserWarning, match="no anchor of this batch"):
        assert DenseContrastiveLoss(2, num_anchors=9)(f1, f2, grid, grid + 100) == 0


@pytest.mark.parametrize("name", ["local", "cross", "dense", "vicreg"])
def test_gradients_are_derivatives(name: str) -> None:
    f1, f2 = maps(2, 2, 5, 5), maps(2, 2, 5, 5, seed=1)
    ids = torch.tensor([0, 0]), torch.tensor([0, 1])
    losses = {
        "local": LocalRegionContrastiveLoss(2, 1, 3),
        "cross": lambda a, b: CrossVolumeLocalContrastiveLoss(2, 1, 3)(a, b, *ids),
        "dense": DenseContrastiveLoss(2, 0.2, None, 1, 10),
        "vicreg": lambda a, b: VICRegLoss()(a.flatten(2)[0].mT, b.flatten(2)[0].mT),
    }
    assert torch.autograd.gradcheck(losses[name], (f1, f2), fast_mode=True)


def test_vicreg_equals_the_loop() -> None:
    z1, z2 = maps(6, 3), maps(6, 3, seed=1)
    total = 25 * sum((z1[i] - z2[i]).square().sum() for i in range(6)) / 18
    for z in (z1, z2):
        c = z - sum(z[i] for i in range(6)) / 6
        for d in range(3):
            for e in range(3):
                value = sum(c[i, d] * c[i, e] for i in range(6)) / 5
                total = total + (value**2 / 3 if d != e else 25 / 6 * torch.relu(1 - (value + 1e-4).sqrt()))
    same(VICRegLoss()(z1, z2), total, z1, z2)  # type: ignore[arg-type]


def test_what_cannot_be_is_refused_by_name() -> None:
    f, z = torch.ones(1, 2, 8, 8), torch.ones(1, 2)
    with pytest.raises(ValueError, match=r"regions of size \(9, 9\) must lie inside the map"):
        LocalRegionContrastiveLoss(2, 9)(f, f)
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 4"):
        DenseContrastiveLoss(4)
    with pytest.raises(ValueError, match="layout='tf13' is a table"):
        LocalRegionContrastiveLoss(3, layout="tf13")
    with pytest.raises(ValueError, match="coords1 and coords2 must be given together"):
        DenseContrastiveLoss(2)(f, f, f)
    with pytest.raises(ValueError, match=r"f1 must hold an image, a channel and a voxel at least, got shape \(0, "):
        DenseContrastiveLoss(2)(f[:0], f[:0])
    with pytest.raises(ValueError, match=r"partition must be whole numbers, got fractions such as 0\.5"):
        CrossVolumeLocalContrastiveLoss(2)(f, f, torch.tensor([0.5]), torch.tensor([0]))
    with pytest.raises(ValueError, match="variances need at least two rows, got 1"):
        VICRegLoss()(z, z)
    assert cos(z[0], z[0]).item() == pytest.approx(1.0)
