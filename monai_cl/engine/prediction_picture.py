"""A picture of what a network got right and wrong: its best, middle and worst case."""

import logging
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from monai_cl.engine.drawing import class_legend, new_figure, save, show_slice

logger = logging.getLogger(__name__)

_COLUMN = 34  # characters of a title that are as wide as a slice


@dataclass(frozen=True)
class _Case:
    name: str
    dice: float
    image: np.ndarray  # one slice (x, y) of each
    truth: np.ndarray
    prediction: np.ndarray


class PredictionPicture:
    """Draw truth beside prediction for the best, median and worst case of an evaluation, each case once.

    The slice is the one that shows most of the truth. Only that slice of each case is kept in memory. Warns when a
    network predicts one class everywhere in every case.

    Args:
        path: The PNG file.
        num_classes: Number of classes with the background.
        names: Names of the classes, for the legend.
    """

    def __init__(self, path: str | Path, num_classes: int, *, names: dict[int, str] | None = None) -> None:
        self.path = Path(path)
        self.names = names or {label: f"class {label}" for label in range(1, num_classes)}
        self._cases: list[_Case] = []
        self._constant = True

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose post-processing leaves one-hot ``pred`` and ``label``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._draw)

    def _start(self, engine: Engine) -> None:
        self._cases.clear()
        self._constant = True

    def _collect(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            prediction, truth = _classes(output["pred"]), _classes(output["label"])
            self._constant &= len(np.unique(prediction)) == 1
            image = np.asarray(torch.as_tensor(item["image"]).cpu())[0]
            cut = _fullest_slice(truth)
            dice = foreground_dice(prediction, truth)
            self._cases.append(_Case(str(item.get("case", "")), dice, cut(image), cut(truth), cut(prediction)))

    def _draw(self, engine: Engine) -> None:
        if not self._cases:
            return
        if self._constant:
            logger.warning("the network predicts one and the same class everywhere: it has not learned the task")
        known = [case for case in self._cases if not np.isnan(case.dice)]
        ranked = sorted(known or self._cases, key=lambda case: case.dice)
        chosen: dict[int, list[str]] = {}
        for word, place in (("best", len(ranked) - 1), ("median", len(ranked) // 2), ("worst", 0)):
            chosen.setdefault(place, []).append(word)
        figure = new_figure(7.5, 3 * len(chosen))
        axes = figure.subplots(len(chosen), 3, squeeze=False)
        for row, (place, words) in zip(axes, chosen.items(), strict=True):
            case, word = ranked[place], " and ".join(words)
            show_slice(row[0], case.image, title=f"{word}:\n{fill(case.name, _COLUMN)}")
            show_slice(row[1], case.image, case.truth, title="truth")
            show_slice(row[2], case.image, case.prediction, title=f"prediction, Dice {case.dice:.3f}")
        figure.suptitle(
            f"{len(ranked)} case{'s'[: len(ranked) > 1]}, Dice is the mean over the classes of a case", fontsize=10
        )
        class_legend(figure, self.names)
        logger.info("wrote %s", save(figure, self.path))


def foreground_dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    r"""Mean of :math:`2|A \cap B| / (|A| + |B|)` over the classes of the truth; NaN if it has none but background.

    A class that only the prediction has is left out, as by ``MeanDice`` in the table of an evaluation.
    """
    labels = np.unique(truth)
    scores = [
        2 * np.sum((prediction == k) & (truth == k)) / (np.sum(prediction == k) + np.sum(truth == k))
        for k in labels[labels > 0]
    ]
    return float(np.mean(scores)) if scores else float("nan")


def _classes(one_hot: Tensor) -> np.ndarray:
    return np.asarray(torch.as_tensor(one_hot).argmax(0).cpu())


def _fullest_slice(truth: np.ndarray) -> Any:
    if truth.ndim == 2:
        return lambda volume: volume
    index = int((truth > 0).sum(axis=(0, 1)).argmax())
    return lambda volume: volume[..., index]
