"""Pretraining from a cache: the batches of the files, and volumes that become unreadable while it runs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import SECONDS
from monai.bundle import ConfigParser
from monai.networks.nets import SegResNet
from test_bundle_runs import TINY, command, fork_two, run

from monai_cl import bundles, weights
from monai_cl.data import PreparedDataset, TooManyFaultsError, load_datalist, write_cache
from monai_cl.data.loading.sampling import ViewDataset, ViewLoader, view_loader
from monai_cl.engine import Checkpoint, GracefulStop, PretrainTrainer, adamw
from monai_cl.methods import VolumeContrast
from monai_cl.transforms import VolumeContrastCropsd

SECTIONS = ("training", "validation", "unlabelled")


@pytest.fixture
def cache(study: Path, tmp_path: Path) -> Path:
    return write_cache(study / "datalist.json", tmp_path / "cache", recipe="small_mr", processes=0).folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.copy("volume_contrast", tmp_path / "bundle")


def volume_file(cache: Path, case: str) -> Path:
    content = json.loads((cache / "cache.json").read_text())
    return next(cache / item["image"] for name in SECTIONS for item in content[name] if item["case"] == case)


def cut_short(cache: Path, *cases: str) -> dict[Path, bytes]:
    """Truncate cached volumes; returns what they were."""
    whole = {volume_file(cache, case): volume_file(cache, case).read_bytes() for case in cases}
    for path, content in whole.items():
        path.write_bytes(content[:5000])
    return whole


def loader(cache: Path, *, max_faults: float, workers: int, batch_size: int = 2, steps: int = 8) -> ViewLoader:
    volumes = PreparedDataset(load_datalist(cache, SECTIONS), None, max_faults=max_faults)
    views = ViewDataset(volumes, VolumeContrastCropsd("image", (2, 2, 2), (6, 6, 6), 3), keys=["image"])
    return view_loader(views, len(volumes), batch_size=batch_size, steps=steps, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_volume_cut_short_in_mid_run_is_named_and_left_out(
    cache: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = loader(cache, max_faults=0.2, workers=workers)
    cut_short(cache, "case_3")
    batches = list(found)
    assert [len(batch["case"]) for batch in batches] == [2] * 8
    assert all(len(set(batch["case"])) == 2 and "case_3" not in batch["case"] for batch in batches)
    assert set(batches[0]) == {"image", "case"}
    assert [case for case, _ in found.faults.found] == ["case_3"]
    assert caplog.text.count("left out case_3: ValueError: mmap length") == 1
    assert found.dataset.data.faults == found.faults.found  # type: ignore[attr-defined]


def test_what_takes_the_place_does_not_depend_on_the_number_of_workers(cache: Path) -> None:
    alone, worked = (loader(cache, max_faults=0.2, workers=n) for n in (0, 2))
    cut_short(cache, "case_3")
    for one, two in zip(alone, worked, strict=True):
        assert one["case"] == two["case"]
        assert all(torch.equal(one["image"][key], two["image"][key]) for key in one["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_volumes_stop_after_the_batch_they_are_met_in(cache: Path, workers: int) -> None:
    found = loader(cache, max_faults=0.2, workers=workers)
    cut_short(cache, "case_3", "case_5")
    batches: Iterator[Any] = iter(found)
    seen: list[Any] = []
    with pytest.raises(TooManyFaultsError, match=r"at most 20 %.*got 2 of 8(.|\n)*case_3: .*(.|\n)*case_5: "):
        seen += batches
    assert not {"case_3", "case_5"} & {case for batch in seen for case in batch["case"]}


def test_when_no_volume_is_left_the_reason_is_told(cache: Path) -> None:
    found = loader(cache, max_faults=1.0, workers=0)
    cut_short(cache, *(f"case_{i}" for i in range(8)))
    with pytest.raises(TooManyFaultsError, match=r"needs 2 volumes that can be read, fewer are left(.|\n)*case_\d: "):
        next(iter(found))


def test_another_error_than_of_reading_is_no_fault(cache: Path) -> None:
    volumes = PreparedDataset(load_datalist(cache, SECTIONS), None)
    views = ViewDataset(volumes, VolumeContrastCropsd("image", (2, 2), (6, 6), 3), keys=["image"])
    with pytest.raises(ValueError, match="channel-first with 2 spatial axes"):
        next(iter(view_loader(views, 8, batch_size=2, steps=2)))


def train(cache: Path, folder: Path, *, max_faults: float) -> None:
    torch.manual_seed(0)
    method = VolumeContrast(SegResNet(out_channels=2, blocks_down=(1, 1), blocks_up=(1,)), 8, hidden=16, embedding=8)
    checkpoint = Checkpoint(folder, folder / "network.pt")
    data = loader(cache, max_faults=max_faults, workers=2)
    if max_faults < 0.2:
        cut_short(cache, "case_1", "case_4")
    trainer = PretrainTrainer(
        "cpu", 2, data, method, adamw(method, 1e-3), epoch_length=4,
        train_handlers=[checkpoint, GracefulStop(checkpoint)],
    )  # fmt: skip
    trainer.run()


def test_a_run_stops_with_its_state_saved_and_goes_on_once_the_files_are_mended(cache: Path, tmp_path: Path) -> None:
    whole = {volume_file(cache, case): volume_file(cache, case).read_bytes() for case in ("case_1", "case_4")}
    with pytest.raises(TooManyFaultsError, match=r"may fail(.|\n)*step \d of 8 is in .*checkpoint\.pt: once the files"):
        train(cache, tmp_path / "run", max_faults=0.0)
    step = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["step"]
    assert 1 <= step < 8
    for path, content in whole.items():
        path.write_bytes(content)
    train(cache, tmp_path / "run", max_faults=0.5)
    assert torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["step"] == 8


def parsed(bundle: Path, study: Path, datalist: Path, **overrides: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs/pretrain.yaml"))
    values = {**TINY, "datalist": str(datalist), "dataset_dir": str(study), "epoch_length": 4, **overrides}
    parser.update({key: value for key, value in values.items() if key in parser})
    return parser


def test_the_bundle_takes_a_cache_and_makes_the_batches_it_makes_of_the_files(
    bundle: Path, study: Path, cache: Path
) -> None:
    files, cached = (parsed(bundle, study, path) for path in (study / "datalist.json", cache))
    compared = 0
    for one, two in zip(*(p.get_parsed_content("train#dataloader") for p in (files, cached)), strict=True):
        assert one["case"] == two["case"]
        for key, value in one["image"].items():
            atol = 1.2 * 0.5 / 65532 if key in ("crops", "bases") else 0  # half a step, times the largest scale
            torch.testing.assert_close(two["image"][key], value, atol=atol, rtol=0)
            compared += 1
    assert compared == 4 * 9


def test_a_cache_of_another_recipe_is_refused_by_the_bundle(bundle: Path, study: Path, cache: Path) -> None:
    parser = parsed(bundle, study, cache, recipe_options={"spacing": 2.0})
    with pytest.raises(RuntimeError, match=r"^Failed to instantiate ") as caught:  # MONAI's words
        parser.get_parsed_content("train#dataset")
    assert "the cache was prepared by recipe small_mr, the run asks for recipe small_mr {'spacing': 2.0}" in str(
        bundles._reason(caught.value)
    )


def test_all_steps_run_from_a_cache_and_the_checkpoint_knows_it(bundle: Path, study: Path, cache: Path) -> None:
    for step in ("pretrain", "train", "evaluate"):
        run(bundle, step, study, datalist=str(cache))
    from monai_cl.data import digest

    saved = torch.load(bundle / "runs/pretrain/checkpoint.pt", weights_only=True)
    assert saved["settings"]["datalist"] == digest(cache)
    assert weights.read_contract(bundle / "models/pretrained.pt")["recipe"] == "small_mr"
    record = json.loads((bundle / "runs/pretrain/run.json").read_text())
    assert record["data"]["sha256"] == digest(cache)
    assert record["recipe"]["sha256"] == json.loads((cache / "cache.json").read_text())["cache"]["recipe"]["digest"]


def test_two_processes_stop_together_when_one_meets_too_many(
    bundle: Path, study: Path, cache: Path, tmp_path: Path
) -> None:
    # the file is damaged without a change of its length, so that only reading finds out
    path = volume_file(cache, "case_6")
    path.write_bytes(b"\x93NUMPX" + path.read_bytes()[6:])
    arguments = command(
        bundle, "pretrain", study, ("multi_gpu.yaml",), datalist=str(cache), max_epochs=4, num_workers=1
    )
    process = fork_two(arguments, tmp_path / "two")
    assert process.wait(SECONDS) != 0
    log = (tmp_path / "two/log.txt").read_text()
    assert re.search(r"got 1 of 3(.|\n)*case_6: ValueError", log), log
    assert "the same command goes on from there" in log
    saved = torch.load(bundle / "runs/pretrain/checkpoint.pt", weights_only=True)
    assert 1 <= saved["step"] < 4
    assert len(saved["random"]) == 2
