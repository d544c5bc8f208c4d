"""Every bundle runs as its users run it: in order, interrupted, in two processes, with mistakes.

What is called here ``user sees`` is the last line of a run, see :func:`monai_cl.bundles.plain_errors`.
"""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_gate import STEPS, config_files, network, pretrains_on_maps, where
from conftest import write_volume
from forks import SECONDS, Fork, Pair
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from monai_cl import bundles, weights
from monai_cl.engine import random_state, read_history

# Small enough for seconds on one core; an id that the configs of a step do not have is left out.
TINY: dict[str, Any] = {
    "recipe": "small_mr",
    "grid": [2, 2, 2],
    "crop_size": [8, 8, 8],
    "num_crops": 2,
    "batch_size": 2,
    "max_epochs": 1,
    "epoch_length": 1,
    "roi_size": [16, 16, 16],
    "finetune_batch_size": 2,
    "finetune_epochs": 1,
    "finetune_epoch_length": 1,
    "num_workers": 0,
    "in_channels": 1,
    "out_channels": 3,
    "init_filters": 8,
    "dense_stride": 1,
    "exclusion_radius": 1.0,
    "template_size": [16, 16, 16],
    "block": 4,
}
ON_SLICES: dict[str, Any] = {  # in place of the above
    "image_size": [32, 32],
    "roi_size": [32, 32],
    "n_parts": 3,
    "filters": [4, 8, 8, 8],
}
LONG = {"max_epochs": 12, "epoch_length": 3}  # long enough to be interrupted


def options(root: Path, step: str, study: Path, overlays: tuple[str, ...] = (), **overrides: Any) -> dict[str, Any]:
    """Arguments of ``monai.bundle run``."""
    files = config_files(root, *STEPS[step][1], *overlays)
    places = {"bundle_root": str(root), **where(root, step, study)}
    parser = ConfigParser()
    parser.read_config(files)
    tiny = places | TINY | (ON_SLICES if pretrains_on_slices(root) else {})
    values = {key: value for key, value in tiny.items() if key in parser}
    return {"config_file": files, **values, **overrides}


def pretrains_on_slices(root: Path) -> bool:
    """Whether the network of a bundle is for slices."""
    return "slice_axis" in (root / "configs" / "pretrain.yaml").read_text()


def pretrains_on_studies(root: Path) -> bool:
    """Whether a bundle pretrains on studies of several sequences, with templates of these."""
    return "template_size" in (root / "configs" / "pretrain.yaml").read_text()


def pretrains_on_cohorts(root: Path) -> bool:
    """Whether a bundle pretrains on healthy and patients, by a weak label of the volume."""
    return "weak_labels" in (root / "configs" / "pretrain.yaml").read_text()


def tiny_network(root: Path, study: Path) -> torch.nn.Module:
    """The network that the runs here have."""
    given = options(root, "inference", study)
    parser = ConfigParser()
    parser.read_config(given.pop("config_file"))
    parser.update(given)
    net: torch.nn.Module = parser.get_parsed_content("network_def")
    return net


def run(root: Path, step: str, study: Path, overlays: tuple[str, ...] = (), **overrides: Any) -> None:
    """Run a step in this process; logging is left to the test."""
    monai.bundle.run(logging_file=False, **options(root, step, study, overlays, **overrides))


def command(root: Path, step: str, study: Path, overlays: tuple[str, ...] = (), **overrides: Any) -> list[str]:
    """The same as a command."""
    given = options(root, step, study, overlays, **overrides)
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}
    return ["-m", "monai.bundle", "run", *(part for key, value in text.items() for part in (f"--{key}", value))]


def launch(arguments: list[str], folder: Path) -> "subprocess.Popen[str]":
    """Start Python with what it says going to ``folder/log.txt``."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "a") as log:
        return subprocess.Popen(
            [sys.executable, *arguments], stdout=log, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment()
        )


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def fork(arguments: list[str], folder: Path) -> Fork:
    """The same without the start of an interpreter."""
    folder.mkdir(parents=True, exist_ok=True)
    return Fork(arguments, folder / "log.txt", folder, environment())


def fork_two(arguments: list[str], folder: Path) -> Pair:
    """Start two processes as ``torchrun`` does."""
    folder.mkdir(parents=True, exist_ok=True)
    return Pair(arguments, folder / "log.txt", folder, environment())


def finish(process: "subprocess.Popen[str] | Fork | Pair", folder: Path, *, timeout: float = SECONDS) -> str:
    """Wait for a success and return what was said."""
    try:
        code = process.wait(timeout)
    finally:
        process.kill()
    log = (folder / "log.txt").read_text()
    assert code == 0, f"exit code {code}; the end of what was said:\n{log[-6000:]}"
    return log


def wait_for(path: Path, process: "subprocess.Popen[str] | Fork", *, timeout: float = SECONDS) -> None:
    end = time.monotonic() + timeout
    while not path.exists():
        assert process.poll() is None, f"the process ended with {process.poll()} before it wrote {path}"
        assert time.monotonic() < end, f"{path} was not written within {timeout} s"
        time.sleep(0.02)


def two_processes(arguments: list[str]) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *arguments]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def checkpoint(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(root / "runs" / "pretrain" / "checkpoint.pt", weights_only=True)
    return content


def identical(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return bool(torch.equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    return bool(a == b)


@pytest.fixture(scope="module", params=bundles.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def undisturbed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Runs seed every generator and prepend to the path; later tests shall not notice."""
    caplog.set_level(logging.INFO, "monai_cl")
    states, path = random_state.capture(), list(sys.path)
    yield
    set_determinism(seed=None)
    random_state.restore(states)
    sys.path[:] = path


@pytest.fixture(scope="session")
def study(study_with_maps: Path) -> Path:
    """The study that every bundle finds something to pretrain on in."""
    return study_with_maps


@pytest.fixture
def bundle(name: str, tmp_path: Path) -> Path:
    return bundles.copy(name, tmp_path / "bundle")


@pytest.fixture
def own_study(study: Path, tmp_path: Path) -> Path:
    """A copy of the study, to spoil."""
    return Path(shutil.copytree(study, tmp_path / "study"))


def edit(study: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((study / "datalist.json").read_text())
    change(content)
    (study / "datalist.json").write_text(json.dumps(content))


# --- in order


def test_pretrain_train_evaluate_infer(bundle: Path, study: Path) -> None:
    shipped = files(bundle)
    run(bundle, "pretrain", study)
    assert {"models/pretrained.pt", "models/pretrained.json", "runs/pretrain/checkpoint.pt"} <= files(bundle) - shipped
    assert [row["step"] for row in read_history(bundle / "runs" / "pretrain" / "history.csv")] == [1]

    run(bundle, "train", study)
    net = tiny_network(bundle, study)
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    pretrained = torch.load(bundle / "models" / "pretrained.pt", weights_only=True)
    assert state.keys() == pretrained.keys() == net.state_dict().keys()

    run(bundle, "evaluate", study)
    made = bundle / "runs" / "evaluate"
    assert "val_mean_dice" in (made / "metrics.csv").read_text()
    assert "case_4" in (made / "val_mean_dice_raw.csv").read_text()
    assert (made / "predictions.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    run(bundle, "inference", study)
    masks = sorted((bundle / "runs" / "inference").rglob("*.nii.gz"))
    assert len(masks) == 8
    for mask in masks:
        check_mask(mask, study / "images" / mask.name.replace("_seg", ""), classes=TINY["out_channels"])
    assert not [path for path in files(bundle) if Path(path).name.startswith(".")]


@pytest.mark.one_bundle
def test_pretraining_loads_neither_the_report_nor_the_evaluation(bundle: Path, study: Path, tmp_path: Path) -> None:
    given = {**options(bundle, "pretrain", study), "logging_file": False}
    code = (
        f"import sys, monai.bundle\nmonai.bundle.run(**{given!r})\n"
        "above = [m for m in sys.modules if m.startswith(('monai_cl.report', 'monai_cl.evaluation', 'jinja2'))]\n"
        "sys.exit(', '.join(above) or None)"
    )
    finish(launch(["-W", "ignore", "-c", code], tmp_path), tmp_path)


def check_mask(mask: Path, image: Path, *, classes: int) -> None:
    found, source = nib.load(mask), nib.load(image)
    assert found.shape == source.shape
    np.testing.assert_allclose(found.affine, source.affine, atol=1e-5)
    assert found.get_data_dtype() == np.uint8
    values = np.asarray(found.dataobj)
    assert values.dtype == np.uint8
    assert values.max() < classes


@pytest.mark.one_bundle
def test_the_same_run_gives_the_same_files_and_removes_what_a_kill_left(bundle: Path, study: Path) -> None:
    leftover = bundle / "runs" / "pretrain" / ".0123456789abcdef.checkpoint.pt"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    run(bundle, "pretrain", study)
    assert not leftover.exists()
    first = {path: path.read_bytes() for path in bundle.rglob("*.pt")}
    shutil.rmtree(bundle / "runs")
    run(bundle, "pretrain", study)
    assert {path.name for path in first} == {"checkpoint.pt", "pretrained.pt"}
    assert all(path.read_bytes() == content for path, content in first.items())


def test_from_scratch_needs_no_pretraining(bundle: Path, study: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(bundle, "train", study, pretrained="none")
    assert "from scratch: no pretrained weights were asked for" in caplog.text
    assert (bundle / "models" / "model.pt").is_file()


@pytest.mark.one_bundle
def test_crops_larger_than_the_volumes_are_padded(bundle: Path, study: Path) -> None:
    views, size = ("image_size", [48, 48]) if pretrains_on_slices(bundle) else ("crop_size", [24, 24, 24])
    roi_size = [size[0] + 16 - size[0] % 16] * len(size)
    run(bundle, "pretrain", study, **{views: size})
    run(bundle, "train", study, roi_size=roi_size)
    run(bundle, "inference", study, roi_size=roi_size)
    (mask,) = (bundle / "runs" / "inference").rglob("case_0_seg.nii.gz")
    check_mask(mask, study / "images" / "case_0.nii.gz", classes=3)


@pytest.mark.one_bundle
def test_voxels_that_do_not_count_are_left_out_of_training_and_evaluation(
    bundle: Path, own_study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        path = own_study / "labels" / f"case_{number}.nii.gz"
        label = nib.load(path)
        values = np.asarray(label.dataobj, dtype=np.float32)
        values[:, :, :7] = 255  # whole slices among them
        values[0, 0, 8] = np.nan
        nib.save(nib.Nifti1Image(values, label.affine), path)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:  # MONAI's words
        run(bundle, "train", own_study, pretrained="none")
    assert "add `--ignore_index 255`" in str(caught.value.__cause__)
    run(bundle, "train", own_study, pretrained="none", ignore_index=255, finetune_epoch_length=4)
    run(bundle, "evaluate", own_study, ignore_index=255)
    assert "of the voxels are ignored, in 4 of 4 volumes" in caplog.text
    assert "val_surface_distance" in (bundle / "runs" / "evaluate" / "metrics.csv").read_text()
    assert json.loads((bundle / "runs" / "evaluate" / "run.json").read_text())["settings"]["ignore_index"] == 255


# --- interrupted


@pytest.fixture(scope="module")
def uninterrupted(name: str, study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    root = bundles.copy(name, folder / "bundle")
    finish(fork(command(root, "pretrain", study, **LONG), folder), folder)
    return root


@pytest.mark.one_bundle
def test_a_killed_run_goes_on_to_the_same_end(bundle: Path, study: Path, tmp_path: Path, uninterrupted: Path) -> None:
    arguments = command(bundle, "pretrain", study, **LONG)
    process = fork(arguments, tmp_path)
    wait_for(bundle / "runs" / "pretrain" / "checkpoint.pt", process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    log = finish(fork(arguments, tmp_path), tmp_path)
    assert re.search(r"resumed .*checkpoint\.pt at step \d+ of 36", log)
    assert identical(checkpoint(bundle), checkpoint(uninterrupted))
    for file in ("models/pretrained.pt", "runs/pretrain/history.csv"):
        assert (bundle / file).read_bytes() == (uninterrupted / file).read_bytes()
    assert not list(bundle.rglob(".*.pt"))  # the kill may have left one half written


@pytest.mark.one_bundle
def test_a_run_asked_to_stop_stops_cleanly_and_goes_on(
    bundle: Path, study: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    arguments = command(bundle, "pretrain", study, **LONG)
    process = fork(arguments, tmp_path)
    wait_for(bundle / "runs" / "pretrain" / "checkpoint.pt", process)
    process.terminate()
    assert process.wait(SECONDS) == 128 + signal.SIGTERM  # `pretrain && train` must not go on with half a network
    log = (tmp_path / "log.txt").read_text()
    step = checkpoint(bundle)["step"]
    assert 3 <= step < 36
    assert f"asked to stop: step {step} of 36 is in" in log
    assert not [path for path in files(bundle) if Path(path).name.startswith(".")]
    finish(fork(arguments, tmp_path), tmp_path)
    assert identical(checkpoint(bundle), checkpoint(uninterrupted))
    ours, theirs = (root / "runs/pretrain/history.csv" for root in (bundle, uninterrupted))
    assert ours.read_bytes() == theirs.read_bytes()


# --- two processes


@pytest.mark.slow
def test_two_processes_that_were_killed_keep_their_record(bundle: Path, name: str, study: Path, tmp_path: Path) -> None:
    whole = bundles.copy(name, tmp_path / "whole")
    settings: dict[str, Any] = {**LONG, "on_collapse": "warn"}
    commands = [
        two_processes(command(root, "pretrain", study, ("multi_gpu.yaml",), **settings)) for root in (whole, bundle)
    ]
    finish(launch(commands[0], tmp_path / "log"), tmp_path / "log")
    for how in ("kill", "terminate"):
        process = launch(commands[1], tmp_path)
        wait_for(bundle / "runs/pretrain/checkpoint.pt", process)
        getattr(process, how)()
        process.wait(SECONDS)
    finish(launch(commands[1], tmp_path), tmp_path)
    ours, theirs = (root / "runs/pretrain/history.csv" for root in (bundle, whole))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.one_bundle
def test_two_processes_pretrain_fine_tune_and_evaluate(bundle: Path, study: Path, tmp_path: Path) -> None:
    overlays = ("multi_gpu.yaml",)
    shipped = files(bundle)
    # the processes are what this is about: few steps on a few tiny volumes learn little that an alarm could judge
    settings: dict[str, Any] = {"max_epochs": 40, "epoch_length": 4, "on_collapse": "warn"}
    arguments = command(bundle, "pretrain", study, overlays, **settings)
    process = launch(two_processes(arguments), tmp_path)
    wait_for(bundle / "runs" / "pretrain" / "checkpoint.pt", process)
    process.terminate()  # torchrun hands it on
    process.wait(SECONDS)
    then = checkpoint(bundle)
    epochs = then["step"] // 4 + 2
    log = finish(fork_two([*arguments, "--max_epochs", str(epochs)], tmp_path), tmp_path)
    assert f"at step {then['step']} of {4 * epochs}" in log
    content = checkpoint(bundle)
    assert content["step"] == 4 * epochs
    assert len(content["random"]) == 2
    assert not identical(content["random"][0]["torch"], content["random"][1]["torch"])
    assert not identical(content["method"], then["method"])
    steps = [row["step"] for row in read_history(bundle / "runs" / "pretrain" / "history.csv")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 4 * epochs
    assert log.count(f"pretrain {4 * epochs}/{4 * epochs}") == 1

    finish(fork_two(command(bundle, "train", study, overlays), tmp_path), tmp_path)
    log = finish(fork_two(command(bundle, "evaluate", study, overlays), tmp_path), tmp_path)
    assert log.count("evaluate 1/1") == 1
    table = (bundle / "runs" / "evaluate" / "val_mean_dice_raw.csv").read_text()
    assert all(table.count(case) == 1 for case in ("case_4", "case_5"))
    made = files(bundle) - shipped
    assert not [path for path in made if Path(path).name.startswith(".")]
    assert len([path for path in made if path.startswith("runs/train/tensorboard")]) == 1
    templates = {path for path in made if path.startswith("models/templates/")}
    assert len(templates) == (2 if pretrains_on_studies(bundle) else 0)
    names = sorted(path for path in made - templates if "tensorboard" not in path)
    assert len(names) == len(set(names))
    assert names == sorted(
        [
            *(f"models/{name}" for name in ("model.json", "model.pt", "pretrained.json", "pretrained.pt")),
            *(f"runs/pretrain/{name}" for name in ("checkpoint.pt", "health.csv", "history.csv", "run.json")),
            *(f"runs/train/{name}" for name in ("history.csv", "run.json")),
            *(name for name in names if name.startswith("runs/evaluate/")),
        ]
    )
    tables = [f"val_{m}_{kind}.csv" for m in ("mean_dice",) for kind in ("raw", "summary")]
    assert {f"runs/evaluate/{name}" for name in ("metrics.csv", "predictions.png", *tables)} <= set(names)


# --- with mistakes


@pytest.mark.one_bundle
def test_the_last_line_of_a_failed_command_is_the_reason(bundle: Path, study: Path, tmp_path: Path) -> None:
    before = files(bundle)
    process = launch(command(bundle, "pretrain", study, crop_sizes=[4, 4, 4]), tmp_path)
    assert process.wait(SECONDS) == 1
    lines = (tmp_path / "log.txt").read_text().strip().splitlines()
    assert lines[-1].startswith("error: an override must name an id of the config files, unknown: --crop_sizes, did")
    assert not any(line.startswith("Traceback") for line in lines)
    assert files(bundle) == before


def user_sees(bundle: Path, step: str, study: Path, overlays: tuple[str, ...] = (), **overrides: Any) -> str:
    """The reason with which a run fails, having written nothing that could be taken for a result."""
    before = files(bundle)
    with pytest.raises(RuntimeError, match=r"^Failed to (evaluate|instantiate) ") as caught:  # MONAI's words
        run(bundle, step, study, overlays, **overrides)
    bundles.release()  # as the end of the process does
    left = {path for path in files(bundle) - before if "tensorboard" not in path}
    assert left == set()
    return bundles._reason(caught.value)


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "recipe": ("pretrain", {"recipe": "smal_mr"}, r"unknown recipe 'smal_mr', did you mean 'small_mr'\? \(valid: "),
    "recipe option": ("pretrain", {"recipe_options": {"spacin": 1}}, r"no parameter 'spacin', did you mean 'spacing'"),
    "section": ("pretrain", {"sections": "unlabeled"}, r"has no section 'unlabeled'; did you mean 'unlabelled'\?"),
    "no datalist": ("pretrain", {"datalist": "none.json"}, r"no such datalist: none\.json; `monai-cl scan FOLDER"),
    "no datalist to train": ("train", {"datalist": "none.json"}, r"no such datalist: none\.json; `monai-cl scan"),
    "no datalist to evaluate": ("evaluate", {"datalist": "none.json"}, r"no such datalist: none\.json; `monai-cl"),
    "batch": ("pretrain", {"batch_size": 7}, r"must be between 1 and the number of (volumes|patients) \(6\), got 7"),
    "flat crop": ("pretrain", {"crop_size": [8, 8]}, r"grid, crop_size .*must have the same 1 to 3 axes, got"),
    "precision": ("pretrain", {"precision": "fp16"}, r"on a CPU must be 'fp32', 'bf16' or 'auto', got 'fp16'"),
    "no pretraining": (
        "train",
        {"pretrained": "models/pretrained.pt"},
        r"no file of weights at .*pretrained\.pt; run the step that writes it first, or ",
    ),
    "labels": ("train", {"labels": 9, "pretrained": "none"}, r"between 1 and 4 \(4 items of 4 subjects\), got 9"),
    "too few channels": (
        "train",
        {"out_channels": 2},
        r"out_channels must be 3 for the .*\(0: background, 1: left, 2: right\), got 2; ",
    ),
    "no model": ("evaluate", {}, r"no file of weights at .*model\.pt"),
    "no model to infer": ("inference", {}, r"no file of weights at .*model\.pt"),
    "one process": ("pretrain", {"overlays": ("multi_gpu.yaml",)}, r"needs the environment of torchrun, .*`torchrun "),
}


OF_MAPS: dict[str, tuple[str, dict[str, Any], str]] = {  # in place of the above
    "section": ("pretrain", {"sections": "unlabeled", "datalist": "DATALIST"}, r"did you mean 'unlabelled'\?"),
    "batch": (
        "pretrain",
        {"batch_size": 19},
        r"batch_size must be between 1 and the number of volumes \(18\), got 19; ",
    ),
    "flat crop": (
        "pretrain",
        {"crop_size": [16, 16]},
        r"crop_size must have the 3 axes of the volumes",
    ),
    "images, not maps": (
        "pretrain",
        {"datalist": "DATALIST", "dataset_dir": "STUDY"},
        r"needs quantitative maps, .* 4 of 4 items .* have a single image.*by the bundle volume_contrast",
    ),
    "no maps": ("pretrain", {"dataset_dir": "IMAGES"}, r"must hold maps with BIDS suffixes \('T1map'.*found none"),
    "unknown sequence": ("pretrain", {"sequences": ["flare"]}, r"'flare'.*did you mean 'flair'"),
    "no such map": ("pretrain", {"maps": ["pd", "t1", "mtsat"]}, r"mtsat.*cannot be had from"),
}


OF_SLICES: dict[str, tuple[str, dict[str, Any], str]] = {
    "flat crop": ("pretrain", {"image_size": [8, 8, 8]}, r"image_size must have 2 sides with slab 1"),
}


OF_COHORTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "batch": (
        "pretrain",
        {"batch_size": 7},
        r"a batch of 7 takes 4 patients, process 0 has 3; use a smaller batch_size",
    ),
    "flat crop": ("pretrain", {"crop_size": [8, 8]}, r"crop_size must have the 3 axes of the volumes, got \(8, 8\)"),
}


OF_STUDIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "flat crop": ("pretrain", {"crop_size": [8, 8]}, r"crop_size and template_size must have the same axes, .* got"),
}


@pytest.mark.parametrize("mistake", {**MISTAKES, **OF_MAPS})
def test_a_mistake_is_answered_with_what_is_allowed_and_what_to_do(mistake: str, bundle: Path, study: Path) -> None:
    known = MISTAKES | (OF_MAPS if pretrains_on_maps(bundle) else OF_SLICES if pretrains_on_slices(bundle) else {})
    known |= OF_STUDIES if pretrains_on_studies(bundle) else {}
    known |= OF_COHORTS if pretrains_on_cohorts(bundle) else {}
    if mistake not in known:
        pytest.skip("a mistake that one can make with maps alone")
    step, overrides, answer = known[mistake]
    places = {"DATALIST": str(study / "datalist.json"), "IMAGES": str(study / "images"), "STUDY": str(study)}
    given = {key: places.get(value, value) if isinstance(value, str) else value for key, value in overrides.items()}
    said = user_sees(bundle, step, study, **given)
    assert re.search(answer, said), said


# overrides of nested ids, which no setting of the head of a config names, and what is said of them
NESTED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "volume_contrast": (
        {
            "loss#link": "relu",
            "loss#regularizer_weight": 0,
            "views#flip_prob": 0.0,
            "method#bases_without_gradient": True,
        },
        ("regularizer_weight: 1.0 -> 0", "flip_prob: 0.2 -> 0.0", "bases_without_gradient: False -> True", "'relu'"),
    ),
    "sequence_contrast": (
        {"artefacts#noise_prob": 0.0, "geometry#rotation": 3.0, "method#global_loss#temperature": 0.2},
        ("noise_prob: 0.8 -> 0.0", "rotate_range", "temperature: 0.5 -> 0.2"),
    ),
    "cases_and_controls": (
        {"geometry#prob": 0.5, "method#salient": 16, "method#joint_entropy_weight": 3.0},
        ("prob: 1.0 -> 0.5", "joint_entropy: 10.0 -> 3.0", "heads"),
    ),
    "missing_sequences": (
        {"method#view_weights": [1.0, 1.0], "method#temperature": 0.5, "views#k": 2, "mask_rate": 0.5},
        ("mask_rate: 0.8 -> 0.5", "temperature: 1.0 -> 0.5", "k: 4 -> 2"),
    ),
    "global_local_contrast": (
        {"geometry#prob": 0.5, "intensity#transforms#3#std": 0.1, "method#norm": "layer"},
        ("prob: 1.0 -> 0.5", "std: 0.05 -> 0.1", "projector"),
    ),
}


def test_a_run_does_not_go_on_with_another_objective_or_other_views(name: str, bundle: Path, study: Path) -> None:
    run(bundle, "pretrain", study)
    overrides, named = NESTED[name]
    said = user_sees(bundle, "pretrain", study, max_epochs=2, **overrides)
    assert "was made with other settings" in said
    assert not [text for text in named if text not in said], said
    run(bundle, "pretrain", study, max_epochs=2)
    assert checkpoint(bundle)["step"] == 2
    record = json.loads((bundle / "runs" / "pretrain" / "run.json").read_text())
    assert record["resolved"] == checkpoint(bundle)["resolved"]


def test_the_weights_of_another_network_are_refused(bundle: Path, study: Path) -> None:
    (bundle / "models").mkdir(exist_ok=True)
    weights.save_network(network(bundle, "train"), bundle / "models" / "other.pt", contract={"init_filters": 16})
    other = str(bundle / "models" / "other.pt")
    said = user_sees(bundle, "train", study, pretrained=other)
    assert re.search(r"at least 90 % of the parameters of \w+ must match, got \d.*another network or conf", said), said
    for step in ("evaluate", "inference"):
        said = user_sees(bundle, step, study, model=other)
        assert "other.pt does not fill the network" in said
        assert "The file was written with init_filters=16; pass the same settings and overlays" in said


def test_a_folder_without_scans_is_refused(bundle: Path, study: Path, tmp_path: Path) -> None:
    run(bundle, "train", study, pretrained="none")
    said = user_sees(bundle, "inference", study, dataset_dir="nowhere")
    assert said == "no scan, series or folder at nowhere; give an existing one as dataset_dir"
    (tmp_path / "empty").mkdir()
    said = user_sees(bundle, "inference", study, dataset_dir=str(tmp_path / "empty"))
    assert re.match(
        r"no NIfTI or DICOM files below the folder \(0 other files\); scan a folder that holds some", said
    ), said


def test_a_patient_on_both_sides_is_refused(bundle: Path, own_study: Path) -> None:
    edit(own_study, lambda content: content["validation"][0].update(subject="s1"))
    said = user_sees(bundle, "train", own_study, pretrained="none")
    assert re.search(r"no patient may be in both training and validation, got 1 \(s1\).*; move all volumes", said)


def test_labels_beyond_the_channels_are_refused(bundle: Path, own_study: Path) -> None:
    edit(own_study, lambda content: content.pop("labels"))
    said = user_sees(bundle, "train", own_study, pretrained="none", out_channels=2)
    assert re.search(r"labels must be 0 to 1 for 2 output channels, 4 of 4 volumes have others \(case_0 has", said), (
        said
    )
    assert "for classes up to 2 add `--out_channels 3`" in said


def test_test_images_may_be_listed_as_bare_paths(bundle: Path, own_study: Path) -> None:
    edit(own_study, lambda content: content.update(test=["images/case_7.nii.gz"]))
    run(bundle, "train", own_study, pretrained="none")
    assert (bundle / "models" / "model.pt").is_file()


def test_a_truncated_file_is_named_and_left_out_or_stops_the_run(
    bundle: Path, own_study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maps = pretrains_on_maps(bundle)
    file = own_study / ("maps/sub-01_R1map.nii.gz" if maps else "images/case_1.nii.gz")
    case, total = ("sub-01", 18) if maps else ("case_1", 6)
    file.write_bytes(file.read_bytes()[:2000])
    said = user_sees(bundle, "pretrain", own_study, max_faults=0.04)
    assert re.search(rf"at most 4 % of the volumes may fail \(max_faults\), got 1 of {total}; mend or rem", said), said
    assert re.search(rf"{case}: .*{file.name}", said), said
    caplog.clear()
    run(bundle, "pretrain", own_study, max_faults=0.2)
    assert re.search(rf"left out {case}: .*{file.name}", caplog.text)
    assert (bundle / "models" / "pretrained.pt").is_file()


@pytest.mark.one_bundle
def test_a_fresh_volume_that_cannot_be_read_is_left_out_of_inference(bundle: Path, own_study: Path) -> None:
    run(bundle, "train", own_study, pretrained="none")
    write_volume(own_study / "images" / "new.nii.gz", 9)
    file = own_study / "images" / "new.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])
    run(bundle, "inference", own_study, max_faults=0.2)
    assert len(list((bundle / "runs" / "inference").rglob("*.nii.gz"))) == 8
