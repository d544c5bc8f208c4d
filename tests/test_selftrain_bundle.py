"""Self-training as users of the bundles run it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks import one_hot
from test_bundle_runs import (
    command,
    finish,
    fork_two,
    own_study,
    run,
    tiny_network,
    undisturbed,
    user_sees,
)

from monai_cl import bundles
from monai_cl.data import load_datalist, unlabelled_rest
from monai_cl.engine import PartsLoss, SelfTraining, read_pseudo_labels
from monai_cl.engine.run_record import read_run_record
from monai_cl.transforms import usual_augmentation

__all__ = ["own_study", "undisturbed"]  # fixtures
SHORT: dict[str, Any] = {"finetune_epochs": 3, "finetune_epoch_length": 2, "labels": 2, "pretrained": "none"}
OVERLAY = ("selftrain.yaml",)


def edit(study: Path, **sections: Any) -> None:
    content = json.loads((study / "datalist.json").read_text())
    (study / "datalist.json").write_text(json.dumps({**content, **sections}))


def weights_of(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(root / "models/model.pt", weights_only=True)
    return content


@contextmanager
def power_cut() -> Iterator[None]:
    """A self-training that runs in here ends at its third step."""
    follow = SelfTraining.follow

    def fail(self: SelfTraining, step: int) -> None:
        if step == 3:
            raise OSError("the power went")
        follow(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SelfTraining, "follow", fail)
        with pytest.raises(Exception, match=r"the power went|Failed to evaluate"):
            yield


SELF_TRAINED = [name for name in bundles.names() if (bundles.path(name) / "configs/selftrain.yaml").is_file()]
HALF = {"precision": "bf16", "channels_last": True}


@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in SELF_TRAINED), (SELF_TRAINED[0], HALF)])
@pytest.mark.one_bundle
def test_an_interrupted_run_ends_as_one_that_was_not(
    name: str, more: dict[str, Any], study: Path, tmp_path: Path
) -> None:
    whole, broken = (bundles.copy(name, tmp_path / folder) for folder in ("whole", "broken"))
    short = {**SHORT, "class_contrast": 0.1 if name == "volume_contrast" else 0.0, **more}
    run(whole, "train", study, OVERLAY, **short)
    with power_cut():
        run(broken, "train", study, OVERLAY, **short)
    assert len(rows(broken)) < len(rows(whole)) == 2
    run(broken, "train", study, OVERLAY, **short)
    expected, found = weights_of(whole), weights_of(broken)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert rows(broken) == rows(whole)
    tiny_network(whole, study).load_state_dict(expected)
    history = (whole / "runs/selftrain/history.csv").read_text()
    assert ("class_contrast" in history.splitlines()[0]) == (short["class_contrast"] > 0)
    data = read_run_record(whole / "runs/selftrain")["data"]
    listed = json.loads((study / "datalist.json").read_text())
    rest = len(listed["unlabelled"]) + len(listed["training"]) - short["labels"]
    assert (data["prepared"], data["prepared_unlabelled"]) == (short["labels"], rest)


def rows(root: Path) -> list[str]:
    path = root / "runs/selftrain/pseudo_labels.csv"
    return path.read_text().splitlines()[1:] if path.exists() else []


def test_the_student_is_handed_over_if_asked_and_a_longer_run_is_another(study: Path, tmp_path: Path) -> None:
    ends = []
    for exports in ("teacher", "student"):
        root = bundles.copy("volume_contrast", tmp_path / exports)
        run(root, "train", study, OVERLAY, **SHORT, exports=exports, largest=2)
        content = torch.load(root / "runs/selftrain/checkpoint.pt", weights_only=True)["method"]
        prefix = {"teacher": "teacher.module.", "student": "student."}[exports]
        assert all(torch.equal(content[prefix + key], value) for key, value in weights_of(root).items())
        ends.append(weights_of(root))
    assert not all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    longer = {**SHORT, "finetune_epochs": 4, "exports": "student", "largest": 2}
    reason = user_sees(root, "train", study, OVERLAY, **longer)
    assert "finetune_epochs: 3 -> 4" in reason
    other = {**SHORT, "exports": "student", "largest": 2, "student_changes": "none"}
    assert "unlabelled" in user_sees(root, "train", study, OVERLAY, **other)
    assert "use the same settings to go on, another output folder, or `--resume false` to start over" in reason


def test_without_unlabelled_volumes_it_refuses_by_name_and_train_does_not(own_study: Path, tmp_path: Path) -> None:
    edit(own_study, unlabelled=[])
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    reason = user_sees(root, "train", own_study, OVERLAY, **{**SHORT, "labels": 4})
    assert reason.startswith("self-training needs volumes beside the 4 labelled ones")
    run(root, "train", own_study, **{**SHORT, "labels": 4})


def test_labelled_volumes_beyond_those_used_are_unlabelled_ones(own_study: Path) -> None:
    edit(own_study, unlabelled=[])
    known = load_datalist(own_study / "datalist.json", labelled=True, limit=3)
    (rest,) = unlabelled_rest(own_study / "datalist.json", known)
    assert rest["image"] not in [item["image"] for item in known]
    assert "label" not in rest


def test_labelled_volumes_in_the_unlabelled_list_are_used_once_and_it_is_said(
    own_study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads((own_study / "datalist.json").read_text())
    edit(own_study, unlabelled=[*content["unlabelled"], *content["training"][:2]])
    known = load_datalist(own_study / "datalist.json", labelled=True)
    rest = unlabelled_rest(own_study / "datalist.json", known)
    assert len(rest) == 2
    assert "2 volumes with labels are also in the unlabelled list: each is used once, with its label" in caplog.text


def test_held_out_patients_in_the_unlabelled_list_are_named(own_study: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = json.loads((own_study / "datalist.json").read_text())
    known = load_datalist(own_study / "datalist.json", labelled=True)
    unlabelled_rest(own_study / "datalist.json", known)
    assert "self-training sees images of" not in caplog.text
    held_out = content["validation"][0]
    unnamed = {"image": held_out["image"]}  # as one writes it by hand, without the patient
    for item, said in ((held_out, "subject "), (unnamed, f"{held_out['image']} is the same voxels as ")):
        caplog.clear()
        edit(own_study, unlabelled=[*content["unlabelled"], item])
        unlabelled_rest(own_study / "datalist.json", known)
        assert f"self-training sees images of validation, without labels ({said}" in caplog.text


def test_an_unreadable_unlabelled_volume_is_left_out_up_to_a_limit_of_its_own(
    own_study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads((own_study / "datalist.json").read_text())
    (own_study / "cut.nii.gz").write_bytes((own_study / content["unlabelled"][0]["image"]).read_bytes()[:500])
    cut = {"image": "cut.nii.gz", "subject": "cut"}
    edit(own_study, unlabelled=[*content["unlabelled"], cut], hide_names=False)
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    reason = user_sees(root, "train", own_study, OVERLAY, **SHORT)  # more than one in twenty
    assert "cut.nii.gz" in reason
    run(root, "train", own_study, OVERLAY, **SHORT, max_unlabelled_faults=0.5)
    assert "left out cut: ValueError: cannot read cut.nii.gz" in caplog.text
    (fault,) = read_run_record(root / "runs/selftrain")["data"]["faults"]
    assert "cut.nii.gz" in fault[1]
    edit(own_study, training=[*content["training"][:1], {**content["training"][1], "image": "cut.nii.gz"}])
    assert "cut.nii.gz" in user_sees(root, "train", own_study, OVERLAY, **SHORT, max_unlabelled_faults=1.0)


def test_wrong_labels_planted_in_the_unlabelled_list_change_nothing(own_study: Path, tmp_path: Path) -> None:
    ends = []
    for planted in (False, True):
        if planted:
            content = json.loads((own_study / "datalist.json").read_text())
            for item in content["unlabelled"]:
                item["label"] = item["image"].replace("images", "labels")
                image = nib.load(own_study / item["image"])
                wrong = nib.Nifti1Image(np.full(image.shape, 77, np.uint8), image.affine)
                nib.save(wrong, own_study / item["label"])
            edit(own_study, unlabelled=content["unlabelled"])
        root = bundles.copy("volume_contrast", tmp_path / str(planted))
        run(root, "train", own_study, OVERLAY, **{**SHORT, "labels": 4})
        ends.append(weights_of(root))
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize(("roi", "axis"), [((8, 8, 8), None), ((8, 8), 2), ((8, 8, 8), 2)])
def test_unlabelled_patches_have_the_size_that_is_asked_for(roi: tuple[int, ...], axis: int | None) -> None:
    altered = usual_augmentation(roi, 2, labelled=False, slice_axis=axis).set_random_state(seed=0)
    found = altered({"image": torch.rand(1, 12, 12, 6)})
    assert found["image"].shape == (1, *roi)


def test_two_processes_train_together_and_write_once(study: Path, tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    settings = {**SHORT, "class_contrast": 0.1, "finetune_batch_size": 1}
    arguments = command(root, "train", study, (*OVERLAY, "multi_gpu.yaml"), **settings)
    log = finish(fork_two(arguments, tmp_path), tmp_path)
    assert log.count("self-train 6/6") == 1
    content = torch.load(root / "runs/selftrain/checkpoint.pt", weights_only=True)
    assert content["step"] == 6
    assert len(content["random"]) == 2
    assert len(rows(root)) == 2
    assert [one.step for one in read_pseudo_labels(root / "runs/selftrain/pseudo_labels")] == [4, 5, 6]
    tiny_network(root, study).load_state_dict(weights_of(root))


def overlaid(name: str) -> ConfigParser:
    root = bundles.path(name)
    return ConfigParser(
        ConfigParser.load_config_files([root / f"configs/{step}.yaml" for step in ("train", "selftrain")])
    )


@pytest.mark.parametrize("name", SELF_TRAINED)
def test_whole_patches_have_the_loss_of_one_hot_labels(name: str) -> None:
    parser = overlaid(name)
    parser["device"], parser["out_channels"] = torch.device("cpu"), 3
    loss = parser.get_parsed_content("loss")
    weight = loss.cross_entropy.weight
    logits, label = torch.randn(2, 3, 5, 6), torch.randint(0, 3, (2, 1, 5, 6))
    target = torch.cat([label, torch.full_like(label, -1)], 1)
    share, truth = logits.softmax(1), one_hot(label, 3)
    entropy = -(weight[label[:, 0]] * share.gather(1, label)[:, 0].log()).mean()
    overlap = 2 * (share * truth).sum((2, 3)) / (share + truth).sum((2, 3))
    expected = entropy + (1 - overlap[:, 1:]).mean()
    assert PartsLoss(loss)(logits, target).item() == pytest.approx(expected.item(), rel=1e-4)
    assert weight.tolist() == pytest.approx([0.4, 1, 1])


@pytest.mark.parametrize("name", SELF_TRAINED)
def test_the_teacher_averages_a_thirtieth_of_the_run_and_patches_are_whole(name: str) -> None:
    parser = overlaid(name)
    found = []
    for steps in (10, 600, 3000):
        parser["steps"] = steps
        parser.parse(reset=True)
        found.append(parser.get_parsed_content("teacher_momentum"))
    assert found == pytest.approx([0.5, 0.95, 0.99])
    assert parser["box_ratio"] == 1
    assert parser.get_parsed_content("student_changes") == ("none" if name == "missing_sequences" else "strong")


def test_the_overlays_of_the_bundles_are_one() -> None:
    files = {name: (bundles.path(name) / "configs/selftrain.yaml").read_text() for name in SELF_TRAINED}
    volumes, slices = files["volume_contrast"].splitlines(), files["global_local_contrast"].splitlines()
    assert files["sequence_contrast"] == files["volume_contrast"]
    studies = files["missing_sequences"].splitlines()
    of_studies = [line for line in studies if line not in volumes and not line.startswith("#")]
    assert all(line in studies for line in volumes if line.split(":")[0] in ("u_weight", "selftraining", "optimizer"))
    assert len(of_studies) == 12, of_studies  # their data, their copies, what these stand for and how a patch is cut
    own = [line for line in slices if line not in volumes]
    assert all(any(key in line for key in ("flip", "mixup", "slice_axis")) for line in own), own  # what slices have
    assert len(own) == 3
