"""What holds of every signal equation: limits, symmetries, numbers, gradients, batches, masks and refusals."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_cl.qmri import _elementwise, extended_phase_graph
from monai_cl.qmri.extended_phase_graph import echo_amplitudes
from monai_cl.qmri.nulls import double_inversion_null, inversion_null
from monai_cl.qmri.signal import (
    balanced_ssfp,
    double_inversion_recovery,
    fast_spin_echo,
    inversion_recovery,
    mp2rage,
    mp2rage_images,
    mprage,
    spin_echo,
    spoiled_gradient_echo,
    susceptibility_weighted,
    uniform_image,
)

Signal = Callable[..., Tensor]
TRAIN = {"echo_spacing": 0.009, "train_length": 14, "effective_echo": 9}
MPRAGE = {"tr": 2.3, "ti": 0.9, "echo_spacing": 0.007, "te": 0.003, "flip_angle": 9.0, "num_pulses": 176}
MP2RAGE = {
    "tr": 6.0, "ti1": 0.8, "ti2": 2.7, "echo_spacing": 0.007, "te": 0.003, "num_pulses": 160, "flip_angle1": 4.0,
    "flip_angle2": 5.0,
}  # fmt: skip
# name: equation, parameters; all take (pd, t1, t2 or t2_star)
CASES: dict[str, tuple[Signal, dict[str, Any]]] = {
    "spoiled gradient echo": (spoiled_gradient_echo, {"tr": 0.02, "te": 0.004, "flip_angle": 25.0}),
    "with MT pulse": (spoiled_gradient_echo, {"tr": 0.03, "te": 0.004, "flip_angle": 7.0, "mtsat": 0.0175}),
    "susceptibility weighted": (
        susceptibility_weighted,
        {"tr": 0.03, "te": 0.02, "flip_angle": 15.0, "off_resonance": 7.0},
    ),
    "spin echo": (spin_echo, {"tr": 0.6, "te": 0.015}),
    "spin echo off angle": (spin_echo, {"tr": 0.6, "te": 0.015, "b1": 0.85}),
    "fast spin echo": (fast_spin_echo, {"tr": 4.0, "refocusing_angle": 145.0, **TRAIN}),
    "fast spin echo 180": (fast_spin_echo, {"tr": 4.0, **TRAIN}),
    "STIR": (fast_spin_echo, {"tr": 4.0, "ti": 0.2, "refocusing_angle": 160.0, "efficiency": 0.95, **TRAIN}),
    "DIR": (fast_spin_echo, {"tr": 9.0, "ti": (2.9, 0.5), "refocusing_angle": 150.0, **TRAIN}),
    "inversion recovery": (inversion_recovery, {"tr": 9.0, "ti": 2.1, "te": 0.1, "last_echo": 0.2}),
    "double inversion": (double_inversion_recovery, {"tr": 9.0, "ti1": 2.9, "ti2": 0.5, "te": 0.05}),
    "MPRAGE": (mprage, MPRAGE),
    "MP2RAGE": (mp2rage, MP2RAGE),
    "balanced SSFP": (balanced_ssfp, {"tr": 0.005, "flip_angle": 45.0}),
    "balanced SSFP off resonance": (balanced_ssfp, {"tr": 0.005, "flip_angle": 45.0, "off_resonance": 30.0}),
}
every = pytest.mark.parametrize("name", CASES)


def play(name: str, pd: Tensor, t1: Tensor, t2: Tensor, **changes: Any) -> Tensor:
    function, parameters = CASES[name]
    return function(pd, t1, t2, **{**parameters, **changes})


def random_maps(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
    """PD, T1 between 0.2 and 5 s and a T2 of 2 to 40 per cent of it."""
    g = torch.Generator().manual_seed(seed)
    pd, a, b = (torch.rand(shape, generator=g, dtype=torch.float64) for _ in range(3))
    t1 = 0.2 * 25**a
    return tuple(m.to(dtype) for m in (pd + 0.1, t1, t1 * 0.02 * 20**b))


# Limits


@pytest.mark.parametrize("t1", [0.3, 0.9, 4.0])
@pytest.mark.parametrize("mtsat", [0.0, 0.02])
def test_the_spoiled_gradient_echo_is_largest_at_the_ernst_angle(t1: float, mtsat: float) -> None:
    ernst = math.degrees(math.acos((1 - mtsat) * math.exp(-0.02 / t1)))
    angle = torch.tensor(ernst, dtype=torch.float64, requires_grad=True)
    maps = (torch.tensor(v, dtype=torch.float64) for v in (1.0, t1, 0.05))
    signal = spoiled_gradient_echo(*maps, tr=0.02, te=0.004, flip_angle=angle, mtsat=mtsat)
    (slope,) = torch.autograd.grad(signal, angle)
    assert abs(slope.item()) < 1e-12
    maps = (torch.tensor(v, dtype=torch.float64) for v in (1.0, t1, 0.05))
    around = spoiled_gradient_echo(
        *maps, tr=0.02, te=0.004, flip_angle=torch.tensor([ernst - 1, ernst + 1]).double(), mtsat=mtsat
    )
    assert bool((around < signal).all())


def test_a_long_repetition_and_a_short_echo_show_the_proton_density() -> None:
    pd, t1, t2 = random_maps((50,))
    long = {"tr": 500.0, "te": 1e-12}
    torch.testing.assert_close(spoiled_gradient_echo(pd, t1, t2, flip_angle=90.0, **long), pd)
    torch.testing.assert_close(spin_echo(pd, t1, t2, **long), pd)
    train = {"tr": 500.0, "echo_spacing": 1e-12, "train_length": 4, "effective_echo": 2}
    torch.testing.assert_close(fast_spin_echo(pd, t1, t2, **train), pd)


def test_an_infinite_echo_time_leaves_nothing() -> None:
    pd, t1, t2 = random_maps((50,))
    assert spin_echo(pd, t1, t2, tr=900.0, te=400.0).max() < 1e-12
    assert spoiled_gradient_echo(pd, t1, t2, tr=900.0, te=400.0, flip_angle=30.0).max() < 1e-12


def test_a_long_repetition_of_the_spin_echo_is_pure_decay() -> None:
    pd, t1, t2 = random_maps((50,))
    torch.testing.assert_close(spin_echo(pd, t1, t2, tr=300.0, te=0.03), pd * torch.exp(-0.03 / t2))


@pytest.mark.parametrize("efficiency", [1.0, 0.9, 0.7])
@pytest.mark.parametrize("t1", [0.25, 0.9, 4.3])
@pytest.mark.parametrize(("tr", "last_echo"), [(8.0, 0.3), (10.0, 0.012)])
def test_a_tissue_vanishes_at_its_null(t1: float, tr: float, last_echo: float, efficiency: float) -> None:
    ti = inversion_null(t1, tr=tr, last_echo=last_echo, efficiency=efficiency)
    maps = [torch.tensor(v, dtype=torch.float64) for v in (1.0, t1, 0.1)]
    common = {"tr": tr, "te": 0.01, "last_echo": last_echo, "efficiency": efficiency, "signed": True}
    assert abs(inversion_recovery(*maps, ti=ti, **common).item()) < 1e-14
    before, after = (inversion_recovery(*maps, ti=ti * f, **common).item() for f in (0.9, 1.1))
    assert before < 0 < after


@pytest.mark.parametrize("efficiency", [1.0, 0.9, 0.8])
@pytest.mark.parametrize(("t1_long", "t1_short"), [(4.3, 0.86), (4.3, 1.45), (1.45, 0.86)])
@pytest.mark.parametrize("tr", [7.0, 11.0])
def test_two_tissues_vanish_at_the_double_null(t1_long: float, t1_short: float, tr: float, efficiency: float) -> None:
    ti1, ti2 = double_inversion_null(t1_long, t1_short, tr=tr, last_echo=0.25, efficiency=efficiency)
    t1 = torch.tensor([t1_long, t1_short], dtype=torch.float64)
    both = double_inversion_recovery(
        torch.ones_like(t1), t1, 0.1 * t1, tr=tr, ti1=ti1, ti2=ti2, te=0.02, last_echo=0.25, efficiency=efficiency
    )
    assert both.max() < 1e-12


def test_refocusing_by_180_degrees_is_mono_exponential_with_and_without_inversion() -> None:
    pd, t1, t2 = random_maps((40,))
    common = {"tr": 8.0, "echo_spacing": 0.01, "train_length": 16, "effective_echo": 9}
    single = {"tr": 8.0, "te": 0.09, "last_echo": 0.16}
    torch.testing.assert_close(
        fast_spin_echo(pd, t1, t2, ti=2.0, **common), inversion_recovery(pd, t1, t2, ti=2.0, **single)
    )
    torch.testing.assert_close(
        fast_spin_echo(pd, t1, t2, ti=(2.9, 0.5), **common),
        double_inversion_recovery(pd, t1, t2, ti1=2.9, ti2=0.5, **single),
    )


def test_a_saturating_pulse_instead_of_an_inversion_is_saturation_recovery() -> None:
    pd, t1, t2 = random_maps((40,))
    saturated = inversion_recovery(pd, t1, t2, tr=8.0, ti=1.3, te=0.02, efficiency=1e-14)
    torch.testing.assert_close(saturated, pd * (1 - torch.exp(-1.3 / t1)) * torch.exp(-0.02 / t2))


def test_one_echo_of_a_fast_spin_echo_is_nearly_a_spin_echo() -> None:
    pd, t1, t2 = random_maps((40,))
    fast = fast_spin_echo(pd, t1, t2, tr=1.0, echo_spacing=0.012, train_length=1, effective_echo=1)
    torch.testing.assert_close(fast, spin_echo(pd, t1, t2, tr=1.0, te=0.012), atol=1e-3, rtol=0)


def test_a_long_train_of_mprage_forgets_the_inversion() -> None:
    pd, t1, t2 = random_maps((40,))
    train = mprage(
        pd, t1, t2, tr=81.0, ti=40.0, echo_spacing=0.01, te=0.003, flip_angle=8.0, num_pulses=8000, efficiency=1.0
    )
    torch.testing.assert_close(train, spoiled_gradient_echo(pd, t1, t2, tr=0.01, te=0.003, flip_angle=8.0))


def test_balanced_ssfp_at_short_repetition_depends_on_the_ratio_of_the_times() -> None:
    pd, t1, t2 = random_maps((40,))
    a = math.radians(50)
    limit = pd * math.sin(a) / (1 + math.cos(a) + (1 - math.cos(a)) * t1 / t2)
    torch.testing.assert_close(balanced_ssfp(pd, t1, t2, tr=1e-6, flip_angle=50.0), limit, rtol=1e-4, atol=0)


def test_balanced_ssfp_repeats_with_the_frequency_and_is_darkest_in_the_band() -> None:
    pd, t1, t2 = (m[:, None] for m in random_maps((10,)))
    tr = 0.005
    offset = torch.linspace(0, 1 / tr, 41, dtype=torch.float64)
    profile = balanced_ssfp(pd, t1, t2, tr=tr, flip_angle=50.0, off_resonance=offset)
    shifted = balanced_ssfp(pd, t1, t2, tr=tr, flip_angle=50.0, off_resonance=offset + 1 / tr)
    torch.testing.assert_close(profile, shifted)
    torch.testing.assert_close(profile, profile.flip(-1))
    torch.testing.assert_close(profile[:, 0], balanced_ssfp(pd, t1, t2, tr=tr, flip_angle=50.0)[:, 0])
    assert bool((profile.argmin(-1) == 20).all())


def test_uniform_images_stay_within_a_half_and_do_not_feel_density_or_decay() -> None:
    pd, t1, t2_star = random_maps((200,))
    uni = mp2rage(pd, t1, t2_star, **MP2RAGE)
    assert uni.abs().max() <= 0.5
    torch.testing.assert_close(mp2rage(7 * pd, t1, 0.3 * t2_star, **MP2RAGE), uni)
    torch.testing.assert_close(mp2rage(pd, t1, **MP2RAGE), uni)
    images = mp2rage_images(pd, t1, t2_star, **MP2RAGE)
    torch.testing.assert_close(uniform_image(*images), uni)
    assert bool((uni < 0).any())
    assert bool((uni > 0).any())


def test_uniform_image_of_nothing_is_nothing_with_a_finite_gradient() -> None:
    zero = torch.zeros(3, requires_grad=True)
    uniform_image(zero, torch.zeros(3)).sum().backward()
    assert zero.grad is not None
    assert bool(zero.grad.isfinite().all())


def test_phase_darkens_paramagnetic_voxels_alone() -> None:
    maps = [torch.tensor(v, dtype=torch.float64) for v in (1.0, 1.4, 0.06)]
    offset = torch.tensor([-12.5, 0.0, 12.5, 25.0, 37.5], dtype=torch.float64)  # a quarter turn at TE = 20 ms each
    plain = spoiled_gradient_echo(*maps, tr=0.03, te=0.02, flip_angle=15.0)
    image = susceptibility_weighted(*maps, tr=0.03, te=0.02, flip_angle=15.0, off_resonance=offset)
    expected = torch.tensor([1.0, 1.0, 0.5**4, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(image / plain, expected, atol=1e-12, rtol=0)


# Echo trains


@pytest.mark.parametrize("angle", [60.0, 120.0, 179.0])
def test_no_echo_exceeds_the_magnetisation(angle: float) -> None:
    _, t1, t2 = random_maps((30,))
    echoes = echo_amplitudes(t1, t2, echo_spacing=0.008, train_length=16, refocusing_angle=angle)
    assert echoes.shape == (16, 30)
    assert echoes.abs().max() <= 1


def test_a_map_of_the_transmit_field_gives_what_each_value_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pd, t1, t2 = random_maps((60,))
    b1 = torch.linspace(0.5, 1.5, 60, dtype=torch.float64)
    each = play("fast spin echo", pd, t1, t2, b1=b1)
    monkeypatch.setattr(extended_phase_graph, "MOST_ANGLES", 10)
    torch.testing.assert_close(play("fast spin echo", pd, t1, t2, b1=b1), each, rtol=1e-12, atol=1e-14)


def test_many_refocusing_angles_need_the_graph_of_few_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, run = extended_phase_graph._pathways, []

    def counted(angle: Tensor, length: int) -> Tensor:
        run.append(len(angle))
        return graph(angle, length)

    monkeypatch.setattr(extended_phase_graph, "_pathways", counted)
    angles, numbers = torch.linspace(1.0, 300.0, 60, dtype=torch.float64), torch.tensor([[12], [5]])
    many = torch.stack(extended_phase_graph.polynomial(angles, numbers), -1)  # (echoes, angles, powers)
    assert run == [13]
    for row, number in zip(many, (12, 5), strict=True):
        for angle, found in zip(angles.tolist(), row, strict=True):
            one = torch.stack(extended_phase_graph.polynomial(angle, number))
            torch.testing.assert_close(found[:number], one, rtol=0, atol=1e-13)
            assert not found[number:].any()


def test_coefficients_of_long_trains_stay_small_enough_for_single_precision() -> None:
    for angle in (60.0, 120.0, 150.0, 170.0):
        coefficients = torch.stack(extended_phase_graph.polynomial(angle, 32))
        assert coefficients.abs().sum() < 2.5


def test_t1_below_t2_is_taken_as_equal_and_stays_finite() -> None:
    one = torch.ones(())
    odd = play("fast spin echo", one, torch.tensor(1e-3), torch.tensor(1.0))
    assert bool(odd.isfinite())


# What every equation has in common


@every
def test_signal_is_linear_in_proton_density(name: str) -> None:
    pd, t1, t2 = random_maps((30,))
    factor = 1.0 if name == "MP2RAGE" else 3.0
    torch.testing.assert_close(play(name, 3 * pd, t1, t2), factor * play(name, pd, t1, t2))


@pytest.mark.parametrize(
    "name", [n for n, (_, p) in CASES.items() if {"te", "flip_angle"} & set(p) == {"te", "flip_angle"}]
)
def test_echo_time_acts_by_decay_alone(name: str) -> None:
    pd, t1, t2 = random_maps((30,))
    changes = {"off_resonance": 0.0} if name == "susceptibility weighted" else {}
    early, late = (play(name, pd, t1, t2, te=te, **changes) for te in (0.002, 0.004))
    torch.testing.assert_close(torch.log(late / early), -0.002 / t2)


def test_echo_time_acts_by_decay_alone_after_an_inversion() -> None:
    pd, t1, t2 = random_maps((30,))
    early, late = (play("inversion recovery", pd, t1, t2, te=te) for te in (0.002, 0.004))
    torch.testing.assert_close(torch.log(late / early), -0.002 / t2)


@every
def test_magnitudes_are_never_negative(name: str) -> None:
    signal = play(name, *random_maps((500,)))
    assert name == "MP2RAGE" or bool((signal >= 0).all())


@pytest.mark.parametrize("name", ["STIR", "DIR", "inversion recovery", "double inversion", "MPRAGE"])
def test_the_sign_is_kept_on_request(name: str) -> None:
    maps = random_maps((500,))
    changes = {"ti": 0.62} if name == "MPRAGE" else {}
    signed = play(name, *maps, signed=True, **changes)
    assert bool((signed < 0).any())
    torch.testing.assert_close(signed.abs(), play(name, *maps, **changes))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_times_stay_finite_with_finite_gradients(name: str, dtype: torch.dtype) -> None:
    t1 = torch.logspace(-3, math.log10(20), 60, dtype=dtype)[:, None].requires_grad_()
    t2 = torch.logspace(-4, 1, 60, dtype=dtype).requires_grad_()
    signal = play(name, torch.ones((), dtype=dtype), t1, t2)
    assert bool(signal.isfinite().all())
    signal.sum().backward()
    assert t1.grad is not None
    assert t2.grad is not None or name == "MP2RAGE"
    assert bool(t1.grad.isfinite().all())


@every
def test_single_precision_keeps_four_digits(name: str) -> None:
    maps = random_maps((4000,))
    exact = play(name, *maps)
    single = play(name, *(m.float() for m in maps))
    assert single.dtype == torch.float32
    away = exact.abs() > 0.05 * exact.abs().max()  # from nulls, where digits cancel
    assert ((single.double() - exact).abs()[away] / exact.abs()[away]).max() < 1e-4


@pytest.mark.parametrize("name", ["spoiled gradient echo", "MPRAGE", "balanced SSFP", "balanced SSFP off resonance"])
def test_long_t1_and_short_intervals_keep_their_digits_in_single_precision(name: str) -> None:
    maps = [torch.tensor(v, dtype=torch.float64) for v in (1.0, 20.0, 2.0)]
    changes = {"tr": 1e-3, "te": 5e-4} if name != "MPRAGE" else {"echo_spacing": 1e-3, "te": 5e-4}
    exact, single = (play(name, *m, **changes).item() for m in (maps, [v.float() for v in maps]))
    assert single == pytest.approx(exact, rel=2e-5)


@every
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    maps = [m.requires_grad_() for m in random_maps((6,), seed=3)]
    assert torch.autograd.gradcheck(lambda *m: play(name, *m), tuple(maps), eps=1e-7, atol=1e-6)


def test_gradients_with_respect_to_fields_are_right() -> None:
    pd, t1, t2 = random_maps((5,), seed=4)
    b1 = torch.linspace(0.8, 1.2, 5, dtype=torch.float64, requires_grad=True)
    for name in ("spoiled gradient echo", "spin echo", "fast spin echo", "MPRAGE", "MP2RAGE", "balanced SSFP"):
        assert torch.autograd.gradcheck(lambda b, name=name: play(name, pd, t1, t2, b1=b), (b1,), atol=1e-6), name
    mtsat = torch.full((5,), 0.01, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: play("with MT pulse", pd, t1, t2, mtsat=m), (mtsat,))
    offset = torch.linspace(3, 80, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f: play("balanced SSFP off resonance", pd, t1, t2, off_resonance=f), (offset,), atol=1e-6
    )


def test_gradients_with_respect_to_a_map_of_refocusing_angles_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extended_phase_graph, "MOST_ANGLES", 1)
    maps = [m.requires_grad_() for m in random_maps((4,), seed=3)]
    b1 = torch.linspace(0.8, 1.2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda pd, t1, t2, b: play("fast spin echo", pd, t1, t2, b1=b), (*maps, b1), atol=1e-6
    )


@pytest.mark.parametrize(
    "name",
    [n for n in CASES if "inversion" not in n and "180" not in n and "spin echo" not in n and n not in ("STIR", "DIR")],
)
def test_transmit_field_scales_the_flip_angle(name: str) -> None:
    maps = random_maps((20,))
    angles = {k: 1.2 * v for k, v in CASES[name][1].items() if k.startswith("flip_angle")}
    torch.testing.assert_close(play(name, *maps, b1=1.2), play(name, *maps, **angles))


def test_transmit_field_scales_excitation_and_refocusing_of_an_echo_train() -> None:
    pd, t1, t2 = random_maps((20,))
    scaled = play("fast spin echo", pd, t1, t2, b1=0.8)
    refocused = play("fast spin echo", pd, t1, t2, refocusing_angle=0.8 * 145.0)
    torch.testing.assert_close(scaled, refocused * math.sin(math.radians(72)))


PER_SAMPLE: dict[str, dict[str, list[Any]]] = {
    "spoiled gradient echo": {"tr": [0.01, 0.02, 0.5], "te": [0.004, 0.003, 0.03], "flip_angle": [5.0, 20.0, 90.0]},
    "with MT pulse": {"mtsat": [0.0, 0.01, 0.02]},
    "spin echo": {"tr": [0.4, 0.6, 2.0], "te": [0.01, 0.02, 0.08]},
    "spin echo off angle": {"b1": [0.8, 1.0, 1.2]},
    "fast spin echo": {
        "refocusing_angle": [120.0, 150.0, 180.0], "effective_echo": [2, 9, 13], "train_length": [4, 20, 13],
        "echo_spacing": [0.007, 0.009, 0.011],
    },
    "STIR": {"ti": [0.15, 0.2, 0.25], "efficiency": [0.9, 0.95, 1.0], "effective_echo": [3, 4, 5]},
    "inversion recovery": {"tr": [8.0, 9.0, 10.0], "ti": [2.0, 2.2, 2.4]},
    "double inversion": {"ti1": [2.8, 2.9, 3.0], "ti2": [0.4, 0.5, 0.6]},
    "MPRAGE": {"num_pulses": [120, 161, 176], "flip_angle": [7.0, 9.0, 120.0], "ti": [0.7, 0.8, 0.9]},
    "MP2RAGE": {"num_pulses": [120, 131, 160], "ti1": [0.7, 0.8, 0.9], "efficiency": [0.9, 0.95, 1.0]},
    "balanced SSFP": {"tr": [0.004, 0.005, 0.006]},
    "balanced SSFP off resonance": {"off_resonance": [0.0, 20.0, 100.0]},
}  # fmt: skip


@pytest.mark.parametrize("name", PER_SAMPLE)
@pytest.mark.parametrize("block", [10, 10**6])
def test_a_batch_of_protocols_equals_one_after_another(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_elementwise, "BLOCK", block)
    maps = random_maps((3, 3, 4, 2))
    stacked = {k: torch.from_numpy(np.array(v)).reshape(3, 1, 1, 1) for k, v in PER_SAMPLE[name].items()}
    batch = play(name, *maps, **stacked)
    for i in range(3):
        alone = play(name, *(m[i] for m in maps), **{k: v[i] for k, v in PER_SAMPLE[name].items()})
        torch.testing.assert_close(batch[i], alone, rtol=1e-12, atol=1e-14)


@every
def test_unusable_voxels_are_dark_with_zero_gradients(name: str) -> None:
    pd, t1, t2 = random_maps((8,))
    for place, bad in enumerate((0.0, math.nan, math.inf, -1.0)):
        t1[place] = bad
        t2[place + 4 - 2 * (place == 3)] = bad if place < 3 else 0.0
    pd[7] = math.nan
    dark = ~((t1 > 0) & (t1 < math.inf) & (t2 > 0) & (t2 < math.inf) & pd.isfinite())
    maps = [m.requires_grad_() for m in (pd, t1, t2)]
    signal = play(name, *maps)
    assert bool((signal[dark] == 0).all())
    signal.sum().backward()
    for m in maps:
        if m.grad is not None:
            assert bool((m.grad[dark] == 0).all())


@every
def test_blocks_give_what_the_whole_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pd, t1, t2 = random_maps((2, 7, 5, 6), torch.float32)
    t1[0, 2], t2[1, 3, 2], pd[1, 6, 4, 5] = 0.0, math.inf, math.nan
    whole = play(name, pd, t1, t2)
    for block in (1, 11, 64, 300):
        monkeypatch.setattr(_elementwise, "BLOCK", block)
        torch.testing.assert_close(play(name, pd, t1, t2), whole, rtol=1e-6, atol=1e-7)


@every
@pytest.mark.parametrize("block", [8, 10**6])
def test_inputs_are_left_alone(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_elementwise, "BLOCK", block)
    maps = random_maps((30,))
    copies = [m.clone() for m in maps]
    play(name, *maps)
    with torch.no_grad():
        play(name, *maps)
    assert all(torch.equal(m, c) for m, c in zip(maps, copies, strict=True))


@every
@pytest.mark.parametrize("block", [8, 10**6])
def test_memory_is_used_again_only_where_it_fits(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of different shapes, with gradients recorded, without, and as one value a voxel."""
    monkeypatch.setattr(_elementwise, "BLOCK", block)
    pd, t1, t2 = random_maps((6,), torch.float32)
    pd, t1, t2 = pd.reshape(6, 1, 1)[:3], t1.reshape(1, 6, 1)[:, :4], t2.reshape(1, 1, 6)
    whole = play(name, *(m.expand(3, 4, 6).contiguous() for m in (pd, t1, t2)))
    torch.testing.assert_close(play(name, *(m.clone().requires_grad_() for m in (pd, t1, t2))).detach(), whole)
    with torch.no_grad():
        torch.testing.assert_close(play(name, pd, t1, t2), whole)


def test_maps_broadcast_and_half_precision_is_computed_in_single() -> None:
    pd, t1, t2 = (m.half() for m in random_maps((4,)))
    image = spin_echo(pd[:, None], t1[None], t2[None], tr=0.5, te=0.01)
    assert image.shape == (4, 4)
    assert image.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["spoiled gradient echo", "spin echo", "fast spin echo", "MPRAGE", "MP2RAGE", "balanced SSFP"]
)
def test_fields_in_half_precision_are_taken_for_what_they_are(name: str, dtype: torch.dtype) -> None:
    maps = random_maps((50,))
    b1 = torch.linspace(0.7, 1.3, 50).to(dtype)
    exact = play(name, *maps, b1=b1.double())
    torch.testing.assert_close(play(name, *(m.float() for m in maps), b1=b1).double(), exact, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_offsets_in_half_precision_are_taken_for_what_they_are(dtype: torch.dtype) -> None:
    maps, offset = random_maps((50,)), torch.linspace(-97.0, 103.0, 50).to(dtype)
    exact = play("susceptibility weighted", *maps, off_resonance=offset.double())
    found = play("susceptibility weighted", *(m.float() for m in maps), off_resonance=offset)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)
    number = play("susceptibility weighted", *maps, off_resonance=7.3)
    every = play("susceptibility weighted", *maps, off_resonance=torch.tensor(7.3, dtype=torch.float64))
    torch.testing.assert_close(number, every, rtol=1e-14, atol=0)


def test_two_inversions_may_come_as_a_list_as_a_config_writes_them() -> None:
    maps = random_maps((3,))
    assert torch.equal(play("DIR", *maps, ti=[2.9, 0.5]), play("DIR", *maps))


def test_a_subclass_of_tensor_gives_a_plain_tensor() -> None:
    class Tagged(torch.Tensor):
        pass

    pd, t1, t2 = (m.as_subclass(Tagged) for m in random_maps((4,)))
    assert type(spin_echo(pd, t1, t2, tr=0.5, te=0.01)) is Tensor


def test_missing_values_of_a_field_are_dark() -> None:
    pd, t1, t2 = random_maps((2,))
    b1 = torch.tensor([math.nan, 1.0], dtype=torch.float64)
    for name in ("spoiled gradient echo", "spin echo", "fast spin echo", "MPRAGE", "MP2RAGE", "balanced SSFP"):
        signal = play(name, pd, t1, t2, b1=b1)
        assert signal[0] == 0, name
        assert signal[1] != 0, name


def test_saturation_in_percent_is_refused() -> None:
    pd, t1, t2 = random_maps((3,))
    with pytest.raises(ValueError, match=r"mtsat must be a fraction below 1, got up to 1.75; divide percent"):
        play("with MT pulse", pd, t1, t2, mtsat=torch.tensor([0.9, 1.75, math.nan]))


def test_saturation_below_zero_counts_as_none() -> None:
    water = [torch.full((4,), value, dtype=torch.float64) for value in (100.0, 4.3, 1.0)]
    noisy = torch.tensor([0.0, -0.0107, -0.011, -0.3], dtype=torch.float64, requires_grad=True)
    image = spoiled_gradient_echo(*water, tr=0.03, te=0.004, flip_angle=5.0, mtsat=noisy)
    assert torch.equal(image, image[:1].expand(4))
    image.sum().backward()
    assert noisy.grad is not None
    assert noisy.grad[0] < 0
    assert not noisy.grad[1:].any()


def test_a_number_for_saturation_must_not_be_negative() -> None:
    one = torch.ones(())
    with pytest.raises(ValueError, match=r"mtsat must be at least 0, got -0\.02; 0 is a sequence without MT pulse"):
        spoiled_gradient_echo(one, one, one, tr=0.03, te=0.004, flip_angle=5.0, mtsat=-0.02)


def test_the_mask_power_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="mask_power must be at least 0, got -1"):
        play("susceptibility weighted", *random_maps((2,)), mask_power=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every
def test_a_gpu_gives_what_the_cpu_gives(name: str) -> None:
    maps = random_maps((64, 33), torch.float32)
    torch.testing.assert_close(play(name, *(m.cuda() for m in maps)).cpu(), play(name, *maps), rtol=1e-4, atol=1e-5)


def test_large_volumes_need_little_memory_beyond_the_result() -> None:
    shape = (1, 96, 96, 96)
    volume = 4 * math.prod(shape)
    maps = [torch.full(shape, v) for v in (1.0, 0.9, 0.07)]
    with torch.profiler.profile(profile_memory=True) as profile:
        play("fast spin echo", *maps)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert volume <= peak < 4 * volume


def test_a_map_that_only_marks_voxels_still_sets_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = torch.ones(3, 5)
    marks[1, 2] = 0.0
    for block in (4, 1000):
        monkeypatch.setattr(_elementwise, "BLOCK", block)
        uni = mp2rage(torch.ones(()), torch.tensor(0.9), marks, **MP2RAGE)
        assert uni.shape == (3, 5)
        assert (uni == 0).nonzero().tolist() == [[1, 2]]


def test_numbers_of_numpy_are_numbers() -> None:
    pd, t1, t2 = random_maps((3,))
    plain = play("spin echo", pd, t1, t2)
    assert torch.equal(play("spin echo", pd, t1, t2, tr=np.float64(0.6), te=np.float64(0.015)), plain)
