"""Rounds of a federation without a program that carries them: an average of two sites, twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_study
from torch import Tensor, nn

from monai_cl import weights
from monai_cl.engine.federated import FederatedSite, SharedModel, load_weights, weights_of
from monai_cl.engine.run_record import read_run_record

QUICK: dict[str, dict[str, Any]] = {
    "train": {"finetune_epoch_length": 1, "roi_size": [16] * 3, "init_filters": 8, "device": "cpu"},
    "pretrain": {
        "epoch_length": 1, "grid": [2, 2, 2], "crop_size": [8] * 3, "num_crops": 2, "probe_volumes": 0,
        "init_filters": 8, "device": "cpu",
    },
}  # fmt: skip
RUN = {"train": "train", "pretrain": "pretrain"}
pytestmark = [
    pytest.mark.filterwarnings("ignore:Divide by zero"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step"),
    pytest.mark.parametrize("step", ["train", "pretrain"]),
]


def settings(step: str) -> dict[str, Any]:
    return {"recipe": "small_mr", "num_workers": 0, **QUICK[step]}


@pytest.fixture
def sites(step: str, study: Path, tmp_path: Path) -> Iterator[list[FederatedSite]]:
    """Two sites: one with the study of all tests, one with that of its own under a name that must not leave it."""
    folders = [study, write_study(tmp_path / "Yamada")]
    made = [
        FederatedSite(
            "volume_contrast", step, rounds=2, epochs=1,
            settings={
                **settings(step), "bundle_root": str(tmp_path / f"site-{number}"), "dataset_dir": str(folder),
                "datalist": str(folder / "datalist.json"), "seed": number,
            },
        )
        for number, folder in enumerate(folders)
    ]  # fmt: skip
    yield made
    for site in made:
        site.close()


def average(messages: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """What a server does: arrays in the place of tensors, counts become fractions."""
    return {name: np.mean([each[name].numpy() for each in messages], axis=0) for name in messages[0]}


def test_two_sites_train_two_rounds_from_common_weights(step: str, sites: list[FederatedSite], tmp_path: Path) -> None:
    common: dict[str, Any] = SharedModel("volume_contrast", step, settings=settings(step)).state_dict()
    for number in (1, 2):
        messages = [site.train_round(common) for site in sites]
        assert [site.trainer.state.epoch for site in sites] == [number, number]
        assert any(not torch.equal(messages[0][name], messages[1][name]) for name in messages[0]) or number == 1
        common = average(messages)
    with pytest.raises(RuntimeError, match="a site trains 2 epochs in all"):
        sites[0].train_round(common)
    record = read_run_record(tmp_path / "site-1" / "runs" / RUN[step])
    assert len(record["parts"]) == 1  # one run, looked at between epochs
    assert record["parts"][0]["to_step"] == 2


def test_tensors_alone_leave_a_site(step: str, sites: list[FederatedSite]) -> None:
    site = sites[1]
    message = site.train_round(weights_of(site.learner))
    assert all(type(value) is Tensor and value.device.type == "cpu" for value in message.values())
    assert set(message) == set(site.learner.state_dict())
    assert not any("Yamada" in name or "case_" in name for name in message)


def test_a_site_that_is_closed_between_rounds_keeps_what_it_has(step: str, sites: list[FederatedSite]) -> None:
    message = sites[0].train_round(weights_of(sites[0].learner))
    sites[0].close()
    assert sites[0].trainer.state.iteration == 1
    assert all(torch.equal(value, message[name]) for name, value in weights_of(sites[0].learner).items())


def test_a_site_begins_a_round_with_what_it_gets(step: str, sites: list[FederatedSite]) -> None:
    given = {name: torch.full_like(value, 0.5) for name, value in weights_of(sites[0].learner).items()}
    seen: dict[str, Tensor] = {}
    sites[0].trainer.run = lambda: seen.update(weights_of(sites[0].learner))  # type: ignore[method-assign]
    sites[0].train_round(given)
    assert all(torch.equal(seen[name], given[name]) for name in given)


def test_a_shared_model_has_the_names_of_the_learner_and_begins_from_a_file(step: str, tmp_path: Path) -> None:
    first = SharedModel("volume_contrast", step, settings=settings(step), seed=0)
    other = SharedModel("volume_contrast", step, settings=settings(step), seed=1)
    again = SharedModel("volume_contrast", step, settings=settings(step), seed=0)
    prefix = "network." if step == "pretrain" else ""
    network = {k.removeprefix(prefix): v for k, v in other.state_dict().items() if k.startswith(prefix)}
    torch.save(network, tmp_path / "start.pt")
    begun = SharedModel("volume_contrast", step, settings=settings(step), start=str(tmp_path / "start.pt"))
    name = next(name for name in network if name.endswith("weight") and network[name].dim() == 5)
    assert torch.equal(first.state_dict()[prefix + name], again.state_dict()[prefix + name])
    assert not torch.equal(first.state_dict()[prefix + name], other.state_dict()[prefix + name])
    assert torch.equal(begun.state_dict()[prefix + name], other.state_dict()[prefix + name])


def test_weights_of_another_network_are_refused(step: str) -> None:
    module = nn.Linear(2, 3)
    with pytest.raises(ValueError, match="1 differ, such as bias"):
        load_weights(module, {"weight": module.weight})
    with pytest.raises(ValueError, match="1 differ, such as weight"):
        load_weights(module, {"weight": torch.zeros(2, 2), "bias": module.bias})
    with pytest.raises(ValueError, match="step must be one of pretrain, train, got 'evaluate'"):
        SharedModel("volume_contrast", "evaluate")
    with pytest.raises(ValueError, match="rounds and epochs must be at least 1, got 0 and 1"):
        FederatedSite("volume_contrast", step, rounds=0)


def test_averaged_counts_are_rounded(step: str) -> None:
    norm = nn.BatchNorm1d(2)
    state: dict[str, Any] = {**weights_of(norm), "num_batches_tracked": np.float64(2.5001)}
    load_weights(norm, state)
    assert int(norm.num_batches_tracked or 0) == 3


def test_a_state_with_other_things_than_tensors_stays(step: str) -> None:
    class Named(nn.Module):
        def get_extra_state(self) -> str:
            return "a name"

        def set_extra_state(self, state: Any) -> None: ...

    with pytest.raises(TypeError, match="only tensors may leave a site, the state has others: _extra_state"):
        weights_of(Named())


def test_the_global_weights_are_those_that_fine_tuning_takes(step: str, tmp_path: Path) -> None:
    """A server keeps ``{"model": tensors}``; the prefix of a method is removed on the way into the network."""
    shared = SharedModel("volume_contrast", step, settings=settings(step))
    torch.save({"model": shared.state_dict()}, tmp_path / "FL_global_model.pt")
    network = shared._learner[0].network if step == "pretrain" else shared._learner[0]
    assert weights.transfer(network, tmp_path / "FL_global_model.pt").share == 1.0
