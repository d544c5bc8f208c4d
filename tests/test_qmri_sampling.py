"""Drawn protocols: every one can be played out, lies in its ranges, repeats under its seed and has its contrast."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from monai_cl.qmri.constraints import ConstraintError
from monai_cl.qmri.families import SpinEchoFamily
from monai_cl.qmri.protocols import Protocol
from monai_cl.qmri.ranges import LogUniform, Range, Uniform, WholeNumbers, as_range
from monai_cl.qmri.sampling import FAMILIES, draw_protocol, family
from monai_cl.qmri.tissues import tissue

DRAWS = 10_000
BRAIN = ("white_matter", "grey_matter", "csf")
every = pytest.mark.parametrize("name", FAMILIES)


def draws(name: str, count: int, seed: int = 0, **options: Any) -> list[Any]:
    state = np.random.RandomState(seed)
    return [draw_protocol(name, state, **options) for _ in range(count)]


# The constraints of each sequence once more, written from the timing diagrams; times in s.


def gradient_echo(p: Any) -> Iterable[bool]:
    return (0 < p.te < p.tr, 0 < p.flip_angle <= 180)


def spin_echo(p: Any) -> Iterable[bool]:
    return (0 < p.te < p.tr,)


def echo_train(p: Any) -> Iterable[bool]:
    end = p.train_length * p.echo_spacing
    return (1 <= p.effective_echo <= p.train_length, p.echo_spacing > 0, end < p.tr, 0 < p.refocusing_angle <= 180)


def inversion(p: Any) -> Iterable[bool]:
    end = p.train_length * p.echo_spacing
    return (*echo_train(p), p.ti > 0, p.ti + end < p.tr, 0 < p.efficiency <= 1)


def double_inversion(p: Any) -> Iterable[bool]:
    end = p.train_length * p.echo_spacing
    return (*echo_train(p), 0 < p.ti2 < p.ti1, p.ti1 + p.ti2 + end < p.tr, 0 < p.efficiency <= 1)


def mprage(p: Any) -> Iterable[bool]:
    first, last = p.ti - p.num_pulses * p.echo_spacing / 2, p.ti + p.num_pulses * p.echo_spacing / 2
    return (first >= 0, last <= p.tr, 0 < p.te <= p.echo_spacing, p.num_pulses >= 1, 0 < p.efficiency <= 1)


def mp2rage(p: Any) -> Iterable[bool]:
    half = p.num_pulses * p.echo_spacing / 2
    ordered = p.ti1 - half >= 0, p.ti1 + half <= p.ti2 - half + 1e-12, p.ti2 + half <= p.tr
    return (*ordered, 0 < p.te <= p.echo_spacing, 0 < p.flip_angle1 <= 180, 0 < p.flip_angle2 <= 180)


RULES: dict[str, Callable[[Any], Iterable[bool]]] = {
    "spoiled_gradient_echo": gradient_echo,
    "susceptibility_weighted": gradient_echo,
    "balanced_ssfp": gradient_echo,
    "spin_echo": spin_echo,
    "fast_spin_echo": echo_train,
    "inversion_recovery": inversion,
    "double_inversion_recovery": double_inversion,
    "mprage": mprage,
    "mp2rage": mp2rage,
}


@every
def test_not_one_of_ten_thousand_draws_is_unplayable_or_outside_its_ranges(name: str) -> None:
    ranges = {
        f.name: getattr(FAMILIES[name], f.name)
        for f in dataclasses.fields(FAMILIES[name])
        if isinstance(getattr(FAMILIES[name], f.name), Range)
    }
    ranges.pop("detuning", None)
    for protocol in draws(name, DRAWS):
        assert all(RULES[protocol.sequence](protocol)), protocol
        for parameter, allowed in ranges.items():
            value = getattr(protocol, parameter)
            assert allowed.low - 1e-9 <= value <= allowed.high + 1e-9, (parameter, protocol)


@every
def test_ranges_are_used_to_their_ends(name: str) -> None:
    protocols = draws(name, 2000)
    for parameter in ("tr", "te", "flip_angle", "echo_spacing", "num_pulses", "train_length"):
        allowed = getattr(FAMILIES[name], parameter, None)
        if allowed is None:
            continue
        values = [getattr(p, parameter) for p in protocols]
        margin = 0.12 * (allowed.high - allowed.low)
        assert min(values) < allowed.low + margin, parameter
        assert max(values) > allowed.high - margin, parameter


@every
def test_a_seed_repeats_its_draws(name: str) -> None:
    assert draws(name, 5, seed=3) == draws(name, 5, seed=3)
    assert draws(name, 5, seed=3) != draws(name, 5, seed=4)


@every
def test_a_draw_takes_less_than_a_millisecond(name: str) -> None:
    draws(name, 10)
    started = time.process_time()
    draws(name, 200)
    assert (time.process_time() - started) / 200 < 1e-3


def longitudinal(p: Any, t1: float) -> float:
    rest = math.exp(-(p.tr - p.last_echo) / t1)
    if hasattr(p, "ti"):
        return 1 - (1 + p.efficiency) * math.exp(-p.ti / t1) + p.efficiency * rest
    e = p.efficiency
    return 1 - (1 + e) * math.exp(-p.ti2 / t1) + e * (1 + e) * math.exp(-(p.ti1 + p.ti2) / t1) - e**2 * rest


@pytest.mark.parametrize(("name", "nulled"), [("flair", ["csf"]), ("stir", ["fat"]), ("dir", ["csf", "white_matter"])])
@pytest.mark.parametrize("field_strength", [1.5, 3.0, 7.0])
def test_inversion_times_null_their_tissue_at_the_field(name: str, nulled: list[str], field_strength: float) -> None:
    chosen = dataclasses.replace(FAMILIES[name], detuning=1.0)  # type: ignore[call-arg]
    state = np.random.RandomState(1)
    for _ in range(50):
        protocol = chosen.draw(state, field_strength=field_strength)
        for tissue_name in nulled:
            assert abs(longitudinal(protocol, tissue(tissue_name, field_strength).t1.value)) < 1e-9


def test_fat_is_nulled_where_stir_is_known_to_null_it() -> None:
    times = [p.ti for b0 in (1.5, 3.0) for p in draws("stir", 500, field_strength=b0)]
    assert 0.17 < min(times) < 0.20
    assert 0.25 < max(times) < 0.28


def signals(name: str, count: int = 1000) -> torch.Tensor:
    """Signals of white matter, grey matter, fluid and fat, (draws, 4), with the middle values at 3 T."""
    values = [tissue(t).typical() for t in (*BRAIN, "fat")]
    maps = {k: torch.tensor([getattr(v, k) for v in values]) for k in ("pd", "t1", "t2", "t2_star", "mtsat")}
    return torch.stack([p.signal(**maps) for p in draws(name, count)])


# share of draws in which each is brighter than the next: w white matter, g grey matter, c fluid
ORDERS = {
    "t1w_mprage": ("wgc", 0.99), "t1w_mp2rage": ("wgc", 0.96), "t1w_spgr": ("wgc", 1.0), "t1w_se": ("wgc", 1.0),
    "t2w_fse": ("cgw", 1.0), "t2sw_gre": ("cgw", 0.97), "stir": ("cgw", 0.99), "pdw_spgr": ("gw", 1.0),
    "mtw_spgr": ("gw", 1.0), "pdw_fse": ("gw", 1.0), "bssfp": ("cw", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_contrast_is_the_one_in_the_name(name: str) -> None:
    order, share = ORDERS[name]
    columns = signals(name)[:, ["wgc".index(letter) for letter in order]]
    assert (columns.diff(dim=1) < 0).all(dim=1).double().mean() >= share


def test_fluid_is_dark_in_flair_and_grey_and_white_matter_are_close() -> None:
    white, grey, fluid, _ = signals("flair").unbind(1)
    tissue_signal = torch.minimum(white, grey)
    assert (fluid < 0.5 * tissue_signal).double().mean() > 0.97
    assert fluid.mean() < 0.25 * tissue_signal.mean()
    assert 0.4 < (grey > white).double().mean() < 0.8


def test_fat_is_dark_in_stir() -> None:
    white, _, fluid, fat = signals("stir").unbind(1)
    assert bool((fat < 0.3 * white).all())
    assert bool((fat < fluid).all())


def test_only_grey_matter_is_left_in_double_inversion() -> None:
    white, grey, fluid, _ = signals("dir").unbind(1)
    assert ((grey > white) & (grey > fluid)).double().mean() > 0.99
    assert white.mean() < 0.2 * grey.mean()
    assert fluid.mean() < 0.3 * grey.mean()


def test_density_weighting_mixes_orders_of_fluid() -> None:
    white, _, fluid, _ = signals("pdw_fse").unbind(1)
    assert 0.3 < (fluid > white).double().mean() < 0.9


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [(Uniform(2, 4), 3.0), (LogUniform(1, 100), 99 / math.log(100)), (WholeNumbers(1, 4), 2.5)],
)
def test_ranges_draw_within_their_ends_with_the_mean_of_their_kind(allowed: Range, expected: float) -> None:
    state = np.random.RandomState(0)
    values = [allowed.draw(state) for _ in range(20_000)]
    assert allowed.low <= min(values)
    assert max(values) <= allowed.high
    assert np.mean(values) == pytest.approx(expected, rel=0.03)


def test_whole_numbers_include_both_ends_equally() -> None:
    state = np.random.RandomState(0)
    counts = np.bincount([WholeNumbers(1, 4).draw(state) for _ in range(8000)])
    assert counts[0] == 0
    assert (counts[1:] > 1850).all()
    assert type(WholeNumbers(1, 4).draw(state)) is int


def test_numbers_and_pairs_become_ranges() -> None:
    assert as_range(0.5) == Uniform(0.5, 0.5)
    assert as_range([1, 2]) == Uniform(1, 2)
    assert as_range("fat") == "fat"
    pinned = SpinEchoFamily(name="mine", tr=0.5, te=(0.01, 0.02))  # type: ignore[arg-type]
    protocol: Any = pinned.draw(np.random.RandomState(0))
    assert protocol.tr == 0.5
    assert 0.01 <= protocol.te <= 0.02


def test_a_generator_of_numpy_serves_too() -> None:
    assert isinstance(draw_protocol("flair", np.random.default_rng(0)), Protocol)


def test_odd_ranges_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match="finite ends with low <= high, got 2 and 1"):
        Uniform(2, 1)
    with pytest.raises(ValueError, match="positive low end, got 0"):
        LogUniform(0, 1)
    with pytest.raises(ConstraintError, match=r"no whole number lies between 1.2 and 1.8"):
        WholeNumbers(1.2, 1.8)
    with pytest.raises(ConstraintError, match="nothing of the range 1 to 2 lies between 3 and inf"):
        Uniform(1, 2).limited(low=3)
    with pytest.raises(ValueError, match=r"family must be one of .*, got 'flare'; did you mean 'flair'"):
        family("flare")
    with pytest.raises(ValueError, match="tr must be a number, a pair or a range, got 'long'"):
        SpinEchoFamily(name="mine", tr="long", te=0.01)  # type: ignore[arg-type]


def test_ranges_that_leave_nothing_are_reported_with_the_reason() -> None:
    impossible = SpinEchoFamily(name="mine", tr=0.5, te=0.6)  # type: ignore[arg-type]
    with pytest.raises(ConstraintError, match=r"none of 100 draws of family 'mine' can be played out.*; change its"):
        draw_protocol(impossible, np.random.RandomState(0))


def test_draws_of_tight_ranges_are_repeated_until_one_fits() -> None:
    tight = dataclasses.replace(FAMILIES["t1w_mprage"], ti=0.55, tr=Uniform(1.0, 1.2))  # type: ignore[call-arg]
    for seed in range(20):
        assert all(mprage(tight.draw(np.random.RandomState(seed))))
