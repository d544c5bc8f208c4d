"""Timings that cannot be played out raise, and the message says what is allowed, what came and what to do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from monai_cl.qmri.constraints import ConstraintError
from monai_cl.qmri.nulls import double_inversion_null, inversion_null
from monai_cl.qmri.signal import (
    balanced_ssfp,
    double_inversion_recovery,
    fast_spin_echo,
    inversion_recovery,
    mp2rage,
    mprage,
    spin_echo,
    spoiled_gradient_echo,
)

ONE = torch.ones(())
SPGR = {"tr": 0.02, "te": 0.004, "flip_angle": 20.0}
SE = {"tr": 0.5, "te": 0.02}
FSE = {"tr": 4.0, "echo_spacing": 0.01, "train_length": 12, "effective_echo": 8}
IR = {"tr": 8.0, "ti": 2.2, "te": 0.1, "last_echo": 0.2}
DIR = {"tr": 8.0, "ti1": 2.8, "ti2": 0.5, "te": 0.1}
MPRAGE = {"tr": 2.3, "ti": 0.9, "echo_spacing": 0.007, "te": 0.003, "flip_angle": 9.0, "num_pulses": 176}
MP2RAGE = {
    "tr": 6.0, "ti1": 0.8, "ti2": 2.7, "echo_spacing": 0.007, "te": 0.003, "num_pulses": 160, "flip_angle1": 4.0,
    "flip_angle2": 5.0,
}  # fmt: skip

REFUSED: list[tuple[Callable[..., Any], dict[str, Any], dict[str, Any], str]] = [
    (spoiled_gradient_echo, SPGR, {"te": 0.02}, r"te must be below tr, got 0.02 and 0.02; shorten the echo time"),
    (spoiled_gradient_echo, SPGR, {"te": 0.0}, r"te must be positive and finite \(seconds\), got 0"),
    (spoiled_gradient_echo, SPGR, {"tr": float("nan")}, r"tr must be positive and finite \(seconds\), got nan"),
    (spoiled_gradient_echo, SPGR, {"tr": float("inf")}, r"tr must be positive and finite \(seconds\), got inf"),
    (spoiled_gradient_echo, SPGR, {"flip_angle": 0.0}, r"flip_angle must be above 0 and at most 180 degrees, got 0"),
    (spoiled_gradient_echo, SPGR, {"flip_angle": 181.0}, r"flip_angle must be above 0 and at most 180 degrees"),
    (balanced_ssfp, {"tr": 0.005, "flip_angle": 40.0}, {"te": 0.006}, r"te must be below tr, got 0.006 and 0.005"),
    (spin_echo, SE, {"te": 0.6}, r"te must be below tr, got 0.6 and 0.5"),
    (spin_echo, SE, {"tr": -1.0}, r"tr must be positive"),
    (fast_spin_echo, FSE, {"train_length": 400}, r"train_length \* echo_spacing must be below tr, got 4 and 4"),
    (fast_spin_echo, FSE, {"effective_echo": 13}, r"effective_echo must be at most train_length, got 13 and 12; count"),
    (fast_spin_echo, FSE, {"effective_echo": 0}, r"effective_echo must be a whole number of at least 1, got 0"),
    (fast_spin_echo, FSE, {"train_length": 12.5}, r"train_length must be a whole number of at least 1, got 12.5"),
    (fast_spin_echo, FSE, {"refocusing_angle": 200.0}, r"refocusing_angle must be above 0 and at most 180 degrees"),
    (fast_spin_echo, FSE, {"ti": 3.9}, r"ti \+ last_echo must be below tr, got 4.02 and 4"),
    (fast_spin_echo, FSE, {"ti": (0.4, 0.5)}, r"ti2 must be below ti1, got 0.5 and 0.4"),
    (fast_spin_echo, FSE, {"ti": 0.2, "efficiency": 1.1}, r"efficiency must be in \(0, 1\] .*, got 1.1"),
    (inversion_recovery, IR, {"ti": 7.8}, r"ti \+ last_echo must be below tr, got 8 and 8"),
    (inversion_recovery, IR, {"te": 0.3}, r"te must be at most last_echo, got 0.3 and 0.2"),
    (inversion_recovery, IR, {"efficiency": 0.0}, r"efficiency must be in \(0, 1\] .*, got 0"),
    (double_inversion_recovery, DIR, {"ti2": 2.9}, r"ti2 must be below ti1, got 2.9 and 2.8"),
    (double_inversion_recovery, DIR, {"tr": 3.4}, r"ti1 \+ ti2 \+ last_echo must be below tr, got 3.4 and 3.4"),
    (mprage, MPRAGE, {"te": 0.008}, r"te must be at most echo_spacing, got 0.008 and 0.007"),
    (mprage, MPRAGE, {"ti": 0.6}, r"num_pulses \* echo_spacing / 2 must be at most ti, got 0.616 and 0.6; use fewer"),
    (mprage, MPRAGE, {"tr": 1.5}, r"num_pulses \* echo_spacing / 2 must be at most tr - ti, got 0.616 and 0.6; use"),
    (mprage, MPRAGE, {"num_pulses": 100.5}, r"num_pulses must be a whole number of at least 1, got 100.5"),
    (mp2rage, MP2RAGE, {"ti1": 0.5}, r"num_pulses \* echo_spacing / 2 must be at most ti1, got 0.56 and 0.5"),
    (mp2rage, MP2RAGE, {"ti2": 1.9}, r"num_pulses \* echo_spacing must be at most ti2 - ti1, got 1.12 and 1.1"),
    (mp2rage, MP2RAGE, {"tr": 3.2}, r"num_pulses \* echo_spacing / 2 must be at most tr - ti2, got 0.56 and 0.5"),
    (mp2rage, MP2RAGE, {"flip_angle2": -4.0}, r"flip_angle2 must be above 0 and at most 180 degrees, got -4"),
]


@pytest.mark.parametrize(("function", "parameters", "change", "message"), REFUSED)
def test_what_cannot_be_played_out_is_refused(
    function: Callable[..., Any], parameters: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    function(ONE, ONE, 0.1 * ONE, **parameters)
    with pytest.raises(ConstraintError, match=message):
        function(ONE, ONE, 0.1 * ONE, **{**parameters, **change})


def test_one_sample_of_a_batch_is_enough_to_be_refused() -> None:
    with pytest.raises(ConstraintError, match=r"te must be below tr, got \[0.01, 0.03\] and 0.02"):
        spoiled_gradient_echo(ONE, ONE, ONE, tr=0.02, te=torch.tensor([0.01, 0.03]), flip_angle=20.0)
    with pytest.raises(ConstraintError, match=r"got \[1, 2, 3, 4, ...\] and 3"):
        spin_echo(ONE, ONE, ONE, tr=3.0, te=torch.arange(1.0, 7.0))


def test_a_train_that_just_fits_is_played_out() -> None:
    half = 176 * 0.007 / 2
    assert mprage(ONE, ONE, 0.1 * ONE, **{**MPRAGE, "ti": half, "tr": 2 * half}).isfinite()
    assert mp2rage(ONE, ONE, **{**MP2RAGE, "ti1": 0.56, "ti2": 0.56 + 1.12, "tr": 0.56 + 1.12 + 0.56}).isfinite()


@pytest.mark.parametrize("pulses", range(100, 200, 9))
@pytest.mark.parametrize("spacing", [0.0055, 0.007, 0.0081])
def test_a_batch_of_trains_that_just_fit_is_played_out_as_one_is(pulses: int, spacing: float) -> None:
    half = pulses * spacing / 2
    exact = {**MPRAGE, "num_pulses": pulses, "echo_spacing": spacing, "ti": half, "tr": 2 * half}
    one = mprage(ONE, ONE, 0.1 * ONE, **exact)
    of_batch = {name: torch.tensor([exact[name]] * 2) for name in ("ti", "tr", "echo_spacing")}
    torch.testing.assert_close(mprage(ONE, ONE, 0.1 * ONE, **{**exact, **of_batch}), one.expand(2), rtol=1e-4, atol=0)
    with pytest.raises(ConstraintError, match="must be at most ti"):
        mprage(ONE, ONE, 0.1 * ONE, **{**exact, **of_batch, "ti": of_batch["ti"] - 1e-5})


def test_nulls_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConstraintError, match=r"t1 must be positive and finite \(seconds\), got 0.0"):
        inversion_null(0.0, tr=8.0, last_echo=0.1)
    with pytest.raises(ConstraintError, match=r"last_echo must be above 0 and below tr, got 0.2 and 0.1"):
        inversion_null(4.3, tr=0.1, last_echo=0.2)
    with pytest.raises(ConstraintError, match=r"t1_long must exceed t1_short, got 0.8 and 4.3; exchange them"):
        double_inversion_null(0.8, 4.3, tr=8.0, last_echo=0.1)
    with pytest.raises(ConstraintError, match=r"efficiency must be in \(0, 1\]"):
        double_inversion_null(4.3, 0.8, tr=8.0, last_echo=0.1, efficiency=2.0)
    with pytest.raises(ConstraintError, match=r"last_echo must be above 0 and below tr, got 0.2 and 0.1"):
        double_inversion_null(4.3, 0.8, tr=0.1, last_echo=0.2)


def test_a_constraint_error_is_a_value_error() -> None:
    assert issubclass(ConstraintError, ValueError)
