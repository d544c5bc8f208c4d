"""Recipes: every one parses, prepares phantoms, repeats, can be inverted, and stands in the catalogue."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from monai_cl import recipes
from monai_cl.phantoms import abdomen_ct_phantom, cardiac_mr_phantom, chest_ct_phantom

FOLDER = Path(__file__).parent.parent / "transforms"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
# Coarse enough to be quick, off the phantoms' own grids.
SPACING = 7.0


def head_phantom(seed=0):
    """A bright ellipsoid in noise: enough of a head for the recipe, without the demo extra."""
    volume = cardiac_mr_phantom(seed, shape=(40, 44, 36), spacing=(5.0, 5.0, 5.0))
    outside = torch.ones(40, 44, 36, dtype=torch.bool)
    outside[8:30, 10:36, 6:28] = False
    volume.image[0][outside] *= 0.01
    volume.label[0][outside] = 0
    return volume


PHANTOMS = {
    "ct_abdomen": lambda: abdomen_ct_phantom(0, shape=(48, 40, 24), spacing=(8.0, 8.0, 10.0)),
    "ct_chest": lambda: chest_ct_phantom(0, shape=(48, 40, 24), spacing=(8.0, 8.0, 10.0)),
    "ct_whole": lambda: abdomen_ct_phantom(1, shape=(48, 40, 24), spacing=(8.0, 8.0, 10.0)),
    "body_mr": lambda: cardiac_mr_phantom(1, shape=(48, 48, 24), spacing=(7.0, 7.0, 10.0)),
    "small_mr": lambda: cardiac_mr_phantom(0, shape=(48, 48, 8), spacing=(3.5, 3.5, 10.0)),
    "cardiac_mr": lambda: cardiac_mr_phantom(0, shape=(48, 48, 8), spacing=(3.5, 3.5, 10.0)),
    "brain_mr": head_phantom,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Image and label of each recipe's phantom, stored along other axes than the recipes want."""
    folder = tmp_path_factory.mktemp("phantoms")
    for name, phantom in PHANTOMS.items():
        phantom().save(folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz")
        for part in (f"{name}.nii.gz", f"{name}_label.nii.gz"):
            stored = nibabel.load(folder / part)
            stored.get_fdata()
            turn = ornt_transform(io_orientation(stored.affine), axcodes2ornt("PIL"))
            nibabel.save(stored.as_reoriented(turn), folder / part)
    return folder


def sample_of(files, name):
    return {"image": str(files / f"{name}.nii.gz"), "label": str(files / f"{name}_label.nii.gz")}


def write_image(path, values, affine=None):
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return {"image": str(path)}


# --- finding


def test_every_recipe_has_a_phantom_in_these_tests():
    assert sorted(PHANTOMS) == NAMES


def test_names_are_the_files_of_the_folder():
    assert recipes.names() == NAMES


def test_path_is_the_file():
    assert recipes.path("ct_abdomen") == FOLDER / "ct_abdomen.yaml"


def test_the_wheel_comes_before_the_checkout(monkeypatch, tmp_path):
    (tmp_path / "mine.yaml").write_text("{purpose: p, preprocessing: {}}")
    monkeypatch.setattr(recipes, "_SEARCH", (tmp_path / "absent", tmp_path, FOLDER))
    assert recipes.names() == ["mine"]


def test_missing_folders_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, "_SEARCH", (tmp_path / "a", tmp_path / "b"))
    with pytest.raises(FileNotFoundError, match="neither exists; reinstall monai_cl"):
        recipes.names()


def test_an_unknown_recipe_gets_the_closest_and_all():
    told = r"'ct_abdomin', did you mean 'ct_abdomen'\? \(valid: body_mr, brain_mr, cardiac_mr, ct_"
    with pytest.raises(ValueError, match=told):
        recipes.load("ct_abdomin")


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"must be a file, absent\.yaml is none; built in are: body_mr, brain_mr"):
        recipes.load("absent.yaml")


def test_a_file_without_preprocessing_is_no_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text("purpose: nothing")
    with pytest.raises(ValueError, match=r"needs the keys purpose and preprocessing, .*r\.yaml lacks preprocessing"):
        recipes.load(tmp_path / "r.yaml")


def test_a_copied_recipe_loads_by_its_path(tmp_path, files):
    copied = tmp_path / "copied.yaml"
    copied.write_text(recipes.path("small_mr").read_text().replace("percentiles: [0.5, 99.5]", "percentiles: [0, 100]"))
    image = recipes.load(copied)(sample_of(files, "small_mr"))["image"]
    assert (image == 1).sum() == 1


# --- parameters


def test_an_unknown_parameter_gets_the_closest_and_all():
    told = r"has no parameter 'spacings', did you mean 'spacing'\? \(valid: margin, spacing,"
    with pytest.raises(ValueError, match=told):
        recipes.load("ct_abdomen", spacings=2.0)


@pytest.mark.parametrize("key", ["purpose", "preprocessing", "imports"])
def test_only_parameters_can_be_overridden(key):
    with pytest.raises(ValueError, match=f"has no parameter '{key}'"):
        recipes.load("ct_abdomen", **{key: "x"})


@pytest.mark.parametrize("spacing", [0, -1.0, [1.0, 1.0], [1.0, 1.0, -1.0], "1 mm", True, {"x": 1}])
def test_a_spacing_that_monai_would_misread_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing must be a positive number of mm, three numbers"):
        recipes.load("ct_abdomen", spacing=spacing)


@pytest.mark.parametrize("value", [object(), float("nan"), [float("inf")]])
def test_a_value_that_is_no_plain_value_is_refused(value):
    with pytest.raises(ValueError, match="parameter 'margin' must be a finite number, a text, a list of these or None"):
        recipes.load("ct_abdomen", margin=value)


def test_parameters_are_the_defaults_of_the_file():
    assert recipes.parameters("ct_abdomen") == {"spacing": 1.5, "window": [-175, 250], "margin": 4}


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_lets_one_choose_the_spacing(name):
    assert "spacing" in recipes.parameters(name)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [(6.0, [6, 6, 6]), ([6, 5, 4], [6, 5, 4]), ((6.0, 6.0, 0), [6, 6, 10]), (None, [3.5, 3.5, 10])],
)
def test_spacing_is_one_number_three_or_none(files, spacing, expected):
    image = recipes.load("small_mr", spacing=spacing)(sample_of(files, "small_mr"))["image"]
    torch.testing.assert_close(image.pixdim, torch.tensor(expected, dtype=torch.float64))


# --- digest


def test_digest_is_of_sha256_and_repeats():
    assert re.fullmatch("[0-9a-f]{64}", recipes.digest("ct_abdomen"))
    assert recipes.digest("ct_abdomen") == recipes.digest("ct_abdomen")


def test_digest_tells_recipes_and_parameters_apart():
    digests = {recipes.digest(name) for name in NAMES} | {recipes.digest("ct_abdomen", spacing=2.0)}
    assert len(digests) == len(NAMES) + 1


def test_digest_of_a_default_given_again_is_the_same():
    assert recipes.digest("ct_abdomen", window=(-175, 250)) == recipes.digest("ct_abdomen")


def test_digest_does_not_see_purpose_and_comments(tmp_path):
    text = recipes.path("ct_abdomen").read_text()
    (tmp_path / "r.yaml").write_text("# a comment\n" + text.replace("purpose: Abdominal", "purpose: My abdominal"))
    assert recipes.digest(tmp_path / "r.yaml") == recipes.digest("ct_abdomen")


# --- running


@pytest.mark.parametrize("name", NAMES)
def test_recipe_prepares_a_labelled_volume(files, name):
    image, label = (recipes.load(name, spacing=SPACING)(sample_of(files, name))[key] for key in ("image", "label"))
    assert image.ndim == 4
    assert image.shape == label.shape
    assert (image.dtype, label.dtype) == (torch.float32, torch.int16)
    assert image.isfinite().all()
    assert set(label.unique().tolist()) <= set(range(6))


@pytest.mark.parametrize("name", NAMES)
def test_recipe_gives_the_same_image_without_a_label(files, name):
    sample = sample_of(files, name)
    prepare = recipes.load(name, spacing=SPACING)
    assert torch.equal(prepare({"image": sample["image"]})["image"], prepare(sample)["image"])


@pytest.mark.parametrize("name", NAMES)
def test_recipe_passes_other_entries_through(files, name):
    prepared = recipes.load(name, spacing=SPACING)({**sample_of(files, name), "subject": "s1"})
    assert set(prepared) == {"image", "label", "subject"}


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_deterministic(files, name):
    first, second = (recipes.load(name, spacing=SPACING)(sample_of(files, name)) for _ in range(2))
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["label"], second["label"])


@pytest.mark.parametrize("name", NAMES)
def test_recipe_has_nothing_random(name):
    from monai.transforms.traits import RandomizableTrait

    assert not [t for t in recipes.load(name).transforms if isinstance(t, RandomizableTrait)]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_does_not_depend_on_the_stored_orientation(files, tmp_path, name):
    stored = nibabel.load(sample_of(files, name)["image"])
    turn = ornt_transform(io_orientation(stored.affine), axcodes2ornt("LAS"))
    nibabel.save(stored.as_reoriented(turn), tmp_path / "turned.nii.gz")
    prepare = recipes.load(name, spacing=SPACING)
    other = prepare({"image": str(tmp_path / "turned.nii.gz")})["image"]
    torch.testing.assert_close(other, prepare({"image": sample_of(files, name)["image"]})["image"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spacing", [None, SPACING])
def test_a_prediction_returns_to_the_grid_of_the_scan(files, name, spacing):
    from monai.transforms import Invertd

    prepare = recipes.load(name, spacing=spacing)
    sample = prepare(sample_of(files, name))
    sample["pred"] = sample["label"].clone().float()
    invert = Invertd(keys="pred", transform=prepare, orig_keys="image", nearest_interp=True)
    pred = invert({key: sample[key] for key in ("image", "pred")})["pred"]
    stored = nibabel.load(sample_of(files, name)["label"])
    truth = torch.from_numpy(np.asarray(stored.dataobj))[None]
    assert pred.shape == truth.shape
    np.testing.assert_allclose(pred.affine, stored.affine, atol=1e-5)
    overlap = 2 * ((pred > 0) & (truth > 0)).sum() / ((pred > 0).sum() + (truth > 0).sum())
    # On the scan's own grid nothing is interpolated; otherwise half a voxel of surface may move.
    assert overlap == 1 if spacing is None else overlap > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_recipe_can_be_pickled(name):
    import pickle

    assert len(pickle.loads(pickle.dumps(recipes.load(name))).transforms) == len(recipes.load(name).transforms)


def test_ct_window_becomes_zero_to_one(tmp_path):
    values = np.full((6, 6, 6), -1000.0, dtype=np.float32)
    values[2, 2, 2:5] = -175 + 0.25 * 425, 250, 3000
    image = recipes.load("ct_abdomen", spacing=None)(write_image(tmp_path / "a.nii.gz", values))["image"]
    assert image.unique().tolist() == pytest.approx([0, 0.25, 1])


def test_chest_keeps_lung_and_soft_tissue_and_the_spacing_of_routine_scans(tmp_path):
    assert recipes.parameters("ct_chest")["spacing"] == [1.25, 1.25, 5.0]
    values = np.full((30, 30, 12), -1000.0, dtype=np.float32)
    values[5:25, 5:25] = 50
    values[10:20, 10:20] = -850  # lung, within the body
    values[5, 5] = 900
    values[5, 6] = -250
    image = recipes.load("ct_chest", spacing=None)(write_image(tmp_path / "a.nii.gz", values))["image"]
    assert image.unique().tolist() == pytest.approx([0, 0.1, 0.5, 0.7, 1])


def test_whole_ct_is_as_ct_fm_was_trained(tmp_path):
    values = np.zeros((4, 6, 8), dtype=np.float32)
    values[0, 0, 0], values[-1, -1, -1], values[1, 1, 1] = -2000, 3000, 512
    image = recipes.load("ct_whole", spacing=None)(write_image(tmp_path / "a.nii.gz", values))["image"]
    assert image.shape == (1, 8, 6, 4)  # head-foot, front-back, right-left
    assert image.unique().tolist() == pytest.approx([0, 1 / 3, 0.5, 1])
    assert nibabel.aff2axcodes(image.affine.numpy()) == ("S", "P", "L")


@pytest.mark.parametrize("name", ["ct_chest", "body_mr"])
def test_a_body_in_noisy_air_is_cropped_with_its_margin(tmp_path, name):
    rng = np.random.default_rng(0)
    air = (
        -1000 + 15 * rng.standard_normal((40, 40, 20))
        if name == "ct_chest"
        else np.abs(rng.normal(0, 10, (40, 40, 20)))
    )
    values = air.astype(np.float32)
    values[12:28, 12:28] = 60 if name == "ct_chest" else 500
    image = recipes.load(name, spacing=None, margin=2)(write_image(tmp_path / "a.nii.gz", values))["image"]
    assert image.shape == (1, 22, 22, 20)  # as of the head below


def test_percentiles_of_a_body_do_not_depend_on_the_air_around_it(tmp_path):
    rng = np.random.default_rng(0)
    body = rng.uniform(200, 900, (16, 16, 16)).astype(np.float32)
    small, large = np.zeros((32, 32, 16), np.float32), np.zeros((60, 60, 16), np.float32)
    small[8:24, 8:24] = large[22:38, 22:38] = body
    load = recipes.load("body_mr")
    first, second = (load(write_image(tmp_path / f"{n}.nii.gz", v))["image"] for n, v in enumerate((small, large)))
    assert torch.equal(first, second)


def test_ct_is_cropped_to_the_body_with_its_margin(tmp_path):
    values = np.full((30, 30, 30), -1000.0, dtype=np.float32)
    values[10:20, 10:20, 10:20] = 40
    image = recipes.load("ct_abdomen", spacing=None, margin=3)(write_image(tmp_path / "a.nii.gz", values))["image"]
    assert image.shape == (1, 16, 16, 16)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.float32, 1.7e6), (np.int16, 4095)])
def test_small_mr_takes_any_range_of_intensities(tmp_path, dtype, top):
    values = (np.random.default_rng(0).random((20, 20, 10)) * top).astype(dtype)
    image = recipes.load("small_mr")(write_image(tmp_path / "a.nii.gz", values))["image"]
    assert (image.min(), image.max()) == (0, 1)
    assert image.mean() == pytest.approx(0.5, abs=0.02)


def test_small_mr_does_not_depend_on_scale(tmp_path):
    values = np.random.default_rng(0).random((20, 20, 10)).astype(np.float32)
    prepare = recipes.load("small_mr")
    small = prepare(write_image(tmp_path / "a.nii.gz", values))["image"]
    large = prepare(write_image(tmp_path / "b.nii.gz", values * 1e6))["image"]
    torch.testing.assert_close(small, large)


def test_heart_keeps_its_slices_and_its_brightest_values(tmp_path):
    phantom = cardiac_mr_phantom(0, shape=(48, 40, 7), spacing=(2.8, 2.8, 9.0))
    phantom.save(tmp_path / "a.nii.gz")
    item = {"image": str(tmp_path / "a.nii.gz")}
    image = recipes.load("cardiac_mr")(item)["image"]
    assert image.shape == (1, 95, 79, 7)  # from the centre of the first voxel to that of the last
    assert image.pixdim.tolist() == pytest.approx([1.4, 1.4, 9.0])
    low, high = np.percentile(image, (1, 99))
    assert (low, high) == pytest.approx((0, 1), abs=1e-3)
    assert image.max() > 1.01
    clipped = recipes.load("cardiac_mr", clip=True, size=[64, 100])(item)["image"]
    assert clipped.shape == (1, 64, 100, 7)
    assert clipped.max() == 1


def test_brain_is_standardised_over_what_is_not_zero(tmp_path):
    values = np.zeros((24, 24, 24), dtype=np.float32)
    values[6:18, 6:18, 6:18] = np.random.default_rng(0).normal(500, 80, (12, 12, 12))
    image = recipes.load("brain_mr")(write_image(tmp_path / "a.nii.gz", values))["image"]
    inside = image[image != 0]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-4)
    assert float(inside.std()) == pytest.approx(1, abs=1e-3)


def test_brain_is_cropped_when_the_air_is_noise(tmp_path):
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(0, 10, (40, 40, 40))).astype(np.float32)
    values[12:28, 12:28, 12:28] += 500
    image = recipes.load("brain_mr", margin=2)(write_image(tmp_path / "a.nii.gz", values))["image"]
    # 16 of the head, then on each side 1 that the local mean adds and the margin of 2
    assert image.shape == (1, 22, 22, 22)


@pytest.mark.parametrize("shape", [(1, 5, 5), (1, 5, 5, 5)])
def test_bright_region_is_where_the_local_mean_is_above_the_mean(shape):
    image = torch.zeros(shape)
    image[:, 3:] = 1.0  # the mean is 2/5; local means along the first axis are 0, 0, 1/3, 2/3, 1
    expected = (torch.arange(5) >= 3).reshape(1, 5, *[1] * (len(shape) - 2)).expand(shape)
    assert torch.equal(recipes.bright_region(image), expected)


def test_bright_region_refuses_values_that_are_not_finite():
    image = torch.ones(1, 4, 5, 6)
    image[0, :2, 0, 0] = torch.tensor([torch.nan, torch.inf])
    with pytest.raises(ValueError, match="values must be finite, 2 of 120 are not; set them to the value of air"):
        recipes.bright_region(image)


# --- the gallery


def catalogue():
    rows = re.findall(
        r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \| \[picture\]\((.+?)\) \|$", (FOLDER / "README.md").read_text(), re.M
    )
    return {name: {"purpose": p, "operators": o.split(", "), "used by": u, "preview": v} for name, p, o, u, v in rows}


def test_catalogue_lists_the_folder():
    assert sorted(catalogue()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_catalogue_states_purpose_and_operators_of_the_file(name):
    from monai.bundle import ConfigParser

    chain = ConfigParser.load_config_file(recipes.path(name))["preprocessing"]["transforms"]
    assert catalogue()[name]["purpose"] == recipes.purpose(name)
    assert catalogue()[name]["operators"] == [step["_target_"].rpartition(".")[2] for step in chain]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_a_small_preview(name):
    assert 10_000 < (FOLDER / catalogue()[name]["preview"]).stat().st_size < 150_000


def test_gallery_opens_with_what_it_is_for():
    first = (FOLDER / "README.md").read_text().split("\n\n")[1]
    assert (
        first == "`transforms/`, `bundles/` and `tutorials/` are things one copies and edits; code is in `monai_cl/`."
    )


# --- lightness and pictures


def test_finding_recipes_imports_neither_monai_nor_torch():
    code = (
        "import sys, json; from monai_cl import recipes; recipes.digest(recipes.names()[0]);"
        "print(json.dumps(sorted(sys.modules)))"
    )
    modules = json.loads(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )
    assert not {"monai", "torch", "matplotlib", "nilearn"} & set(modules)


@pytest.mark.parametrize("name", NAMES)
def test_preview_draws_a_picture(files, tmp_path, name):
    from monai_cl.report.recipe_preview import preview

    out = preview(name, sample_of(files, name)["image"], tmp_path / "new" / "p.png", spacing=SPACING)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in out.parent.iterdir()] == ["p.png"]


def test_preview_repeats(files, tmp_path):
    from monai_cl.report.recipe_preview import preview

    pictures = [preview("small_mr", sample_of(files, "small_mr")["image"], tmp_path / f"{i}.png") for i in range(2)]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_preview_writes_png_only(tmp_path):
    from monai_cl.report.recipe_preview import preview

    with pytest.raises(ValueError, match=r"written as \.png, got 'p\.jpg'"):
        preview("small_mr", "scan.nii.gz", tmp_path / "p.jpg")


def test_preview_shows_the_same_point_before_and_after():
    from monai_cl.report.recipe_preview import _Volume

    fine = _Volume(np.zeros((20, 20, 20), np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))
    coarse = _Volume(np.zeros((10, 10, 10), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    point = np.array([4.0, 8.0, 100.0])
    assert fine.voxel_of(point).tolist() == [4, 8, 19]
    assert coarse.voxel_of(point).tolist() == [2, 4, 9]


def test_preview_has_the_patients_right_at_the_left():
    from matplotlib.figure import Figure

    from monai_cl.report.recipe_preview import _PLANES, _draw_plane, _Volume

    values = np.zeros((4, 6, 8), np.float32)
    values[3] = 1  # the last index is the furthest to the patient's right
    axis = Figure().subplots()
    _draw_plane(axis, _Volume(values, np.eye(4)), _PLANES[0], np.array([1, 1, 1]))
    shown = axis.images[0].get_array()
    assert shown[:, 0].tolist() == [1] * 6
    assert [text.get_text() for text in axis.texts] == ["R", "L", "P", "A"]


def test_bright_region_refuses_a_volume_without_a_picture():
    with pytest.raises(ValueError, match="values must differ, all 120 are 7: no picture; leave the file out"):
        recipes.bright_region(torch.full((1, 4, 5, 6), 7.0))


@pytest.mark.parametrize("value", [[0, 0], [250, -175], [1], "narrow", [True, 5]])
def test_a_window_must_rise(value: Any) -> None:
    with pytest.raises(ValueError, match="window must be two rising numbers, got"):
        recipes.load("ct_abdomen", window=value)


@pytest.mark.parametrize("value", [[99, 1], [-1, 101], [50, 50]])
@pytest.mark.parametrize("name", ["small_mr", "body_mr", "brain_mr", "cardiac_mr"])
def test_percentiles_must_rise_within_0_and_100(name: str, value: list) -> None:
    with pytest.raises(ValueError, match="percentiles must be two rising numbers within 0 and 100, got"):
        recipes.load(name, percentiles=value)
