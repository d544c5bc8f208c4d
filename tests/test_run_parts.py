"""What runs of bundles are made of: settings, loaders and augmentation that their configs share."""

from pathlib import Path

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet

from monai_cl import recipes
from monai_cl.data import digest, labelled_loader
from monai_cl.engine import RunSettings, fine_tuning
from monai_cl.engine.resolved import describe, differences
from monai_cl.transforms import usual_augmentation


def test_settings_are_compared_by_digest_and_handed_over_by_name(study: Path) -> None:
    datalist = study / "datalist.json"
    settings = RunSettings(
        "small_mr", seed=3, datalist=datalist, sections="training", contract={"in_channels": 1}, own={"grid": [2]},
        method="x",
    )  # fmt: skip
    assert settings.to_compare() == {
        "method": "x", "datalist": digest(datalist), "sections": "training", "recipe": recipes.digest("small_mr"),
        "seed": 3, "grid": [2], "in_channels": 1,
    }  # fmt: skip
    assert settings.to_tell() == {"grid": [2], "in_channels": 1}
    assert settings.to_hand_over() == {"method": "x", "recipe": "small_mr", "recipe_options": {}, "in_channels": 1}


def test_items_of_a_folder_stand_for_the_datalist() -> None:
    settings = RunSettings("small_mr", items=[{"image": ["a.nii.gz"], "case": "a"}])
    assert "datalist" not in settings.to_compare()
    assert settings.to_compare()["data"]


def volume() -> dict[str, torch.Tensor]:
    label = torch.zeros(1, 12, 12, 6)
    label[:, 4:8, 4:8, 2:4] = 1
    return {"image": torch.rand(1, 12, 12, 6), "label": label}


@pytest.mark.parametrize(("roi", "axis"), [((8, 8, 8), None), ((8, 8), 2), ((8, 8, 8), 2)])
def test_augmentation_gives_crops_of_the_size_that_is_asked_for(roi: tuple[int, ...], axis: int | None) -> None:
    found = usual_augmentation(roi, 2, slice_axis=axis).set_random_state(seed=0)(volume())
    item = found[0] if isinstance(found, list) else found
    assert item["image"].shape == item["label"].shape == (1, *roi)


@pytest.mark.parametrize("name", ["flip", "affine_prob", "rotation", "scale", "translation", "intensity_prob", "noise"])
def test_each_option_of_the_augmentation_has_an_effect(name: str) -> None:
    usual, other = (describe(usual_augmentation((8, 8), 2, slice_axis=2, **given)) for given in ({}, {name: 0.77}))
    assert differences(usual, other)


def test_an_epoch_without_a_batch_is_refused_by_the_name_of_its_setting() -> None:
    with pytest.raises(ValueError, match="finetune_epoch_length must be at least 1, got 0"):
        labelled_loader([{"n": 0}], lambda item: item, batch_size=2, batches=0)
    with pytest.raises(ValueError, match="finetune_batch_size must be at least 1, got 0"):
        labelled_loader([{"n": 0}], lambda item: item, batch_size=0, batches=1)


def test_labelled_volumes_come_in_turn_whatever_their_number() -> None:
    loader = labelled_loader([{"n": n} for n in range(3)], lambda item: item, batch_size=2, batches=3, seed=0)
    drawn = [int(n) for batch in loader for n in batch["n"]]
    assert len(loader) == 3
    assert sorted(drawn[:3]) == sorted(drawn[3:]) == [0, 1, 2]


def test_a_fine_tuning_takes_a_device_by_name_and_leaves_ignored_voxels_out() -> None:
    network = BasicUNet(spatial_dims=2, out_channels=2, features=(4, 4, 4, 4, 4, 4))
    batch = {"image": torch.rand(1, 1, 32, 32), "label": torch.full((1, 1, 32, 32), 255.0)}
    trainer = fine_tuning(
        network, [batch], max_epochs=1, epoch_length=1, loss=DiceCELoss(to_onehot_y=True, softmax=True),
        ignore_index=255, device="cpu",
    )  # fmt: skip
    trainer.run()
    assert trainer.state.output[0]["loss"] == 0
    assert not trainer.amp
