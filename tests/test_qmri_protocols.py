"""Protocols are checked when made, recorded as plain JSON and replay to the same image."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_cl.qmri.constraints import ConstraintError
from monai_cl.qmri.mixing import mix
from monai_cl.qmri.protocols import (
    SEQUENCES,
    DoubleInversionRecovery,
    FastSpinEcho,
    InversionRecovery,
    Mp2rage,
    Mprage,
    Protocol,
    SpinEcho,
    SpoiledGradientEcho,
    SusceptibilityWeighted,
    protocol_from_dict,
    simulate,
)
from monai_cl.qmri.sampling import FAMILIES, draw_protocol
from monai_cl.qmri.signal import fast_spin_echo, mp2rage, mprage, spoiled_gradient_echo

every = pytest.mark.parametrize("name", FAMILIES)
BOUNDS = {"pd": (50, 100), "t1": (0.3, 4.5), "t2": (0.04, 0.2), "t2_star": (0.02, 0.04), "mtsat": (0.0, 0.03)}
MAPS = {
    name: low + (high - low) * torch.rand((2, 5, 4, 3), generator=torch.Generator().manual_seed(i))
    for i, (name, (low, high)) in enumerate(BOUNDS.items())
}


def drawn(name: str, seed: int = 0) -> Protocol:
    return draw_protocol(name, np.random.RandomState(seed))


def needed(protocol: Protocol) -> dict[str, Tensor]:
    return {name: MAPS[name] for name in protocol.maps}


@every
def test_a_record_is_plain_json_and_gives_an_equal_protocol(name: str) -> None:
    protocol = drawn(name)
    record = json.loads(json.dumps(protocol.to_dict(), allow_nan=False))
    assert all(type(v) in (int, float, str, bool) for v in record.values())
    assert protocol_from_dict(record) == protocol
    assert record["family"] == name
    assert SEQUENCES[record["sequence"]] is type(protocol)


@every
def test_a_record_replays_to_the_same_image(name: str) -> None:
    protocol = drawn(name)
    b1, offset = torch.linspace(0.9, 1.1, 3), torch.linspace(-20, 20, 3)
    image = protocol.signal(**needed(protocol), b1=b1, off_resonance=offset)
    again = simulate(json.loads(json.dumps(protocol.to_dict())), **needed(protocol), b1=b1, off_resonance=offset)
    assert torch.equal(image, again)
    assert image.shape == MAPS["pd"].shape


@every
def test_an_image_is_combined_from_coherent_signals(name: str) -> None:
    protocol = drawn(name)
    coherent = protocol.coherent(**MAPS)
    assert len(coherent) == (2 if isinstance(protocol, Mp2rage) else 1)
    torch.testing.assert_close(protocol.combine(*coherent), protocol.signal(**MAPS), rtol=1e-5, atol=1e-6)


def test_a_protocol_plays_the_signal_equation_of_its_name() -> None:
    p = Mprage(tr=2.3, ti=0.9, echo_spacing=0.007, te=0.003, flip_angle=9.0, num_pulses=176)
    numbers = {k: v for k, v in p.to_dict().items() if k not in ("family", "sequence")}
    expected = mprage(MAPS["pd"], MAPS["t1"], MAPS["t2_star"], b1=0.9, **numbers)
    assert torch.equal(simulate(p, **needed(p), b1=0.9), expected)
    two = drawn("t1w_mp2rage")
    numbers = {k: v for k, v in two.to_dict().items() if k not in ("family", "sequence")}
    assert torch.equal(simulate(two, **needed(two)), mp2rage(MAPS["pd"], MAPS["t1"], MAPS["t2_star"], **numbers))
    train: dict[str, Any] = {"tr": 9.0, "echo_spacing": 0.01, "train_length": 14, "effective_echo": 9}
    flair = InversionRecovery(**train, refocusing_angle=150.0, ti=2.5, efficiency=0.95)
    expected = fast_spin_echo(
        MAPS["pd"], MAPS["t1"], MAPS["t2"], **train, refocusing_angle=150.0, ti=2.5, efficiency=0.95
    )
    assert torch.equal(simulate(flair, **needed(flair)), expected)
    assert flair.te == pytest.approx(0.09)
    assert flair.last_echo == pytest.approx(0.14)


def test_saturation_acts_only_with_a_pulse() -> None:
    off = SpoiledGradientEcho(tr=0.03, te=0.004, flip_angle=8.0)
    on = dataclasses.replace(off, mt_pulse=True)
    assert off.maps == ("pd", "t1", "t2_star")
    assert torch.equal(
        off.signal(**MAPS), spoiled_gradient_echo(*needed(off).values(), tr=0.03, te=0.004, flip_angle=8.0)
    )
    assert bool((on.signal(**MAPS) < off.signal(**MAPS)).all())


def test_tissues_of_opposite_sign_cancel_in_a_shared_voxel() -> None:
    p = InversionRecovery(tr=9.0, ti=1.0, echo_spacing=0.01, train_length=10, effective_echo=1)
    values = ((1.0, 0.5, 0.1), (1.0, 4.3, 2.0))
    tissues = [dict(zip(("pd", "t1", "t2"), map(torch.tensor, v), strict=True)) for v in values]
    signals = [p.coherent(**t)[0] for t in tissues]
    assert signals[0] > 0 > signals[1]
    half = torch.full((2, 1), 0.5)
    magnitude = sum(s.abs() for s in signals) / 2
    assert mix(half, torch.stack(signals)) < 0.5 * magnitude  # type: ignore[operator]


def test_uniform_images_mix_before_they_are_combined() -> None:
    p = drawn("t1w_mp2rage")
    tissues = [{"pd": torch.tensor(90.0), "t1": torch.tensor(t1), "t2_star": torch.tensor(0.05)} for t1 in (0.86, 4.3)]
    first, second = (torch.stack(pair) for pair in zip(*(p.coherent(**t) for t in tissues), strict=True))
    half = torch.full((2,), 0.5)
    mixed = p.combine(mix(half, first, signed=True), mix(half, second, signed=True))
    average = (p.combine(first[0], second[0]) + p.combine(first[1], second[1])) / 2
    assert abs(mixed - average) > 0.02


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (SpoiledGradientEcho, {"tr": 0.01, "te": 0.02, "flip_angle": 10.0}, "te must be below tr"),
        (SusceptibilityWeighted, {"tr": 0.03, "te": 0.02, "flip_angle": 10.0, "mask_power": -1}, "mask_power must be"),
        (SpinEcho, {"tr": 0.01, "te": 0.02}, "te must be below tr"),
        (FastSpinEcho, {"tr": 1.0, "echo_spacing": 0.1, "train_length": 10, "effective_echo": 1}, "must be below tr"),
        (
            InversionRecovery,
            {"tr": 1.0, "echo_spacing": 0.01, "train_length": 10, "effective_echo": 1, "ti": 0.9},
            r"ti \+ last_echo must be below tr",
        ),
        (
            DoubleInversionRecovery,
            {"tr": 9.0, "echo_spacing": 0.01, "train_length": 10, "effective_echo": 1, "ti1": 0.4, "ti2": 2.0},
            "ti2 must be below ti1",
        ),
        (
            Mprage,
            {"tr": 2.3, "ti": 0.5, "echo_spacing": 0.007, "te": 0.003, "flip_angle": 9.0, "num_pulses": 176},
            "must be at most ti",
        ),
        (FastSpinEcho, {"tr": 4.0, "echo_spacing": 0.01, "train_length": 9.5, "effective_echo": 1}, "whole number"),
        (
            FastSpinEcho,
            {"tr": 4.0, "echo_spacing": 0.01, "train_length": math.inf, "effective_echo": 1},
            "must be a whole number, got inf",
        ),
        (
            FastSpinEcho,
            {"tr": 4.0, "echo_spacing": 0.01, "train_length": math.nan, "effective_echo": 1},
            "must be a whole number, got nan",
        ),
        (SpinEcho, {"tr": "long", "te": 0.02}, "tr must be a number, got 'long'"),
        (SpinEcho, {"tr": True, "te": 0.02}, "tr must be a number, got True"),
        (SpinEcho, {"tr": 1.0, "te": 0.02, "family": 3}, "family must be str, got 3"),
        (SpoiledGradientEcho, {"tr": 0.1, "te": 0.02, "flip_angle": 10.0, "mt_pulse": 1}, "mt_pulse must be bool"),
    ],
)
def test_a_protocol_that_cannot_be_played_out_cannot_be_made(
    kind: type[Protocol], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**fields)


def test_protocols_cannot_be_changed_after_they_were_checked() -> None:
    protocol = SpinEcho(tr=1.0, te=0.02)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'te'"):
        protocol.te = 2.0  # type: ignore[misc]
    with pytest.raises(ConstraintError, match="te must be below tr"):
        dataclasses.replace(protocol, te=2.0)


def test_numbers_of_any_kind_become_plain_ones() -> None:
    odd: dict[str, Any] = {"echo_spacing": torch.tensor(0.01), "train_length": np.int64(8), "effective_echo": 2.0}
    protocol = FastSpinEcho(tr=np.float32(4), **odd)
    assert [type(getattr(protocol, n)) for n in ("tr", "echo_spacing", "train_length", "effective_echo")] == [
        float, float, int, int,
    ]  # fmt: skip
    assert math.isclose(protocol.te, 0.02, rel_tol=1e-6)


def test_a_missing_t2_is_never_replaced() -> None:
    protocol = drawn("t2w_fse")
    with pytest.raises(ValueError, match=r"missing \['t2'\]; T2\* does not stand in for T2: draw one with .*draw_t2"):
        protocol.signal(pd=MAPS["pd"], t1=MAPS["t1"], t2_star=MAPS["t2_star"])
    with pytest.raises(ValueError, match=r"fast_spin_echo needs the maps \('pd', 't1', 't2'\), missing \['t2'\]"):
        protocol.signal(pd=MAPS["pd"], t1=MAPS["t1"], t2=None)
    with pytest.raises(ValueError, match=r"maps are named pd, t1, t2, t2_star and mtsat, got \['t2star'\]"):
        protocol.signal(**needed(protocol), t2star=MAPS["t2_star"])


def test_records_that_do_not_fit_are_refused() -> None:
    record = drawn("t1w_se").to_dict()
    with pytest.raises(ValueError, match=r"sequence must be one of .*, got 'spin_eco'; did you mean 'spin_echo'"):
        protocol_from_dict({**record, "sequence": "spin_eco"})
    with pytest.raises(ValueError, match=r"sequence must be one of .*, got None"):
        protocol_from_dict({"tr": 1.0})
    with pytest.raises(ValueError, match=r"without \['te'\] and with unknown \['echo_time'\]"):
        protocol_from_dict({"sequence": "spin_echo", "tr": 1.0, "echo_time": 0.1})
    with pytest.raises(ConstraintError, match="te must be below tr"):
        protocol_from_dict({**record, "te": 9.0})
