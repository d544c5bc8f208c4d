"""The outcome of a dry run, as numbers, as a table and as JSON."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from monai_cl._files import write_json
from monai_cl.engine.planning.advice import Advice


@dataclass(frozen=True)
class FlightPlan:
    """Cost of a run, measured on a few steps and extended to all of them.

    Args:
        device: Where it trains.
        precision: As it was settled for the device.
        steps: Steps of the whole run.
        measured_steps: Steps it was measured on.
        volumes: Volumes of the whole run, on this process, labelled and unlabelled; 0 for random anatomies.
        loader_seconds: A batch from the loader, nobody else asking for the cores.
        step_seconds: A training step on a batch in memory.
        seconds: A training step with the loader at work: what a run takes.
        first_batch_seconds: Until the loader gave its first batch.
        prepare_seconds: Until all volumes are ready for the first step.
        hours: Of the whole run; without looks at the representation and checkpoints.
        memory: MB of main memory, this process and its workers, with all volumes.
        memory_free: MB available now, what the dry run took included.
        gpu_memory: Highest MB of the GPU, or ``None``.
        gpu_memory_total: MB that the GPU has, or ``None``.
        disk: MB that checkpoints take, both of them while one is replaced.
        disk_free: MB free where they go.
        cache_disk: MB that an int16 cache of the study takes.
        from_cache: Whether the volumes come from a cache.
        advice: Bottleneck, and what to change.
    """

    device: str
    precision: str
    steps: int
    measured_steps: int
    volumes: int
    loader_seconds: float
    step_seconds: float
    seconds: float
    first_batch_seconds: float
    prepare_seconds: float
    hours: float
    memory: float
    memory_free: float
    gpu_memory: float | None
    gpu_memory_total: float | None
    disk: float
    disk_free: float
    cache_disk: float
    from_cache: bool
    advice: Advice = field(default_factory=Advice)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def write(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        write_json(path, self.to_dict())

    def table(self) -> Table:
        """Table for a terminal."""
        table = Table("what", "measured", title="flight plan", title_justify="left")
        table.add_row("device", f"{self.device}, {self.precision}")
        table.add_row("one step", f"{self.seconds:.3g} s (of {self.measured_steps} measured)")
        table.add_row("  batch alone", f"{self.loader_seconds:.3g} s, the first {self.first_batch_seconds:.3g} s")
        table.add_row("  training step alone", f"{self.step_seconds:.3g} s")
        table.add_row("bottleneck", f"{self.advice.bottleneck}: {100 * self.advice.waiting:.0f} % of a step is waiting")
        table.add_section()
        self._add_volumes(table)
        table.add_row(f"{self.steps} steps", Text.assemble((duration(3600 * self.hours), "bold"), " with preparation"))
        table.add_section()
        table.add_row("memory", f"{size(self.memory)} of {size(self.memory_free)} available")
        if self.gpu_memory is not None and self.gpu_memory_total is not None:
            table.add_row("GPU memory", f"{size(self.gpu_memory)} of {size(self.gpu_memory_total)}")
        table.add_row("disk for checkpoints", f"{size(self.disk)} of {size(self.disk_free)} free")
        if self.volumes:
            table.add_row("disk " + ("of the cache" if self.from_cache else "for a cache"), size(self.cache_disk))
        for line in self.advice.lines:
            table.add_section()
            table.add_row("advice", Text(line))
        return table

    def _add_volumes(self, table: Table) -> None:
        if not self.volumes:
            table.add_row("volumes", "none, views are drawn at random")
            return
        kept = "from a cache" if self.from_cache else "from files, kept in memory"
        table.add_row("volumes", f"{self.volumes}, {kept}")
        table.add_row("preparing them", duration(self.prepare_seconds))


def duration(seconds: float) -> str:
    """Duration in words, from seconds."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def size(megabytes: float) -> str:
    """Size in MB, or in GB above 1000 MB."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
