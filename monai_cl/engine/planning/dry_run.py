"""A few steps of a bundle's run, without any of its files being written."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from monai_cl._cores import cores
from monai_cl._overrides import lay
from monai_cl.datalist import CACHED
from monai_cl.engine import random_state
from monai_cl.engine.planning.advice import Measured, advise
from monai_cl.engine.planning.flight_plan import FlightPlan
from monai_cl.engine.planning.timing import PeakMemory, time_loader, time_trainer
from monai_cl.transforms.stored import StoredVolume

_VOLUMES = 8  # prepared at least
_NEEDED = ("train#trainer", "train#dataset")
_MEGA = 1e6
Item = Mapping[str, Any]


def plan_run(
    config_file: str | Path | Sequence[str | Path], *, steps: int = 20, seconds: float = 60.0, **overrides: Any
) -> FlightPlan:
    """Measure a run of a bundle on a few volumes and steps, and extend it to the whole.

    The configuration is built as ``monai.bundle run`` does it, without its handlers: nothing is written into the
    folders of the run. Where volumes are prepared in memory, a few are, labelled and unlabelled ones alike; a cache is
    used as it is. Pretraining on random anatomies has no volumes to prepare.

    Args:
        config_file: Config files of a step that trains, later ones over earlier ones.
        steps: Steps to measure, at most.
        seconds: Time to measure for, at most, in each of three measurements (loader, step, both).
        **overrides: As on the command line of ``monai.bundle run``, ``::`` or ``#`` in ids for nesting.

    Raises:
        ValueError: If the configuration does not train, or the settings are out of range.
    """
    if steps < 3 or seconds <= 0:
        raise ValueError(f"steps must be at least 3 and seconds positive, got {steps} and {seconds}")
    files = [config_file] if isinstance(config_file, (str, Path)) else list(config_file)
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    lay(overrides, parser)
    missing = [name for name in _NEEDED if name not in parser]
    if missing:
        raise ValueError(
            f"a plan needs a configuration that trains, {', '.join(map(str, files))} lacks {', '.join(missing)}; give "
            "those of pretrain.yaml or train.yaml"
        )
    out = Path(str(parser.get_parsed_content("output_dir"))) if "output_dir" in parser else Path()
    free = psutil.virtual_memory().available / _MEGA
    seed = int(parser.get_parsed_content("seed")) if "seed" in parser else 0
    with tempfile.TemporaryDirectory() as scratch, _seeded(seed), PeakMemory().watch() as memory:
        run = _Run(parser, scratch)
        first, loader, batch = time_loader(run.loader, steps=steps, seconds=seconds)
        if run.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(run.device)
        step = time_trainer(run.trainer, [batch] * (steps + 2), steps=steps, seconds=seconds)
        both = time_trainer(run.trainer, run.loader, steps=steps, seconds=seconds)
    return _extended(run, out, steps, (first, loader, step, both), memory.peak, free)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Run with the deterministic algorithms of bundles, and restore the random states afterwards."""
    before = random_state.capture()
    set_determinism(seed=seed)
    try:
        yield
    finally:
        set_determinism(seed=None)
        random_state.restore(before)


class _Run:
    """Run that a configuration builds, with few volumes and no handlers.

    Args:
        parser: The configuration.
        scratch: A folder for what is written all the same.
    """

    def __init__(self, parser: ConfigParser, scratch: str) -> None:
        lists = _volume_lists(parser)
        self.items = [item for items in lists.values() for item in items]
        few = {name: _few(parser, items) for name, items in lists.items()}
        parser.globals["_planned_items"] = few
        for name in few:
            parser[f"{name}#dataset#data"] = f"$_planned_items['{name}']"
        parser["train#handlers"] = []
        parser["train#trainer#train_handlers"] = []
        if "output_dir" in parser:
            parser["output_dir"] = scratch
        begin = time.perf_counter()
        self.datasets = [parser.get_parsed_content(f"{name}#dataset") for name in few]
        self.prepared = sum(map(len, few.values()))
        self.seconds_a_volume = (time.perf_counter() - begin) / max(self.prepared, 1)
        self.trainer = parser.get_parsed_content("train#trainer")
        self.loader = self.trainer.data_loader
        self.device = torch.device(self.trainer.state.device)
        self.total_steps = int(self.trainer.state.max_epochs * self.trainer.state.epoch_length)
        self.from_cache = bool(self.items) and CACHED in self.items[0]

    @property
    def volume_bytes(self) -> float:
        """Mean main memory of a prepared volume; 0 where they stay on disk."""
        return 0.0 if self.from_cache else self._mean(lambda volume: volume.numel() * volume.element_size())

    @property
    def voxels(self) -> float:
        """Mean number of voxels of the volumes of an item."""
        return self._mean(lambda volume: volume.shape.numel())

    def _mean(self, measure: Any) -> float:
        kept = [dataset for dataset in self.datasets if hasattr(dataset, "stored")]
        result = [dataset.stored(index) for dataset in kept for index in range(len(dataset))]
        volumes = [v for item in result for v in item.values() if isinstance(v, (torch.Tensor, StoredVolume))]
        return float(sum(measure(volume) for volume in volumes)) / max(len(result), 1)

    @property
    def checkpoint_bytes(self) -> float:
        """Size of network, heads, teacher and optimiser."""
        optimizer = self.trainer.optimizer
        module = getattr(self.trainer, "method", None) or self.trainer.network
        states = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
        return float(sum(t.numel() * t.element_size() for t in [*module.state_dict().values(), *states]))


def _volume_lists(parser: ConfigParser) -> dict[str, Sequence[Item]]:
    """Items of each dataset of volumes, none of them prepared."""
    if "train#dataset#data" not in parser:  # random anatomies
        return {}
    labelled = parser.get_parsed_content("train#dataset#data")
    if "unlabelled#dataset#data" not in parser:
        return {"train": labelled}
    # the others are chosen by the items of the first dataset, which a stand-in shows without preparing them
    dataset = parser["train#dataset"]
    parser.globals["_planned_dataset"] = SimpleNamespace(data=labelled)
    parser["train#dataset"] = "$_planned_dataset"
    unlabelled = parser.get_parsed_content("unlabelled#dataset#data")
    parser["train#dataset"] = dataset
    return {"train": labelled, "unlabelled": unlabelled}


def _few(parser: ConfigParser, items: Sequence[Item]) -> list[Item]:
    """Return the first volumes, spread over the list: enough for two batches."""
    sizes = [parser.get_parsed_content(k) for k in parser.get() if str(k).endswith("batch_size")]
    processes = parser.get_parsed_content("world_size") if "world_size" in parser else 1
    count = min(max([_VOLUMES, *(2 * int(size) for size in sizes)]) * int(processes), len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _extended(
    run: _Run, out: Path, steps: int, times: tuple[float, float, float, float], peak: float, free: float
) -> FlightPlan:
    """Extrapolate the cost of a few volumes and steps to the whole run."""
    first, loader, step, both = times
    more = len(run.items) - run.prepared
    cuda = run.device.type == "cuda"
    prepare = 0.0 if run.from_cache else run.seconds_a_volume * len(run.items)
    gpu = torch.cuda.max_memory_reserved(run.device) / _MEGA if cuda else 0.0
    gpu_total = torch.cuda.get_device_properties(run.device).total_memory / _MEGA if cuda else 0.0
    precision = _precision(run.trainer)
    result = Measured(
        loader=loader,
        step=step,
        both=both,
        num_workers=int(getattr(run.loader, "num_workers", 0)),
        cores=cores(),
        cuda=cuda,
        full_precision=precision == "fp32",
        from_cache=run.from_cache,
        memory=peak + more * run.volume_bytes / _MEGA,
        memory_free=free,
        gpu_memory=gpu,
        gpu_memory_total=gpu_total,
        disk=2 * run.checkpoint_bytes / _MEGA,
        disk_free=shutil.disk_usage(_existing(out)).free / _MEGA,
        prepare=prepare,
    )
    return FlightPlan(
        device=torch.cuda.get_device_name(run.device) if cuda else f"{cores()} CPU cores",
        precision=precision,
        steps=run.total_steps,
        measured_steps=steps,
        volumes=len(run.items),
        loader_seconds=loader,
        step_seconds=step,
        seconds=both,
        first_batch_seconds=first,
        prepare_seconds=prepare,
        hours=(prepare + first + both * run.total_steps) / 3600,
        memory=result.memory,
        memory_free=free,
        gpu_memory=gpu if cuda else None,
        gpu_memory_total=gpu_total if cuda else None,
        disk=result.disk,
        disk_free=result.disk_free,
        cache_disk=2 * run.voxels * len(run.items) / _MEGA,
        from_cache=run.from_cache,
        advice=advise(result),
    )


def _precision(trainer: Any) -> str:
    settled = getattr(trainer, "precision", None)
    if settled is not None:
        return str(settled.name)
    return "fp16" if getattr(trainer, "amp", False) else "fp32"


def _existing(folder: Path) -> Path:
    """Nearest existing folder at or above a path."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
