"""Synthetic hearts: repeatable, of four kinds, with the sections and places that their drawn shape states."""

import json
import math

import nibabel
import numpy as np
import pytest
import torch

from monai_cl.phantoms import heart_subject, write_heart_dataset
from monai_cl.phantoms.deformation import voxel_grid
from monai_cl.phantoms.heart import KINDS, draw_heart

SPACING = (2.0, 2.0, 9.0)
SHAPE = (96, 96, 8)


def hearts(number: int = 24):
    return [heart_subject((7, seed), shape=SHAPE, spacing=SPACING) for seed in range(number)]


def test_all_kinds_are_drawn_with_the_sizes_of_their_kind() -> None:
    drawn = [draw_heart(np.random.default_rng(seed)) for seed in range(60)]
    assert {heart.kind for heart in drawn} == set(KINDS)
    for heart in drawn:
        inner, wall, right = KINDS[heart.kind]
        for value, (low, high) in zip((heart.inner, heart.wall, heart.right), (inner, wall, right), strict=True):
            assert 0.85 * low <= value <= 1.1 * high


def test_a_heart_repeats_under_its_seed_and_differs_from_others() -> None:
    one, again, other = heart_subject(1), heart_subject(1), heart_subject(2)
    assert torch.equal(one.image, again.image)
    assert torch.equal(one.label, again.label)
    assert not torch.equal(one.label, other.label)


def test_every_heart_has_all_labels_on_a_grid_of_its_spacing() -> None:
    for heart in hearts():
        assert heart.label.unique().tolist() == [0, 1, 2, 3]
        assert heart.image.shape == heart.label.shape == (1, *SHAPE)
        assert heart.image.isfinite().all()
        assert heart.affine.diagonal().tolist() == [*SPACING, 1.0]


def test_sections_of_the_left_ventricle_have_the_area_of_their_ellipse() -> None:
    """pi r^2 (1 - t^2.2) at the share t of the long axis; surfaces wander about it, so the mean of many has it."""
    ratios = []
    for heart in hearts():
        shape = heart.anatomy
        for cut in range(3, SHAPE[2]):
            below = 36 - (cut - (SHAPE[2] - 1) / 2) * SPACING[2]
            share = max(below, 0) / shape.length
            expected = math.pi * (shape.inner + shape.wall) ** 2 * (1 - share**2.2)
            area = int((heart.label[0, ..., cut] >= 2).sum()) * SPACING[0] * SPACING[1]
            ratios.append(area / expected)
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)
    assert np.std(ratios) < 0.1


def test_the_pool_narrows_towards_the_apex() -> None:
    for heart in hearts(8):
        pool = (heart.label[0] == 3).sum(dim=(0, 1))
        assert pool[0] < pool[3] < pool[7]


def test_the_right_ventricle_lies_on_the_right_and_blood_is_brighter_than_muscle() -> None:
    x = voxel_grid(SHAPE)[0]  # grows towards the patient's right
    for heart in hearts(8):
        label, image = heart.label[0], heart.image[0]
        assert x[label == 1].mean() > x[label == 3].mean()
        assert image[label == 3].median() > 1.3 * image[label == 2].median()


@pytest.mark.parametrize(("shape", "spacing"), [((10, 10), (1, 1)), ((10, 10, 2), (1, 1, 1)), ((8, 8, 8), (1, 1, 0))])
def test_impossible_grids_are_refused(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="3 sizes of at least 4 and spacing 3 positive lengths"):
        heart_subject(0, shape=shape, spacing=spacing)


def test_a_folder_of_hearts_names_its_subjects_and_keeps_labels_from_the_unlabelled(tmp_path) -> None:
    calls: list[tuple[int, int]] = []
    path = write_heart_dataset(
        tmp_path / "d", unlabelled=2, labelled=1, test=1, seed=5, progress=lambda *call: calls.append(call)
    )
    content = json.loads(path.read_text())
    assert [len(content[section]) for section in ("training", "validation", "unlabelled")] == [1, 1, 2]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert content["labels"] == {"0": "background", "1": "right ventricle", "2": "myocardium", "3": "left ventricle"}
    assert "reference" not in content  # no template is in them
    assert sorted(file.name for file in (tmp_path / "d/labelsTr").iterdir()) == ["heart_001.nii.gz", "heart_002.nii.gz"]
    stored = nibabel.load(tmp_path / "d/imagesTr/heart_004.nii.gz").get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(stored, heart_subject((5, 2, 1)).image[0].numpy())


def test_a_folder_of_hearts_refuses_a_folder_in_use_and_to_be_empty(tmp_path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="the heart phantoms need an absent or empty folder"):
        write_heart_dataset(tmp_path, unlabelled=1)
    with pytest.raises(ValueError, match="must not be negative and not all 0"):
        write_heart_dataset(tmp_path / "d", unlabelled=0, labelled=0, test=0)
