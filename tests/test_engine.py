import logging
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.networks.nets import SegResNet
from torch import Tensor, nn

from monai_cl import bundles
from monai_cl.data.loading.sampling import ViewDataset, view_loader
from monai_cl.engine import (
    Checkpoint,
    CheckpointMismatchError,
    FiniteLoss,
    FinitePredictions,
    GracefulStop,
    History,
    NonFiniteLossError,
    PretrainTrainer,
    ProgressLine,
    adamw,
    read_history,
    warmup_cosine,
)
from monai_cl.engine.precision import choose_precision
from monai_cl.losses import VolumeContrastLoss
from monai_cl.methods import Method, VolumeContrast
from monai_cl.transforms import VolumeContrastCropsd
from monai_cl.weights import NonFiniteWeightsError

STEPS, EPOCH = 12, 4


class At:
    """Call something when a step is done."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.step), self.action)


def data() -> list[dict[str, Any]]:
    g = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(1, 20, 20, 12, generator=g), "case": f"v{i}"} for i in range(5)]


def build(
    folder: Path,
    *handlers: Any,
    resume: bool = True,
    epochs: int = STEPS // EPOCH,
    variant: str = "monai_cl",
    crops: dict[str, Any] | None = None,
    loss: nn.Module | None = None,
    **settings: Any,
) -> PretrainTrainer:
    torch.manual_seed(7)
    transform = VolumeContrastCropsd("image", (2, 2, 1), (8, 8, 8), 2, **(crops or {}))
    views = ViewDataset(data(), transform, keys=["image"])  # type: ignore[arg-type]
    loader = view_loader(views, 5, batch_size=2, steps=epochs * EPOCH, seed=1)
    network = SegResNet(out_channels=2, blocks_down=(1, 1), blocks_up=(1,))
    method = VolumeContrast(network, 8, variant=variant, loss=loss, hidden=16, embedding=8)
    optimizer = adamw(method, 1e-3)
    checkpoint = Checkpoint(folder, folder / "network.pt", resume=resume, settings=settings)
    return PretrainTrainer(
        "cpu",
        epochs,
        loader,
        method,
        optimizer,
        epoch_length=EPOCH,
        scheduler=warmup_cosine(optimizer, epochs * EPOCH),
        train_handlers=[checkpoint, GracefulStop(checkpoint), History(folder / "history.csv", every=1), *handlers],
    )


def state(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return content


def identical(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return bool(torch.equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    build(folder).run()
    return folder


def crash(engine: Engine) -> None:
    raise KeyError("power cut")


@pytest.mark.parametrize("step", [5, 8, 11])
def test_a_run_that_died_and_went_on_equals_an_uninterrupted_one(
    step: int, tmp_path: Path, uninterrupted: Path
) -> None:
    with pytest.raises(KeyError, match="power cut"):
        build(tmp_path, At(step, crash)).run()
    assert state(tmp_path)["step"] == (step - 1) // EPOCH * EPOCH
    torch.rand(100)  # whatever happened to the generators in between
    build(tmp_path).run()
    assert identical(state(tmp_path), state(uninterrupted))
    assert (tmp_path / "history.csv").read_bytes() == (uninterrupted / "history.csv").read_bytes()


def long_history(folder: Path) -> History:
    return History(folder / "long.csv", every=5)  # 5 and 12 are no multiples of an epoch


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("recorded")
    build(folder, long_history(folder)).run()
    return (folder / "long.csv").read_bytes()


@pytest.mark.parametrize("crashes", [[4], [5], [6], [8], [9], [11], [12], [6, 9, 12]])
def test_the_record_of_a_run_that_died_is_that_of_an_uninterrupted_one_byte_for_byte(
    crashes: list[int], tmp_path: Path, recorded: bytes
) -> None:
    for step in crashes:
        with pytest.raises(KeyError, match="power cut"):
            build(tmp_path, At(step, crash), long_history(tmp_path)).run()
    if len(crashes) > 1:
        (tmp_path / "long.csv").unlink()  # what a kill between checkpoint and record would lose
    build(tmp_path, long_history(tmp_path)).run()
    assert (tmp_path / "long.csv").read_bytes() == recorded
    assert [line.partition(b",")[0] for line in recorded.splitlines()] == [b"step", b"5", b"10", b"12"]


@pytest.mark.parametrize("step", [3, 5, 6, 11])
def test_the_record_of_a_run_that_was_asked_to_stop_is_the_same_too(step: int, tmp_path: Path, recorded: bytes) -> None:
    stop = At(step, lambda engine: os.kill(os.getpid(), signal.SIGTERM))
    build(tmp_path, stop, long_history(tmp_path)).run()
    assert state(tmp_path)["step"] == step
    build(tmp_path, long_history(tmp_path)).run()
    assert (tmp_path / "long.csv").read_bytes() == recorded


def test_a_run_that_is_made_longer_records_as_if_it_had_been_so_from_the_start(tmp_path: Path) -> None:
    for folder, lengths in ((tmp_path / "whole", [3]), (tmp_path / "longer", [2, 3, 3])):
        for epochs in lengths:
            trainer = build(folder, long_history(folder), epochs=epochs)
            for group in trainer.optimizer.param_groups:
                group["lr"] = 0.0  # the schedule depends on the length
            trainer.scheduler = None
            trainer.run()
    assert (tmp_path / "longer/long.csv").read_bytes() == (tmp_path / "whole/long.csv").read_bytes()


def test_a_checkpoint_with_nan_is_neither_written_nor_gone_on_from(tmp_path: Path) -> None:
    def spoil(engine: Engine) -> None:
        next(iter(engine.inner_method.parameters())).data.fill_(float("nan"))

    build(tmp_path, epochs=1).run()
    with pytest.raises(NonFiniteWeightsError, match="in the method at step 8"):
        build(tmp_path, At(8, spoil)).run()
    content = state(tmp_path)
    assert content["step"] == 4
    name = next(iter(content["method"]))
    content["method"][name].fill_(float("inf"))
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(NonFiniteWeightsError, match=rf"method\.{re.escape(name)} .*checkpoint\.pt"):
        build(tmp_path).run()


TEACHERS = {
    "cvpr": ((), set()),
    "10k": (("network.", "terms."), {"network", "terms"}),
    "v2": (("terms.",), {"terms"}),
}


@pytest.mark.parametrize("variant", TEACHERS)
def test_published_arrangements_go_on_bit_for_bit_with_their_teacher(variant: str, tmp_path: Path) -> None:
    build(tmp_path / "whole", variant=variant).run()
    with pytest.raises(KeyError, match="power cut"):
        build(tmp_path / "cut", At(6, crash), variant=variant).run()
    torch.rand(100)
    build(tmp_path / "cut", variant=variant).run()
    whole, cut = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert identical(whole, cut)
    kept = {name.split(".")[2] for name in whole["method"] if name.startswith("teacher.")}
    assert kept == TEACHERS[variant][1]


@pytest.mark.parametrize("variant", ["10k", "v2"])
def test_the_teacher_in_a_checkpoint_is_the_running_mean_of_the_student_after_each_step(
    variant: str, tmp_path: Path
) -> None:
    trainer = build(tmp_path, variant=variant, epochs=1)
    method, followed = trainer.method, TEACHERS[variant][0]
    expected = {
        "teacher.module." + name: value.clone()
        for name, value in method.state_dict().items()
        if name.startswith(followed)
    }

    def follow(engine: Engine) -> None:
        for name, value in method.state_dict().items():
            if name.startswith(followed):
                expected["teacher.module." + name].lerp_(value, 1 - 0.9)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, follow)
    trainer.run()
    saved = {name: value for name, value in state(tmp_path)["method"].items() if name.startswith("teacher.")}
    assert saved.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value)
    moving = [n for n, p in method.named_parameters() if p.requires_grad and n.startswith(followed)]
    assert any(not torch.equal(saved["teacher.module." + n], method.state_dict()[n]) for n in moving)


def test_sigterm_saves_the_very_step_and_ends_the_run(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[bool] = []
    monkeypatch.setattr(bundles, "stopped", lambda: codes.append(True))
    build(tmp_path, At(6, lambda engine: os.kill(os.getpid(), signal.SIGTERM))).run()
    assert state(tmp_path)["step"] in (6, 7)  # the signal may be seen a step later
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert codes == [True]
    build(tmp_path).run()
    assert codes == [True]
    assert identical(state(tmp_path), state(uninterrupted))


def test_a_checkpoint_holds_everything_and_loads_restricted(uninterrupted: Path) -> None:
    content = state(uninterrupted)
    assert {"method", "optimizer", "scheduler", "grad_scaler", "random", "step", "settings"} <= set(content)
    assert any(name.startswith("teacher.") for name in content["method"])
    assert any(name.startswith("terms.position.projector.") for name in content["method"])


def test_the_network_is_handed_over_as_a_plain_state_dict(uninterrupted: Path) -> None:
    network = SegResNet(out_channels=2, blocks_down=(1, 1), blocks_up=(1,))
    plain = torch.load(uninterrupted / "network.pt", weights_only=True)
    assert plain.keys() == network.state_dict().keys()
    network.load_state_dict(plain)


def test_no_partial_file_remains(uninterrupted: Path) -> None:
    assert sorted(p.name for p in uninterrupted.iterdir()) == [
        "checkpoint.pt", "history.csv", "network.json", "network.pt",
    ]  # fmt: skip


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, epochs=1).run()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    trainer = build(tmp_path, epochs=2)

    def disk_full(content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="no space left"):
        trainer.run()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    build(tmp_path).run()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    build(tmp_path).run()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_other_settings_are_named_instead_of_mixed(tmp_path: Path) -> None:
    build(tmp_path, epochs=1, grid=[2, 2, 1]).run()
    with pytest.raises(CheckpointMismatchError, match=r"grid: \[2, 2, 1\] -> \[3, 3, 1\].*--resume false"):
        build(tmp_path, epochs=2, grid=(3, 3, 1)).run()
    build(tmp_path, epochs=2, grid=(2, 2, 1)).run()  # a tuple is no other grid
    assert state(tmp_path)["step"] == 2 * EPOCH


def test_a_setting_that_the_checkpoint_does_not_know_is_no_other_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, epochs=1, grid=[2, 2]).run()
    with caplog.at_level("INFO"):
        build(tmp_path, epochs=2, grid=[2, 2], anchors=1024).run()  # a newer version names more of them
    assert "does not state the anchors it was made with" in caplog.text
    assert state(tmp_path)["step"] == 2 * EPOCH


def test_a_change_that_no_setting_names_is_refused_with_both_values(tmp_path: Path) -> None:
    build(tmp_path, epochs=1).run()
    loss = VolumeContrastLoss("monai_cl", regularizer_weight=0.0)
    with pytest.raises(
        CheckpointMismatchError, match=r"method\.terms\.position\.loss\.regularizer_weight: 1\.0 -> 0\.0"
    ):
        build(tmp_path, epochs=2, loss=loss).run()
    with pytest.raises(CheckpointMismatchError, match=r"views\.transform\.crops\.flip_prob: 0\.2 -> 0\.0"):
        build(tmp_path, epochs=2, crops={"flip_prob": 0.0}).run()
    build(tmp_path, epochs=2, loss=VolumeContrastLoss("monai_cl")).run()  # the very loss, given otherwise
    assert state(tmp_path)["step"] == 2 * EPOCH


def test_a_checkpoint_without_resolved_settings_is_accepted_once_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, epochs=1).run()
    content = state(tmp_path)
    del content["resolved"], content["versions"]
    torch.save(content, tmp_path / "checkpoint.pt")
    build(tmp_path, epochs=2).run()
    assert "cannot be compared this once" in caplog.text
    with pytest.raises(CheckpointMismatchError, match="flip_prob"):
        build(tmp_path, epochs=3, crops={"flip_prob": 0.0}).run()


def test_settings_that_another_version_does_not_know_are_passed_over(tmp_path: Path) -> None:
    build(tmp_path, epochs=1).run()
    content = state(tmp_path)
    content["versions"]["monai_cl"] = "0.0.1"
    del content["resolved"]["method"]["terms"]["position"]["loss"]["temperature"]
    torch.save(content, tmp_path / "checkpoint.pt")
    build(tmp_path, epochs=2).run()
    assert state(tmp_path)["step"] == 2 * EPOCH


def test_a_shorter_run_than_was_done_is_refused(tmp_path: Path) -> None:
    build(tmp_path, epochs=2).run()
    with pytest.raises(CheckpointMismatchError, match="at step 8, beyond the 4 asked for"):
        build(tmp_path, epochs=1).run()


def test_starting_over_ignores_the_checkpoint(tmp_path: Path, uninterrupted: Path) -> None:
    build(tmp_path, epochs=1, other=1).run()
    build(tmp_path, resume=False).run()
    assert identical(state(tmp_path)["method"], state(uninterrupted)["method"])


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint\.pt cannot be read as a checkpoint.*--resume false"):
        build(tmp_path).run()


class Toy(Method):
    """A method whose loss can be spoiled."""

    def __init__(self, bad_from: int = 10**9, what: str = "loss") -> None:
        super().__init__()
        self.network = nn.Linear(2, 1)
        self.calls, self.bad_from, self.what = 0, bad_from, what
        self.progress: list[float] = []

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        self.calls += 1
        loss = self.network(batch["x"]).square().mean()
        if self.calls >= self.bad_from:
            loss = loss * float("nan") if self.what == "loss" else loss + 0 * (self.network.weight.sum() * 0).sqrt()
        return {"loss": loss, "twice": 2 * loss}

    def after_step(self, progress: float) -> None:
        self.progress.append(progress)


def toy(method: Toy, **options: Any) -> PretrainTrainer:
    batches = [{"x": torch.full((2, 2), float(i)), "case": [f"a{i}", f"b{i}"]} for i in range(6)]
    return PretrainTrainer("cpu", 2, batches, method, adamw(method, 0.1), epoch_length=3, **options)


def test_the_teacher_moves_once_a_step_with_the_share_done() -> None:
    method = Toy()
    toy(method).run()
    assert method.progress == pytest.approx([i / 6 for i in range(1, 7)])


@pytest.mark.parametrize(
    ("what", "message"), [("loss", "the loss must be finite"), ("gradient", "the gradient's norm must be finite")]
)
def test_a_value_that_is_not_finite_stops_with_names_and_checkpoint(what: str, message: str, tmp_path: Path) -> None:
    method = Toy(5, what)
    checkpoint = Checkpoint(tmp_path, tmp_path / "n.pt")
    with pytest.raises(NonFiniteLossError, match=rf"step 5: {message}(.|\n)*a4, b4.*{tmp_path}/checkpoint\.pt"):
        toy(method, train_handlers=[checkpoint, GracefulStop(checkpoint)]).run()
    assert all(bool(p.isfinite().all()) for p in method.parameters())
    assert state(tmp_path)["step"] == 3


def test_a_broken_image_is_named_before_it_spoils_the_weights(tmp_path: Path) -> None:
    trainer = build(tmp_path)
    trainer.data_loader.dataset.data[3]["image"][:] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(NonFiniteLossError, match=r"crops must be finite(.|\n)*v3(.|\n)*none was written yet"):
        trainer.run()


def test_gradients_are_clipped_to_the_norm() -> None:
    method = Toy()
    norms: list[float] = []
    trainer = toy(method, max_grad_norm=1e-3)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in method.parameters()))),  # type: ignore[union-attr]
    )
    trainer.run()
    assert max(norms) <= 1e-3 * (1 + 1e-4)


def test_progress_names_the_losses(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="monai_cl.engine.progress"):
        toy(Toy(), train_handlers=[ProgressLine("toy")]).run()
    lines = [r.message for r in caplog.records]
    assert lines[0].startswith("toy 3/6 loss ")
    assert "twice " in lines[-1]
    assert "s/step" in lines[-1]


def test_history_averages_over_its_interval(tmp_path: Path) -> None:
    seen: list[float] = []
    trainer = toy(Toy(), train_handlers=[History(tmp_path / "h.csv", every=2)])
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(float(e.state.output["loss"])))
    trainer.run()
    rows = read_history(tmp_path / "h.csv")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert [row["loss"] for row in rows] == pytest.approx([sum(seen[i : i + 2]) / 2 for i in (0, 2, 4)])


def test_a_fine_tuning_that_died_starts_over_and_so_does_its_record(tmp_path: Path) -> None:
    def fine_tune(*handlers: Any) -> bytes:
        engine = Engine(lambda engine, number: [{"loss": torch.tensor(1 / number)}])
        for handler in (History(tmp_path / "h.csv", every=3), *handlers):
            handler.attach(engine)
        engine.run(range(1, 5), max_epochs=3)
        return (tmp_path / "h.csv").read_bytes()

    whole = fine_tune()
    for step in (2, 5, 9):
        with pytest.raises(KeyError, match="power cut"):
            fine_tune(At(step, crash))
        assert fine_tune() == whole


def evaluator(values: list[float], post: Any) -> SupervisedEvaluator:
    """An evaluator whose network adds to each image its own value."""
    volumes = [{"image": torch.full((1, 4, 4), value), "case": f"c{n}"} for n, value in enumerate(values)]
    return SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(volumes, batch_size=1),  # type: ignore[arg-type]
        nn.Identity(),
        postprocessing=post,
        val_handlers=[FinitePredictions(), ProgressLine("infer")],
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_mask_is_made_of_an_output_that_is_not_finite(bad: float) -> None:
    seen = []
    with pytest.raises(NonFiniteLossError, match=r"it has NaN or infinite values for c1: no mask is written"):
        evaluator([1.0, bad, 2.0], lambda item: seen.append(item["case"]) or item).run()
    assert seen == ["c0"]
    evaluator([1.0, 2.0], lambda item: item).run()


def test_a_loss_that_is_not_finite_names_labelled_and_unlabelled_volumes() -> None:
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(math.nan)})
    FiniteLoss().attach(engine)
    batch = {"image": torch.ones(2), "case": ["a", "b"], "unlabelled_case": ["u", "a"]}
    with pytest.raises(NonFiniteLossError, match=r"step 1: the loss must be finite, got nan\..*batch: a, b, u\. Look"):
        engine.run([batch])


def test_warm_up_then_cosine_to_zero() -> None:
    optimizer = adamw(nn.Linear(2, 2), 1.0)
    schedule = warmup_cosine(optimizer, 100, warmup=0.1)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:11] == pytest.approx([i / 10 for i in range(11)])
    assert rates[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        warmup_cosine(optimizer, 0)


@pytest.mark.parametrize("longer", [60, 200])
def test_a_run_of_another_length_follows_that_length(longer: int) -> None:
    def run(length: int, steps: int, state: dict[str, Any] | None = None) -> tuple[list[float], dict[str, Any]]:
        optimizer = adamw(nn.Linear(2, 2), 1.0)
        schedule = warmup_cosine(optimizer, length, warmup=0.1)
        if state is not None:
            schedule.load_state_dict(state)
        rates = []
        for _ in range(steps):
            optimizer.step()
            schedule.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return rates, schedule.state_dict()

    _, state = run(100, 50)
    gone_on, _ = run(longer, longer - 50, state)
    expected = [0.5 * (1 + math.cos(math.pi * (n - longer / 10) / (longer * 0.9))) for n in range(51, longer + 1)]
    assert gone_on == pytest.approx(expected, abs=1e-9)


def test_biases_and_norms_are_not_decayed_and_frozen_parameters_left_out() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2).requires_grad_(False))
    groups = adamw(module, 0.1, weight_decay=0.3).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.3, 1), (0.0, 3)]
    with pytest.raises(ValueError, match="at least one parameter of the module must require a gradient"):
        adamw(nn.Linear(1, 1).requires_grad_(False), 0.1)


def test_precision_is_full_on_a_cpu_and_says_so() -> None:
    assert choose_precision("auto", torch.device("cpu")).name == "fp32"
    assert choose_precision("bf16", torch.device("cpu")).name == "bf16"
    with pytest.raises(ValueError, match="precision on a CPU must be 'fp32', 'bf16' or 'auto', got 'fp16'"):
        choose_precision("fp16", torch.device("cpu"))
    with pytest.raises(ValueError, match="precision must be one of"):
        choose_precision("fp8", torch.device("cpu"))


def test_every_handler_is_told_of_an_error_before_it_is_raised(tmp_path: Path) -> None:
    told: list[str] = []
    trainer = build(tmp_path, At(2, crash))
    trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: told.append(str(error)))
    with pytest.raises(KeyError, match="power cut"):
        trainer.run()
    assert set(told) == {"'power cut'"}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_validation_adds_its_line_to_the_bar_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda self: True))
    inner, outer = Engine(lambda e, b: {"loss": torch.tensor(0.1)}), Engine(lambda e, b: {"loss": torch.tensor(0.2)})
    ProgressLine("outer").attach(outer)
    ProgressLine("inner").attach(inner)
    tasks: list[list[str]] = []

    def look(engine: Engine) -> None:
        shared = ProgressLine._shared
        tasks.append([] if shared is None else [task.description for task in shared.tasks])

    inner.add_event_handler(Events.ITERATION_COMPLETED(once=1), look)
    outer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: inner.run(range(2)))
    outer.add_event_handler(Events.EPOCH_COMPLETED, look)
    outer.run(range(3))
    assert tasks == [["outer", "inner"], ["outer"]]
    assert ProgressLine._shared is None
