"""Bottleneck of a run, loader or device, and the setting to turn."""

import math
from dataclasses import dataclass, field

_WAITING = 0.1  # share of a step from which waiting for data is worth a word
_FULL = 0.85  # share of a memory or disk that is too close to its end
_ROOM = 0.5  # share of a GPU's memory up to which a larger batch fits for sure


@dataclass(frozen=True)
class Advice:
    """Bottleneck of a run, with a remedy.

    Args:
        bottleneck: ``"loader"`` or ``"device"``.
        waiting: Share of a step that the device waits for data.
        lines: Advised changes, most worthwhile first.
    """

    bottleneck: str = "device"
    waiting: float = 0.0
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """Measurements that advice rests on: times of a step in seconds, sizes in MB.

    Args:
        loader: A batch, the loader alone.
        step: A training step, its batch at hand.
        both: A training step with the loader at work.
        num_workers: Processes of the loader.
        cores: Cores of the machine.
        cuda: Whether training is on a GPU.
        full_precision: Whether it is in float32.
        from_cache: Whether volumes come from a cache.
        memory: Main memory needed.
        memory_free: Main memory available.
        gpu_memory: Highest GPU memory, 0 without one.
        gpu_memory_total: Memory of the GPU, 0 without one.
        disk: Needed for checkpoints.
        disk_free: Free there.
        prepare: Seconds until all volumes are prepared.
    """

    loader: float
    step: float
    both: float
    num_workers: int
    cores: int
    cuda: bool
    full_precision: bool
    from_cache: bool
    memory: float = 0.0
    memory_free: float = math.inf
    gpu_memory: float = 0.0
    gpu_memory_total: float = 0.0
    disk: float = 0.0
    disk_free: float = math.inf
    prepare: float = 0.0


def advise(found: Measured) -> Advice:
    """Bottleneck and knobs for what was measured.

    Example:
        >>> slow = Measured(loader=1.0, step=0.2, both=1.0, num_workers=2, cores=16, cuda=True,
        ...     full_precision=False, from_cache=True)
        >>> advise(slow).bottleneck, advise(slow).lines[0]
        ('loader', 'num_workers 10: a batch takes 2 s of one core, the device waits 80 % of the time')
    """
    waiting = max(0.0, 1 - found.step / found.both) if found.both > 0 else 0.0
    slow_loader = waiting > _WAITING and found.loader > _WAITING * found.step
    lines = [*_limits(found), *(_feed(found, waiting) if slow_loader else _relieve(found))]
    if not found.from_cache and found.prepare > 600:
        lines.append("`monai-cl cache` prepares the volumes once for all runs; give its folder as datalist")
    return Advice("loader" if slow_loader else "device", waiting, lines)


def _limits(found: Measured) -> list[str]:
    lines = []
    if found.memory > _FULL * found.memory_free:
        remedy = "fewer num_workers" if found.from_cache else "a cache (`monai-cl cache`) leaves the volumes on disk"
        lines.append(f"the main memory will not do: {remedy}")
    if found.gpu_memory > _FULL * found.gpu_memory_total > 0:
        lines.append("the GPU is nearly full: use a smaller batch_size or crop_size")
    if found.disk > _FULL * found.disk_free:
        lines.append("the disk will not do for two checkpoints: give another output_dir")
    return lines


def _feed(found: Measured, waiting: float) -> list[str]:
    """A loader that is too slow: more cores, then less work."""
    core = found.loader * max(found.num_workers, 1)
    wanted = max(1, math.ceil(core / found.step))
    # on a CPU the training needs a core of its own
    most = max(found.cores - (0 if found.cuda else 1), 1)
    time = f"a batch takes {core:.3g} s of one core, the device waits {100 * waiting:.0f} % of the time"
    lines = []
    if found.num_workers < min(wanted, most):
        lines.append(f"num_workers {min(wanted, most)}: {time}")
    if found.num_workers >= most or wanted > most:
        lines.append(
            f"the {found.cores} cores do not keep up ({time}): a smaller crop_size, fewer crops or views, or a larger "
            "network at no cost of time"
        )
    return lines


def _relieve(found: Measured) -> list[str]:
    """A device that is busy: cheaper steps, or more from each."""
    lines = []
    if found.cuda and found.full_precision:
        lines.append("precision bf16 (or auto): float32 leaves most of the GPU idle")
    if found.gpu_memory_total and found.gpu_memory < _ROOM * found.gpu_memory_total:
        factor = int(_FULL * found.gpu_memory_total / max(found.gpu_memory, 1))
        lines.append(f"batch_size can grow up to about {factor} times: that much GPU memory is free")
    if not found.cuda:
        lines.append("a GPU, or a smaller crop_size, batch_size or init_filters: the processor is busy with training")
    elif not lines:
        lines.append("the GPU is busy and well used: fewer steps, a smaller crop_size, or more GPUs (multi_gpu.yaml)")
    return lines
