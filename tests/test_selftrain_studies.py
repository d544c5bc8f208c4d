"""Self-training on studies that lack sequences: copies of an image under a teacher that sees all that was measured."""

import json
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from conftest import write_volume
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.utils import set_determinism
from torch import Tensor, nn

from monai_cl import bundles, data
from monai_cl.engine import SelfTrainer, SelfTraining, TiedCopies, adamw
from monai_cl.engine.selftraining import NOT_COUNTED
from monai_cl.transforms import PseudoLabels, RandChannelTemplateMixd
from monai_cl.transforms.copy_paste import draw_box, outside_of
from monai_cl.weights import read_contract

NAMES = ["T1w", "FLAIR"]
SIZE = (8, 8, 8)


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 2, 3, channels=(4, 8), strides=(2,), norm="instance")


def batch(seed: int = 1) -> dict[str, Tensor]:
    """Two labelled and two unlabelled images of two channels, each in two copies."""
    g = torch.Generator().manual_seed(seed)
    image, unlabelled = (torch.rand(2, 4, *SIZE, generator=g) for _ in range(2))
    return {"image": image, "label": torch.randint(3, (2, 1, *SIZE), generator=g), "unlabelled": unlabelled}


def method(student: nn.Module, **options: Any) -> SelfTraining:
    return SelfTraining(student, PseudoLabels(3), **{"supervised": 0.0, "ramp_up": 0.0, "u_weight": 1.0, **options})


def test_the_teacher_labels_the_first_copies_and_its_labels_are_those_of_both() -> None:
    given, copies, asked = batch(), TiedCopies(), []
    learner = method(network())
    learner.teacher.module.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0]))
    apart = {key: copies.apart(given[key]) for key in ("image", "unlabelled")}
    apart["label"] = copies.repeated(given["label"])
    images, targets = learner.mix(apart, 3, 0.5, copies.copies)
    assert torch.equal(torch.cat(asked), given["unlabelled"][:, :2])
    assert learner.last is not None
    outside = outside_of(draw_box(SIZE, learner.ratio, np.random.default_rng([0, 3])), SIZE)
    # i = image, c = copy: groups of images are u in x and x in u, each with all first copies before all second ones
    for c in range(2):
        for i in range(2):
            x, u = (given[key][i, 2 * c : 2 * c + 2] for key in ("image", "unlabelled"))
            label, pseudo = given["label"][i, 0], learner.last.labels[i, 0].long()
            nothing = torch.full_like(label, NOT_COUNTED)
            for group, kept in enumerate((outside, ~outside)):
                at = 4 * group + 2 * c + i
                assert torch.equal(images[at], torch.where(kept, x, u))
                assert torch.equal(targets[at, 0], torch.where(kept, label, nothing))
                assert torch.equal(targets[at, 1], torch.where(kept, nothing, pseudo))


@pytest.mark.parametrize(("supervised", "groups"), [(0.0, 2), (1.0, 1)])
def test_a_step_ties_each_image_with_its_own_copy(supervised: float, groups: int) -> None:
    net, weight = network(), 0.7
    run = SelfTrainer(
        method(net, supervised=supervised), [batch()], max_epochs=1, epoch_length=1, precision="fp32",
        loss=DiceCELoss(to_onehot_y=True, softmax=True), optimizer=adamw(net, 0.0), inferer=TiedCopies(weight=weight),
    )  # fmt: skip
    seen: list[Tensor] = []
    net.model[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    run.run()
    plain = run.loss_function(run.state.output["pred"], run.state.output["label"])  # a tie counts once
    features = seen[0].reshape(groups, 2, 2, *seen[0].shape[1:])  # group, copy, image
    squares = [(features[g, 0, i] - features[g, 1, i]).square().mean() for g in range(groups) for i in range(2)]
    expected = plain + weight * torch.stack(squares).mean()
    torch.testing.assert_close(torch.as_tensor(run.state.output["loss"]), expected)


@pytest.mark.parametrize("ratio", [2 / 3, 1.0])
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_copies_of_an_image_are_mixed_with_those_of_one_partner(number: int, ratio: float) -> None:
    image = torch.arange(2.0 * number).reshape(-1, 1, 1, 1, 1).expand(-1, 2, *SIZE)
    label = (torch.arange(number) % 3).reshape(-1, 1, 1, 1, 1).expand(-1, 1, *SIZE).repeat(2, 1, 1, 1, 1)
    learner = method(network(), supervised=1.0, ratio=ratio)
    images, targets = learner.mix({"image": image, "label": label}, 3, 0.5, 2)
    first, second = images.chunk(2)
    assert torch.equal(first + number, second)  # the value of an image is its place in the batch
    assert torch.equal(*targets.chunk(2))


def test_the_first_copy_may_keep_all_its_channels() -> None:
    mix = RandChannelTemplateMixd("image", NAMES, {}, 1, 2, whole=True).set_random_state(seed=0)
    image, lost = torch.ones(2, 4, 4, 4), 0
    for _ in range(20):
        first, second = mix({"image": image})["image"].chunk(2)
        assert torch.equal(first, image)
        lost += int(not torch.equal(second, image))
    assert 0 < lost < 20


def written(root: Path) -> Path:
    """Four subjects with a mask on T1w, the first without FLAIR; three without masks, one of them with T2w alone."""
    sections: dict[str, list[dict[str, str]]] = {"training": [], "unlabelled": [], "validation": []}
    has = [["T1w"], NAMES, NAMES, NAMES, NAMES, ["FLAIR"], ["T2w"], ["T1w"]]
    for number, names in enumerate(has):
        for place, name in enumerate(names):
            entry = {"image": f"case_{number}_{name}.nii.gz", "subject": f"s{number}", "sequence": name}
            write_volume(root / entry["image"], number)
            labelled = (number < 4 or number == 7) and place == 0
            if labelled:
                entry["label"] = f"label_{number}.nii.gz"
                write_volume(root / entry["label"], number, label=True)
            section = "validation" if number == 7 else "training" if labelled else "unlabelled"
            sections[section].append(entry)
    (root / "datalist.json").write_text(json.dumps({"hide_names": False, **sections}))
    return root / "datalist.json"


def test_unlabelled_studies_hold_no_series_of_a_labelled_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datalist = written(tmp_path)
    labelled = data.labelled_studies(datalist, "training", limit=2)
    rest = data.unlabelled_studies(datalist, labelled, NAMES)
    used = {study["subject"] for study in labelled}
    assert [study["subject"] for study in rest] == [f"s{n}" for n in range(6) if f"s{n}" not in used]
    assert all("label" not in study for study in rest)
    assert all(study["sequences"] == [name for name in NAMES if name in study["sequences"]] for study in rest)
    assert "left out case_6_T2w: it has T2w alone" in caplog.text


def test_labelled_studies_alone_leave_nothing_to_self_train_on(tmp_path: Path) -> None:
    datalist = written(tmp_path)
    content = json.loads(datalist.read_text())
    content["unlabelled"] = [entry for entry in content["unlabelled"] if entry["subject"] in ("s1", "s2", "s3")]
    datalist.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"needs studies beside the 4 labelled ones, .* leave selftrain.yaml out"):
        data.unlabelled_studies(datalist, data.labelled_studies(datalist, "training"), NAMES)


@pytest.mark.parametrize("mixed", [1, 0])
def test_the_bundle_self_trains_with_two_channels(mixed: int, tmp_path: Path) -> None:
    root, datalist = bundles.copy("missing_sequences", tmp_path / "bundle"), written(tmp_path)
    files = [str(root / "configs" / f"{name}.yaml") for name in ("train", "selftrain", "small")]
    try:
        monai.bundle.run(
            bundle_root=str(root), config_file=files, dataset_dir=str(tmp_path), datalist=str(datalist),
            logging_file=False, recipe="small_mr", labels=2, pretrained="none", in_channels=2, sequences=NAMES,
            roi_size=[16, 16, 16], finetune_epochs=2, finetune_epoch_length=2, mix_channels=mixed,
        )  # fmt: skip
    finally:
        set_determinism(seed=None)
    assert read_contract(root / "models" / "model.pt")["sequences"] == NAMES
    rows = (root / "runs" / "selftrain" / "pseudo_labels.csv").read_text().splitlines()
    assert len(rows) == 2  # a head, and the second epoch: in the first one labelled volumes are alone
