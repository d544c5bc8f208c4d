"""Healthy and patients of several sites: numbers of sites, the term, what it takes out of embeddings, the bundle."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from stored_methods import SIZE, network, pairs
from test_bundle_runs import edit, run, user_sees
from torch import Tensor

from monai_cl import bundles, weights
from monai_cl.data import weak_labels, with_domains
from monai_cl.engine import adamw, read_history
from monai_cl.losses import CrossDomainSupConLoss
from monai_cl.methods import CrossDomainTerm, InstanceTerm, Method

OVERLAYS = ("across_sites.yaml",)
ITEMS: list[dict[str, Any]] = [
    {"case": "a", "site": "north", "cohort": "patient"},
    {"case": "b", "site": "south", "cohort": "healthy"},
    {"case": "c", "site": 3, "cohort": "healthy"},
    {"case": "d", "site": "north", "cohort": "healthy"},
]


def test_sites_are_numbered_in_the_order_of_their_names(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "monai_cl")
    found = {item["case"]: (item["patient"], item["domain"]) for item in weak_labels(ITEMS, domain_key="site")}
    assert found == {"a": (1, 1), "b": (0, 2), "c": (0, 0), "d": (0, 1)}
    assert "sites: 3, of 1 to 2 volumes" in caplog.text
    assert "of the values of 'patient', 1 come from one site alone" in caplog.text
    assert "domain" not in weak_labels(ITEMS)[0]


def test_volumes_without_a_site_and_labels_of_one_site_each_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'scanner' must name the site of each volume, 4 of 4 have none, such as a;"):
        weak_labels(ITEMS, domain_key="scanner")
    with pytest.raises(ValueError, match=r"'site' must name .* 1 of 3 have none, such as b; add it"):
        with_domains([ITEMS[0], {**ITEMS[1], "site": " "}, {"site": "x"}], "site")
    with pytest.raises(ValueError, match="one label must come from two sites, got 2 by the field 'site' and labels of"):
        weak_labels(ITEMS[:2], domain_key="site")
    assert [item["domain"] for item in with_domains(ITEMS[:1], "site")] == [0]
    assert [item["domain"] for item in weak_labels(ITEMS[:1], both=False, domain_key="site")] == [0]


# --- the term


def term(**options: Any) -> CrossDomainTerm:
    return CrossDomainTerm(hidden=12, embedding=6, **options)


def batch(number: int = 4) -> dict[str, Any]:
    return {"image": pairs(number), "patient": torch.tensor([0, 0, 1, 1]), "domain": torch.tensor([0, 1, 0, 0])}


def test_the_loss_is_that_of_all_views_as_rows_and_what_has_no_positive_is_counted() -> None:
    torch.manual_seed(0)
    method = Method(network(), {"across": term(norm="layer")}, image_size=SIZE)
    found = method(batch())
    one = method.terms["across"]
    z = one.embed(method._extractors()["image"], batch())  # type: ignore[operator]
    marks = [torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 0, 0, 0])]
    torch.testing.assert_close(found["loss"], CrossDomainSupConLoss(0.1, fallback="skip")(z.flatten(0, 1), *marks))
    assert float(found["skipped"]) == 0.5  # patients, all of one site
    assert found["across_std"] > 0


def test_a_loss_of_ones_own_and_what_a_batch_lacks() -> None:
    strict = Method(network(), {"across": term(loss=CrossDomainSupConLoss())}, image_size=SIZE)
    with pytest.raises(ValueError, match=r"at least two domains, labels \[1\] sit in one"):
        strict(batch())
    method = Method(network(), {"across": term(label_key="disease", domain_key="scanner")}, image_size=SIZE)
    with pytest.raises(ValueError, match="a batch must hold 'disease' of each image"):
        method(batch())
    with pytest.raises(ValueError, match="a batch must hold 'scanner' of each image"):
        method({**batch(), "disease": torch.zeros(4).long()})


# --- what it is for: a disease that shows in a corner, scanners of other brightness


def scanned(number: int, seed: int) -> dict[str, Tensor]:
    """Two noisy views of each of a number of heads, patients with a bright corner, three sites with a gain each."""
    g = torch.Generator().manual_seed(seed)
    patient, domain = torch.arange(number) % 2, torch.arange(number) // 2 % 3
    heads = torch.rand(number, 1, 1, SIZE, SIZE, SIZE, generator=g)
    heads[..., :4, :4, :4] += 1.5 * patient.reshape(-1, 1, 1, 1, 1, 1)
    images = heads * (1 + 0.6 * domain.reshape(-1, 1, 1, 1, 1, 1))
    noise = 0.2 * torch.randn(number, 2, 1, SIZE, SIZE, SIZE, generator=g)
    return {"image": images + noise, "patient": patient, "domain": domain}


def leakage(across: float, *, steps: int = 80) -> dict[str, float]:
    torch.manual_seed(0)
    terms = {"instance": InstanceTerm(hidden=32, embedding=16), "across": CrossDomainTerm(hidden=32, embedding=16)}
    method = Method(network(), terms, weights={"instance": 0.1, "across": across}, image_size=SIZE)
    optimizer = adamw(method, 5e-3)
    for step in range(steps):
        optimizer.zero_grad()
        method(scanned(24, 100 + step))["loss"].backward()
        optimizer.step()
    probe = CrossDomainTerm(hidden=32, embedding=16) if not across else method.terms["across"]
    if not across:  # the embedding that was trained
        probe.projector = method.terms["instance"].projector
        method.terms["across"] = probe
    return {name: float(value) for name, value in method.probe([scanned(60, 1), scanned(60, 2)]).items()}


def test_contrast_across_sites_hides_the_site_and_keeps_the_disease() -> None:
    plain, ours = leakage(0.0), leakage(1.0)
    assert plain["domain_leakage"] > 0.5
    assert ours["domain_leakage"] < 0.5 * plain["domain_leakage"]
    assert ours["label_accuracy"] > 0.9


def test_probes_are_left_out_where_a_site_has_too_few() -> None:
    torch.manual_seed(0)
    method = Method(network(), {"across": term()}, image_size=SIZE)
    found = method.probe([batch()])
    assert not {"domain_leakage", "label_accuracy"} & found.keys()
    assert "alignment" in found


# --- the bundle


@pytest.fixture
def study(study_with_maps: Path, tmp_path: Path) -> Path:
    """A study of two sites, each with healthy and patients."""
    root = Path(shutil.copytree(study_with_maps, tmp_path / "study"))

    def sited(content: dict[str, Any]) -> None:
        for section in ("training", "validation", "unlabelled"):
            for number, item in enumerate(content[section]):
                item["source"] = "north" if number < 2 else "south"

    edit(root, sited)
    return root


def test_the_overlay_pretrains_on_sites_and_refuses_a_list_without(study: Path, tmp_path: Path) -> None:
    root = bundles.copy("cases_and_controls", tmp_path / "bundle")
    run(root, "pretrain", study, OVERLAYS, batch_size=4, epoch_length=2)
    (row,) = read_history(root / "runs/across_sites/history.csv")
    assert {"across", "instance", "skipped", "retrieval"} <= row.keys()
    contract = weights.read_contract(root / "models/pretrained_sites.pt")
    assert contract["method"] == "across_sites"
    said = user_sees(root, "pretrain", study, OVERLAYS, batch_size=4, domain_key="scanner")
    assert "the field 'scanner' must name the site of each volume, 6 of 6 have none" in said
    assert json.loads((root / "runs/across_sites/run.json").read_text())["settings"]["domain_key"] == "source"
