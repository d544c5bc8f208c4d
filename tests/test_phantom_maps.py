"""Synthetic quantitative maps: physical, repeatable, exact in partial volume, and readable from files."""

import importlib.util
import json

import nibabel
import numpy as np
import pytest
import torch

from monai_cl.data import brain_maps, find_maps, load_maps, write_brain_maps
from monai_cl.phantoms import brain_subject, save_subject
from monai_cl.qmri import draw_protocol, tissue
from monai_cl.qmri.maps import MAP_NAMES
from monai_cl.qmri.protocols import SpinEcho
from monai_cl.transforms import RandMRContrast

pytestmark = pytest.mark.skipif(importlib.util.find_spec("nilearn") is None, reason="needs the demo extra")
FULL = {"spacing": 4.0, "head": True, "lesions": 8}


@pytest.fixture(scope="module")
def subject():
    return brain_maps(3, **FULL)


def named(subject):
    return dict(zip(MAP_NAMES, subject.maps, strict=True))


def test_shapes_and_types(subject):
    assert subject.tissues == ("grey_matter", "white_matter", "csf", "white_matter_lesion", "fat", "muscle")
    assert subject.maps.shape == (5, 48, 60, 48)
    assert subject.fractions.shape == (6, 48, 60, 48)
    assert subject.label.shape == (1, 48, 60, 48)
    assert (subject.maps.dtype, subject.label.dtype) == (torch.float32, torch.uint8)
    assert subject.label.unique().tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_maps_obey_physics(subject):
    maps = named(subject)
    some = maps["pd"] > 0
    assert subject.maps.isfinite().all()
    assert (subject.maps[:, ~some] == 0).all()
    assert (maps["t2_star"][some] > 0).all()
    # Mean rates keep the order of the rates of each tissue; the rest is rounding.
    assert (maps["t2_star"][some] <= maps["t2"][some] * (1 + 1e-5)).all()
    assert (maps["t2"][some] <= maps["t1"][some] * (1 + 1e-5)).all()
    assert maps["pd"].max() <= 100.001
    assert 0 <= maps["mtsat"].min() <= maps["mtsat"].max() < 0.1


def test_shares_fill_at_most_the_voxel(subject):
    assert subject.fractions.min() >= 0
    assert subject.fractions.sum(0).max() <= 1 + 1e-4


@pytest.mark.parametrize("name", ["grey_matter", "white_matter", "csf"])
@pytest.mark.parametrize("field", [1.5, 3.0, 7.0])
def test_tissues_are_drawn_from_the_table_at_the_field(name, field):
    table = tissue(name, field)
    for seed in range(4):
        drawn = brain_maps(seed, spacing=12.0, field_strength=field).values[name]
        for quantity in ("pd", "t1", "t2"):
            entry = getattr(table, quantity)
            assert abs(np.log(getattr(drawn, quantity) / entry.value)) <= 2.5 * entry.spread + 1e-9


def test_values_spread_between_subjects():
    t1 = [brain_maps(seed, spacing=12.0).values["white_matter"].t1 for seed in range(8)]
    assert np.std(np.log(t1)) > 0.04


def test_pure_voxels_carry_the_values_of_their_tissue_with_texture(subject):
    maps = named(subject)
    white = subject.fractions[1] > 0.99
    centre = subject.values["white_matter"]
    spread = torch.log(maps["t1"][white] / centre.t1)
    assert 0.01 < spread.std() < 0.08
    assert maps["t1"][white].median() == pytest.approx(centre.t1, rel=0.05)
    assert maps["mtsat"][white].median() == pytest.approx(centre.mtsat, rel=0.08)


def test_properties_wander_together_like_myelin(subject):
    white = subject.fractions[1] > 0.99
    logs = torch.log(torch.stack([m[white] for m in subject.tissue_maps("white_matter").values()]))
    correlation = torch.corrcoef(logs)
    t1, t2, mtsat = (MAP_NAMES.index(n) for n in ("t1", "t2", "mtsat"))
    assert correlation[t1, t2] > 0.3
    assert correlation[t1, mtsat] < -0.3


def test_shared_voxels_are_one_pool_of_the_tissues(subject):
    shared = ((subject.fractions > 0.2).sum(0) == 2).nonzero()[50]
    index = (slice(None), *shared.tolist())
    density, rate, saturation = 0.0, 0.0, 0.0
    for name, share in zip(subject.tissues, subject.fractions[index], strict=True):
        own = {n: float(m[index[1:]]) for n, m in subject.tissue_maps(name).items()}
        density += float(share) * own["pd"]
        rate += float(share) * own["pd"] / own["t1"]
        saturation += float(share) * own["pd"] * own["mtsat"]
    got = dict(zip(MAP_NAMES, subject.maps[index].tolist(), strict=True))
    assert got["pd"] == pytest.approx(density, rel=1e-5)
    assert got["t1"] == pytest.approx(density / rate, rel=1e-5)
    assert got["mtsat"] == pytest.approx(saturation / density, rel=1e-5)


@pytest.mark.parametrize("family", ["t1w_spgr", "dir", "t1w_mp2rage"])
def test_images_mix_tissues_in_the_signal(subject, family):
    protocol = draw_protocol(family, np.random.RandomState(0))
    expected = None
    for name, share in zip(subject.tissues, subject.fractions, strict=True):
        own = subject.tissue_maps(name)
        parts = [share * part for part in protocol.coherent(**{n: own[n] for n in protocol.takes})]
        expected = parts if expected is None else [a + b for a, b in zip(expected, parts, strict=True)]
    image = subject.image(protocol)
    torch.testing.assert_close(image[0], protocol.combine(*expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(subject.image(protocol.to_dict()), image, rtol=0, atol=0)


def test_image_of_the_transform_agrees_where_one_tissue_fills_the_voxel(subject):
    protocol = draw_protocol("t1w_mprage", np.random.RandomState(0))
    image = RandMRContrast([protocol], fractions=subject.tissues)(subject.metatensor(fractions=True))
    pure = subject.fractions.amax(0) > 0.9999
    torch.testing.assert_close(image.as_tensor()[0][pure], subject.image(protocol)[0][pure], rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(image.affine, subject.affine)


@pytest.mark.parametrize(
    ("family", "order"),
    [
        ("t1w_mprage", ("white_matter", "grey_matter", "csf")),
        ("t2w_fse", ("csf", "white_matter_lesion", "white_matter")),
        ("flair", ("white_matter_lesion", "grey_matter", "csf")),
        ("stir", ("csf", "white_matter", "fat")),
    ],
)
def test_contrasts_are_those_of_the_clinic(family, order):
    subject = brain_maps(1, spacing=3.0, head=True, lesions=25)
    image = subject.image(draw_protocol(family, np.random.RandomState(0)))[0]
    means = []
    for name in order:
        share = subject.fractions[subject.tissues.index(name)]
        means.append(float(image[share >= 0.95 * share.max()].mean()))
    assert means == sorted(means, reverse=True)


def test_equal_seeds_give_equal_subjects(subject):
    torch.testing.assert_close(brain_maps(3, **FULL).maps, subject.maps, rtol=0, atol=0)
    assert not torch.equal(brain_maps(4, **FULL).maps, subject.maps)


def test_options_leave_anatomy_and_values_as_they_are():
    plain, full = brain_maps(3, spacing=4.0), brain_maps(3, **FULL)
    inner = full.fractions[:, 3:-3, 3:-3, 3:-3]
    torch.testing.assert_close(inner[2], plain.fractions[2], rtol=0, atol=1e-4)
    torch.testing.assert_close(inner[0] + inner[1] + inner[3], plain.fractions[:2].sum(0), rtol=0, atol=1e-4)
    untouched = (inner[3] == 0) & (plain.fractions.sum(0) > 0.999)
    torch.testing.assert_close(
        full.maps[:, 3:-3, 3:-3, 3:-3][:, untouched], plain.maps[:, untouched], rtol=1e-3, atol=0
    )
    assert all(full.values[name] == plain.values[name] for name in plain.tissues)


@pytest.mark.parametrize("name", ["grey_matter", "white_matter_lesion", "fat", "muscle"])
def test_one_seed_is_one_anatomy_at_every_spacing(name):
    litres = []
    for spacing in (2.0, 4.0):
        share = (one := brain_maps(3, spacing=spacing, head=True, lesions=8)).fractions[one.tissues.index(name)]
        litres.append(float(share.sum()) * spacing**3 / 1e6)
    assert litres[1] == pytest.approx(litres[0], rel=0.01 if name == "grey_matter" else 0.1)


def test_lesions_lie_in_white_matter_and_are_counted():
    drawn = {brain_maps(s, spacing=12.0, lesions=(0, 3)).tissues[3:] for s in range(8)}
    assert drawn == {(), ("white_matter_lesion",)}
    without, some = brain_maps(5, spacing=3.0), brain_maps(5, spacing=3.0, lesions=10)
    lesion = some.fractions[3] > 0.5
    assert lesion.any()
    assert without.fractions[1][lesion].mean() > 0.6
    assert set(some.label[0][lesion].unique().tolist()) == {4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spacing": 0.5}, "spacing must be between 1 and 12 mm"),
        ({"field_strength": 2.0}, r"field_strength must be one of \(1.5, 3.0, 7.0\) tesla"),
        ({"field_strength": 7.0, "head": True}, "head=True needs 1.5 or 3 tesla"),
        ({"lesions": -1}, "lesions must be a number from 0 to 500"),
        ({"lesions": (3, 1)}, "lesions must be a number from 0 to 500, .*or an ordered pair"),
        ({"lesions": 999_999}, "lesions must be a number from 0 to 500, .* got 999999"),
        ({"lesions": (1, 501)}, r"lesions must be a number from 0 to 500, .* got \(1, 501\)"),
    ],
)
def test_impossible_subjects_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        brain_maps(0, **arguments)


def test_the_most_lesions_leave_most_of_the_white_matter():
    subject = brain_maps(0, spacing=12.0, lesions=500)
    _, white, _, lesion = subject.fractions.sum((1, 2, 3))[:4]
    assert 0.15 < lesion / (lesion + white) < 0.5


def test_unknown_tissue_is_refused(subject):
    with pytest.raises(ValueError, match="the subject has the tissues"):
        subject.tissue_maps("bone")


# --- T1-weighted subjects of the demo


def test_subject_of_the_demo_is_an_image_of_the_maps():
    maps, scan = brain_maps(2, spacing=4.0), brain_subject(2, spacing=4.0)
    assert scan.protocol.family == "t1w_spgr"
    torch.testing.assert_close(scan.label, maps.label)
    clean, noisy = maps.image(scan.protocol)[0], scan.image[0]
    inside = maps.fractions.sum(0) > 0.99
    assert torch.corrcoef(torch.stack([clean[inside], noisy[inside]]))[0, 1] > 0.85


# --- files


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    calls = []
    folder = write_brain_maps(
        tmp_path_factory.mktemp("maps") / "data", subjects=2, spacing=6.0, lesions=(1, 3), seed=7,
        progress=lambda *at: calls.append(at),
    )  # fmt: skip
    return folder, calls


def test_files_come_back_in_the_units_of_the_house(dataset):
    found = find_maps(dataset[0])
    assert list(found) == ["sub-001", "sub-002"]
    assert list(found["sub-001"]) == ["MTsat", "PDmap", "R2starmap", "T1map", "T2map"]
    loaded = load_maps(found["sub-002"])
    subject = brain_maps((7, 1), spacing=6.0, lesions=(1, 3))
    torch.testing.assert_close(loaded.as_tensor(), subject.maps, rtol=1e-6, atol=0)
    torch.testing.assert_close(loaded.affine, subject.affine)
    record = loaded.meta["mr_maps"]
    assert record["t2_star"]["units"] == "1/s"
    assert {record[name]["units_from"] for name in ("t1", "t2", "t2_star", "mtsat")} == {"sidecar"}
    assert record["limited"] == {}
    assert RandMRContrast(["t2w_fse"])(loaded).isfinite().all()


def test_dataset_is_a_bids_derivative_with_labels_and_shares(dataset):
    folder, calls = dataset
    assert calls == [(1, 2), (2, 2)]
    description = json.loads((folder / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert (folder / "dseg.tsv").read_text().splitlines()[4] == "4\twhite_matter_lesion\tL"
    subject = brain_maps((7, 0), spacing=6.0, lesions=(1, 3))
    anat = folder / "sub-001" / "anat"
    label = nibabel.load(anat / "sub-001_dseg.nii.gz")
    np.testing.assert_array_equal(np.asarray(label.dataobj), subject.label[0].numpy())
    share = nibabel.load(anat / "sub-001_label-WM_probseg.nii.gz")
    np.testing.assert_array_equal(share.get_fdata(dtype=np.float32), subject.fractions[1].numpy())


def test_dataset_refuses_a_folder_in_use_and_no_subject(tmp_path):
    with pytest.raises(ValueError, match="subjects must be at least 1, got 0"):
        write_brain_maps(tmp_path / "d", subjects=0)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="absent or empty folder"):
        write_brain_maps(tmp_path, subjects=1)


def test_subject_is_named_as_bids_wants(tmp_path):
    with pytest.raises(ValueError, match="letters and digits, got 'a-b'"):
        save_subject(brain_maps(0, spacing=12.0), tmp_path, "a-b")
    files = save_subject(brain_maps(0, spacing=12.0), tmp_path, "x1")
    assert load_maps(files, maps=["t1"]).shape == (1, 14, 18, 14)


def test_spin_echo_of_fluid_is_the_equation():
    subject = brain_maps(0, spacing=6.0)
    pure = subject.fractions[2] > 0.999
    own = {n: m[pure] for n, m in subject.tissue_maps("csf").items()}
    expected = SpinEcho(tr=2.0, te=0.05).signal(pd=own["pd"], t1=own["t1"], t2=own["t2"])
    torch.testing.assert_close(subject.image(SpinEcho(tr=2.0, te=0.05))[0][pure], expected, rtol=2e-3, atol=0)


# --- one anatomy in eight sequences


@pytest.fixture(scope="module")
def gallery():
    from monai_cl.report.sequence_gallery import SEQUENCES, gallery_subject

    shown = gallery_subject(spacing=3.0)
    means = {}
    for name, protocol in SEQUENCES.items():
        image = shown.image(protocol)[0]
        shares = dict(zip(shown.tissues, shown.fractions, strict=True))
        means[name] = {tissue: float(image[share >= 0.95 * share.max()].mean()) for tissue, share in shares.items()}
    return means


@pytest.mark.parametrize("name", ["T1w MPRAGE", "T1w MP2RAGE"])
def test_gallery_t1_weighted_shows_white_above_grey_above_fluid(gallery, name):
    assert gallery[name]["white_matter"] > gallery[name]["grey_matter"] > gallery[name]["csf"]


@pytest.mark.parametrize("name", ["T2w spin echo", "T2*w gradient echo"])
def test_gallery_t2_weighted_shows_the_reverse(gallery, name):
    assert gallery[name]["csf"] > gallery[name]["grey_matter"] > gallery[name]["white_matter"]


def test_gallery_flair_has_dark_fluid_and_bright_lesions(gallery):
    flair = gallery["FLAIR"]
    assert flair["csf"] < 0.35 * flair["white_matter"]
    assert flair["white_matter_lesion"] > 1.3 * max(flair["white_matter"], flair["grey_matter"])


def test_gallery_double_inversion_leaves_grey_matter(gallery):
    assert gallery["DIR"]["grey_matter"] > 2 * max(gallery["DIR"]["white_matter"], gallery["DIR"]["csf"])


def test_gallery_proton_density_shows_grey_above_white(gallery):
    assert gallery["PDw spin echo"]["grey_matter"] > gallery["PDw spin echo"]["white_matter"]


def test_gallery_is_drawn(tmp_path):
    from monai_cl.report.sequence_gallery import draw_gallery

    assert draw_gallery(tmp_path / "g.png", spacing=6.0).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("family", ["flair", "t2w_fse", "t1w_mprage"])
def test_lesions_that_no_fraction_names_look_as_they_are(family: str) -> None:
    subject = brain_maps(0, spacing=3.0, lesions=30)
    listed = ("grey_matter", "white_matter", "csf")
    protocol = draw_protocol(family, np.random.RandomState(0))
    shares = dict(zip(subject.tissues, subject.fractions, strict=True))
    channels = torch.cat([subject.maps, torch.stack([shares[name] for name in listed])])
    image, truth = RandMRContrast([protocol], fractions=listed)(channels)[0].as_tensor(), subject.image(protocol)[0]
    white = truth[shares["white_matter"] > 0.95].mean()
    lesion = shares["white_matter_lesion"]
    for where in (lesion > 0.95, (lesion > 0.05) & (lesion < 0.95)):  # core and edge
        assert int(where.sum()) > 10
        assert float((image - truth)[where].abs().mean() / white) < 0.04
