"""Signals of self-training, and the alarm when pseudo-labels drift."""

import logging
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.losses import DiceCELoss
from torch import Tensor, nn

from monai_cl.engine import DriftError, PseudoLabelSignals, SelfTrainer, SelfTraining, read_history
from monai_cl.engine.class_shares import shares_in_patches
from monai_cl.engine.pseudo_label_signals import drift_symptoms, odd_shares
from monai_cl.transforms import Pseudo, PseudoLabels


def batch() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    image, unlabelled = (torch.rand(2, 1, 8, 8, generator=g) for _ in range(2))
    label = torch.zeros(2, 1, 8, 8)
    label[:, :, 2:6, :4], label[:, :, 2:6, 4:] = 1, 2
    return {"image": image, "label": label, "unlabelled": unlabelled}


def trainer(path: Path, *, on_drift: str = "warn", lr: float = 1e-3, epochs: int = 2, **options: Any) -> SelfTrainer:
    torch.manual_seed(0)
    network = nn.Conv2d(1, 3, 3, padding=1)
    confidence = options.pop("confidence", 0.0)
    method = SelfTraining(
        network, PseudoLabels(3, confidence=confidence), **{"supervised": 0.0, "ramp_up": 0.0, **options}
    )
    return SelfTrainer(
        method, [batch(), batch()], max_epochs=epochs, epoch_length=2,
        loss=DiceCELoss(to_onehot_y=True, softmax=True), optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        train_handlers=[PseudoLabelSignals(path, on_drift=on_drift)],
    )  # fmt: skip


def always(run: SelfTrainer, labels: Tensor, *, certain: bool = True) -> None:
    pseudo = Pseudo(labels, torch.full_like(labels, certain, dtype=torch.bool), torch.full(labels.shape, 0.95))
    real = run.method.pseudo_labels
    run.method.pseudo_labels = type("Given", (), {"__call__": lambda self, logits: pseudo, **vars(real)})()


def test_shares_confidence_and_agreement_are_those_of_counting(tmp_path: Path) -> None:
    run = trainer(tmp_path / "signals.csv", confidence=0.4, epochs=1)
    seen: list[tuple[Pseudo, Tensor, Tensor]] = []

    def remember() -> None:
        assert run.method.last is not None
        seen.append((run.method.last, run.state.output["pred"].argmax(1), run.state.output["label"]))

    run.add_event_handler(Events.ITERATION_COMPLETED, remember)
    run.run()
    (row,) = read_history(tmp_path / "signals.csv")
    labels, certain, confidence = (torch.cat([one[0][i].flatten() for one in seen]) for i in range(3))
    student, targets = torch.cat([one[1] for one in seen]), torch.cat([one[2] for one in seen])
    assert row["step"] == 2
    for one in range(3):
        assert row[f"share_{one}"] == pytest.approx((labels == one).double().mean().item())
        true = targets[:, 0][targets[:, 0] >= 0]
        assert row[f"labelled_share_{one}"] == pytest.approx((true == one).double().mean().item())
    assert row["certain"] == pytest.approx(certain.double().mean().item())
    assert 0 < row["certain"] < 1
    assert row["confidence"] == pytest.approx(confidence.double().mean().item())
    for place in range(10):
        inside = (confidence >= place / 10) & (confidence < (place + 1) / 10)
        assert row[f"confidence_{place / 10:g}"] == pytest.approx(inside.double().mean().item())
    compared = targets[:, 1] >= 0
    assert row["agreement"] == pytest.approx((student == targets[:, 1])[compared].double().mean().item())
    assert run.state.metrics["pseudo_agreement"] == row["agreement"]


def test_there_is_nothing_to_say_while_labelled_volumes_are_alone(tmp_path: Path) -> None:
    trainer(tmp_path / "signals.csv", supervised=1.0).run()
    assert not (tmp_path / "signals.csv").exists()


@pytest.mark.parametrize(
    ("fill", "symptom"),
    [
        (0, "the teacher predicts nothing but background"),
        (2, "class 1 has vanished: 0.0 % of pseudo-labels"),
        (2, "class 2 has swallowed the volume: 100.0 % of pseudo-labels"),
    ],
)
def test_a_drift_is_told_within_an_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fill: int, symptom: str
) -> None:
    run = trainer(tmp_path / "signals.csv", epochs=1)
    always(run, torch.full((2, 1, 8, 8), fill))
    with caplog.at_level(logging.WARNING, "monai_cl"):
        run.run()
    assert symptom in caplog.text
    assert "step 2: " in caplog.text


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({}, "a start on labels alone of 0% of the run, too short from scratch"),
        ({"lr": 0.1}, "a learning rate of 0.1"),
        ({"confidence": 0.9}, "a confidence of 0.9, which 0% of voxels reach"),
        (
            {"supervised": 0.2},
            "a weight of pseudo-labels \\(0.5\\) that is too high for so few labels; ",
        ),
    ],
)
def test_the_likely_cause_is_named_and_the_run_stops_if_asked(
    tmp_path: Path, options: dict[str, Any], cause: str
) -> None:
    run = trainer(tmp_path / "signals.csv", on_drift="stop", **options)
    always(run, torch.zeros(2, 1, 8, 8, dtype=torch.long), certain="confidence" not in options)
    with pytest.raises(DriftError, match=f"pseudo-labels have drifted: step 2: .*{cause}"):
        run.run()


def test_labels_like_the_true_ones_are_no_drift(tmp_path: Path) -> None:
    run = trainer(tmp_path / "signals.csv", on_drift="stop")
    always(run, batch()["label"].long())
    run.run()
    assert [row["step"] for row in read_history(tmp_path / "signals.csv")] == [2, 4]


def test_a_class_that_no_label_holds_is_not_missed() -> None:
    fine = {"share_0": 0.9, "labelled_share_0": 0.8, "share_1": 0.0, "labelled_share_1": 0.0}
    assert drift_symptoms({**fine, "share_2": 0.1, "labelled_share_2": 0.2}) == []


def test_another_word_for_on_drift_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on_drift must be 'stop' or 'warn', got 'ignore'"):
        PseudoLabelSignals(tmp_path / "signals.csv", on_drift="ignore")


def looks(*shares: float) -> list[dict[str, float]]:
    return [{"share_1": share, "expected_share_0": 0.8, "expected_share_1": 0.2} for share in shares]


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((0.05, 0.05), None),  # not for long yet
        ((0.05, 0.05, 0.05), "class 1 is 4.0 times as rare among pseudo-labels as in the labelled volumes"),
        ((0.2, 0.5, 0.5, 0.5), "class 1 is 2.5 times as frequent among pseudo-labels"),
        ((0.5, 0.5, 0.5, 0.5), None),  # said before
        ((0.5, 0.3, 0.5), None),
        ((0.11, 0.11, 0.39), None),  # within the factor
        ((0.0, 0.0, 0.0), None),  # vanished, which is an alarm of its own
    ],
)
def test_a_share_unlike_that_of_the_labelled_volumes_is_told_once_it_lasts(
    shares: tuple[float, ...], said: str | None
) -> None:
    found = odd_shares(looks(*shares))
    assert [said in each for each in found if said] == ([True] if said else [])
    assert len(found) == (said is not None)


def test_a_lasting_odd_share_is_warned_of_in_a_run_once_and_stops_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(tmp_path / "signals.csv", epochs=5)
    few = torch.zeros(1, 8, 8)
    few[:, :2, :4], few[:, 6:, 4:] = 1, 2  # an eighth of the voxels each
    volumes = [{"label": few}]
    PseudoLabelSignals(tmp_path / "of_volumes.csv", on_drift="stop", volumes=volumes).attach(run)
    labels = torch.zeros(2, 1, 8, 8, dtype=torch.long)
    labels[:, :, 2:6, :5], labels[:, :, 2:6, 5:] = 1, 2  # 20 and 12 voxels of 64
    always(run, labels)
    with caplog.at_level(logging.WARNING, "monai_cl"):
        run.run()
    assert caplog.text.count("times as frequent among pseudo-labels") == 1
    assert "step 6: class 1 is 2.5 times as frequent among pseudo-labels as in the labelled volumes" in caplog.text
    row = read_history(tmp_path / "of_volumes.csv")[-1]
    assert [row[f"expected_share_{one}"] for one in range(3)] == [0.75, 0.125, 0.125]


@pytest.mark.parametrize(("size", "axis"), [((3, 2, 4), None), ((4, 6, 9), None), ((3, 2), 1)])
def test_expected_shares_are_those_of_all_places_of_a_patch(size: tuple[int, ...], axis: int | None) -> None:
    g = torch.Generator().manual_seed(0)
    volumes = [{"label": torch.randint(0, 4, (1, 5, 6, 7), generator=g)} for _ in range(2)]
    sides = list(size) if axis is None else [size[0], 1, size[1]]
    shares = []
    for volume in volumes:
        label = torch.nn.functional.pad(volume["label"][0], (0, max(sides[2] - 7, 0)))
        starts = [range(max(n - p, 0) + 1) for n, p in zip(label.shape, sides, strict=True)]
        for a, b, c in product(*starts):
            patch = label[a : a + sides[0], b : b + sides[1], c : c + sides[2]]
            counts = torch.tensor([(patch == one).sum() for one in range(4)], dtype=torch.float64)
            shares.append(counts * len(volumes) / len(list(product(*starts))))
    total = torch.stack(shares).sum(0)
    total[3] = 0  # ignored
    expected = (total / total.sum()).tolist()
    found = shares_in_patches(volumes, size, 4, slice_axis=axis, ignore_index=3)
    assert found == pytest.approx(expected)


def test_a_patch_of_other_dimensions_than_the_volumes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size must have as many sides as the volumes, 3, got \(4, 4\)"):
        shares_in_patches([{"label": torch.zeros(1, 5, 5, 5)}], (4, 4), 2)
