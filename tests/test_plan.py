"""`monai-cl plan`: what a dry run measures, what it advises, and that it leaves no trace."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.utils import set_determinism
from rich.console import Console
from test_bundle_runs import TINY
from torch.utils.data import DataLoader, Dataset
from typer.testing import CliRunner

from monai_cl import bundles, cli
from monai_cl.data import PreparedDataset, write_cache
from monai_cl.engine.planning import FlightPlan, advise, dry_run, plan_run
from monai_cl.engine.planning.advice import Measured
from monai_cl.engine.planning.timing import time_loader

FAST = {key: TINY[key] for key in TINY if not key.startswith(("finetune", "roi"))}
BUSY = Measured(
    loader=0.01, step=1.0, both=1.02, num_workers=4, cores=16, cuda=True, full_precision=False, from_cache=True,
    gpu_memory=20e3, gpu_memory_total=24e3,
)  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.copy("volume_contrast", tmp_path / "bundle")


def given(bundle: Path, study: Path, **overrides: Any) -> dict[str, Any]:
    where = {"bundle_root": str(bundle), "dataset_dir": str(study), "datalist": str(study / "datalist.json")}
    known = yaml.safe_load((bundle / "configs/pretrain.yaml").read_text(encoding="utf-8"))
    fast = {key: value for key, value in FAST.items() if key in known}  # what the other bundles have is unknown here
    return {**fast, **where, "max_epochs": 50, "epoch_length": 20, **overrides}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


def measured(plan: FlightPlan) -> None:
    assert plan.seconds > 0
    assert plan.loader_seconds > 0
    assert plan.step_seconds > 0
    assert plan.hours == pytest.approx(
        (plan.prepare_seconds + plan.first_batch_seconds + plan.steps * plan.seconds) / 3600
    )
    assert 50 < plan.memory < 1e5
    assert plan.disk > 0


def test_a_plan_of_pretraining_extends_few_steps_to_all_and_leaves_no_trace(bundle: Path, study: Path) -> None:
    before = tree(bundle), tree(study), torch.get_rng_state()
    plan = plan_run(bundle / "configs/pretrain.yaml", steps=4, seconds=20, **given(bundle, study))
    assert (tree(bundle), tree(study)) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
    measured(plan)
    assert (plan.steps, plan.volumes, plan.from_cache) == (1000, 6, False)
    assert plan.prepare_seconds > 0
    assert plan.precision == "fp32"
    assert plan.advice.bottleneck in ("loader", "device")
    assert json.loads(json.dumps(plan.to_dict()))["advice"]["lines"] == plan.advice.lines


def test_a_plan_of_a_cache_prepares_nothing(bundle: Path, study: Path, tmp_path: Path) -> None:
    cache = write_cache(study / "datalist.json", tmp_path / "cache", recipe="small_mr", processes=0).folder
    before = tree(cache)
    plan = plan_run(bundle / "configs/pretrain.yaml", steps=3, seconds=20, **given(bundle, study, datalist=str(cache)))
    assert tree(cache) == before
    assert plan.from_cache
    assert plan.prepare_seconds == 0
    images = [v.stat().st_size for v in (cache / "volumes").iterdir()]
    assert plan.cache_disk == pytest.approx(6 * sum(images) / len(images) / 1e6, rel=0.5)


def test_a_plan_of_fine_tuning_measures_the_supervised_trainer(bundle: Path, study: Path) -> None:
    overrides = {k: v for k, v in {**TINY, **given(bundle, study)}.items() if k not in ("grid", "crop_size")}
    names = ("num_crops", "batch_size", "max_epochs", "epoch_length")
    overrides = {k: v for k, v in overrides.items() if k not in names} | {"finetune_epochs": 7}
    plan = plan_run(bundle / "configs/train.yaml", steps=3, seconds=20, **overrides)
    measured(plan)
    assert plan.steps == 7


def self_training(bundle: Path, study: Path, **overrides: Any) -> FlightPlan:
    settings = {k: v for k, v in {**TINY, **given(bundle, study)}.items() if k.startswith(("finetune", "roi"))}
    where = {k: v for k, v in given(bundle, study).items() if k in ("bundle_root", "dataset_dir", "datalist", "recipe")}
    files = [bundle / "configs" / name for name in ("train.yaml", "selftrain.yaml", "small.yaml")]
    return plan_run(files, steps=3, seconds=20, **{**settings, **where, "finetune_epochs": 7, **overrides})


def test_a_plan_of_self_training_counts_the_unlabelled_volumes_and_prepares_few(
    bundle: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    whole = PreparedDataset._prepare_all

    def count(self: PreparedDataset, items: Any, *args: Any, **kwargs: Any) -> Any:
        prepared.append(len(items))
        return whole(self, items, *args, **kwargs)

    monkeypatch.setattr(PreparedDataset, "_prepare_all", count)
    monkeypatch.setattr(dry_run, "_VOLUMES", 2)
    plan = self_training(bundle, study, labels=1, finetune_batch_size=1, batch_size=1)
    measured(plan)
    assert plan.volumes == 6
    assert prepared == [1, 2]  # one labelled volume, and two of the five others
    assert plan.steps == 7 * TINY["finetune_epoch_length"]


def test_a_plan_of_random_anatomies_needs_no_volumes(bundle: Path) -> None:
    files = [bundle / "configs" / name for name in ("pretrain.yaml", "random_anatomy.yaml", "small.yaml")]
    small = {"patch_size": [16, 16, 16], "batch_size": 1, "max_epochs": 2, "epoch_length": 10}
    plan = plan_run(files, steps=3, seconds=20, bundle_root=str(bundle), **small)
    measured(plan)
    assert (plan.volumes, plan.prepare_seconds, plan.cache_disk, plan.steps) == (0, 0, 0, 20)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(plan.table())
    text = console.export_text()
    assert "none, views are drawn at random" in text
    assert "cache" not in text


def test_a_configuration_that_does_not_train_is_refused(bundle: Path, study: Path) -> None:
    with pytest.raises(ValueError, match=r"needs a configuration that trains, .*inference\.yaml lacks train#trainer"):
        plan_run(bundle / "configs/inference.yaml", bundle_root=str(bundle), dataset_dir=str(study))
    with pytest.raises(ValueError, match="steps must be at least 3"):
        plan_run(bundle / "configs/pretrain.yaml", steps=2)


def test_the_command_line_takes_what_monai_bundle_run_takes(bundle: Path, study: Path, tmp_path: Path) -> None:
    overrides = [text for key, value in given(bundle, study).items() for text in (f"--{key}", _text(value))]
    arguments = ["plan", str(bundle / "configs/pretrain.yaml"), str(bundle / "configs/small.yaml"), *overrides]
    runner = CliRunner(env={"COLUMNS": "160"})
    out = tmp_path / "plan.json"
    result = runner.invoke(cli.app, [*arguments, "--measured-steps", "3", "--json", str(out)])
    assert result.exit_code == 0, result.output
    for words in ("one step", "bottleneck", "1000 steps", "memory", "disk for a cache", "advice"):
        assert words in result.output
    assert json.loads(out.read_text())["steps"] == 1000


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_a_misspelt_override_is_refused(bundle: Path) -> None:
    with pytest.raises(ValueError, match="--max_epoch, did you mean 'max_epochs'"):
        bundles.split_command([str(bundle / "configs/pretrain.yaml"), "--max_epoch", "3"])
    with pytest.raises(ValueError, match=r"a config file must exist, nowhere\.yaml does not"):
        bundles.split_command(["nowhere.yaml", "--max_epochs", "3"])
    files = [str(bundle / "configs" / name) for name in ("pretrain.yaml", "small.yaml")]
    assert bundles.split_command([*files, "--batch_size", "3"]) == (files, {"batch_size": 3})
    assert bundles.split_command(["--config_file", str(files), "--seed=4"]) == (files, {"seed": 4})


def test_a_busy_device_is_told_what_makes_it_less_busy() -> None:
    assert advise(BUSY).bottleneck == "device"
    assert advise(replace(BUSY, full_precision=True)).lines[0].startswith("precision bf16")
    assert "batch_size can grow up to about 4 times" in advise(replace(BUSY, gpu_memory=5e3)).lines[0]
    assert "a GPU, or a smaller crop_size" in advise(replace(BUSY, cuda=False, gpu_memory_total=0)).lines[0]
    assert advise(BUSY).lines[0].startswith("the GPU is busy and well used")


def test_a_slow_loader_is_told_how_many_workers_feed_the_device() -> None:
    slow = replace(BUSY, loader=0.5, step=0.25, both=0.5, num_workers=2)
    assert advise(slow).bottleneck == "loader"
    assert advise(slow).waiting == pytest.approx(0.5)
    assert advise(slow).lines == ["num_workers 4: a batch takes 1 s of one core, the device waits 50 % of the time"]
    few = advise(replace(slow, cores=3)).lines
    assert few[0].startswith("num_workers 3: ")
    assert few[1].startswith("the 3 cores do not keep up")
    serial = advise(replace(slow, num_workers=0, loader=0.25))
    assert serial.lines[0].startswith("num_workers 1: ")


def test_what_does_not_fit_is_said_first() -> None:
    assert (
        advise(replace(BUSY, memory=9e3, memory_free=10e3, from_cache=False))
        .lines[0]
        .startswith("the main memory will not do: a cache")
    )
    assert "fewer num_workers" in advise(replace(BUSY, memory=9e3, memory_free=10e3)).lines[0]
    assert "GPU is nearly full" in advise(replace(BUSY, gpu_memory=23e3)).lines[0]
    assert "the disk will not do" in advise(replace(BUSY, disk=9e3, disk_free=10e3)).lines[0]
    assert "monai-cl cache" in advise(replace(BUSY, from_cache=False, prepare=3600)).lines[-1]


class Sleepy(Dataset[int]):
    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> int:
        time.sleep(0.05)
        return index


def test_a_loader_is_timed_at_its_steady_pace() -> None:
    first, pace, batch = time_loader(DataLoader(Sleepy(), batch_size=1), steps=6, seconds=30)
    assert first >= 0.05
    assert 0.05 <= pace < 0.5
    assert batch.tolist() == [0]


def test_a_loader_that_gives_one_batch_can_be_timed() -> None:
    assert time_loader([7], steps=6, seconds=30)[1:] == (pytest.approx(0, abs=0.1), 7)


def test_the_peak_of_the_memory_is_seen() -> None:
    """In a process of its own: one that has run other tests may hold freed memory, which a block takes again."""
    code = (
        "import time, torch\n"
        "from monai_cl.engine.planning.timing import PeakMemory\n"
        "with PeakMemory().watch() as memory:\n"
        "    before = memory.peak\n"
        "    block = torch.ones(50_000_000)\n"  # 200 MB
        "    time.sleep(1.0)\n"
        "print(memory.peak - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 150 < float(done.stdout) < 400


@pytest.fixture(autouse=True)
def undetermined() -> Iterator[None]:
    yield
    set_determinism(seed=None)
