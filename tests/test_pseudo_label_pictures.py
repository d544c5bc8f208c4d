"""Pseudo-labels kept for pictures, and those of two contrasts compared."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events
from test_selftraining import batches, trainer

from monai_cl.engine import Checkpoint, PseudoLabelPictures, PseudoLabelSignals, read_history, read_pseudo_labels
from monai_cl.engine.pseudo_label_pictures import _slices
from monai_cl.engine.selftraining import at_another_contrast
from monai_cl.transforms import Pseudo


def test_the_same_slices_are_kept_at_moments_spread_over_the_run(tmp_path: Path) -> None:
    (tmp_path / "step_000900.npz").touch()  # of a longer run in this place
    run = trainer(handlers=[PseudoLabelPictures(tmp_path, moments=3, patches=3)], supervised=0.3)
    run.run()
    moments = read_pseudo_labels(tmp_path)
    assert [one.step for one in moments] == [3, 4, 6]
    assert all(np.array_equal(one.image, moments[0].image) for one in moments)
    patches = torch.cat([batches()[step]["unlabelled"] for step in (0, 1)])[:3]
    pseudo = run.method.label(torch.as_tensor(patches).as_subclass(torch.Tensor))
    assert np.array_equal(moments[-1].labels, pseudo.labels[:, 0])
    assert np.array_equal(moments[-1].certain, pseudo.certain[:, 0])
    assert moments[0].image.dtype == moments[0].labels.dtype == np.uint8
    assert (moments[0].image.min(), moments[0].image.max()) == (0, 255)
    for file in tmp_path.iterdir():
        with np.load(file) as kept:
            assert set(kept) == {"step", "image", "labels", "certain"}


def test_an_interrupted_run_keeps_the_moments_of_a_whole_one(tmp_path: Path) -> None:
    def run(folder: str, epochs: int) -> list[bytes]:
        place = tmp_path / folder
        handlers = [Checkpoint(place, place / "model.pt"), PseudoLabelPictures(place / "kept", moments=4)]
        made = trainer(handlers=handlers)
        made.add_event_handler(Events.EPOCH_COMPLETED, lambda: made.terminate() if made.state.epoch == epochs else None)
        made.run()
        return [one.labels.tobytes() for one in read_pseudo_labels(place / "kept")]

    whole = run("whole", 3)
    assert len(whole) == 4
    assert run("broken", 1) == whole[:1]
    assert run("broken", 3) == whole


def test_training_does_not_notice_that_pseudo_labels_are_kept(tmp_path: Path) -> None:
    plain, watched = trainer(), trainer(handlers=[PseudoLabelPictures(tmp_path)])
    plain.run()
    watched.run()
    assert len(read_pseudo_labels(tmp_path)) > 1
    pairs = zip(plain.method.state_dict().values(), watched.method.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_without_pseudo_labels_there_is_nothing_to_keep(tmp_path: Path) -> None:
    trainer(handlers=[PseudoLabelPictures(tmp_path / "kept")], supervised=1.0).run()
    assert not (tmp_path / "kept").exists()
    assert read_pseudo_labels(tmp_path / "kept") == []


def test_of_a_volume_the_middle_slice_is_kept_and_large_ones_are_thinned_out() -> None:
    labels = torch.randint(0, 3, (2, 1, 300, 20, 5))
    kept = _slices(7, torch.rand(2, 2, 300, 20, 5), Pseudo(labels, labels > 0, labels.float()))
    assert np.array_equal(kept.labels, labels[:, 0, ::2, :, 2])
    assert kept.image.shape == kept.certain.shape == (2, 150, 20)


def test_moments_and_patches_must_be_some(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="moments and patches must be at least 1, got 0 and 4"):
        PseudoLabelPictures(tmp_path, moments=0)


def test_another_contrast_keeps_order_and_range_of_each_channel() -> None:
    images = torch.randn(2, 3, 6, 7)
    images[0, 0] = 4.0  # of one value
    changed = at_another_contrast(images)
    assert torch.equal(changed[0, 0], images[0, 0])
    for before, after in zip(images.flatten(0, 1)[1:], changed.flatten(0, 1)[1:], strict=True):
        assert torch.equal(before.flatten().argsort(), after.flatten().argsort())
        torch.testing.assert_close(torch.stack(after.aminmax()), torch.stack(before.aminmax()))
        assert after.mean() < before.mean()


def test_agreement_at_two_contrasts_is_logged_and_may_decide_what_counts(tmp_path: Path) -> None:
    by_intensity = torch.nn.Conv2d(2, 3, 1)  # class 1 from an intensity of 0.5
    for one in by_intensity.parameters():
        torch.nn.init.zeros_(one)
    with torch.no_grad():
        by_intensity.weight[1, 0], by_intensity.bias[1] = 10, -5
    run = trainer(by_intensity, handlers=[PseudoLabelSignals(tmp_path / "signals.csv")], agreement=True)
    run.run()
    images = torch.as_tensor(run.state.batch["unlabelled"]).as_subclass(torch.Tensor)
    labels = run.method.pseudo_labels(run.method.teacher(images)).labels
    changed = run.method.pseudo_labels(run.method.teacher(at_another_contrast(images))).labels
    alike = labels == changed
    assert 0 < alike.double().mean() < 1
    assert read_history(tmp_path / "signals.csv")[-1]["contrast_agreement"] == pytest.approx(
        alike.double().mean().item()
    )
    assert torch.equal(run.method.label(images).certain, alike)
    run.method.agreement = False
    assert bool(run.method.label(images).certain.all())
    _, targets = run.method.mix({**run.state.batch, "unlabelled": images}, 6, 0.9)
    assert bool((targets >= 0).any(1).all())
