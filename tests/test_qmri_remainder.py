"""What known tissues leave of a voxel: the loop of the equations, the limits, continuity and gradients."""

import itertools

import pytest
import torch
from torch import Tensor

from monai_cl.qmri import tissue
from monai_cl.qmri.remainder import remaining_maps

NAMES = ("pd", "t1", "t2", "t2_star", "mtsat")
KNOWN = [{n: getattr(tissue(t).typical(), n) for n in NAMES} for t in ("white_matter", "grey_matter")]
LESION = {n: getattr(tissue("white_matter_lesion").typical(), n) for n in NAMES}


def one_pool(parts: list[tuple[float, dict[str, float]]]) -> dict[str, Tensor]:
    """Maps of a voxel that holds these tissues, as a measurement with one pool sees them."""
    density = sum(share * t["pd"] for share, t in parts)
    maps = {"pd": density}
    for name in ("t1", "t2", "t2_star"):
        maps[name] = density / sum(share * t["pd"] / t[name] for share, t in parts)
    maps["mtsat"] = sum(share * t["pd"] * t["mtsat"] for share, t in parts) / density
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in maps.items()}


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("shares", [*itertools.product((0.0, 0.1, 0.4), (0.0, 0.3))])
def test_the_rest_is_what_was_mixed_to_the_known(shares: tuple[float, float]) -> None:
    left = 1 - sum(shares)
    rest = remaining_maps(one_pool([*zip(shares, KNOWN, strict=True), (left, LESION)]), column(*shares), KNOWN)
    assert float(rest["pd"]) == pytest.approx(left * LESION["pd"])
    for name in NAMES[1:]:
        assert float(rest[name]) == pytest.approx(LESION[name]), name


def test_without_known_tissue_the_maps_stay_as_they_are() -> None:
    maps = {name: torch.rand(7, generator=torch.Generator().manual_seed(0)) for name in NAMES}
    for shares in (torch.zeros(2, 7), torch.full((2, 7), 0.3)):
        tissues = KNOWN if float(shares.sum()) == 0 else [{**one, "t1": 0.0} for one in KNOWN]
        assert all(torch.equal(values, maps[name]) for name, values in remaining_maps(maps, shares, tissues).items())


def test_nothing_is_left_of_a_full_voxel_and_beside_air() -> None:
    dense = one_pool([(1.2, KNOWN[0])])  # denser than the tissue in the middle
    assert float(remaining_maps(dense, column(0.6, 0.4), KNOWN)["pd"]) == 0
    half = one_pool([(0.5, KNOWN[0])])  # the rest is air
    assert float(remaining_maps(half, column(0.5, 0.0), KNOWN)["pd"]) == pytest.approx(0, abs=1e-9)


def test_a_small_change_of_fractions_changes_little() -> None:
    maps = one_pool([(1.0, LESION)])
    at = [remaining_maps(maps, column(share, 0.0), KNOWN) for share in (0.0, 1e-6)]
    for name in NAMES:
        assert float(at[1][name]) == pytest.approx(float(at[0][name]), rel=1e-5)


def test_rates_stay_near_those_measured() -> None:
    maps = one_pool([(1.0, KNOWN[0])])
    maps["t1"] = maps["t1"] * 2  # slower than its tissues allow: nothing, however slow, makes up for them
    rest = remaining_maps(maps, column(0.9, 0.0), KNOWN)
    assert float(rest["t1"]) == pytest.approx(4 * float(maps["t1"]))


def test_gradients_are_finite_also_where_maps_are_empty() -> None:
    maps = {name: torch.tensor([0.0, KNOWN[0][name], LESION[name]]).requires_grad_() for name in NAMES}
    shares = torch.tensor([[0.5, 1.0, 0.3], [0.2, 0.0, 0.0]])
    torch.stack(list(remaining_maps(maps, shares, KNOWN).values())).sum().backward()
    assert all(bool(values.grad.isfinite().all()) for values in maps.values())  # type: ignore[union-attr]
    assert float(maps["t1"].grad[2]) != 0  # type: ignore[index]
