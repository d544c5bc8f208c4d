import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from monai_cl.report import PredictionPicture, foreground_dice


def one_hot(classes: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(classes).long(), 3).movedim(-1, 0).float()


def evaluate(predictions: list[np.ndarray], truths: list[np.ndarray], path: Path) -> None:
    picture = PredictionPicture(path, 3, names={1: "left", 2: "right"})

    def step(engine: Engine, number: int) -> list[dict[str, torch.Tensor]]:
        engine.state.batch = [{"image": torch.rand(1, *truths[0].shape), "case": f"case_{number}"}]
        return [{"pred": one_hot(predictions[number]), "label": one_hot(truths[number])}]

    engine = Engine(step)
    picture.attach(engine)
    engine.run(range(len(truths)))


@pytest.mark.parametrize("shape", [(9, 10, 8), (9, 10)])
def test_the_picture_is_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    truths = [np.random.default_rng(i).integers(0, 3, shape) for i in range(4)]
    evaluate(truths, truths, tmp_path / "sub" / "p.png")
    assert (tmp_path / "sub/p.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["p.png"]


def test_a_network_that_says_one_class_everywhere_is_called_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = np.random.default_rng(0).integers(0, 3, (6, 6, 6))
    with caplog.at_level(logging.WARNING):
        evaluate([np.zeros_like(truth)], [truth], tmp_path / "p.png")
    assert "one and the same class everywhere" in caplog.text
    caplog.clear()
    evaluate([truth], [truth], tmp_path / "q.png")
    assert "one and the same class" not in caplog.text


def test_dice_is_the_mean_over_the_classes_present() -> None:
    truth, prediction = np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])
    assert foreground_dice(prediction, truth) == pytest.approx((2 * 1 / 3 + 2 * 1 / 3) / 2)
    assert foreground_dice(truth, truth) == 1.0
    assert np.isnan(foreground_dice(np.zeros(3), np.zeros(3)))
