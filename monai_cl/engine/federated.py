"""Federated training of a bundle: rounds at a site, weights in and weights out, whatever program carries them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from monai_cl import bundles, weights
from monai_cl.engine.distributed import unwrap
from monai_cl.engine.trainer import PretrainTrainer

_STEPS = {"pretrain": "max_epochs", "train": "finetune_epochs"}  # step: the setting of its length


class FederatedSite:
    """One site of a federation: a bundle's own pretraining or fine-tuning, cut into rounds.

    A site runs the configs that are installed there, never configs that are sent to it. Tensors by name are all that
    comes in, and all that goes out: those of the network, in pretraining with heads and teacher. No count, loss, name
    or path is among them, so each site weighs the same. Optimiser, schedule and place in the data stay at the site and
    go on from round to round, as if one run were looked at between epochs.

    Args:
        bundle: Name of a bundle, or the root of one.
        step: ``"pretrain"`` or ``"train"``.
        rounds: Rounds of the federation.
        epochs: Epochs a round.
        overlays: Further config files of the bundle, such as ``small.yaml``.
        settings: Settings of the site: ``bundle_root`` as the folder for what it writes, ``dataset_dir``, ``datalist``
            and all that the sites have agreed on.

    Raises:
        ValueError: If no such step exists, or rounds or epochs are below 1.

    Example:
        >>> site = FederatedSite("volume_contrast", "train", rounds=2, epochs=1,
        ...     settings={"bundle_root": "a", "dataset_dir": "/data/a"})  # doctest: +SKIP
        >>> sent = site.train_round(received)  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: str | Path,
        step: str,
        *,
        rounds: int,
        epochs: int = 1,
        overlays: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if rounds < 1 or epochs < 1:
            raise ValueError(f"rounds and epochs must be at least 1, got {rounds!r} and {epochs!r}")
        files, given = _configs(bundle, step, overlays), {**_alone(step), **(settings or {})}
        given[_STEPS[step]] = rounds * epochs  # the schedule of the learning rate spans the federation
        self._workflow = ConfigWorkflow(files, logging_file=False, workflow_type="train", **given)
        self._workflow.initialize()
        trainer: Any = self._workflow.trainer
        self.trainer: PretrainTrainer | SupervisedTrainer = trainer
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=epochs), _pause)
        self._paused = False

    @property
    def learner(self) -> nn.Module:
        """The module whose weights travel: the network, in pretraining the method with heads and teacher."""
        if isinstance(self.trainer, PretrainTrainer):
            return self.trainer.inner_method
        return unwrap(self.trainer.network)

    def train_round(self, received: Mapping[str, Any]) -> dict[str, Tensor]:
        """Take the weights of the federation, train a round's epochs, and give this site's weights.

        Args:
            received: Tensors or arrays by name.

        Returns:
            Tensors by name, on the CPU: the message to the server.

        Raises:
            ValueError: If names or shapes are not those of the learner.
            RuntimeError: If all rounds are over.
        """
        state = self.trainer.state
        if state.epoch and state.epoch >= (state.max_epochs or 0):
            raise RuntimeError(f"a site trains {state.max_epochs} epochs in all, which are over; ask for more rounds")
        load_weights(self.learner, received)
        self._paused = False
        self.trainer.run()
        self._paused = state.epoch < (state.max_epochs or 0)
        return weights_of(self.learner)

    def close(self) -> None:
        """End the run, which writes what it has if rounds were left, and give back the folders that it claimed."""
        if self._paused:
            self.trainer.terminate()
            self.trainer.run()
        self._workflow.finalize()


class SharedModel(nn.Module):
    """The weights that a federation begins with: those of a step's learner, built without data.

    A server names it by its class path, and sees the names that a site sends.

    Args:
        bundle: As of :class:`FederatedSite`.
        step: As of :class:`FederatedSite`.
        overlays: As of :class:`FederatedSite`.
        settings: Settings that the sites have agreed on.
        start: File of weights to begin with; ``None`` begins from scratch.
        seed: Seed of the weights that no file fills.
    """

    def __init__(
        self,
        bundle: str,
        step: str,
        *,
        overlays: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        start: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        parser = ConfigParser()
        parser.read_config(_configs(bundle, step, overlays))
        parser.update({**_alone(step), "device": "cpu", **(settings or {})})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            learner = parser.get_parsed_content("method" if step == "pretrain" else "network")
        weights.start_from(learner.network if step == "pretrain" else learner, start)
        self._learner = [learner]  # in a list, so that no prefix comes before the names

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The tensors of the learner by its own names."""
        return self._learner[0].state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Fill the learner."""
        return self._learner[0].load_state_dict(*args, **kwargs)


def weights_of(learner: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's tensors by name, on the CPU, and nothing else.

    Raises:
        TypeError: If the module keeps something in its state that is no tensor.
    """
    state = learner.state_dict()
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise TypeError(f"only tensors may leave a site, the state has others: {', '.join(others[:5])}")
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def load_weights(learner: nn.Module, received: Mapping[str, Any]) -> None:
    """Fill a module with tensors or arrays by name; averages of counts are rounded.

    Raises:
        ValueError: If names or shapes are not those of the module.
    """
    own = learner.state_dict()
    values = {name: torch.as_tensor(value) for name, value in received.items()}
    wrong = sorted(own.keys() ^ values.keys()) or [n for n in own if own[n].shape != values[n].shape]
    if wrong:
        raise ValueError(
            f"the weights of a federation must have the names and shapes of the learner, {len(wrong)} differ, such as "
            f"{', '.join(wrong[:5])}; give server and sites the same step, overlays and settings"
        )
    whole = {n: v if own[n].is_floating_point() else v.double().round() for n, v in values.items()}
    learner.load_state_dict({name: value.to(own[name].dtype) for name, value in whole.items()})


def _pause(engine: Engine) -> None:
    """End the round after this epoch; the last epoch ends the run."""
    if engine.state.epoch < (engine.state.max_epochs or 0):
        engine.interrupt()


def _alone(step: str) -> dict[str, Any]:
    """Settings of a site: the federation gives the weights, so neither a file nor a checkpoint does."""
    return {"start": "none", "resume": False} if step == "pretrain" else {"pretrained": "none"}


def _configs(bundle: str | Path, step: str, overlays: Sequence[str]) -> list[str]:
    if step not in _STEPS:
        raise ValueError(f"step must be one of {', '.join(_STEPS)}, got {step!r}")
    root = Path(bundle) if Path(bundle).is_dir() else bundles.path(str(bundle))
    return [str(root / "configs" / name) for name in (f"{step}.yaml", *overlays)]
