"""Weak labels, balanced batches, and the method of healthy and patients."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from stored_methods import SIZE, network, pairs

from monai_cl.data import StepSampler, WeakLabelBalancedSampler, load_datalist, weak_labels
from monai_cl.methods import CaseControlTerm, CasesAndControls

ITEMS: list[dict[str, Any]] = [
    {"image": "a.nii", "case": "a", "subject": "s1", "cohort": "Patient "},
    {"image": "b.nii", "case": "b", "subject": "s2", "cohort": "control"},
    {"image": "c.nii", "case": "c", "subject": "s2", "cohort": "healthy"},
    {"image": "d.nii", "case": "d", "cohort": 1},
]


def told(items: list[dict[str, Any]]) -> dict[str, int]:
    return {item["case"]: item["patient"] for item in items}


def test_labels_are_read_from_a_field_the_healthy_first(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "monai_cl")
    found = weak_labels(ITEMS)
    assert told(found) == {"a": 1, "b": 0, "c": 0, "d": 1}
    assert [item["patient"] for item in found] == [0, 0, 1, 1]
    assert "weak labels: 2 healthy, 2 patients" in caplog.text
    assert "patient" not in ITEMS[0]


def test_labels_of_a_datalist_pass_what_hides_names(study: Path) -> None:
    items = load_datalist(study / "datalist.json", "training+unlabelled")
    assert [item["patient"] for item in weak_labels(items)] == [0, 0, 0, 1, 1, 1]


def test_a_table_of_the_user_goes_before_the_field(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("subject,group\ns1,NC\ns2,AD\n")
    found = weak_labels(ITEMS[:3], key="group", healthy=["nc"], patients=["ad"], table=table)
    assert told(found) == {"a": 0, "b": 1, "c": 1}
    table.write_text("case,cohort\na,healthy\n")
    assert told(weak_labels(ITEMS, table=table)) == {"a": 0, "b": 0, "c": 0, "d": 1}


def test_labels_that_are_unknown_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cohort of each volume must be one of \['0', .*got 'maybe' \(1, such as e\)"):
        weak_labels([*ITEMS, {"image": "e.nii", "case": "e", "cohort": "maybe"}])
    with pytest.raises(ValueError, match=r"got no label \(2, such as e\); add them to healthy or patients"):
        weak_labels([*ITEMS, {"case": "e"}, {"case": "f", "cohort": " "}])
    with pytest.raises(ValueError, match="the volumes must include healthy and patients, got 0 healthy and 1 patients"):
        weak_labels(ITEMS[:1])
    assert told(weak_labels(ITEMS[:1], both=False)) == {"a": 1}
    with pytest.raises(ValueError, match=r"must be healthy or patient, \['control'\] are both"):
        weak_labels(ITEMS, patients=["Control"])
    table = tmp_path / "table.csv"
    table.write_text("name,cohort\na,healthy\n")
    with pytest.raises(ValueError, match=r"column cohort, named in its first line, got .*, 'cohort'; rename"):
        weak_labels(ITEMS, table=table)
    table.write_text("case,cohort\na,healthy\na,patient\n")
    with pytest.raises(ValueError, match=r"two labels for one case, 'healthy' and 'patient' in rows 2 and 3; keep one"):
        weak_labels(ITEMS, table=table)


def test_texts_of_a_table_are_not_quoted(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("Mueller,19610417\na,healthy\n")  # no line of names
    with pytest.raises(ValueError, match=r"got a text that might name somebody, a text .*put a line of names first"):
        weak_labels(ITEMS, table=table)
    table.write_text("case,cohort\nMueller,healthy\nb,patient\nMueller,Jane\n")
    with pytest.raises(ValueError, match="one case, 'healthy' and a text that might name somebody in rows 2 and 4"):
        weak_labels(ITEMS, table=table)
    table.write_text("case,cohort\na,Mueller\n")
    with pytest.raises(ValueError, match=r"got a text that might name somebody \(1, such as a\)"):
        weak_labels(ITEMS, table=table)


# --- balanced batches

LABELS = [0] * 7 + [1] * 3


def batches(**options: Any) -> list[list[int]]:
    sampler = WeakLabelBalancedSampler(LABELS, options.pop("batch_size", 4), options.pop("steps", 9), **options)
    return [[item for item, _ in batch] for batch in sampler]


@pytest.mark.parametrize(("share", "patients"), [(0.5, 2), (0.3, 1), (0.01, 1), (0.74, 3), (0.99, 3)])
def test_each_batch_holds_its_share_of_patients_and_no_volume_twice(share: float, patients: int) -> None:
    for batch in batches(patients=share):
        assert sum(LABELS[item] for item in batch) == patients
        assert len(set(batch)) == len(batch) == 4


def test_each_kind_goes_round_in_passes() -> None:
    found = batches(batch_size=2, steps=21)
    patients = [item for batch in found for item in batch if LABELS[item]]
    healthy = [item for batch in found for item in batch if not LABELS[item]]
    assert all(sorted(patients[i : i + 3]) == [7, 8, 9] for i in range(0, 21, 3))
    assert all(sorted(healthy[i : i + 7]) == list(range(7)) for i in range(0, 21, 7))
    assert patients[:3] != patients[3:6] or healthy[:7] != healthy[7:14]


def test_batches_follow_from_seed_rank_and_step_alone() -> None:
    whole = list(WeakLabelBalancedSampler(LABELS, 4, 9, seed=3))
    late = WeakLabelBalancedSampler(LABELS, 4, 9, seed=3)
    late.start = 5
    assert isinstance(late, StepSampler)
    assert list(late) == whole[5:]
    assert len(late) == 4
    assert list(WeakLabelBalancedSampler(LABELS, 4, 9, seed=4)) != whole
    assert list(WeakLabelBalancedSampler(LABELS, 4, 9, seed=3, rank=1)) != whole


def test_every_process_has_both_kinds() -> None:
    items = [{"case": str(n), "cohort": "patient" if n % 3 == 0 else "healthy"} for n in range(12)]
    shares = [weak_labels(items)[rank::3] for rank in range(3)]
    assert [sum(item["patient"] for item in share) for share in shares] == [1, 1, 2]


def test_batches_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must be 0 \(healthy\) or 1 \(patient\), got \['2', 'None'\]"):
        WeakLabelBalancedSampler([0, 1, 2, None], 2, 1)
    with pytest.raises(ValueError, match=r"patients must be a share between 0 and 1, got 1\.0"):
        batches(patients=1.0)
    with pytest.raises(ValueError, match="batch_size must be at least 2, for one of each kind, got 1"):
        batches(batch_size=1)
    with pytest.raises(ValueError, match="a batch of 8 takes 4 patients, process 0 has 3; use a smaller batch_size"):
        batches(batch_size=8)


# --- the method


def batch(b: int = 8) -> dict[str, Any]:
    return {"image": pairs(b), "patient": torch.arange(b) % 2}


def test_losses_and_signals_are_those_of_the_two_spaces() -> None:
    torch.manual_seed(0)
    method = CasesAndControls(network(), SIZE, hidden=12, common=6, salient=4)
    found = method(batch())
    total = sum(
        w * found[n]
        for w, n in zip((1, 1, 10, 10), ("common", "salient", "information_less", "joint_entropy"), strict=True)
    )
    torch.testing.assert_close(found["loss"], total)
    assert int(found["patients"]) == 4
    assert int(found["missing"]) == 0
    assert found["salient_length"] > 0
    alone = method({**batch(), "patient": torch.zeros(8).long()})
    assert alone["loss"].isfinite()
    assert (int(alone["missing"]), float(alone["salient_length"])) == (1, 0.0)


def test_a_probe_tells_what_each_space_knows() -> None:
    torch.manual_seed(0)
    method = CasesAndControls(network(), SIZE, hidden=12, common=6, salient=4)
    plain = method.probe([batch(4)])
    assert "common_patient_accuracy" not in plain  # too few volumes for the probe
    bright = batch(12)
    bright["image"] = bright["image"] + 3.0 * bright["patient"].reshape(-1, 1, 1, 1, 1, 1)
    found = method.probe([bright, bright])
    assert found["common_patient_accuracy"] > 0.9
    assert found["salient_patient_accuracy"] > 0.9
    assert {"alignment", "effective_rank", "salient_effective_rank", "salient_ratio"} <= found.keys()


def test_what_a_batch_lacks_is_named() -> None:
    method = CasesAndControls(network(), SIZE, hidden=12)
    with pytest.raises(ValueError, match="a batch must hold 'patient' of each image"):
        method({"image": pairs(4)})
    with pytest.raises(ValueError, match=r"labels must be 0 \(healthy\) or 1 \(patient\), got \[3\]"):
        method({**batch(), "patient": torch.full((8,), 3)})
    with pytest.raises(ValueError, match="pairs of views are contrasted, got 1 of each; set num_views to 2"):
        method({"image": pairs(4)[:, :1], "patient": torch.tensor([0, 1, 0, 1])})
    with pytest.raises(ValueError, match="levels must be 'all' or 'deepest', got 'some'"):
        CaseControlTerm(levels="some")
    with pytest.raises(ValueError, match="norm must be 'batch' or 'layer', got 'group'"):
        CaseControlTerm(norm="group")


def test_the_bundle_states_what_the_datalist_needs() -> None:
    from monai_cl import bundles

    root = bundles.path("cases_and_controls")
    content = json.loads((root / "configs" / "metadata.json").read_text())
    assert content["name"] == "Cases and controls"
