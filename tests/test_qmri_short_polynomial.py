"""Fewer terms of an echo train's polynomial: the bound holds, gradients pass, and no image changes visibly."""

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_cl.qmri import FAMILIES, draw_protocol, simulate
from monai_cl.qmri.extended_phase_graph import TOLERANCE, polynomial, shortened
from monai_cl.qmri.protocols import FastSpinEcho

ECHO_TRAINS = [n for n in sorted(FAMILIES) if hasattr(draw_protocol(n, np.random.RandomState(0)), "train_length")]


def value(coefficients: Tensor, at: Tensor) -> Tensor:
    """Sum of powers, term by term; coefficients (terms,), points (n,)."""
    return sum((c * at**power for power, c in enumerate(coefficients)), start=torch.zeros_like(at))


@pytest.mark.parametrize("angle", [60.0, 120.0, 150.0, 179.0])
@pytest.mark.parametrize("echo", [1, 2, 8, 16, 32])
def test_the_short_polynomial_stays_within_its_tolerance(angle: float, echo: int) -> None:
    y = torch.linspace(0, 1, 2001, dtype=torch.float64)
    long = torch.stack(polynomial(angle, echo))
    short = torch.stack(shortened(long.unbind()))
    assert len(short) <= len(long)
    assert (value(short, 2 * y - 1) - value(long, y)).abs().max() <= TOLERANCE
    assert short.abs().sum() < 100  # float32 has digits enough
    if echo == 32:
        assert len(short) <= 20


def test_a_batch_takes_as_many_terms_as_its_longest_polynomial() -> None:
    y = torch.linspace(0, 1, 500, dtype=torch.float64)
    long = polynomial(torch.tensor([[90.0], [175.0]]), torch.tensor([[5], [24]]))
    short = shortened(long)
    assert short[0].shape == (2, 1)
    for sample in range(2):
        one = torch.stack([c[sample, 0] for c in short])
        other = torch.stack([c[sample, 0] for c in long])
        assert (value(one, 2 * y - 1) - value(other, y)).abs().max() <= TOLERANCE


def test_gradients_pass_through_the_short_polynomial() -> None:
    angle = torch.tensor(150.0, dtype=torch.float64, requires_grad=True)
    at = torch.tensor([0.8], dtype=torch.float64)
    (short,) = torch.autograd.grad(value(torch.stack(shortened(polynomial(angle, 20))), 2 * at - 1), angle)
    (long,) = torch.autograd.grad(value(torch.stack(polynomial(angle, 20)), at), angle)
    assert float(short) == pytest.approx(float(long), abs=TOLERANCE)


@pytest.mark.parametrize("family", ECHO_TRAINS)
def test_images_in_single_precision_differ_by_less_than_a_thousandth(family: str) -> None:
    """Whatever the families draw, for every tissue and beyond: T1 0.05 to 10 s, T2 2 ms to T1."""
    t1 = torch.logspace(-1.3, 1, 40, dtype=torch.float64)[:, None]
    t2 = torch.logspace(-2.7, 0.6, 50, dtype=torch.float64)[None].minimum(t1)
    pd = torch.ones(40, 50, dtype=torch.float64)
    source = np.random.RandomState(1)
    for _ in range(25):
        protocol = draw_protocol(family, source)
        exact = simulate(protocol, pd=pd, t1=t1, t2=t2)
        single = simulate(protocol, pd=pd.float(), t1=t1.float(), t2=t2.float())
        assert (single - exact).abs().max() < 2 * TOLERANCE
        assert (single - exact).abs().max() < 1e-4 * exact.max()


@pytest.mark.parametrize("angle", [150.0, 160.0, 175.0])
@pytest.mark.parametrize("echo", [16, 18])
def test_single_precision_keeps_four_digits_of_what_is_not_dark(echo: int, angle: float) -> None:
    """T1 0.3 to 4.5 s and T2 30 ms to 2 s, where a signal is at least a fiftieth of the brightest one."""
    t1 = torch.linspace(0.3, 4.5, 8, dtype=torch.float64)[:, None]
    t2 = torch.logspace(-1.52, 0.3, 40, dtype=torch.float64)[None].minimum(t1)
    maps = {"pd": torch.ones(8, 40, dtype=torch.float64), "t1": t1, "t2": t2}
    train = FastSpinEcho(tr=6.0, echo_spacing=0.008, train_length=20, effective_echo=echo, refocusing_angle=angle)
    exact = simulate(train, **maps)
    single = simulate(train, **{name: values.float() for name, values in maps.items()})
    bright = exact > 0.02 * exact.max()
    assert ((single - exact).abs() / exact)[bright].max() < 1e-4
