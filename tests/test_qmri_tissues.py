"""Tissues, fields, limits of maps, a drawn T2, and partial volume."""

import dataclasses
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from monai_cl.qmri.fields import change_field, r2_at, r2_star_at, t1_at
from monai_cl.qmri.maps import draw_t2, limit_maps
from monai_cl.qmri.mixing import mix
from monai_cl.qmri.signal import balanced_ssfp, double_inversion_recovery, inversion_recovery, spoiled_gradient_echo
from monai_cl.qmri.tissues import NAMES, TISSUES, Quantity, TissueValues, tissue, typical_t1

QUANTITIES = ("pd", "t1", "t2", "t2_star", "mtsat")


# Tissues


@pytest.mark.parametrize("key", TISSUES, ids=lambda key: f"{key[0]} {key[1]} T")
def test_every_entry_is_physical_and_names_its_sources(key: tuple[str, float]) -> None:
    entry = tissue(*key)
    values = entry.typical()
    assert 0 < values.t2_star <= values.t2 <= values.t1 < 6
    assert 0 < values.pd <= 100
    assert 0 <= values.mtsat < 0.1
    for name in QUANTITIES:
        quantity = getattr(entry, name)
        assert quantity.source
        assert 0 < quantity.spread <= 0.3


def test_values_that_were_not_checked_are_marked() -> None:
    white = tissue("white_matter", 3.0)
    assert not white.t1.uncertain
    assert not white.t2.uncertain
    assert white.mtsat.uncertain
    assert tissue("grey_matter", 3.0).t1.uncertain
    assert all(tissue("fat", field).t1.uncertain for field in (1.5, 3.0, 7.0))


def test_the_brain_is_tabulated_at_three_fields() -> None:
    for name in NAMES:
        assert {field for other, field in TISSUES if other == name} >= {1.5, 3.0}
    for name in ("white_matter", "grey_matter", "csf", "arterial_blood", "fat"):
        assert (name, 7.0) in TISSUES


@pytest.mark.parametrize("name", NAMES)
def test_a_higher_field_lengthens_t1_and_shortens_t2_and_t2_star(name: str) -> None:
    entries = [tissue(name, field).typical() for field in (1.5, 3.0, 7.0) if (name, field) in TISSUES]
    for low, high in itertools.pairwise(entries):
        assert low.t1 <= high.t1
        assert low.t2 >= high.t2 or name == "muscle"  # reported a little longer at 3 T
        assert low.t2_star >= high.t2_star


@pytest.mark.parametrize("key", TISSUES, ids=lambda key: f"{key[0]} {key[1]} T")
def test_draws_keep_the_order_of_times_and_scatter_around_the_table(key: tuple[str, float]) -> None:
    state = np.random.RandomState(0)
    drawn = [tissue(*key).draw(state) for _ in range(1500)]
    assert all(0 < d.t2_star <= d.t2 <= d.t1 and d.pd <= 100 for d in drawn)
    logs = np.log([d.t1 for d in drawn])
    assert logs.mean() == pytest.approx(math.log(tissue(*key).t1.value), abs=0.02)
    assert logs.std() == pytest.approx(tissue(*key).t1.spread, rel=0.15)


def test_a_seed_repeats_a_subject() -> None:
    first, again, other = (tissue("csf").draw(np.random.RandomState(s)) for s in (1, 1, 2))
    assert first == again != other
    assert isinstance(first, TissueValues)
    assert set(dataclasses.asdict(first)) == set(QUANTITIES)


def test_no_draw_is_further_than_two_and_a_half_deviations() -> None:
    state = np.random.RandomState(0)
    quantity = Quantity(2.0, 0.1, "test")
    values = [quantity.draw(state) for _ in range(5000)]
    assert max(values) == pytest.approx(2 * math.exp(0.25))
    assert min(values) == pytest.approx(2 * math.exp(-0.25))


def test_t1_between_tabulated_fields_is_interpolated() -> None:
    assert typical_t1("fat", 1.5) == 0.29
    middle = typical_t1("fat", math.sqrt(1.5 * 3))
    assert middle == pytest.approx((0.29 + 0.37) / 2)
    with pytest.raises(ValueError, match=r"field_strength must be 1.5 to 7 tesla, between which T1 of fat .* got 9.4"):
        typical_t1("fat", 9.4)
    with pytest.raises(ValueError, match="tissue must be one of"):
        typical_t1("bone", 3.0)


def test_unknown_tissues_and_fields_are_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match=r"tissue must be one of .*, got 'gray_matter'; did you mean 'grey_matter'"):
        tissue("gray_matter")
    with pytest.raises(ValueError, match=r"must be one of \(1.5, 3.0, 7.0\) tesla, where csf is tabulated, got 0.55"):
        tissue("csf", 0.55)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", [2.9, 7.0, 9.4])
def test_the_remedy_for_a_field_that_is_not_tabulated_can_be_followed(name: str, field: float) -> None:
    if (name, field) in TISSUES:
        return
    with pytest.raises(ValueError, match=rf"where {name} is tabulated, got {field}; take the nearest") as refused:
        tissue(name, field)
    known = tissue(name, 3.0).typical()
    times = [torch.tensor(value) for value in (known.t1, known.t2, known.t2_star)]
    if "change_field" in str(refused.value):
        assert change_field(*times, tissue=name, measured_at=3.0, wanted_at=field)[0] > 0
    else:
        with pytest.raises(ValueError, match=r"tissue must be one of|field_strength must be"):
            change_field(*times, tissue=name, measured_at=3.0, wanted_at=field)


# Fields


def test_t1_of_the_law_is_the_published_table() -> None:
    expected = {
        "white_matter": (0.68, 0.89, 1.23),
        "grey_matter": (1.20, 1.55, 2.13),
        "arterial_blood": (1.51, 1.91, 2.55),
    }
    for name, times in expected.items():
        assert [t1_at(name, b0) for b0 in (1.5, 3.0, 7.0)] == pytest.approx(times, abs=0.006)
    assert t1_at("csf", 1.5) == t1_at("csf", 7.0) == 4.3


def test_r2_of_the_law_is_near_the_measured_times() -> None:
    measured = {"grey_matter": (87, 76, 47), "occipital_grey_matter": (80, 68, 46), "white_matter": (80, 71, 47)}
    for name, times in measured.items():
        assert [1e3 / r2_at(name, b0) for b0 in (1.5, 3.0, 7.0)] == pytest.approx(times, rel=0.05)


@pytest.mark.parametrize("name", ["white_matter", "grey_matter", "csf"])
def test_dephasing_is_never_negative(name: str) -> None:
    for b0 in (1.5, 3.0, 5.0, 7.0):
        assert r2_star_at(name, b0) > r2_at(name, b0)


def test_changing_the_field_and_back_changes_nothing_and_keeps_differences_between_voxels() -> None:
    t1, t2, t2_star = torch.tensor([0.8, 0.9]), torch.tensor([0.07, 0.08]), torch.tensor([0.04, 0.05])
    high = change_field(t1, t2, t2_star, tissue="white_matter", measured_at=1.5, wanted_at=7.0)
    assert bool((high[0] > t1).all())
    assert bool((high[1] < t2).all())
    assert bool((high[2] < t2_star).all())
    assert (high[0][1] / high[0][0]).item() == pytest.approx(0.9 / 0.8)
    back = change_field(*high, tissue="white_matter", measured_at=7.0, wanted_at=1.5)
    for one, other in zip(back, (t1, t2, t2_star), strict=True):
        torch.testing.assert_close(one, other)


def test_t2_star_stays_below_t2_at_a_lower_field() -> None:
    t2 = torch.tensor([0.047])
    _, low, low_star = change_field(t2 * 25, t2, 0.98 * t2, tissue="white_matter", measured_at=7.0, wanted_at=1.5)
    assert bool(low_star <= low)


def test_t2_stays_below_t1_at_a_lower_field() -> None:
    t1, t2 = torch.tensor([0.7, 0.0]), torch.tensor([0.6, 0.1])  # fluid in a voxel of white matter; one without signal
    times = change_field(t1, t2, t2, tissue="white_matter", measured_at=7.0, wanted_at=1.5)
    assert bool(times[2][0] <= times[1][0] <= times[0][0])
    assert bool(times[1][1] > t2[1])


def test_fields_and_tissues_without_a_law_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tissue must be one of .*, got 'white matter'; did you mean 'white_matter'"):
        t1_at("white matter", 3.0)
    with pytest.raises(ValueError, match=r"field_strength must be 1.5 to 7 tesla, where the law was fitted, got 9.4"):
        r2_at("white_matter", 9.4)
    with pytest.raises(ValueError, match=r"field_strength must be 0.2 to 7 tesla"):
        t1_at("white_matter", 0.05)


# Limits of maps


def test_maps_within_physics_are_left_alone() -> None:
    maps = {"pd": torch.rand(9), "t1": torch.full((9,), 1.0), "t2": torch.rand(9) * 0.1, "mtsat": torch.rand(9) * 0.03}
    limited, counts = limit_maps(maps)
    assert counts == {}
    assert all(torch.equal(limited[name], maps[name]) for name in maps)


def test_maps_are_limited_and_every_rule_counts_its_changes() -> None:
    nan, inf = math.nan, math.inf
    limited, counts = limit_maps({
        "pd": torch.tensor([1.0, -2.0, nan, 1.0, 1.0]),
        "t1": torch.tensor([1.0, 1.0, 1.0, inf, -1.0]),
        "t2": torch.tensor([2.0, 0.1, 0.1, 0.1, 0.1]),
        "t2_star": torch.tensor([1.5, 0.2, 0.05, 0.05, 0.05]),
        "mtsat": torch.tensor([0.01, -0.01, 1.7, 0.01, 0.01]),
    })  # fmt: skip
    assert counts == {
        "pd finite": 1, "pd >= 0": 1, "t1 finite": 1, "t1 >= 0": 1, "mtsat >= 0": 1, "mtsat < 1": 1, "t2 <= t1": 1,
        "t2_star <= t2": 2,
    }  # fmt: skip
    assert limited["t2"].tolist() == pytest.approx([1.0, 0.1, 0.1, 0.1, 0.1])
    assert limited["t2_star"].tolist() == pytest.approx([1.0, 0.1, 0.05, 0.05, 0.05])
    assert limited["t1"].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert limited["pd"].tolist() == [1.0, 0.0, 0.0, 1.0, 1.0]
    assert limited["mtsat"].max() < 1


def test_t2_star_is_limited_by_t1_where_there_is_no_t2() -> None:
    limited, counts = limit_maps({"t1": torch.tensor([0.5]), "t2_star": torch.tensor([0.9])})
    assert limited["t2_star"].item() == 0.5
    assert counts == {"t2_star <= t1": 1}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_saturation_is_below_one_in_every_type(dtype: torch.dtype) -> None:
    limited, _ = limit_maps({"mtsat": torch.tensor([0.5, 1.0, 3.0], dtype=dtype)})
    assert bool((limited["mtsat"] < 1).all())
    one = torch.ones(3)
    spoiled_gradient_echo(one, one, 0.05 * one, tr=0.03, te=0.004, flip_angle=7.0, mtsat=limited["mtsat"])


def test_unknown_maps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"maps must be named .*, got \['r1'\]"):
        limit_maps({"r1": torch.ones(2)})


# A drawn T2


def test_whole_numbers_draw_the_t2_of_the_same_numbers_with_a_point() -> None:
    t2_star, t1 = torch.tensor([1, 2]), torch.tensor([4, 4])
    whole, _ = draw_t2(t2_star, np.random.RandomState(3), t1=t1)
    expected, _ = draw_t2(t2_star.float(), np.random.RandomState(3), t1=t1.float())
    torch.testing.assert_close(whole, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_drawn_t2_lies_between_t2_star_and_t1_also_after_rounding(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    t2_star = (torch.rand(20_000, generator=generator) * 0.2 + 1e-3).to(dtype)
    t1 = (torch.rand(20_000, generator=generator) * 4 + 1e-3).to(dtype)
    t2, _ = draw_t2(t2_star, np.random.RandomState(0), t1=t1)
    assert bool((t2 >= t2_star).all())
    assert bool((t2 <= torch.maximum(t1, t2_star)).all())
    fractions = torch.rand(3, 20_000, generator=generator).to(dtype)
    assert bool((draw_t2(t2_star, np.random.RandomState(0), fractions=fractions)[0] >= t2_star).all())


def brain_of(tissues: tuple[str, ...] = ("white_matter", "grey_matter", "csf")) -> dict[str, torch.Tensor]:
    values = [tissue(name).typical() for name in tissues]
    return {name: torch.tensor([getattr(v, name) for v in values]) for name in QUANTITIES}


@pytest.mark.parametrize("by", ["t1", "fractions"])
@pytest.mark.parametrize("field_strength", [1.5, 3.0, 7.0])
def test_a_drawn_t2_is_never_below_t2_star_and_is_recorded(by: str, field_strength: float) -> None:
    maps = brain_of()
    known: dict[str, Any] = {"t1": maps["t1"]} if by == "t1" else {"fractions": torch.eye(3)}
    for seed in range(50):
        t2, record = draw_t2(maps["t2_star"], np.random.RandomState(seed), field_strength=field_strength, **known)
        assert bool((t2 >= maps["t2_star"] * (1 - 1e-6)).all())
        assert json.loads(json.dumps(record)) == record
        assert record["t2"] == "drawn below R2*, not measured"
        assert record["assigned_by"] == by
        assert 0 <= record["limited_by_r2_star"] <= 1


def test_a_drawn_t2_is_that_of_the_tissue() -> None:
    maps = brain_of()
    drawn = [draw_t2(maps["t2_star"], np.random.RandomState(s), t1=maps["t1"])[0] for s in range(400)]
    mean = torch.stack(drawn).mean(0)
    assert mean[:2].tolist() == pytest.approx([1 / r2_at(n, 3.0) for n in ("white_matter", "grey_matter")], rel=0.03)
    assert mean[2] == pytest.approx(2.0, rel=0.05)


def test_fractions_average_the_drawn_rates() -> None:
    long = torch.full((3,), 0.02)
    fractions = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    t2, record = draw_t2(long, np.random.RandomState(0), fractions=fractions)
    white, grey, fluid = record["r2"].values()
    expected = [1 / white, 2 / (white + grey), 3 / (white + grey + fluid)]
    assert t2.tolist() == pytest.approx(expected, rel=1e-5)


def test_r2_star_is_the_limit_where_the_prior_exceeds_it() -> None:
    t2, record = draw_t2(torch.tensor([0.5, 0.03]), np.random.RandomState(0), t1=torch.tensor([0.86, 0.86]))
    assert t2[0].item() == pytest.approx(0.5)
    assert t2[1] > 0.05
    assert record["limited_by_r2_star"] == 0.5


def test_voxels_without_t2_star_get_none_and_gradients_stay_finite() -> None:
    t2_star = torch.tensor([0.0, math.nan, math.inf, -1.0, 0.05], requires_grad=True)
    t1 = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0])
    t2, record = draw_t2(t2_star, np.random.RandomState(0), t1=t1)
    assert t2[:4].tolist() == [0.0] * 4
    t2.sum().backward()
    assert t2_star.grad is not None
    assert bool(t2_star.grad.isfinite().all())
    assert record["limited_by_r2_star"] == 0


def test_drawing_t2_needs_one_way_to_tell_tissues_apart() -> None:
    t2_star, state = torch.tensor([0.05]), np.random.RandomState(0)
    with pytest.raises(ValueError, match="needs one of t1 and fractions to separate tissues, got neither; pass one"):
        draw_t2(t2_star, state)
    with pytest.raises(ValueError, match="got both; pass one"):
        draw_t2(t2_star, state, t1=t2_star, fractions=torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"fractions needs one map for each of \('white_matter', .*\), got 2"):
        draw_t2(t2_star, state, fractions=torch.ones(2, 1))


# Partial volume


def flair(pd: torch.Tensor, t1: torch.Tensor, t2: torch.Tensor, *, signed: bool) -> torch.Tensor:
    return inversion_recovery(pd, t1, t2, tr=9.0, ti=2.5, te=0.1, last_echo=0.2, signed=signed)


def test_pure_voxels_are_their_tissue() -> None:
    maps = brain_of()
    signals = flair(maps["pd"], maps["t1"], maps["t2"], signed=True)
    torch.testing.assert_close(mix(torch.eye(3), signals), signals.abs())
    torch.testing.assert_close(mix(torch.eye(3), signals, signed=True), signals)


def test_mixing_is_the_loop_over_voxels_and_tissues() -> None:
    g = torch.Generator().manual_seed(0)
    fractions, signals = torch.rand(2, 3, 4, 5, generator=g), torch.randn(2, 3, 4, 5, generator=g)
    result = mix(fractions, signals, dim=1)
    for b in range(2):
        for i in range(4):
            for j in range(5):
                total = sum(float(fractions[b, t, i, j] * signals[b, t, i, j]) for t in range(3))
                assert result[b, i, j].item() == pytest.approx(abs(total), abs=1e-6)


def test_signals_come_as_vector_maps_or_list() -> None:
    fractions, numbers = torch.rand(3, 4, 5), torch.tensor([1.0, -2.0, 3.0])
    expected = mix(fractions, numbers)
    torch.testing.assert_close(mix(fractions, numbers[:, None, None].expand(3, 4, 5)), expected)
    torch.testing.assert_close(mix(fractions, list(numbers)), expected)
    torch.testing.assert_close(mix(fractions.movedim(0, -1), numbers, dim=-1), expected)


def test_complex_signals_keep_their_phase_until_the_magnitude() -> None:
    opposite = torch.tensor([1 + 0j, 0 + 1j])
    assert mix(torch.full((2, 1), 0.5), opposite).item() == pytest.approx(math.sqrt(0.5))


def test_mixing_signals_is_not_mixing_rates_next_to_a_null() -> None:
    maps = {name: m[1:] for name, m in brain_of().items()}  # grey matter and fluid
    half = torch.full((2, 1), 0.5)
    by_rates = {name: 1 / (0.5 / m).sum(0, keepdim=True) for name, m in maps.items() if name.startswith("t")}
    pd = maps["pd"].mean()
    sequences = {
        "FLAIR": (lambda p, a, b: flair(p, a, b, signed=True), 0.2),
        "DIR": (
            lambda p, a, b: double_inversion_recovery(
                p, a, b, tr=9.0, ti1=2.9, ti2=0.5, te=0.03, last_echo=0.2, signed=True
            ),
            0.1,
        ),
        "balanced SSFP": (lambda p, a, b: balanced_ssfp(p, a, b, tr=0.005, flip_angle=45.0), 0.1),
    }
    for name, (play, least) in sequences.items():
        mixed = mix(half, play(maps["pd"], maps["t1"], maps["t2"]))
        averaged = play(pd, by_rates["t1"], by_rates["t2"]).abs()
        assert abs(mixed - averaged).item() > least * mixed.item(), name
    plain = spoiled_gradient_echo(maps["pd"], maps["t1"], maps["t2_star"], tr=0.02, te=0.003, flip_angle=20.0)
    averaged = spoiled_gradient_echo(pd, by_rates["t1"], by_rates["t2_star"], tr=0.02, te=0.003, flip_angle=20.0)
    assert abs(mix(half, plain) - averaged).item() < 0.1 * averaged.item()


def test_gradients_of_a_mixture_are_right() -> None:
    fractions = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    signals = torch.tensor([1.0, -0.2, 0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, s: mix(f, s), (fractions, signals))


def test_one_signal_a_tissue_is_needed() -> None:
    with pytest.raises(ValueError, match="one signal for each of the 3 tissues of fractions is needed, got 2"):
        mix(torch.rand(3, 4), torch.rand(2))
