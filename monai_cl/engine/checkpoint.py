"""Checkpoints that hold a whole run, written atomically."""

import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events

from monai_cl import weights
from monai_cl._files import atomic_write, remove_leftovers
from monai_cl.data import PartitionBatchSampler, Steps, StepSampler
from monai_cl.engine import random_state
from monai_cl.engine.distributed import gather_objects, rank, world_size
from monai_cl.engine.machine import versions
from monai_cl.engine.resolved import differences, resolved_settings
from monai_cl.engine.trainer import PretrainTrainer

logger = logging.getLogger(__name__)

_LISTED = 8  # changed settings that a message names


class CheckpointMismatchError(ValueError):
    """A run was asked to go on from a checkpoint that was made with other settings."""


class Checkpoint:
    """Save a pretraining run at intervals and go on from where it stopped.

    ``checkpoint.pt`` holds network, heads, teacher, optimiser, schedule, gradient scaler, the random states of every
    process, the step and the losses recorded so far; sampling is a function of the step, so nothing else is needed for
    a killed run to end with the very numbers of an uninterrupted one, in its weights and in ``history.csv``. Beside it
    ``network_file`` receives the network alone, as the plain state dict that fine-tuning loads, with what it needs to
    be read in a ``.json`` of the same name. Only rank 0 writes.

    Args:
        folder: Where ``checkpoint.pt`` goes.
        network_file: Where the network's state dict goes.
        every: Save each that many epochs, and at the end.
        resume: Go on from a checkpoint in ``folder`` if one exists; otherwise start over (and overwrite it).
        settings: Settings that must stay the same for a run to resume, beside those that :func:`resolved_settings`
            reads off the trainer: method, loss, optimiser, views and preparation. Both are compared with the
            checkpoint's.
        contract: Facts that users of the network need (recipe, spacing, ...), stored beside it.

    Raises:
        CheckpointMismatchError: At the start, if the checkpoint was made with other settings.
        NonFiniteWeightsError: If the checkpoint holds NaN or infinities, or would.
    """

    def __init__(
        self,
        folder: str | Path,
        network_file: str | Path,
        *,
        every: int = 1,
        resume: bool = True,
        settings: dict[str, Any] | None = None,
        contract: dict[str, Any] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 epoch, got {every!r}")
        self.path = Path(folder) / "checkpoint.pt"
        self.network_file = Path(network_file)
        self.every = every
        self.resume = resume
        self.settings = _plain(settings or {})
        self.contract = _plain(contract or {})

    def attach(self, engine: PretrainTrainer) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.STARTED, self._save_after_the_others)
        engine.add_event_handler(Events.COMPLETED, self._save_unless_saved)

    def _save_after_the_others(self, engine: PretrainTrainer) -> None:
        # by now every handler is attached, and what they make of the end of an epoch is in its checkpoint
        if not engine.has_event_handler(self.save, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self.save)

    def start(self, engine: PretrainTrainer) -> None:
        """Load the checkpoint, if the run is to go on from one."""
        self._resolved = engine.resolved = resolved_settings(engine)
        if rank() == 0:
            for file in (self.path, self.network_file, self.network_file.with_suffix(".json")):
                remove_leftovers(file)
        if not self.path.exists():
            return
        if not self.resume:
            logger.warning("starting over: the checkpoint %s will be overwritten", self.path)
            return
        self._load(engine, _read(self.path))
        engine.last_checkpoint = self.path
        done, total = engine.state.iteration, engine.total_steps
        logger.info("resumed %s at step %d of %d", self.path, done, total)

    def save(self, engine: PretrainTrainer) -> None:
        """Write the checkpoint and the network."""
        states = gather_objects(random_state.capture())
        engine.last_checkpoint = self.path
        self._saved_step = engine.state.iteration
        if rank() != 0:
            return
        method = engine.inner_method
        weights.require_finite(method.state_dict(), f"the method at step {engine.state.iteration}")
        content = {
            "step": engine.state.iteration,
            "epoch_length": engine.state.epoch_length,
            "method": method.state_dict(),
            "optimizer": engine.optimizer.state_dict(),
            "scheduler": None if engine.scheduler is None else engine.scheduler.state_dict(),
            "grad_scaler": engine.grad_scaler.state_dict(),
            "random": states,
            "handlers": {name: state() for name, state in engine.states.items()},
            "settings": self.settings,
            "resolved": self._resolved,
            "versions": versions(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary, open(temporary, "wb") as file:
            torch.save(content, file)
        contract = {**self.contract, "steps": engine.state.iteration, "touched": method.touched()}
        weights.save_network(method.network, self.network_file, contract=contract)

    def _save_unless_saved(self, engine: PretrainTrainer) -> None:
        if getattr(self, "_saved_step", None) != engine.state.iteration:
            self.save(engine)

    def _load(self, engine: PretrainTrainer, content: dict[str, Any]) -> None:
        self._compare(engine, content)
        weights.require_finite({key: content[key] for key in ("method", "optimizer")}, str(self.path))
        engine.inner_method.load_state_dict(content["method"])
        engine.optimizer.load_state_dict(content["optimizer"])
        if engine.scheduler is not None and content["scheduler"] is not None:
            engine.scheduler.load_state_dict(content["scheduler"])
        engine.grad_scaler.load_state_dict(content["grad_scaler"])
        random_state.restore(content["random"][rank()])
        engine.resumed = content.get("handlers", {})
        engine.state.iteration = content["step"]
        engine.state.epoch = content["step"] // engine.state.epoch_length
        for kind in ("batch_sampler", "sampler"):
            sampler = getattr(engine.data_loader, kind, None)
            if isinstance(sampler, StepSampler | PartitionBatchSampler | Steps):
                sampler.start = content["step"]
        self._saved_step = content["step"]

    def _compare(self, engine: PretrainTrainer, content: dict[str, Any]) -> None:
        now = {**self.settings, "processes": world_size(), "epoch_length": engine.state.epoch_length}
        then = {**content["settings"], "processes": len(content["random"]), "epoch_length": content["epoch_length"]}
        unknown = [k for k in now if k not in then]
        if unknown:  # the version that began the run had no such setting
            logger.info("%s does not state the %s it was made with", self.path, ", ".join(unknown))
        changed = [f"{k}: {then[k]!r} -> {v!r}" for k, v in now.items() if k in then and then[k] != v]
        changed += self._resolved_otherwise(content)
        if changed:
            listed = "; ".join(changed[:_LISTED]) + (
                f"; and {len(changed) - _LISTED} more" if changed[_LISTED:] else ""
            )
            raise CheckpointMismatchError(
                f"{self.path} was made with other settings ({listed}); use the same settings to go on, "
                "another output folder, or `--resume false` to start over"
            )
        if content["step"] > engine.total_steps:
            raise CheckpointMismatchError(
                f"{self.path} is at step {content['step']}, beyond the {engine.total_steps} asked for; "
                "ask for more epochs, or use `--resume false` to start over"
            )

    def _resolved_otherwise(self, content: dict[str, Any]) -> list[str]:
        if "resolved" not in content:
            logger.warning(
                "%s is of a version that did not keep all settings: whether method and views are those it began with "
                "cannot be compared this once; from now on they are kept",
                self.path,
            )
            return []
        alike = content.get("versions") == versions()
        return differences(content["resolved"], self._resolved, alike=alike)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {str(error)[:200]}); "
            "remove it or use `--resume false` to start over"
        ) from error
    return content


def _plain(value: Any) -> Any:
    # only what `weights_only=True` and JSON can carry, so that comparing needs no care about tuples
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
