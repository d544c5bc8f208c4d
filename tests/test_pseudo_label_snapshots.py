"""Pseudo-labels of one volume are kept as they grow up, and training does not notice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import SliceInferer
from test_pseudo_label_signals import trainer

from monai_cl.engine import PseudoLabelSnapshots

VOLUME = {"image": torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(1))}


def snapshots(path: Path, **options: Any) -> PseudoLabelSnapshots:
    return PseudoLabelSnapshots(path, VOLUME, SliceInferer(roi_size=(8, 8), spatial_dim=2), **options)


def test_looks_are_what_the_teacher_predicts_of_the_middle_slice(tmp_path: Path) -> None:
    run = trainer(tmp_path / "signals.csv", epochs=3)
    snapshots(tmp_path / "kept.npz", times=3).attach(run)
    run.run()
    kept = np.load(tmp_path / "kept.npz")
    assert kept["step"].tolist() == [2, 4, 6]
    assert kept["labels"].shape == (3, 8, 8)
    with torch.no_grad():
        last = run.method.teacher(VOLUME["image"][None, ..., 1]).argmax(1)[0]
    assert kept["labels"][-1].tolist() == last.tolist()
    assert kept["image"].tolist() == VOLUME["image"][0, ..., 1].tolist()


def test_training_does_not_notice(tmp_path: Path) -> None:
    plain, watched = trainer(tmp_path / "a.csv"), trainer(tmp_path / "b.csv")
    snapshots(tmp_path / "kept.npz", times=4).attach(watched)
    plain.run()
    watched.run()
    pairs = zip(plain.method.parameters(), watched.method.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_run_that_goes_on_adds_to_the_looks_before_it_and_drops_later_ones(tmp_path: Path) -> None:
    first = trainer(tmp_path / "signals.csv", epochs=2)
    snapshots(tmp_path / "kept.npz", times=4).attach(first)
    first.run()
    again = trainer(tmp_path / "signals.csv", epochs=2)
    looks = snapshots(tmp_path / "kept.npz", times=4)
    again.state.iteration = 2
    looks._start(again)
    assert looks._steps == [1, 2]
    fresh = trainer(tmp_path / "signals.csv", epochs=1)
    snapshots(tmp_path / "kept.npz", times=1).attach(fresh)
    fresh.run()
    assert np.load(tmp_path / "kept.npz")["step"].tolist() == [2]


def test_no_looks_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="times must be at least 1, got 0"):
        snapshots(tmp_path / "kept.npz", times=0)
