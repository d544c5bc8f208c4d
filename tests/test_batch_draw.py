"""Batches by weights: each volume as often as its weight says, none twice, and what cannot be had is said."""

import logging
from collections import Counter

import numpy as np
import pytest

from monai_cl.data.loading.drawing import BatchDraw, source_weights


def shares(draw: BatchDraw, count: int, batches: int = 4000) -> np.ndarray:
    generator = np.random.default_rng(0)
    drawn = [draw(generator) for _ in range(batches)]
    assert all(len(set(batch.tolist())) == len(batch) == draw.batch_size for batch in drawn)
    found = Counter(np.concatenate(drawn).tolist())
    return np.array([found[item] / batches for item in range(count)])


@pytest.mark.parametrize(
    ("many", "few", "weights", "batch"), [(100, 8, (1, 2), 4), (20, 6, (1, 2), 6), (20, 3, (3, 1), 2)]
)
def test_sources_are_drawn_in_the_proportion_of_their_weights(
    many: int, few: int, weights: tuple[int, int], batch: int
) -> None:
    items = [{"source": "a"}] * many + [{"source": "b"}] * few
    given = source_weights(items, dict(zip("ab", weights, strict=True)))
    found = shares(BatchDraw(many + few, batch, weights=given), many + few)
    assert found[many:].sum() / batch == pytest.approx(weights[1] / sum(weights), abs=0.01)
    assert np.ptp(found[many:]) < 0.05  # the volumes of a source alike


def test_a_source_gives_no_more_than_it_has_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    items = [{"source": "a"}] * 20 + [{"source": "b"}] * 3
    with caplog.at_level(logging.WARNING):
        draw = BatchDraw(23, 4, weights=source_weights(items, {"a": 1, "b": 4}))
    assert "weights ask for some volumes more than once a batch of 4; they are in every batch" in caplog.text
    found = shares(draw, 23)
    assert found[20:].tolist() == [1.0, 1.0, 1.0]
    assert found[:20].sum() == pytest.approx(1.0)
    assert found[:20].tolist() == pytest.approx([1 / 20] * 20, abs=0.015)


def test_batches_repeat_with_the_generator() -> None:
    draw = BatchDraw(10, 3, weights=[1.0] * 5 + [2.0] * 5)
    first, second = (draw(np.random.default_rng(7)).tolist() for _ in range(2))
    assert first == second
    assert draw(np.random.default_rng(8)).tolist() != first


def test_all_pairs_of_items_can_meet() -> None:
    draw, generator = BatchDraw(5, 2, weights=[1.0, 1.0, 2.0, 3.0, 1.0]), np.random.default_rng(0)
    met = {tuple(sorted(draw(generator).tolist())) for _ in range(2000)}
    assert len(met) == 10


@pytest.mark.parametrize(
    ("weights", "told"),
    [([1, 1, 0, 0], "at least 3 items, as many as a batch, must have a weight above 0, got 2"),
     ([1, 1, 1, -1], "weights must be numbers of at least 0"), ([1, 1, 1, np.nan], "weights must be numbers")],
)  # fmt: skip
def test_weights_that_cannot_fill_a_batch_are_refused(weights: list[float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        BatchDraw(4, 3, weights=weights)
