"""Labels as files hold them: fractions, NaN, other grids, values without a class, voxels that do not count."""

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.transforms import AsDiscreted, Compose, RandCropByLabelClassesd

from monai_cl import recipes
from monai_cl.data import PreparedDataset, check_labels, check_study, class_names, load_datalist, write_cache
from monai_cl.data.loading.faults import TooManyFaultsError
from monai_cl.engine import MixupBatch, VoxelLoss, without_ignored
from monai_cl.transforms import LoadVolumed, RandCropByClassesd
from monai_cl.transforms._labels import whole_labels

AFFINE = np.diag([-1.5, -1.5, 1.5, 1.0])
AFFINE[:3, 3] = 30, 20, -10
LABEL = np.zeros((24, 24, 20), np.uint8)
LABEL[4:12, 6:18, 4:14] = 1
LABEL[12:18, 6:18, 4:14] = 2
NAN = np.where(LABEL == 2, np.nan, LABEL).astype(np.float32)


def study(root: Path, label: np.ndarray, affine: np.ndarray = AFFINE, **content: object) -> Path:
    """A list made by hand of one volume and its label."""
    rng = np.random.default_rng(0)
    image = (rng.normal(0, 20, LABEL.shape) + np.array([-900, 40, 120])[LABEL]).astype(np.int16)
    root.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(image, AFFINE), root / "image.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), root / "label.nii.gz")
    item = {"image": "image.nii.gz", "label": "label.nii.gz"}
    names = {"labels": {"0": "b", "1": "x", "2": "y"}}
    (root / "list.json").write_text(json.dumps({**names, "training": [item], **content}))
    return root / "list.json"


def prepared(datalist: Path) -> PreparedDataset:
    return PreparedDataset(
        load_datalist(datalist, labelled=True), recipes.load("ct_abdomen", spacing=None), max_faults=0
    )


def cached(datalist: Path) -> PreparedDataset:
    recipe = {"recipe": "ct_abdomen", "options": {"spacing": None}}
    result = write_cache(datalist, datalist.parent / "cache", processes=0, **recipe)
    return prepared(result.folder)


def read(label: np.ndarray, root: Path, affine: np.ndarray = AFFINE) -> MetaTensor:
    path = study(root, label, affine)
    found = LoadVolumed(["image", "label"])({key: path.with_name(f"{key}.nii.gz") for key in ("image", "label")})
    label_read: MetaTensor = found["label"]
    return label_read


# --- what a file holds


@pytest.mark.parametrize("by", [prepared, cached])
def test_values_near_whole_numbers_are_rounded_and_it_is_said(tmp_path, caplog, by) -> None:
    resampled = np.where(LABEL == 1, 0.9882, np.where(LABEL == 2, 2.0235, 0)).astype(np.float32)
    dataset = by(study(tmp_path, resampled))
    counts = torch.unique(dataset[0]["label"].as_tensor(), return_counts=True)
    whole = torch.unique(by(study(tmp_path / "whole", LABEL))[0]["label"].as_tensor(), return_counts=True)
    assert all(torch.equal(one, other) for one, other in zip(counts, whole, strict=True))
    said = [record.getMessage() for record in caplog.records if "rounded" in record.getMessage()]
    assert said == ["labels of 1 of 1 volumes were no whole numbers, by up to 0.0235, and were rounded"]


def test_a_cache_says_what_it_rounded(tmp_path) -> None:
    resampled = np.where(LABEL == 1, 0.9882, LABEL).astype(np.float32)
    given = {"recipe": "ct_abdomen", "options": {"spacing": None}, "processes": 0}
    assert write_cache(study(tmp_path, resampled), tmp_path / "cache", **given).rounded == 1
    again = write_cache(tmp_path / "list.json", tmp_path / "cache", **given)
    assert (again.rounded, len(again.kept)) == (1, 1)
    assert write_cache(study(tmp_path / "whole", LABEL), tmp_path / "other", **given).rounded == 0


def test_whole_numbers_pass_without_a_word(tmp_path, caplog) -> None:
    assert torch.equal(read(LABEL, tmp_path).as_tensor()[0], torch.as_tensor(LABEL).float())
    prepared(tmp_path / "list.json")
    assert "rounded" not in caplog.text


def test_fractions_are_refused_with_the_values(tmp_path) -> None:
    with pytest.raises(
        ValueError, match=r"label\.nii\.gz: labels must be whole numbers, 960 of 11520 .* \(0\.5\); res"
    ):
        read((LABEL / 2).astype(np.float32), tmp_path)


def test_values_beyond_int16_are_refused_before_they_wrap(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"within -32767 and 32767, 960 voxels have others \(65535\); .*255 or -1"):
        read(np.where(LABEL == 1, 65535, LABEL.astype(np.uint16)), tmp_path)


@pytest.mark.parametrize("by", [prepared, cached])
def test_nan_is_refused_or_not_counted(tmp_path, caplog, by) -> None:
    caplog.set_level(logging.INFO)
    dataset = by(study(tmp_path, NAN))
    with pytest.raises(
        ValueError, match=r"image has NaN or infinity\); NaN and infinities are ignored once `--ignore_"
    ):
        check_labels(dataset, out_channels=3)
    check_labels(dataset, out_channels=3, ignore_index=255)
    assert "of the voxels are ignored, in 1 of 1 volumes" in caplog.text
    assert "no volume of 1 holds class 2: none is learned of it in training" in caplog.text
    assert "take more volumes (--labels), or another draw of them (--seed); or, if no class is above 1" in caplog.text


@pytest.mark.parametrize("by", [prepared, cached])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("mirrored", np.diag([1.5, 1.5, 1.5, 1.0])), r"lie up to [\d.]+ mm from those of the image"),
        (("moved", AFFINE + np.array([[0, 0, 0, 0.9]] + [[0] * 4] * 3)), r"lie up to 0\.9 mm from those of the image"),
    ],
)
def test_a_label_on_another_grid_is_refused_in_mm_wherever_a_list_is_read(tmp_path, by, change, match) -> None:
    with pytest.raises(TooManyFaultsError, match=match):
        by(study(tmp_path, LABEL, change[1]))


def test_a_label_of_another_shape_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="differ in shape: image 24 x 24 x 20, label 24 x 24 x 19 voxels"):
        read(LABEL[..., :-1], tmp_path)


def test_the_same_voxels_in_another_order_are_kept(tmp_path) -> None:
    flipped = AFFINE.copy()
    flipped[:3, 0] *= -1
    flipped[:3, 3] += AFFINE[:3, 0] * (LABEL.shape[0] - 1)
    assert torch.equal(read(LABEL[::-1], tmp_path, flipped).as_tensor()[0], torch.as_tensor(LABEL).float())


def test_other_keys_may_lie_elsewhere_and_hold_anything(tmp_path) -> None:
    path = study(tmp_path, NAN, np.eye(4))
    found = LoadVolumed(["image", "map"])(
        {"image": path.with_name("image.nii.gz"), "map": path.with_name("label.nii.gz")}
    )
    assert bool(found["map"].isnan().any())


# --- what a list and a run say of them


def test_one_image_with_two_labels_is_refused(tmp_path) -> None:
    items = [{"image": "image.nii.gz", "label": f"{name}.nii.gz"} for name in ("label", "other")]
    path = study(tmp_path, LABEL, training=items)
    for labelled in (True, None):
        with pytest.raises(
            ValueError, match=r"one image with two labels, image.nii.gz with label.* and other.*; keep one"
        ):
            load_datalist(path, labelled=labelled)
    assert len(load_datalist(path, labelled=False)) == 1


def test_an_image_listed_twice_keeps_the_label_of_either(tmp_path) -> None:
    both = [{"image": "image.nii.gz"}, {"image": "./image.nii.gz", "label": "label.nii.gz"}]
    (item,) = load_datalist(study(tmp_path, LABEL, training=both), labelled=True)
    assert item["label"].endswith("label.nii.gz")


@pytest.mark.parametrize("by", [prepared, cached])
@pytest.mark.parametrize(
    ("label", "match"),
    [
        (
            np.where(LABEL == 0, 255, LABEL).astype(np.uint8),
            "has 255); if 255 stands for .*, add `--ignore_index 255`$",
        ),
        (np.where(LABEL == 0, -1, LABEL.astype(np.int16)), "has -1); if -1 stands for .*, add `--ignore_index -1`$"),
        (np.where(LABEL == 0, -7, LABEL.astype(np.int16)), "has -7); mend the masks$"),
        (
            np.where(LABEL == 2, 3, LABEL),
            "has 3); for classes up to 3 add `--out_channels 4`; no voxel has 2: renumber",
        ),
        (LABEL + (LABEL > 0), r"for classes up to 3 add `--out_channels 4`; no voxel has 1: renumber the classes"),
    ],
)
def test_values_without_a_class_are_told_as_in_the_file(tmp_path, by, label, match) -> None:
    with pytest.raises(ValueError, match=match.replace(")", r"\)")):
        check_labels(by(study(tmp_path, label)), out_channels=3)


def test_a_volume_that_is_ignored_wholly_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"some voxel of each volume must count, all are .* in 1 of 1 \(image\); take"):
        check_labels(prepared(study(tmp_path, np.full_like(LABEL, 255))), out_channels=3, ignore_index=255)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ({"0": "b", "1": "x", "2": "y", "255": "void"}, "below out_channels, 3; if 255 .* add `--ignore_index 255`"),
        ({"0": "b", "1": "x", "255": "void"}, "out_channels must be 2 for .*; if 255 .*; for classes up to 1 add"),
        (
            {"0": "b", "1": "x", "3": "z"},
            "out_channels must be 4 .*no voxel has 2: renumber the classes to leave no gap",
        ),
    ],
)
def test_classes_named_in_a_list_are_told_alike(tmp_path, labels, match) -> None:
    with pytest.raises(ValueError, match=match):
        check_study(study(tmp_path, LABEL, labels=labels), out_channels=3)


def test_a_named_label_that_does_not_count_is_no_class(tmp_path) -> None:
    path = study(tmp_path, LABEL, labels={"0": "b", "1": "x", "2": "y", "255": "void"})
    check_study(path, out_channels=3, ignore_index=255)
    assert class_names(path, ignore_index=255) == {1: "x", 2: "y"}


# --- voxels that do not count


def logits_and_label(ignore: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (2, 1, 6, 5, 4), generator=generator)
    label[:, :, 3:] = ignore
    label[0, :, :, 2] = ignore
    return torch.randn(2, 3, 6, 5, 4, generator=generator, dtype=torch.float64).requires_grad_(), label


LOSSES = {
    "dice and cross-entropy": lambda **k: DiceCELoss(include_background=False, softmax=True, **k),
    "weighted": lambda **k: DiceCELoss(softmax=True, weight=torch.tensor([0.4, 1, 1], dtype=torch.float64), **k),
}


@pytest.mark.parametrize("ignore", [255, -1, 2])
@pytest.mark.parametrize("kind", LOSSES)
def test_ignored_voxels_have_no_gradient_and_no_say(kind, ignore) -> None:
    loss = VoxelLoss(LOSSES[kind](to_onehot_y=True), ignore_index=ignore)
    logits, label = logits_and_label(ignore)
    value = loss(logits, label)
    (gradient,) = torch.autograd.grad(value, logits)
    dropped = (label == ignore).expand_as(gradient)
    assert bool((gradient[dropped] == 0).all())
    assert bool((gradient[~dropped] != 0).all())
    changed = torch.where(dropped, torch.full_like(logits, 1e3), logits)
    torch.testing.assert_close(loss(changed, label), value, rtol=0, atol=0)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_loss_of_an_image_is_that_of_its_other_voxels(kind) -> None:
    plain = LOSSES[kind](to_onehot_y=True)
    logits, label = logits_and_label(255)
    label[:, :, 3:] = 255
    label[0, :, :, 2] = torch.randint(0, 3, (1, 6, 4))
    label[:, :, 3:] = 255
    cut = torch.stack([plain(logits[i : i + 1, :, :3], label[i : i + 1, :, :3]) for i in range(2)]).mean()
    torch.testing.assert_close(VoxelLoss(plain, ignore_index=255)(logits, label), cut)
    whole = label[:, :, :3]
    assert torch.equal(VoxelLoss(plain, ignore_index=255)(logits[:, :, :3], whole), plain(logits[:, :, :3], whole))


def test_a_batch_without_a_voxel_that_counts_has_no_gradient() -> None:
    logits, label = logits_and_label(255)
    value = VoxelLoss(DiceCELoss(to_onehot_y=True, softmax=True), ignore_index=255)(logits, torch.full_like(label, 255))
    assert float(value.detach()) == 0
    assert not torch.autograd.grad(value, logits)[0].any()


def test_voxels_that_do_not_count_are_mixed_into_none(tmp_path) -> None:
    _, label = logits_and_label(255)
    batch = {"image": torch.rand(2, 1, 6, 5, 4), "label": label}
    _, mixed = MixupBatch(3, alpha=1.0, seed=1, ignore_index=255)(batch)
    either = (label == 255).any(0)[0]
    logits = torch.randn(2, 3, 6, 5, 4, requires_grad=True)
    VoxelLoss(DiceCELoss(softmax=True), ignore_index=255)(logits, mixed).backward()
    assert not logits.grad[:, :, either].any()
    assert bool((logits.grad[:, :, ~either] != 0).all())
    torch.testing.assert_close(mixed.sum(1)[:, ~either], torch.ones(2, int((~either).sum())))


def test_levels_of_deep_supervision_leave_them_out_too() -> None:
    logits, label = logits_and_label(255)
    coarse = torch.randn(2, 3, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    plain = DiceCELoss(to_onehot_y=True, softmax=True)
    loss = VoxelLoss(plain, ignore_index=255)
    value = loss([logits, coarse], label)
    small = torch.nn.functional.interpolate(label.double(), size=(3, 2, 2), mode="nearest-exact")
    torch.testing.assert_close(value, (loss(logits.float(), label) + 0.5 * loss(coarse.float(), small)))
    gradient = torch.autograd.grad(value, coarse)[0]
    assert not gradient[(small == 255).expand_as(gradient)].any()


@pytest.mark.parametrize("ignore", [255, -1, 0])
def test_metrics_see_nothing_of_them(ignore) -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (1, 8, 8, 8), generator=generator)
    label[:, 4:] = ignore
    pred = torch.randn(3, 8, 8, 8, generator=generator)
    one_hot = Compose([AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=3)])
    found = without_ignored(one_hot, num_classes=3, ignore_index=ignore)({"pred": pred, "label": label})
    dropped = (label == ignore)[0]
    assert not found["pred"][:, dropped].any()
    assert not found["label"][:, dropped].any()
    if ignore != 0:  # else Dice is that of the part which counts
        part = one_hot({"pred": pred[:, :4], "label": label[:, :4]})
        metric = DiceMetric(include_background=False)
        expected = metric([part["pred"]], [part["label"]])
        torch.testing.assert_close(metric([found["pred"]], [found["label"]]), expected)
    assert without_ignored(one_hot, num_classes=3) is one_hot


def test_no_crop_is_centred_on_them() -> None:
    label = torch.full((1, 16, 16), 255)
    label[0, 3, 12] = 1
    crop = RandCropByClassesd("label", "label", (5, 5), num_classes=2, num_samples=4, warn=False, ignore_index=255)
    crop.set_random_state(0)
    assert all(int(item["label"][0, 2, 2]) == 1 for item in crop({"label": label}))
    low = torch.zeros(1, 16, 16, dtype=torch.int16)  # a class may be what does not count
    low[0, 12, 3] = 1
    crop = RandCropByClassesd("label", "label", (5, 5), num_classes=2, num_samples=4, warn=False, ignore_index=0)
    assert all(int(item["label"][0, 2, 2]) == 1 for item in crop({"label": low}))


def test_a_slice_of_nothing_else_is_cropped_anywhere() -> None:
    crop = RandCropByClassesd("label", "label", (5, 5), num_classes=2, ignore_index=255)
    assert crop({"label": torch.full((1, 16, 16), 255)})[0]["label"].shape == (1, 5, 5)


def test_without_such_voxels_crops_are_those_of_monai() -> None:
    label = torch.randint(0, 3, (1, 16, 16), generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        kind("label", "label", (5, 5), num_classes=3, num_samples=9)
        for kind in (RandCropByClassesd, RandCropByLabelClassesd)
    )
    ours.set_random_state(3)
    theirs.set_random_state(3)
    for one, other in zip(ours({"label": label}), theirs({"label": label}), strict=True):
        assert torch.equal(one["label"], other["label"])


@pytest.mark.parametrize("value", [0.95, 1.05, 6.95, 254.95, -0.95])
def test_a_label_exactly_at_the_bound_is_rounded_in_every_precision(value: float) -> None:
    for dtype in (torch.float32, torch.float64):
        assert whole_labels(torch.tensor([0.0, value], dtype=dtype))[0].tolist() == [0.0, round(value)]


def test_a_label_beyond_the_bound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 voxels are more than 0.05 from one \(0.949\)"):
        whole_labels(torch.tensor([0.0, 0.949]))
