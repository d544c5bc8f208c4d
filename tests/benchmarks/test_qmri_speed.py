"""Signal equations as multiples of one ``torch.exp`` over the same volume: ``pytest -m benchmark -s``.

The multiple does not depend on the machine where both are measured alike: one thread, turn by turn, and ``torch.exp``
reads a volume that comes from memory, as the maps do, not one that the last call left in the cache.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_cl.qmri import echo_amplitudes
from monai_cl.qmri.signal import fast_spin_echo, inversion_recovery, mp2rage, mprage, spin_echo, spoiled_gradient_echo

pytestmark = pytest.mark.benchmark

SHAPE = (128, 128, 128)
VOLUME = 128**3 * 4 / 2**20  # MiB
ROUNDS = 7
SLACK = 1.15  # of a quiet core; beside other work caches are short, which torch.exp hardly feels: up to 1.5 there
# sequence, its shorter time, fixed parameters, one that differs in a batch, aim in multiples of torch.exp
CASES: dict[str, tuple[Callable[..., Tensor], str, dict[str, Any], str, float]] = {
    "spoiled gradient echo": (spoiled_gradient_echo, "t2_star", {"tr": 0.02, "te": 0.004}, "flip_angle", 3),
    "spin echo": (spin_echo, "t2", {"te": 0.08}, "tr", 3),
    "FLAIR": (inversion_recovery, "t2", {"tr": 9.0, "te": 0.1, "last_echo": 0.2}, "ti", 3),
    "fast spin echo, phase graph": (
        fast_spin_echo, "t2", {"echo_spacing": 0.01, "train_length": 16, "effective_echo": 9, "refocusing_angle": 150},
        "tr", 5,
    ),
    "MPRAGE": (
        mprage, "t2_star", {"tr": 2.3, "ti": 0.9, "echo_spacing": 0.007, "te": 0.003, "num_pulses": 176},
        "flip_angle", 9,
    ),
    "MP2RAGE": (
        mp2rage, "t2_star",
        {"tr": 6.0, "ti1": 0.8, "ti2": 2.5, "echo_spacing": 0.006, "te": 0.003, "num_pulses": 160, "flip_angle2": 5.0},
        "flip_angle1", 15,
    ),
}  # fmt: skip
VARIED = {"flip_angle": (9.0, 20.0), "tr": (4.0, 8.0), "ti": (2.3, 2.6), "flip_angle1": (4.0, 5.0)}


def maps(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    limits = {"pd": (60, 100), "t1": (0.6, 2.0), "t2": (0.06, 0.12), "t2_star": (0.03, 0.06), "mtsat": (0.0, 0.02)}
    # in place: a peak of memory before the measurement would hide that of the measurement
    return {name: torch.empty(shape).uniform_(low, high, generator=source) for name, (low, high) in limits.items()}


def play(name: str, volumes: dict[str, Tensor], value: Any = None) -> Tensor:
    function, transverse, fixed, varied, _ = CASES[name]
    value = VARIED[varied][0] if value is None else value
    return function(volumes["pd"], volumes["t1"], volumes[transverse], **fixed, **{varied: value})


def seconds(function: Callable[[], Tensor]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def multiples(name: str) -> float:
    """Median over rounds of the time in units of ``torch.exp`` in the same round."""
    torch.set_num_threads(1)
    volumes = maps()
    turn = list(volumes.values())
    found = []
    for number in range(ROUNDS + 2):
        exponential = min(seconds(lambda n=number, k=k: torch.exp(turn[(n + k) % 5])) for k in range(3))
        found.append(min(seconds(lambda: play(name, volumes)) for _ in range(2)) / exponential)
    return statistics.median(found[2:])


def growth(name: str) -> float:
    """Most memory held beyond the maps at any time, in volumes, the result included."""
    torch.set_num_threads(1)
    volumes = maps()
    with torch.profiler.profile(profile_memory=True) as profile:
        play(name, volumes)
    changes = [e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    return max(itertools.accumulate(changes)) / 2**20 / VOLUME


def apart(function: Callable[[str], float], name: str) -> float:
    """In a process of its own: what others left of the heap decides how often a result needs fresh pages."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, name).result()


@pytest.mark.parametrize("name", CASES)
def test_time_and_memory(name: str, benchmark: Any) -> None:
    aim = CASES[name][-1]
    times, volumes = apart(multiples, name), growth(name)
    benchmark.extra_info.update({"torch.exp": round(times, 1), "aim": aim, "volumes": round(volumes, 2)})
    benchmark.pedantic(lambda: play(name, maps()), rounds=1)
    assert times <= SLACK * aim
    assert 1 <= volumes <= 4


@pytest.mark.parametrize("name", CASES)
def test_batch_takes_no_longer_than_its_samples(name: str, benchmark: Any) -> None:
    torch.set_num_threads(1)
    varied = CASES[name][3]
    batch = maps((2, *SHAPE))
    both = torch.tensor(VARIED[varied], dtype=torch.float64).reshape(2, 1, 1, 1)

    def singly() -> Tensor:
        return torch.stack(
            [play(name, {k: m[i] for k, m in batch.items()}, float(both[i])) for i in range(2)]
        )  # the caller has to put them together anyway

    torch.testing.assert_close(play(name, batch, both), singly(), rtol=1e-5, atol=1e-4)
    ratios = [seconds(lambda: play(name, batch, both)) / seconds(singly) for _ in range(ROUNDS)]
    benchmark.extra_info["batch / singles"] = round(statistics.median(ratios), 2)
    benchmark.pedantic(lambda: play(name, batch, both), rounds=1)
    assert statistics.median(ratios) <= 1.1  # 10 % for the noise of two measurements


def test_all_echoes_of_a_train_in_single_precision_are_exact_enough(benchmark: Any) -> None:
    """No table and no interpolation: the polynomial of the phase graph in float32 against float64."""
    t1 = torch.logspace(-1, 1, 60, dtype=torch.float64)[:, None]
    t2 = torch.logspace(-2.3, 0.4, 60, dtype=torch.float64)[None].minimum(t1)
    train = {"echo_spacing": 0.01, "train_length": 24, "refocusing_angle": 135.0}
    single = benchmark.pedantic(lambda: echo_amplitudes(t1.float(), t2.float(), **train), rounds=1)
    assert (single - echo_amplitudes(t1, t2, **train)).abs().max() < 1e-5
