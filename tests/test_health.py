import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.networks.nets import SegResNet
from torch import Tensor, nn

from monai_cl.data import ViewDataset, fixed_batches, probe_batches, split_for_probe
from monai_cl.engine import CollapseError, HealthProbe, PretrainTrainer, adamw, read_history
from monai_cl.losses import VolumeContrastLoss
from monai_cl.methods import Method, VolumeContrast
from monai_cl.transforms import VolumeContrastCropsd

VIEWS = VolumeContrastCropsd("image", (2, 2, 1), (8, 8, 8), 2, flip_prob=0.0, intensity_prob=0.0)


def small_method(**options: Any) -> VolumeContrast:
    torch.manual_seed(0)
    network = SegResNet(out_channels=2, blocks_down=(1, 1), blocks_up=(1,))
    return VolumeContrast(network, 8, hidden=16, embedding=8, **options)


def batches(n: int = 3) -> list[dict[str, Any]]:
    g = torch.Generator().manual_seed(0)
    data = [{"image": torch.rand(1, 20, 20, 12, generator=g)} for _ in range(n)]
    return fixed_batches(ViewDataset(data, VIEWS, keys=["image"]), n, batch_size=2)  # type: ignore[arg-type]


class Toy(Method):
    """Reports a health that the test dictates."""

    def __init__(self, *reports: dict[str, float]) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1)
        self.reports = list(reports)
        self.looks = 0

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": self.network(batch["x"]).square().mean() + 0 * torch.rand(())}

    def probe(self, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
        list(batches)
        torch.rand(100)
        self.looks += 1
        return self.reports[min(self.looks, len(self.reports)) - 1]

    def causes_of_collapse(self) -> list[str]:
        return ["a toy"]


def run(method: Method, path: Path, epochs: int = 4, lr: float = 1e-3, **options: Any) -> PretrainTrainer:
    torch.manual_seed(1)
    probe = HealthProbe([{"x": torch.ones(1)}], path, budget=1e9, **options)
    data = [{"x": torch.ones(2, 1)}] * 2 * epochs
    trainer = PretrainTrainer("cpu", epochs, data, method, adamw(method, lr), epoch_length=2, train_handlers=[probe])
    trainer.run()
    return trainer


HEALTHY = {"effective_rank": 9.0, "uniformity": -2.0}
COLLAPSED = {"effective_rank": 1.0, "uniformity": -2.0}


def test_each_look_is_a_row_and_reaches_the_metrics(tmp_path: Path) -> None:
    trainer = run(Toy(HEALTHY), tmp_path / "h.csv")
    assert [row["step"] for row in read_history(tmp_path / "h.csv")] == [2, 4, 6, 8]
    assert trainer.state.metrics["probe_effective_rank"] == 9.0


def test_looking_does_not_disturb_training(tmp_path: Path) -> None:
    with_probe, without = Toy(HEALTHY), Toy(HEALTHY)
    without.network.load_state_dict(with_probe.network.state_dict())
    run(with_probe, tmp_path / "h.csv")
    after = torch.rand(1)
    torch.manual_seed(1)
    data = [{"x": torch.ones(2, 1)}] * 8
    PretrainTrainer("cpu", 4, data, without, adamw(without, 1e-3), epoch_length=2).run()
    assert torch.equal(with_probe.network.weight, without.network.weight)
    assert torch.equal(after, torch.rand(1))


def test_a_small_budget_means_few_looks_but_always_the_last(tmp_path: Path) -> None:
    method = Toy(HEALTHY)
    probe = HealthProbe([{"x": torch.ones(1)}], tmp_path / "h.csv", budget=0.0)
    data = [{"x": torch.ones(2, 1)}] * 40
    PretrainTrainer("cpu", 20, data, method, adamw(method, 1e-3), epoch_length=2, train_handlers=[probe]).run()
    steps = [row["step"] for row in read_history(tmp_path / "h.csv")]
    assert steps[-1] == 40
    assert len(steps) <= 2


def test_the_second_collapse_in_a_row_stops_the_run_and_names_the_cause(tmp_path: Path) -> None:
    with pytest.raises(CollapseError, match=r"step 6: the representation has collapsed \(effective rank 1\.00.*a toy"):
        run(Toy(HEALTHY, COLLAPSED), tmp_path / "h.csv")


def test_one_bad_look_is_no_reason_to_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(Toy(HEALTHY, COLLAPSED, HEALTHY, COLLAPSED), tmp_path / "h.csv")
    assert caplog.text.count("the representation has collapsed") == 2


def test_warning_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    method = Toy(COLLAPSED)
    run(method, tmp_path / "h.csv", on_collapse="warn")
    assert method.looks == 4
    assert "effective rank 1.00" in caplog.text


def test_the_start_of_a_run_is_given_grace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(Toy(COLLAPSED, HEALTHY), tmp_path / "h.csv", grace=0.5)
    assert "collapsed" not in caplog.text


def test_a_high_learning_rate_comes_first_among_the_causes(tmp_path: Path) -> None:
    with pytest.raises(CollapseError, match=r"Likely causes: a learning rate of 0\.5.*; a toy"):
        run(Toy(COLLAPSED), tmp_path / "h.csv", lr=0.5)


def test_equal_embeddings_are_a_collapse_even_without_a_rank(tmp_path: Path) -> None:
    with pytest.raises(CollapseError, match=r"uniformity 0.000, embeddings nearly equal"):
        run(Toy({"uniformity": 0.0}), tmp_path / "h.csv")


def test_volume_contrast_reports_position_and_spread() -> None:
    values = small_method().eval().probe(batches())
    assert 0 <= values["position_accuracy"] <= 1
    assert 0.25 <= values["chance_accuracy"] <= 1
    assert 0 < values["chance_error_mm"] < 20
    assert values["uniformity"] < 0
    assert 1 < values["effective_rank"] <= 8
    again = small_method().eval().probe(batches())
    assert values.keys() == again.keys()
    assert all(torch.equal(torch.as_tensor(values[name]), torch.as_tensor(again[name])) for name in values)


@pytest.mark.parametrize("variant", ["monai_cl", "cvpr", "10k", "v2"])
def test_the_signals_of_a_probe_are_those_that_loops_find(variant: str) -> None:
    """Similarities by a loop over pairs; dead ones by the gradient that the loss itself sends back."""
    method, batch = small_method(variant=variant, norm="layer").eval(), batches(2)[0]
    values, views = method.probe([batch]), batch["image"]
    extract = method._extractors()["image"]
    student, teacher = method.terms["position"].embed(extract, views["crops"], views["bases"])
    x, z = student
    x_t, z_t = (x, z) if teacher is None else teacher
    positive, negative, dead = [], [], []
    for b, s, k in np.ndindex(*views["overlap"].shape):
        pairs = [(x[b, s], z_t[b, k])] + ([(x_t[b, s], z[b, k])] if variant == "10k" else [])
        for one, other in pairs:
            cosine = torch.cosine_similarity(one, other, dim=0).item()
            (positive if views["overlap"][b, s, k] > 1e-6 else negative).append(cosine)
            if views["overlap"][b, s, k] > 1e-6:
                dead.append(variant != "monai_cl" and cosine <= 0)
    for name, expected in (("positive_cosine", positive), ("negative_cosine", negative)):
        torch.testing.assert_close(values[name].sort().values, torch.tensor(expected).sort().values)
    assert values["dead_pairs"] == pytest.approx(sum(dead) / len(dead))
    if teacher is not None:
        both = [torch.cosine_similarity(a, b, dim=-1).flatten() for a, b in zip(student, teacher, strict=True)]
        assert values["teacher_gap"] == pytest.approx((1 - torch.cat(both)).mean().item(), abs=1e-6)


def test_the_gap_to_the_teacher_opens_when_the_student_moves_and_closes_when_the_teacher_follows() -> None:
    method = small_method(norm="layer", momentum=0.5, momentum_schedule="constant").eval()
    start = method.probe(batches())
    assert start["teacher_gap"] == pytest.approx(0, abs=1e-5)
    assert start["teacher_distance"] == 0
    with torch.no_grad():
        for p in [*method.network.parameters(), *method.terms.parameters()]:
            p.add_(0.1 * torch.randn_like(p))
    apart = method.probe(batches())
    method.after_step(0.0)
    near = method.probe(batches())
    assert apart["teacher_gap"] > near["teacher_gap"] > 1e-4
    assert near["teacher_distance"] == pytest.approx(apart["teacher_distance"] / 2, rel=1e-4)


def test_a_sample_is_kept_as_percentiles_and_drawn_as_a_histogram(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sample = {"cosine": torch.linspace(-1, 1, 101), "empty": torch.zeros(0), "effective_rank": 9.0}
    trainer = run(Toy(sample), tmp_path / "h.csv", epochs=2, log_dir=tmp_path / "tb")  # type: ignore[arg-type]
    row = read_history(tmp_path / "h.csv")[-1]
    assert set(row) == {"step", "effective_rank", "cosine_p10", "cosine_p50", "cosine_p90"}
    assert row["cosine_p10"] == pytest.approx(-0.8, abs=1e-6)
    assert row["cosine_p90"] == pytest.approx(0.8, abs=1e-6)
    assert "probe_cosine" not in trainer.state.metrics
    events = EventAccumulator(str(tmp_path / "tb"), size_guidance={"histograms": 0})
    events.Reload()
    assert events.Tags()["histograms"] == ["probe_cosine"]
    drawn = events.Histograms("probe_cosine")
    assert [event.step for event in drawn] == [2, 4]
    assert drawn[0].histogram_value.num == 101


def test_volume_contrast_names_its_own_pitfalls() -> None:
    assert small_method().causes_of_collapse() == []
    causes = small_method(pool_size=1, loss=VolumeContrastLoss(regularizer_weight=0)).causes_of_collapse()
    assert [cause.split("=")[0] for cause in causes] == ["pool_size", "regularizer_weight"]


def test_a_collapsed_network_is_seen_as_such() -> None:
    method = small_method(norm="layer").eval()
    with torch.no_grad():
        last = method.teacher.module.terms["position"].projector[-1]  # type: ignore[index]
        last.weight.zero_()
    values = method.probe(batches())
    assert values["uniformity"] == pytest.approx(0.0, abs=1e-6)


def datalist(folder: Path, training: int, validation: int) -> Path:
    def item(name: str, subject: str) -> dict[str, str]:
        (folder / name).touch()
        return {"image": name, "subject": subject}

    content = {
        "training": [item(f"t{i}.nii.gz", f"s{i // 2}") for i in range(training)],
        "validation": [item(f"v{i}.nii.gz", f"v{i}") for i in range(validation)],
    }
    (folder / "d.json").write_text(json.dumps(content))
    return folder / "d.json"


def test_a_section_of_its_own_is_probed_on(tmp_path: Path) -> None:
    split = split_for_probe(datalist(tmp_path, 6, 3), "training", "validation", count=2)
    assert len(split["train"]) == 6
    assert len(split["probe"]) == 2
    assert all("v" in item["case"] for item in split["probe"])


def test_without_one_whole_patients_are_held_out(tmp_path: Path) -> None:
    split = split_for_probe(datalist(tmp_path, 30, 0), "training", "validation", count=8)
    assert len(split["probe"]) == 3
    patients = {item["subject"] for item in split["probe"]}
    assert not patients & {item["subject"] for item in split["train"]}


def test_too_few_volumes_give_no_probe_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        split = split_for_probe(datalist(tmp_path, 4, 0), "training", "validation")
    assert split["probe"] == []
    assert len(split["train"]) == 4
    assert "too few volumes to probe with: only 4" in caplog.text
    assert split_for_probe(datalist(tmp_path, 30, 3), "training", "validation", count=0)["probe"] == []


def test_processes_share_the_probe_and_none_looks_alone() -> None:
    items = [{"image": torch.rand(1, 20, 20, 12), "case": f"c{i}"} for i in range(3)]
    parts = [probe_batches(items, dict, VIEWS, keys=["image"], batch_size=4, rank=r, world_size=2) for r in (0, 1)]
    assert sorted(case for part in parts for batch in part for case in batch["case"]) == ["c0", "c1", "c2"]
    assert probe_batches(items[:1], dict, VIEWS, keys=["image"], batch_size=4, rank=0, world_size=2) == []


@pytest.mark.parametrize(
    ("options", "message"), [({"on_collapse": "pray"}, "'stop' or 'warn'"), ({"budget": -1}, "budget")]
)
def test_settings_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HealthProbe([], "h.csv", **options)


@pytest.mark.slow
@pytest.mark.parametrize("healthy", [True, False], ids=["healthy", "made to collapse"])
def test_the_alarm_knows_a_collapse_and_does_not_cry_wolf(healthy: bool, tmp_path: Path) -> None:
    """A learning rate far too high, no dispersal and no repulsion collapse the embeddings; the defaults do not."""
    loss = None if healthy else VolumeContrastLoss(regularizer_weight=0.0, inter_weight=0.0)
    method = small_method(loss=loss, norm="layer")
    if not healthy:
        method.terms["position"].loss.forward = lambda x, z, y, x_t, z_t, partner=None, group=None: {  # type: ignore[method-assign,assignment]
            "loss": (1 - torch.cosine_similarity(x.flatten(0, 1), z_t.mean((0, 1))[None])).mean()
        }
    data = batches(8) * 60
    probe = HealthProbe(batches(4), tmp_path / "h.csv", budget=1e9)
    lr = 1e-3 if healthy else 5e-2
    trainer = PretrainTrainer("cpu", 12, data, method, adamw(method, lr), epoch_length=20, train_handlers=[probe])
    seen: list[float] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(e.state.metrics["probe_effective_rank"]))
    if healthy:
        trainer.run()
        assert min(seen) > 2
    else:
        with pytest.raises(CollapseError, match=r"Likely causes: a learning rate of 0\.05"):
            trainer.run()
