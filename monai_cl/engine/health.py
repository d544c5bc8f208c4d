"""Looking after the representation while it is being learned."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.networks import eval_mode
from torch import Tensor

from monai_cl.engine.distributed import any_process, rank
from monai_cl.engine.history import read_history, write_history
from monai_cl.engine.trainer import PretrainTrainer, to_device
from monai_cl.engine.voxel_probe import label_probe

logger = logging.getLogger(__name__)

COLLAPSED_RANK = 2.0  # fewer directions than this are no representation
COLLAPSED_UNIFORMITY = -0.02  # 0 when all embeddings are equal
PERCENTILES = (10, 50, 90)  # of a sample, in the history of its health
HIGH_LEARNING_RATE = 1e-2  # for AdamW, above which contrastive training seldom holds


class CollapseError(RuntimeError):
    """Error of collapsed embeddings: further training would be wasted."""


class HealthProbe:
    """Measure a method on volumes that it does not train on, and raise the alarm when it has collapsed.

    Runs :meth:`monai_cl.methods.Method.probe`, and :func:`monai_cl.engine.label_probe` with labels, at the
    ends of epochs, as often as ``budget`` allows, and at the end of the run: after which epochs depends on the time,
    what is seen then does not. Values go to ``health.csv`` and, as
    ``probe_...``, into the engine's metrics, from where TensorBoard and the progress line take them. Of a sample the
    file holds the percentiles :data:`PERCENTILES` (``name_p50`` is the median) and TensorBoard the histogram.
    Training is not disturbed: no random number is drawn from its generators. Attach it after the checkpoint handler.

    Args:
        batches: Batches of views, the same at each look.
        path: The CSV file.
        patches: Labelled patches, for :func:`monai_cl.engine.label_probe`; on rank 0 alone. None: no such probe.
        budget: Share of the training time that looking may take.
        on_collapse: ``"stop"`` ends the run at the second look in a row that finds a collapse, ``"warn"`` only logs it.
        grace: Share of the run, from its start, in which embeddings may still be alike.
        log_dir: TensorBoard's folder, for the histograms of samples. None: no histograms.

    Raises:
        CollapseError: While running, with ``on_collapse="stop"``; names likely causes.
    """

    def __init__(
        self,
        batches: Sequence[dict[str, Any]],
        path: str | Path,
        *,
        patches: Sequence[dict[str, Any]] = (),
        budget: float = 0.02,
        on_collapse: str = "stop",
        grace: float = 0.1,
        log_dir: str | Path | None = None,
    ) -> None:
        if on_collapse not in ("stop", "warn"):
            raise ValueError(f"on_collapse must be 'stop' or 'warn', got {on_collapse!r}")
        if not budget >= 0:
            raise ValueError(f"budget must be a share of at least 0, got {budget!r}")
        self.batches = batches
        self.path = Path(path)
        self.patches = patches if rank() == 0 else ()
        self.budget = budget
        self.on_collapse = on_collapse
        self.grace = grace
        self.log_dir = log_dir
        self._rows: list[dict[str, float]] = []
        self._started = self._spent = self._last = 0.0
        self._alarms = 0
        self._writer: Any = None

    def attach(self, engine: PretrainTrainer) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._look_if_due)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: PretrainTrainer) -> None:
        self._rows = read_history(self.path, until=engine.state.iteration)  # written before the checkpoint is
        self._started, self._spent, self._last = time.perf_counter(), 0.0, 0.0
        judged = [row for row in self._rows if not self._is_early(engine, row["step"])]
        fine = [index for index, row in enumerate(judged) if not collapse_symptom(row)]
        self._alarms = len(judged) - 1 - fine[-1] if fine else len(judged)

    def _is_early(self, engine: PretrainTrainer, step: float) -> bool:
        return step < self.grace * engine.total_steps

    def _look_if_due(self, engine: PretrainTrainer) -> None:
        trained = time.perf_counter() - self._started - self._spent
        due = self._spent + self._last <= self.budget * trained or engine.state.iteration >= engine.total_steps
        something = bool(self.batches or self.patches)  # on the first process if on any
        if any_process(rank() == 0 and something and due, engine.state.device):
            self.look(engine)

    def look(self, engine: PretrainTrainer) -> dict[str, float]:
        """Measure now, record, and judge."""
        begun = time.perf_counter()
        result = self._measure(engine)
        self._last = time.perf_counter() - begun
        self._spent += self._last
        if not result:
            return {}
        values = {name: value for name, value in result.items() if not isinstance(value, Tensor)}
        samples = {name: value for name, value in result.items() if isinstance(value, Tensor)}
        engine.state.metrics.update({f"probe_{name}": value for name, value in values.items()})
        self._rows.append({"step": engine.state.iteration, **values, **percentiles(samples)})
        if rank() == 0:
            write_history(self.path, self._rows)
            self._draw(samples, engine.state.iteration)
        self._judge(engine, values)
        return values

    def _draw(self, samples: Mapping[str, Tensor], step: int) -> None:
        if self.log_dir is None:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to load

        self._writer = self._writer or SummaryWriter(log_dir=str(self.log_dir))
        for name, sample in samples.items():
            if len(sample):
                self._writer.add_histogram(f"probe_{name}", sample.cpu(), step)
        self._writer.flush()

    def _finish(self, engine: PretrainTrainer) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _measure(self, engine: PretrainTrainer) -> dict[str, float | Tensor]:
        method, device = engine.inner_method, engine.state.device
        devices = [device] if device.type == "cuda" else []
        with eval_mode(method), torch.random.fork_rng(devices), engine.precision.autocast():
            views = (to_device(batch, device) for batch in self.batches)
            values = method.probe(views) if self.batches else {}
            patches = [to_device(patch, device) for patch in self.patches]
            return {**values, **(label_probe(method.steady_network, patches) if patches else {})}

    def _judge(self, engine: PretrainTrainer, values: Mapping[str, float]) -> None:
        if self._is_early(engine, engine.state.iteration):
            return
        symptom = collapse_symptom(values)
        self._alarms = self._alarms + 1 if symptom else 0
        if not symptom:
            return
        causes = likely_causes(engine)
        text = f"step {engine.state.iteration}: the representation has collapsed ({symptom}). {causes}"
        if self.on_collapse == "stop" and self._alarms > 1:
            raise CollapseError(f"{text}. Change the setting and start over with `--resume false`")
        logger.warning(text)


def percentiles(samples: Mapping[str, Tensor]) -> dict[str, float]:
    """The :data:`PERCENTILES` of each sample (N,), as ``name_p10`` and so on; none of an empty one."""
    return {
        f"{name}_p{percent}": float(torch.quantile(sample.float(), percent / 100))
        for name, sample in samples.items()
        for percent in PERCENTILES
        if len(sample)
    }


def collapse_symptom(values: Mapping[str, float]) -> str:
    """Symptom of collapsed embeddings; empty without one."""
    if values.get("effective_rank", COLLAPSED_RANK) < COLLAPSED_RANK:
        return f"effective rank {values['effective_rank']:.2f}, at least {COLLAPSED_RANK:g} is needed"
    if values.get("uniformity", -1.0) > COLLAPSED_UNIFORMITY:
        return f"uniformity {values['uniformity']:.3f}, embeddings nearly equal"
    return ""


def likely_causes(engine: PretrainTrainer) -> str:
    """Settings to look at first, in one sentence."""
    highest = max(group.get("initial_lr", group["lr"]) for group in engine.optimizer.param_groups)
    causes = engine.inner_method.causes_of_collapse()
    if highest >= HIGH_LEARNING_RATE:
        causes.insert(0, f"a learning rate of {highest:g}, high for this optimiser")
    if not causes:
        causes = [f"a learning rate ({highest:g}) that is still too high", "views that are all background"]
    return "Likely causes: " + "; ".join(causes)
