"""Phantoms: repeatable, anatomically ordered, deformed without folding, written as a dataset MONAI reads."""

import importlib.util
import json
import math
import sys

import nibabel
import numpy as np
import pytest
import torch

from monai_cl.phantoms import (
    abdomen_ct_phantom,
    brain_subject,
    cardiac_mr_phantom,
    chest_ct_phantom,
    spotted_head,
    template as phantom_template,
    write_brain_dataset,
)
from monai_cl.phantoms.deformation import exponentiate, random_displacement, voxel_grid
from monai_cl.phantoms.template import Grid, full_template, template_fractions
from monai_cl.phantoms.volume import centred_affine, rician, smooth_noise, write_nifti

needs_nilearn = pytest.mark.skipif(importlib.util.find_spec("nilearn") is None, reason="needs the demo extra")


def jacobian_determinant(displacement: torch.Tensor) -> torch.Tensor:
    """Determinant of the gradient of x + u(x), (X, Y, Z); positive where the map keeps its orientation."""
    # rows = component of the map, columns = axis of the derivative
    rows = [torch.stack(torch.gradient(component)) for component in displacement + voxel_grid(displacement.shape[1:])]
    return torch.linalg.det(torch.stack(rows).permute(2, 3, 4, 0, 1))


EXTENT = (168, 216, 168)


@pytest.fixture(scope="module")
def subject():
    return brain_subject(3)


# --- random fields and deformations


@pytest.mark.parametrize("sigma", [0.0, 1.5, [1.0, 2.0, 3.0]])
def test_smooth_noise_has_unit_variance_on_average(sigma):
    fields = [smooth_noise(np.random.default_rng(i), (24, 25, 26), sigma) for i in range(12)]
    assert torch.stack(fields).var() == pytest.approx(1.0, abs=0.12)


def test_smooth_noise_is_white_noise_through_a_periodic_gaussian():
    shape, sigma = (9, 10), 1.3
    white = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    kernel = np.zeros(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            for a in range(-3, 4):
                for b in range(-3, 4):
                    d2 = (i + a * shape[0]) ** 2 + (j + b * shape[1]) ** 2
                    kernel[i, j] += math.exp(-d2 / (2 * sigma**2))
    expected = np.zeros(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            expected += white[i, j] * np.roll(kernel, (i, j), axis=(0, 1))
    got = smooth_noise(np.random.default_rng(0), shape, sigma).numpy()
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.9999


def test_rician_noise_of_zero_signal_has_the_rayleigh_mean():
    noise = rician(np.random.default_rng(0), torch.zeros(100_000), sigma=2.0)
    assert noise.mean() == pytest.approx(2.0 * math.sqrt(math.pi / 2), rel=0.01)


def test_exponential_of_a_constant_velocity_is_a_shift():
    velocity = torch.tensor([1.5, -0.5, 0.25]).reshape(3, 1, 1, 1).expand(3, 8, 9, 10)
    torch.testing.assert_close(exponentiate(velocity), velocity.clone())


def test_exponentials_of_opposite_velocities_are_inverse():
    velocity = torch.stack([smooth_noise(np.random.default_rng(i), (32, 32, 32), 6.0) for i in range(3)])
    forward, backward = exponentiate(velocity), exponentiate(-velocity)
    from monai_cl.phantoms.deformation import sample

    there_and_back = forward + sample(backward, voxel_grid((32, 32, 32)) + forward)
    assert there_and_back[:, 8:-8, 8:-8, 8:-8].abs().max() < 0.1


def test_jacobian_of_a_linear_map_is_its_determinant():
    matrix = torch.tensor([[1.1, 0.2, 0.0], [0.0, 0.9, 0.1], [0.05, 0.0, 1.2]])
    grid = voxel_grid((5, 6, 7))
    displacement = torch.einsum("ij,jxyz->ixyz", matrix, grid) - grid
    torch.testing.assert_close(jacobian_determinant(displacement), torch.linalg.det(matrix).expand(5, 6, 7))


@pytest.mark.parametrize("spacing", [3.0, 4.0])
def test_random_deformations_do_not_fold(spacing):
    shape = [round(length / spacing) for length in EXTENT]
    for seed in range(6):
        displacement = random_displacement(np.random.default_rng(seed), shape, spacing, extent=EXTENT)
        assert jacobian_determinant(displacement).min() > 0.1


# --- brain


@needs_nilearn
def test_brain_repeats_under_a_seed_and_differs_between_seeds(subject):
    torch.testing.assert_close(brain_subject(3).image, subject.image, rtol=0, atol=0)
    assert not torch.equal(brain_subject(4).label, subject.label)


@needs_nilearn
def test_brain_has_the_documented_shapes_and_types(subject):
    assert subject.image.shape == subject.label.shape == (1, 56, 72, 56)
    assert (subject.image.dtype, subject.label.dtype) == (torch.float32, torch.uint8)
    assert subject.image.isfinite().all()
    assert subject.image.min() >= 0


@needs_nilearn
@pytest.mark.parametrize("seed", range(6))
def test_brain_is_t1_weighted(seed):
    brain = brain_subject(seed)
    pure = brain.fractions > 0.9  # away from partial volume
    grey, white, fluid = (brain.image[0][mask].median() for mask in pure)
    assert white > grey > fluid


@needs_nilearn
def test_brain_tissues_have_human_volumes(subject):
    millilitres = [int((subject.label == k).sum()) * 0.027 for k in (1, 2, 3)]
    assert 700 < millilitres[0] < 1500
    assert 400 < millilitres[1] < 900
    assert 150 < millilitres[2] < 600


@needs_nilearn
def test_brain_label_is_the_largest_fraction(subject):
    index = tuple(np.argwhere(subject.label[0].numpy() == 2)[100])
    fractions = subject.fractions[(slice(None), *index)]
    assert fractions.argmax() == 1
    assert fractions[1] >= 1 - fractions.sum()


@needs_nilearn
def test_brain_fractions_are_shares(subject):
    assert subject.fractions.min() >= 0
    assert subject.fractions.sum(0).max() <= 1 + 1e-4


@needs_nilearn
def test_brain_protocol_stays_in_its_ranges():
    for seed in range(5):
        protocol = brain_subject(seed, spacing=8.0).protocol
        assert 0.010 <= protocol.tr <= 0.035
        assert 0.002 <= protocol.te <= 0.008
        assert 15 <= protocol.flip_angle <= 35


@needs_nilearn
@pytest.mark.parametrize("spacing", [2.0, 5.0])
def test_one_seed_is_one_anatomy_at_every_spacing(subject, spacing):
    other = brain_subject(3, spacing=spacing)
    for tissue in range(3):
        expected = float(subject.fractions[tissue].sum()) * 27
        assert float(other.fractions[tissue].sum()) * spacing**3 == pytest.approx(expected, rel=0.01)
    assert other.protocol == subject.protocol


@needs_nilearn
@pytest.mark.parametrize("spacing", [3.0, 4.0])
def test_brain_affine_puts_the_template_where_it_is(spacing):
    grid = Grid(spacing)
    fractions = template_fractions(grid)
    full, origin = full_template()
    affine = grid.affine
    first = torch.tensor(phantom_template.FIRST_VOXEL, dtype=torch.float64)

    def centre(maps, step, start):
        mass = maps.sum(0).double()
        index = (voxel_grid(mass.shape).double() * mass).sum((1, 2, 3)) / mass.sum()
        return step * index + start

    expected = centre(full, 1.0, origin + first)
    torch.testing.assert_close(centre(fractions, spacing, affine[:3, 3]), expected, rtol=0, atol=0.05)


@needs_nilearn
def test_downsampling_averages_the_maps():
    full = full_template()[0]
    expected = full[:, 30:33, 60:63, 75:78].mean((1, 2, 3))
    torch.testing.assert_close(template_fractions(Grid(3.0))[:, 10, 20, 25], expected)


def test_averaging_matrix_conserves_mass_when_the_spacing_divides_nothing():
    matrix = phantom_template.averaging_matrix(10, 2.4)
    torch.testing.assert_close(matrix.sum(0) * 2.4, torch.ones(10))


@pytest.mark.parametrize("spacing", [0.5, 20.0])
def test_brain_refuses_a_spacing_out_of_range(spacing):
    with pytest.raises(ValueError, match=r"spacing must be between 1 and 12 mm .* got"):
        brain_subject(0, spacing=spacing)


def test_brain_without_nilearn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    full_template.cache_clear()
    template_fractions.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"ICBM152 maps in nilearn: pip install 'monai_cl\[demo\]'"):
        brain_subject(0)


# --- dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    calls = []
    folder = tmp_path_factory.mktemp("brains") / "data"
    datalist = write_brain_dataset(
        folder, unlabelled=2, labelled=1, test=1, spacing=6.0, seed=5, progress=lambda *at: calls.append(at)
    )
    return datalist, calls


@needs_nilearn
def test_dataset_sections_count_and_name_their_subjects(dataset):
    content = json.loads(dataset[0].read_text())
    subjects = {key: [e["subject"] for e in content[key]] for key in ("training", "validation", "unlabelled")}
    assert subjects == {
        "training": ["brain_001"],
        "validation": ["brain_002"],
        "unlabelled": ["brain_003", "brain_004"],
    }


@needs_nilearn
def test_dataset_reports_progress(dataset):
    assert dataset[1] == [(1, 4), (2, 4), (3, 4), (4, 4)]


@needs_nilearn
def test_unlabelled_subjects_have_no_label_file(dataset):
    folder = dataset[0].parent
    content = json.loads(dataset[0].read_text())
    assert all("label" not in entry for entry in content["unlabelled"])
    assert sorted(p.name for p in (folder / "labelsTr").iterdir()) == ["brain_001.nii.gz", "brain_002.nii.gz"]


@needs_nilearn
def test_dataset_files_are_nifti_with_spacing_and_types(dataset):
    folder = dataset[0].parent
    image, label = (nibabel.load(folder / part / "brain_001.nii.gz") for part in ("imagesTr", "labelsTr"))
    assert image.get_data_dtype() == np.float32
    assert label.get_data_dtype() == np.uint8
    assert image.header.get_zooms() == (6.0, 6.0, 6.0)
    np.testing.assert_array_equal(image.affine, label.affine)


@needs_nilearn
def test_dataset_file_is_the_subject_of_its_seed(dataset):
    stored = nibabel.load(dataset[0].parent / "imagesTr" / "brain_004.nii.gz").get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(stored, brain_subject((5, 2, 1), spacing=6.0).image[0].numpy())


@needs_nilearn
def test_dataset_is_readable_by_monai(dataset):
    from monai.data import load_decathlon_datalist

    entries = load_decathlon_datalist(str(dataset[0]), data_list_key="unlabelled")
    assert entries[0]["image"].endswith("brain_003.nii.gz")


@needs_nilearn
def test_more_unlabelled_subjects_leave_the_others_as_they_were(dataset, tmp_path):
    write_brain_dataset(tmp_path / "d", unlabelled=3, labelled=1, test=1, spacing=6.0, seed=5)
    for file in (dataset[0].parent / "imagesTr").iterdir():
        assert (tmp_path / "d" / "imagesTr" / file.name).read_bytes() == file.read_bytes()


def test_dataset_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="absent or empty folder"):
        write_brain_dataset(tmp_path, unlabelled=1)


def test_dataset_refuses_to_be_empty(tmp_path):
    with pytest.raises(ValueError, match="must not be negative and not all 0"):
        write_brain_dataset(tmp_path / "d", unlabelled=0, labelled=0, test=0)


# --- shapes


@pytest.mark.parametrize(
    ("phantom", "labels"), [(abdomen_ct_phantom, 5), (chest_ct_phantom, 4), (cardiac_mr_phantom, 3)]
)
@pytest.mark.parametrize("seed", range(4))
def test_shapes_contain_every_label(phantom, labels, seed):
    assert phantom(seed).label.unique().tolist() == list(range(labels + 1))


@pytest.mark.parametrize("phantom", [abdomen_ct_phantom, chest_ct_phantom, cardiac_mr_phantom])
def test_shapes_repeat_under_a_seed_and_differ_between_seeds(phantom):
    assert torch.equal(phantom(1).image, phantom(1).image)
    assert not torch.equal(phantom(1).label, phantom(2).label)


@pytest.mark.parametrize("phantom", [abdomen_ct_phantom, chest_ct_phantom, cardiac_mr_phantom])
def test_shapes_take_shape_and_spacing(phantom):
    volume = phantom(0, shape=(40, 36, 12), spacing=(5.0, 6.0, 7.0))
    assert volume.image.shape == volume.label.shape == (1, 40, 36, 12)
    assert volume.affine.diagonal().tolist() == [5.0, 6.0, 7.0, 1.0]


def test_abdomen_is_in_hounsfield_units():
    volume = abdomen_ct_phantom(0)
    assert volume.image[0, 0, 0, 0] == pytest.approx(-1000, abs=100)
    assert volume.image[volume.label == 1].mean() == pytest.approx(105, abs=15)


def test_abdomen_has_the_liver_on_the_right():
    label = abdomen_ct_phantom(0).label[0]
    x = voxel_grid(label.shape)[0]  # grows towards the patient's right
    assert x[label == 1].mean() > x[label == 5].mean() > x[label == 4].mean()


def test_chest_has_lungs_full_of_air_and_the_heart_on_the_left():
    volume = chest_ct_phantom(0)
    assert volume.image[(volume.label == 1) | (volume.label == 2)].median() == pytest.approx(-840, abs=60)
    x = voxel_grid(volume.label.shape[1:])[0]
    assert x[volume.label[0] == 1].mean() > x[volume.label[0] == 4].mean() > x[volume.label[0] == 3].mean()


def test_heart_has_a_dark_ring_around_a_bright_pool():
    volume = cardiac_mr_phantom(0)
    assert volume.image[volume.label == 3].mean() > 2 * volume.image[volume.label == 2].mean()


@pytest.mark.parametrize(("shape", "spacing"), [((10, 10), (1, 1)), ((10, 10, 2), (1, 1, 1)), ((8, 8, 8), (1, 1, 0))])
def test_shapes_refuse_impossible_grids(shape, spacing):
    with pytest.raises(ValueError, match="3 sizes of at least 4 and spacing 3 positive lengths"):
        abdomen_ct_phantom(0, shape=shape, spacing=spacing)


# --- files


def test_equal_volumes_are_equal_files(tmp_path):
    for name in ("a", "b"):
        cardiac_mr_phantom(0, shape=(16, 16, 4)).save(tmp_path / f"{name}.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_volume_is_written_as_nii_gz_only(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.nii\.gz, got 'a\.nii'"):
        write_nifti(tmp_path / "a.nii", torch.zeros(2, 2, 2), torch.eye(4))


def test_centred_affine_puts_the_middle_at_zero():
    affine = centred_affine((5, 4, 3), (1.0, 2.0, 3.0))
    torch.testing.assert_close(
        affine @ torch.tensor([2.0, 1.5, 1.0, 1.0]).double(), torch.tensor([0.0, 0, 0, 1]).double()
    )


@pytest.mark.parametrize("side", [None, "left", "right"])
def test_heads_have_bright_spots_on_the_side_that_is_asked_for_and_else_none(side):
    for seed in range(12):
        image, spots = spotted_head((1, seed), side, size=32)
        assert image.shape == spots.shape == (1, 32, 32)
        assert [bool(spots[0, :16].any()), bool(spots[0, 16:].any())] == [side == "left", side == "right"]
        head = image != 0
        assert not head[0, 0].any()
        assert float(image[head].mean()) == pytest.approx(0, abs=1e-5)
        assert float(image[head].std(correction=0)) == pytest.approx(1, abs=1e-5)
        if side is not None:
            assert image[spots].unique().numel() == 1
            assert float(image[spots].min()) > float(image[~spots].max())
            assert torch.equal(spotted_head((1, seed), side, size=32)[0], image)
    assert not torch.equal(spotted_head(1, side)[0], spotted_head(2, side)[0])


def test_a_head_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="side must be 'left', 'right' or None, got 'both'"):
        spotted_head(0, "both")
    with pytest.raises(ValueError, match="size must be at least 8 pixels, got 4"):
        spotted_head(0, size=4)
