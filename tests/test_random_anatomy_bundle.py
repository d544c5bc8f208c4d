"""Pretraining on random anatomies in the bundles: without data, its receipt, resumed bit for bit, fine-tuned."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from test_bundle_runs import identical, run

from monai_cl import bundles, weights
from monai_cl.engine import read_history, read_run_record
from monai_cl.phantoms import RandomAnatomy

OVERLAY = "random_anatomy.yaml"
FORMS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "planes": ("global_local_contrast", (OVERLAY,), {"image_size": [16, 16], "filters": [4, 8, 8]}),
    "volumes": (
        "global_local_contrast",
        (OVERLAY, "volumes.yaml"),
        {"image_size": [16, 16, 8], "filters": [4, 8, 8]},
    ),
    "segresnet": ("volume_contrast", (OVERLAY,), {"patch_size": [16, 16, 16]}),
}


def pretrain(root: Path, form: str, **changes: Any) -> dict[str, Any]:
    name, overlays, sizes = FORMS[form]
    bundle = root if root.exists() else bundles.copy(name, root)
    given = {"max_epochs": 2, "epoch_length": 1, "batch_size": 2, "probe_volumes": 2, **sizes, **changes}
    nothing = {"dataset_dir": None, "datalist": None, "recipe": None}
    run(bundle, "pretrain", root / "no data", overlays, **{**given, **nothing})
    content: dict[str, Any] = torch.load(root / "runs/pretrain_random_anatomy/checkpoint.pt", weights_only=True)
    return content


@pytest.mark.parametrize("form", FORMS)
def test_pretraining_needs_no_data_and_says_so(form: str, tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    pretrain(root, form)
    contract = weights.read_contract(root / "models/pretrained_random_anatomy.pt")
    assert contract["data"] == "random anatomies: no patient"
    assert (contract["seed"], contract["steps"], contract["method"]) == (0, 2, "random_anatomy")
    assert "recipe" not in contract
    untouched = {n.split(".")[0] for n in set(_learnt(root)) - set(contract["touched"])}
    assert untouched <= {"output_block", "conv_final", "heads", "skip_layers"}
    folder = root / "runs/pretrain_random_anatomy"
    assert {"label", "label_coarse", "dense"} <= set(read_history(folder / "history.csv")[-1])
    assert "label_match" in read_history(folder / "health.csv")[-1]
    record = read_run_record(folder)
    assert record["recipe"] is None
    assert "datalist" not in record["data"]
    assert record["resolved"]["views"]["transform"]["class"].endswith("RandomAnatomy")


def _learnt(root: Path) -> list[str]:
    state = torch.load(root / "models/pretrained_random_anatomy.pt", weights_only=True)
    return [name for name in state if "running_" not in name and "num_batches" not in name]


def test_a_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pretrain(tmp_path / "whole", "planes")
    made, calls = RandomAnatomy.apply, []

    def failing(self: RandomAnatomy, draw: Any) -> Any:
        calls.append(draw)
        if len(calls) > 4:  # two of the probe, two of the first step
            raise RuntimeError("the power went out")
        return made(self, draw)

    with monkeypatch.context() as patch:
        patch.setattr(RandomAnatomy, "apply", failing)
        with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:  # MONAI's words
            pretrain(tmp_path / "parts", "planes")
    bundles.release()
    assert "the power went out" in str(caught.value.__cause__)
    assert torch.load(tmp_path / "parts/runs/pretrain_random_anatomy/checkpoint.pt", weights_only=True)["step"] == 1
    parts = pretrain(tmp_path / "parts", "planes")
    assert identical(whole["method"], parts["method"])
    assert identical(whole["optimizer"], parts["optimizer"])


def test_other_settings_of_the_views_are_not_gone_on_with(tmp_path: Path) -> None:
    pretrain(tmp_path / "bundle", "planes")
    with pytest.raises(RuntimeError, match="Failed to evaluate") as caught:  # MONAI's words
        pretrain(tmp_path / "bundle", "planes", simulated=0.9, max_epochs=3)
    bundles.release()
    assert "views.transform.appearance.simulated: 0.4 -> 0.9" in bundles._reason(caught.value)


def test_fine_tuning_starts_from_the_weights(tmp_path: Path, study: Path) -> None:
    root = tmp_path / "bundle"
    pretrain(root, "segresnet")
    run(root, "train", study, pretrained=str(root / "models/pretrained_random_anatomy.pt"))
    receipt = read_run_record(root / "runs/train")["receipt"]
    assert receipt["share"] == pytest.approx(1.0)
    assert receipt["touched"]


@pytest.mark.parametrize("form", FORMS)
def test_terms_look_at_the_last_two_maps_of_the_default_decoder(form: str) -> None:
    name, overlays, _ = FORMS[form]
    parser = ConfigParser()
    parser.read_config([str(bundles.path(name) / "configs" / file) for file in ("pretrain.yaml", *overlays)])
    method = parser.get_parsed_content("method")
    blocks = {term: method.terms[term].blocks for term in method.terms}
    last = len(list(getattr(method.network, "upsamples", getattr(method.network, "up_layers", []))))
    assert blocks == {"label": last, "label_coarse": last - 1, "dense": last - 1}
    assert method.weights == {"label": 1.0, "label_coarse": 1.0, "dense": 0.5}
