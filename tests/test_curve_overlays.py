"""Arms of a curve whose fine-tuning has overlays of its own, such as self-training."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from test_curve import Pretend, config, curve_of, measure, quiet

from monai_cl.evaluation import run_curve
from monai_cl.evaluation._cells import HANDED
from monai_cl.evaluation._config import read_config
from monai_cl.evaluation._plan import make_plan
from monai_cl.evaluation.curve_plan import plan_curve

__all__ = ["config"]  # a fixture

SELF = {"overlays": ["selftrain"], "settings": {"u_weight": 0.3}}
ARMS: dict[str, Any] = {
    "scratch": {"pretrained": "none"},
    "dense": {"pretrained": {"seeds": [0, 1], "paired": True}},
    "selftrain": {"pretrained": "none", **SELF},
    "dense_selftrain": {"pretrained": {"of": "dense"}, **SELF},
}


class Slower(Pretend):
    """Runs no step; one of self-training takes 0.3 s in place of 0.1 s."""

    def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        code = super().__call__(arguments, log, environment)
        given = self.given[-1]
        if "selftrain" in stems(given) and "evaluate" not in stems(given):
            file = Path(given["output_dir"]) / "timing.json"
            timing = json.loads(file.read_text())
            file.write_text(json.dumps({**timing, "seconds": 3 * timing["seconds"]}))
        return code


def stems(given: Mapping[str, Any]) -> list[str]:
    return [Path(file).stem for file in given["config_file"]]


def short(**changes: Any) -> dict[str, Any]:
    return {"arms": ARMS, "budgets": [1], "convergence": False, **changes}


def test_overlays_of_an_arm_are_laid_on_its_fine_tuning_before_those_of_the_curve(config: Callable[..., Path]) -> None:
    launch = Slower()
    measure(config(**short(overlays=["small"])), launch)
    for given in launch.given:
        arm = re.search(r"/cells/(\w+)/", given["output_dir"])
        if arm is None:
            assert stems(given) == ["pretrain", "small", "timing"]
        elif "labels" not in given:
            assert stems(given) == ["train", "evaluate", "small"]
            assert "u_weight" not in given
        elif arm[1] in ("selftrain", "dense_selftrain"):
            assert stems(given) == ["train", "selftrain", "small", "timing"]
            assert given["u_weight"] == 0.3
        else:
            assert stems(given) == ["train", "small", "timing"]
    tuned = [given for given in launch.given if "/dense_selftrain/" in given["output_dir"] and "labels" in given]
    assert {Path(each).parent.parent.name for each in (given["pretrained"] for given in tuned)} == {"dense"}


def test_scratch_is_given_what_the_fine_tuning_takes_longer_as_well(config: Callable[..., Path]) -> None:
    curve = curve_of(measure(config(**short()), Slower()))
    handed = curve.record["equal_compute"]
    assert set(handed) == {"dense", "selftrain", "dense_selftrain"}
    # 20 steps of 0.1 s, of self-training of 0.3 s; 20 steps of 0.5 s of pretraining
    assert handed["dense"] == {**handed["dense"], "pretraining_seconds": pytest.approx(10), "extra_steps": 100}
    assert "finetuning_seconds" not in handed["dense"]
    assert handed["selftrain"]["finetuning_seconds"] == pytest.approx(4)
    assert handed["selftrain"]["extra_steps"] == 40
    assert handed["dense_selftrain"]["extra_steps"] == 140
    assert curve.arm("scratch_plus_selftrain").note.startswith(
        "4 s that its fine-tuning takes longer are 40 more steps of fine-tuning"
    )
    note = curve.arm("scratch_plus_dense_selftrain").note
    assert note.startswith(
        "10 s of pretraining (mean of 2 measured runs) and 4 s that its fine-tuning takes longer are 140 more steps"
    )
    assert [each.budget for each in curve.differences("selftrain", comparison="equal compute")] == [1]


def test_arms_at_equal_compute_can_be_named(config: Callable[..., Path]) -> None:
    plan = make_plan(read_config(config(**short(equal_compute={"arms": ["dense_selftrain"]}))))
    assert {cell.gets for cell in plan.cells if cell.role == HANDED} == {"dense_selftrain"}
    with pytest.raises(
        ValueError, match=r"arms must be pretrained arms, or have overlays, got 'scratch' \(valid: dens"
    ):
        read_config(config(**short(equal_compute={"arms": ["scratch"]})))


def test_an_arm_without_overlays_is_recorded_as_before(config: Callable[..., Path]) -> None:
    root = measure(config(**short(arms={name: ARMS[name] for name in ("scratch", "dense")})), Slower()).folder
    record = (root / "cells/scratch/labels_1/seed_0/cell.json").read_text()
    launch = Slower()
    measure(config(**short()), launch)
    assert {Path(each).relative_to(root).parts[1] for each in launch.folders()} == {
        "selftrain", "dense_selftrain", "scratch_plus_selftrain", "scratch_plus_dense_selftrain",
    }  # fmt: skip
    assert (root / "cells/scratch/labels_1/seed_0/cell.json").read_text() == record


def test_other_unlabelled_volumes_make_a_self_training_another_one(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    content = json.loads((study / "datalist.json").read_text())
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps(content))
    settings = {**yaml.safe_load(config().read_text())["settings"], "datalist": str(datalist)}
    arms = {name: ARMS[name] for name in ("scratch", "selftrain")}
    measure(config(**short(arms=arms, settings=settings)), Slower())
    datalist.write_text(json.dumps({**content, "unlabelled": content["unlabelled"][1:]}))
    measure(config(**short(arms={"scratch": ARMS["scratch"]}, settings=settings)), Slower())
    with pytest.raises(
        ValueError, match=r"cells/selftrain/labels_1/seed_0 holds a fine-tuning with other settings .dat"
    ):
        measure(config(**short(arms=arms, settings=settings)), Slower())


def test_self_training_with_nothing_unlabelled_is_refused_before_anything_runs(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    content = json.loads((study / "datalist.json").read_text())
    del content["unlabelled"]
    (tmp_path / "list.json").write_text(json.dumps(content))
    settings = {**yaml.safe_load(config().read_text())["settings"], "datalist": str(tmp_path / "list.json")}
    arms = {name: ARMS[name] for name in ("scratch", "selftrain")}
    launch = Slower()
    with pytest.raises(
        ValueError, match=r"arm 'selftrain' needs volumes beside the labelled ones, got budgets up to 4"
    ):
        measure(config(**short(arms=arms, settings=settings, budgets=[1, "all"])), launch)
    assert not launch.given


def test_patients_of_the_evaluation_among_the_unlabelled_are_named(
    config: Callable[..., Path], study: Path, tmp_path: Path
) -> None:
    content = json.loads((study / "datalist.json").read_text())
    content["unlabelled"][0]["subject"] = content["validation"][0]["subject"]
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps(content))
    settings = {**yaml.safe_load(config().read_text())["settings"], "datalist": str(datalist)}
    curve = curve_of(measure(config(**short(settings=settings)), Slower()))
    assert "the fine-tuning of selftrain sees images of 1 patients of validation, without labels" in curve.notes


@pytest.mark.parametrize(
    ("overlay", "answer"),
    [
        (
            "network_def#init_filters: 16",
            r"overlays of arm 'own' must leave the network to the curve, .* got another in",
        ),
        (
            "finetune_epoch_length: 9",
            r"overlays of arm 'own' must leave finetune_epoch_length to the curve.*\(50\), got 9",
        ),
    ],
)
def test_what_is_alike_for_every_arm_is_not_for_an_overlay(
    config: Callable[..., Path], tmp_path: Path, overlay: str, answer: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(overlay + "\n")
    settings = yaml.safe_load(config().read_text())["settings"]
    left = {key: value for key, value in settings.items() if key != "finetune_epoch_length"}
    arms = {"scratch": {"pretrained": "none"}, "own": {"pretrained": "none", "overlays": [str(file)]}}
    with pytest.raises(ValueError, match=answer):
        measure(config(**short(arms=arms, settings=left)))


def test_a_setting_that_no_overlay_knows_is_refused(config: Callable[..., Path]) -> None:
    arms = {**ARMS, "selftrain": {"pretrained": "none", "overlays": ["selftrain"], "settings": {"u_weigth": 1}}}
    with pytest.raises(ValueError, match=r"did you mean '?u_weight"):
        measure(config(**short(arms=arms)))
    arms = {"scratch": ARMS["scratch"], "own": {"pretrained": {}, "settings": {"u_weight": 1}}}
    with pytest.raises(ValueError, match="u_weight"):
        measure(config(**short(arms=arms)))
    with pytest.raises(
        ValueError, match=r"a config or overlay must be a file or one of volume_contrast's .* got 'self'"
    ):
        measure(config(**short(arms={**ARMS, "selftrain": {"pretrained": "none", "overlays": ["self"]}})))


def test_a_stopped_self_training_goes_on_and_leaves_no_checkpoint(config: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "out/cells/selftrain/labels_1/seed_0"
    folder.mkdir(parents=True)
    for name in ("checkpoint.pt", "timing.json"):
        (folder / name).write_text("{}")
    seen: list[bool] = []

    class Watch(Slower):
        def __call__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
            if f"--output_dir={folder}" in arguments:
                seen.append((folder / "checkpoint.pt").exists() and (folder / "timing.json").exists())
            return super().__call__(arguments, log, environment)

    measure(config(**short()), Watch())
    assert seen == [True, True]
    assert not (folder / "checkpoint.pt").exists()


# --- for real


def tiny(config: Callable[..., Path]) -> Path:
    settings = {**yaml.safe_load(config().read_text())["settings"], "finetune_epochs": 2, "finetune_epoch_length": 3}
    arms = {name: ARMS[name] for name in ("scratch", "selftrain")}
    return config(**short(arms=arms, seeds=[0], settings={**settings, "num_workers": 0}))


def test_a_self_trained_network_is_evaluated(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = run_curve(tiny(config), console=quiet())
    assert result.failed == {}
    curve = curve_of(result)
    assert [arm.name for arm in curve.arms] == ["scratch", "selftrain", "scratch_plus_selftrain"]
    assert all(0 <= score.dice <= 1 for score in curve.scores)
    folder = tmp_path / "out/cells/selftrain/labels_1/seed_0"
    assert (folder / "pseudo_labels.csv").is_file()
    record = json.loads((folder / "cell.json").read_text())
    assert record["timing"]["total"] == 6
    assert "selftrain.yaml" in record["settings"]["configs"]
    assert "selftrain.yaml" not in record["evaluation"]["configs"]


@pytest.mark.slow
def test_a_plan_measures_self_training_apart(config: Callable[..., Path]) -> None:
    plan = plan_curve(tiny(config), steps=3, seconds=5, console=Console(quiet=True))
    assert set(plan.step_seconds) == {"fine-tuning", "fine-tuning of selftrain"}
    assert all(kind.seconds > 0 for kind in plan.kinds)
