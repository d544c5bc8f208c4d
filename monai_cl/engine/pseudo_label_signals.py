"""Looking after pseudo-labels while a network is trained with them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import Tensor

from monai_cl.engine.class_shares import shares_in_patches
from monai_cl.engine.distributed import rank, world_size
from monai_cl.engine.health import HIGH_LEARNING_RATE
from monai_cl.engine.history import read_history, write_history
from monai_cl.engine.selftrainer import SelfTrainer

logger = logging.getLogger(__name__)

BINS = 10  # of the confidence, from 0 to 1
VANISHED = 0.01  # a class with less than this of its share in the labels is gone
FACTOR = 2  # between the share of a class in labelled volumes and among pseudo-labels, from which it is odd
LASTING = 3  # looks in a row at which it is so
_SHORT_START = 0.1  # share of the run on labels alone


class DriftError(RuntimeError):
    """Pseudo-labels have lost a class, or one class has taken all: further training would be wasted."""


class _Counts(NamedTuple):
    """Voxels since the last look, each (K,) or (bins,); of all processes once they are added up."""

    predicted: Tensor  # by the teacher, of each class
    counted: Tensor  # those of them that are certain enough
    labelled: Tensor  # true labels
    agreed: Tensor  # (2,): student like teacher, and compared
    confidence: Tensor  # (BINS,)
    certainty: Tensor  # (1,): sum of the confidence
    stood: Tensor  # (2,): alike at another contrast, and compared; of the last step alone


class PseudoLabelSignals:
    """Log what the teacher's labels are like, each epoch, and raise the alarm when they drift.

    Of the steps of an epoch in which pseudo-labels were made: the share of each class among them (``share_1``) and
    among the true labels of the same batches (``labelled_share_1``), the share of voxels that are certain enough to
    count, the mean confidence and its histogram (``confidence_0.9`` is the share of voxels from 0.9 up), and how much
    of the mixed images' pseudo-labelled voxels the student predicts as the teacher did (``agreement``). Of the patches
    of the last step, the share of voxels that the teacher labels alike at two contrasts (``contrast_agreement``). They
    go to a CSV file and, as ``pseudo_...``, into the engine's metrics. Numbers are those of all processes.

    A class has vanished when its share is below :data:`VANISHED` of that among true labels; a foreground class has
    swallowed the volume when it has more than half of what it has not among true labels.

    Labelled patches are drawn around classes and unlabelled ones anywhere, so these two shares differ even where all is
    well. With the labelled volumes, ``expected_share_1`` is the share that patches drawn anywhere in *them* hold
    (:func:`~monai_cl.engine.class_shares.shares_in_patches`). A class that is more than :data:`FACTOR` times as
    frequent among pseudo-labels, or as rare, at :data:`LASTING` looks in a row is warned of once: the teacher may keep
    a mistake of the few labelled volumes. That stops no run.

    Args:
        path: The CSV file, written by the first process.
        on_drift: ``"warn"`` logs the symptom and its likely cause; ``"stop"`` ends the run.
        volumes: The labelled volumes, prepared; None does without the expected shares.
        slice_axis: Axis of the slices, where patches have two sides.

    Raises:
        DriftError: While running, with ``on_drift="stop"``.
        ValueError: If ``on_drift`` is neither.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        on_drift: str = "warn",
        volumes: Sequence[Mapping[str, Any]] | None = None,
        slice_axis: int | None = None,
    ) -> None:
        if on_drift not in ("stop", "warn"):
            raise ValueError(f"on_drift must be 'stop' or 'warn', got {on_drift!r}")
        self.path = Path(path)
        self.on_drift = on_drift
        self.volumes = volumes
        self.slice_axis = slice_axis
        self._expected: dict[str, float] | None = None
        self._rows: list[dict[str, float]] = []
        self._counts: _Counts | None = None

    def attach(self, engine: SelfTrainer) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._look)

    def _start(self, engine: SelfTrainer) -> None:
        self._rows = read_history(self.path, until=engine.state.iteration)
        self._counts = None

    @torch.no_grad()
    def _collect(self, engine: SelfTrainer) -> None:
        if engine.method.last is None:
            return
        counts = _count(engine)  # nothing waits for the device here
        if self._counts is not None:
            counts = _Counts(*(a + b for a, b in zip(self._counts, counts, strict=True)))
        self._counts = counts

    def _look(self, engine: SelfTrainer) -> None:
        if self._counts is None:  # labelled volumes are alone as yet, in all processes alike
            return
        stood = _stood(engine)  # the teacher is asked anew, once an epoch
        counts, self._counts = _of_all_processes(self._counts._replace(stood=stood)), None
        values = {**_values(counts), **self._expected_shares(engine)}
        engine.state.metrics.update({f"pseudo_{name}": value for name, value in values.items()})
        self._rows.append({"step": engine.state.iteration, **values})
        if rank() == 0:
            write_history(self.path, self._rows)
            for oddity in odd_shares(self._rows):
                logger.warning("step %d: %s", engine.state.iteration, oddity)
        symptoms = drift_symptoms(values)
        if not symptoms:
            return
        text = f"step {engine.state.iteration}: {'; '.join(symptoms)}. {_likely_causes(engine, values)}"
        if self.on_drift == "stop":
            raise DriftError(f"pseudo-labels have drifted: {text}")
        if rank() == 0:
            logger.warning("pseudo-labels have drifted: %s", text)

    def _expected_shares(self, engine: SelfTrainer) -> dict[str, float]:
        if self.volumes is None:
            return {}
        if self._expected is None:
            size, method = engine.state.batch["unlabelled"].shape[2:], engine.method
            shares = shares_in_patches(
                self.volumes, size, method.pseudo_labels.num_classes,
                slice_axis=self.slice_axis, ignore_index=method.ignore_index,
            )  # fmt: skip
            self._expected = {f"expected_share_{one}": share for one, share in enumerate(shares)}
        return self._expected


def odd_shares(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Sentences on classes that have come to be odd at the last look: for the :data:`LASTING`-th time in a row.

    Args:
        rows: Looks so far, with ``share_1`` and ``expected_share_1`` and so on, a pair a foreground class.

    Example:
        >>> odd_shares([{"share_1": 0.05, "expected_share_1": 0.2}] * 3)[0][:67]
        'class 1 is 4.0 times as rare among pseudo-labels as in the labelled'
        >>> odd_shares([{"share_1": 0.15, "expected_share_1": 0.2}] * 3)
        []
    """
    remarks = []
    for name in rows[-1] if rows else ():
        one = name.removeprefix("expected_share_")
        if one == name or one == "0":
            continue
        factors = [_factor(row.get(f"share_{one}", 0.0), row.get(name, 0.0)) for row in rows[-LASTING - 1 :]]
        odd = [max(factor, 1 / factor) > FACTOR for factor in factors]
        if len(odd) < LASTING or not all(odd[-LASTING:]) or (len(odd) > LASTING and odd[0]):  # else warned already
            continue
        kind, times = ("frequent", factors[-1]) if factors[-1] > 1 else ("rare", 1 / factors[-1])
        remarks.append(
            f"class {one} is {times:.1f} times as {kind} among pseudo-labels as in the labelled volumes "
            f"({_both(rows[-1][f'share_{one}'], rows[-1][name])}). Either the unlabelled scans differ so, or the "
            "teacher keeps a mistake of the few labelled volumes: look at the pictures of pseudo-labels in the report; "
            "other or more labelled volumes, or agreement, may mend it"
        )
    return remarks


def _factor(share: float, expected: float) -> float:
    """Ratio of two shares; 1 for a class that is absent from both or has vanished, which has an alarm of its own."""
    return share / expected if expected > 0 and share >= VANISHED * expected else 1.0


def drift_symptoms(values: Mapping[str, float]) -> list[str]:
    """Symptoms of classes that vanished from pseudo-labels or swallowed the volume; none when all is well.

    Args:
        values: ``share_1`` and ``labelled_share_1`` and so on, a pair a foreground class.

    Example:
        >>> drift_symptoms({"share_1": 0.0, "labelled_share_1": 0.2})
        ['the teacher predicts nothing but background']
        >>> drift_symptoms({"share_1": 0.9, "labelled_share_1": 0.2})
        ['class 1 has swallowed the volume: 90.0 % of pseudo-labels, 20.0 % of labels']
    """
    expected = {name.removeprefix("labelled_share_"): v for name, v in values.items() if name.startswith("labelled_")}
    shares = {one: (values[f"share_{one}"], share) for one, share in expected.items() if one != "0"}
    present = {one: pair for one, pair in shares.items() if pair[1] > 0}
    gone = [one for one, (share, labelled) in present.items() if share < VANISHED * labelled]
    if gone and not any(share for share, _ in shares.values()):
        return ["the teacher predicts nothing but background"]
    symptoms = [f"class {one} has vanished: {_both(*shares[one])}" for one in gone]
    swallowed = [one for one, (share, labelled) in shares.items() if share > labelled + (1 - labelled) / 2]
    return symptoms + [f"class {one} has swallowed the volume: {_both(*shares[one])}" for one in swallowed]


def _both(share: float, labelled: float) -> str:
    return f"{share:.1%} of pseudo-labels, {labelled:.1%} of labels".replace("%", " %")


def _likely_causes(engine: SelfTrainer, values: Mapping[str, float]) -> str:
    method, causes = engine.method, []
    rate = max(group.get("initial_lr", group["lr"]) for group in engine.optimizer.param_groups)
    if method.pseudo_labels.confidence > 0 and values["certain"] < 0.5:
        causes.append(
            f"a confidence of {method.pseudo_labels.confidence:g}, which {values['certain']:.0%} of voxels reach"
        )
    if method.supervised < _SHORT_START:
        causes.append(f"a start on labels alone of {method.supervised:.0%} of the run, too short from scratch")
    if rate >= HIGH_LEARNING_RATE:
        causes.append(f"a learning rate of {rate:g}")
    if not causes:
        causes = [
            f"a weight of pseudo-labels ({method.u_weight:g}) that is too high for so few labels",
            "unlabelled scans of another kind than the labelled ones, or that do not show the class",
        ]
    return f"Likely causes: {'; '.join(causes)}"


def _count(engine: SelfTrainer) -> _Counts:
    pseudo, targets, maps = engine.method.last, engine.state.output["label"], engine.state.output["pred"]
    if pseudo is None:
        raise ValueError("no pseudo-labels were made at this step, which must be known before they are counted")
    number = engine.method.pseudo_labels.num_classes
    predicted = (maps if isinstance(maps, Tensor) else maps[0]).argmax(1)
    labels, teacher = pseudo.labels.flatten(), targets[:, 1]
    bins = (pseudo.confidence.float() * BINS).long().clamp(max=BINS - 1)
    true = targets[:, 0]
    return _Counts(
        _of_classes(labels, number),
        _of_classes(torch.where(pseudo.certain.flatten(), labels, -1), number),
        _of_classes(true.flatten(), number),
        torch.stack([((predicted == teacher) & (teacher >= 0)).sum(), (teacher >= 0).sum()]),
        _of_classes(bins.flatten(), BINS),
        pseudo.confidence.double().sum()[None],
        labels.new_zeros(2, dtype=torch.long),
    )


@torch.no_grad()
def _stood(engine: SelfTrainer) -> Tensor:
    method = engine.method
    images = engine.copies.first(torch.as_tensor(engine.state.batch["unlabelled"]).as_subclass(Tensor))
    images = images.to(engine.state.device)
    with engine.precision.autocast():
        alike = method.stands(images, method.pseudo_labels(method.teacher(images)))
    return torch.stack([alike.sum(), torch.full_like(alike.sum(), alike.numel())])


def _of_classes(labels: Tensor, number: int) -> Tensor:
    """Voxels of each class, (number,); below 0 is none. No class is looked up, so that the device is not waited for."""
    counts = labels.new_zeros(number + 1, dtype=torch.long)
    return counts.index_add(0, labels.long() + 1, torch.ones_like(labels, dtype=torch.long))[1:]


def _of_all_processes(counts: _Counts) -> _Counts:
    if world_size() > 1:
        for one in counts:
            dist.all_reduce(one)
    return counts


def _values(counts: _Counts) -> dict[str, float]:
    predicted, counted, labelled, agreed, confidence, certainty, stood = (one.tolist() for one in counts)
    voxels = sum(predicted)
    return {
        **{f"share_{one}": number / voxels for one, number in enumerate(predicted)},
        **{f"labelled_share_{one}": number / max(sum(labelled), 1) for one, number in enumerate(labelled)},
        "certain": sum(counted) / voxels,
        "agreement": agreed[0] / max(agreed[1], 1),
        "contrast_agreement": stood[0] / max(stood[1], 1),
        "confidence": certainty[0] / voxels,
        **{f"confidence_{place / BINS:g}": number / voxels for place, number in enumerate(confidence)},
    }
