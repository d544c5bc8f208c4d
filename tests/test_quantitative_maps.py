"""Quantitative maps from files: names, units, grids, and what is refused."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_cl.data import find_maps, load_maps
from monai_cl.qmri import tissue
from monai_cl.transforms import RandMRContrast

SHAPE = (4, 5, 6)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
WHITE = tissue("white_matter").typical()


def write(path: Path, value: float | np.ndarray, units: str | None = None, affine: np.ndarray = AFFINE) -> Path:
    """A map that is zero outside and ``value`` in the inner voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros(SHAPE, np.float32)
    data[1:-1, 1:-1, 1:-1] = value
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    if units is not None:
        path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps({"Units": units}), encoding="utf-8")
    return path


def inner(maps: torch.Tensor) -> list[float]:
    return maps[:, 2, 2, 2].tolist()


def write_subject(folder: Path, subject: str = "sub-01") -> None:
    write(folder / subject / "anat" / f"{subject}_R1map.nii.gz", 1 / WHITE.t1, "1/s")
    write(folder / subject / "anat" / f"{subject}_T2map.nii.gz", 1000 * WHITE.t2, "ms")
    write(folder / subject / "anat" / f"{subject}_R2starmap.nii.gz", 1 / WHITE.t2_star)
    write(folder / subject / "anat" / f"{subject}_PDmap.nii.gz", 69.0, "arbitrary")
    write(folder / subject / "anat" / f"{subject}_MTsat.nii.gz", 100 * WHITE.mtsat, "p.u.")
    write(folder / subject / "anat" / f"{subject}_T1w.nii.gz", 400)


def test_bids_maps_are_read_in_seconds_and_fractions(tmp_path: Path) -> None:
    write_subject(tmp_path)
    maps = load_maps(tmp_path)
    assert isinstance(maps, MetaTensor)
    assert maps.shape == (5, *SHAPE)
    assert maps.dtype == torch.float32
    np.testing.assert_allclose(maps.affine, AFFINE)
    expected = [69.0, WHITE.t1, WHITE.t2, WHITE.t2_star, WHITE.mtsat]
    np.testing.assert_allclose(inner(maps), expected, rtol=1e-5)
    assert maps[:, 0].abs().max() == 0
    record = maps.meta["mr_maps"]
    assert json.loads(json.dumps(record)) == record
    assert record["t1"]["units"], record["t1"]["converted"] == ("1/s", "times 1, then inverted")
    assert record["t2"]["converted"] == "times 0.001"
    assert (record["t2_star"]["units"], record["t2_star"]["units_from"]) == ("1/s", "BIDS")
    assert record["limited"] == {}


def test_what_is_read_is_what_the_transform_takes(tmp_path: Path) -> None:
    write_subject(tmp_path)
    image = RandMRContrast(["flair"])(load_maps(tmp_path))
    np.testing.assert_allclose(image.affine, AFFINE)
    assert float(image[0, 2, 2, 2]) > 0


def test_subjects_and_sessions_are_found_apart(tmp_path: Path) -> None:
    write_subject(tmp_path, "sub-01")
    write(tmp_path / "sub-02/ses-a/anat/sub-02_ses-a_acq-fast_T1map.nii.gz", 0.9)
    found = find_maps(tmp_path)
    assert list(found) == ["sub-01", "sub-02_ses-a"]
    assert list(found["sub-01"]) == ["MTsat", "PDmap", "R1map", "R2starmap", "T2map"]
    np.testing.assert_allclose(inner(load_maps(found["sub-02_ses-a"])), [0.9], rtol=1e-6)
    with pytest.raises(ValueError, match=r"one subject and session is needed, got \('sub-01', 'sub-02_ses-a'\)"):
        load_maps(tmp_path)


@pytest.mark.parametrize("suffixes", [("PDmap", "T1map", "R2starmap", "MTsat"), ("PD", "R1", "R2s", "MT")])
@pytest.mark.parametrize("entities", ["acq-MPM", "space-orig", "desc-b", "run-2"])
def test_further_entities_make_no_other_subject(tmp_path: Path, entities: str, suffixes: tuple[str, ...]) -> None:
    for suffix in suffixes:
        write(tmp_path / f"sub-001/anat/sub-001_{entities}_{suffix}.nii.gz", 1.0)
    found = find_maps(tmp_path)
    assert list(found) == ["sub-001"]
    assert len(found["sub-001"]) == 4


def test_two_files_of_saturation_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"sub-01/anat/sub-01_acq-{name}_MTsat.nii.gz", 1.7)
    with pytest.raises(ValueError, match=r"sub-01 must have one MTsat, got .*acq-a_MTsat.* and .*acq-b_MTsat"):
        find_maps(tmp_path)


def test_hmri_results_are_found_by_name_and_read_with_their_own_sidecars(tmp_path: Path) -> None:
    for name, value, units in (
        ("R1", 1.1, "s-1"),
        ("R2s_OLS", 20.0, "s-1"),
        ("PD", 70.0, "p.u."),
        ("MTsat", 1.7, "p.u."),
    ):
        path = write(tmp_path / f"anon_s01_{name}.nii", value)
        path.with_suffix(".json").write_text(json.dumps({"history": {"output": {"units": [units]}}}))
    maps = load_maps(tmp_path)
    assert [n for n in maps.meta["mr_maps"] if n != "limited"] == ["pd", "t1", "t2_star", "mtsat"]
    np.testing.assert_allclose(inner(maps), [70, 1 / 1.1, 0.05, 0.017], rtol=1e-5)
    mapping = {"R1": tmp_path / "anon_s01_R1.nii", "MT": tmp_path / "anon_s01_MTsat.nii"}
    np.testing.assert_allclose(inner(load_maps(mapping)), [1 / 1.1, 0.017], rtol=1e-5)


@pytest.mark.parametrize("units", ["fraction", "p.u.", "%", "arbitrary", None])
def test_saturation_in_percent_and_as_fraction_is_the_same_map(tmp_path: Path, units: str | None) -> None:
    for stored in (0.0175, 1.75):
        if (units in ("p.u.", "%") and stored < 1) or (units == "fraction" and stored > 1):
            continue
        maps = load_maps({"MTsat": write(tmp_path / "a_MTsat.nii", stored, units)})
        np.testing.assert_allclose(inner(maps), [0.0175], rtol=1e-5)


@pytest.mark.parametrize("stored", [0.07, 60.0, 1e-5])
def test_ambiguous_saturation_is_refused_with_its_median(tmp_path: Path, stored: float) -> None:
    path = write(tmp_path / "a_MTsat.nii", stored, "arbitrary")
    with pytest.raises(ValueError, match=f"ambiguous.*median of its positive values is {stored:.4g}, neither p.u."):
        load_maps({"MTsat": path})
    if stored == 0.07:
        assert load_maps({"MTsat": write(path, 1.7)}, units={"MTsat": "p.u."}).shape == (1, *SHAPE)


def in_noisy_air(tissue: float, noise: float) -> np.ndarray:
    """A small head in air that nobody masked."""
    air = np.abs(np.random.RandomState(0).normal(0, noise, (40, 40, 40)))
    air[15:25, 15:25, 15:25] = tissue
    return air.astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "stored", "noise", "above"), [("MTsat", 1.75, 0.02, "0.5"), ("TB1map", 95.0, 1.0, "10")]
)
def test_per_cent_in_noisy_air_are_not_taken_for_fractions(
    tmp_path: Path, kind: str, stored: float, noise: float, above: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"a_{kind}.nii"
    nibabel.save(nibabel.Nifti1Image(in_noisy_air(stored, noise), AFFINE), path)
    message = rf"median of its positive values is 0\.\d+, as of a fraction, but 1\.56% of them are above {above}"
    with pytest.raises(ValueError, match=rf"{message}.*units={{'{kind}': 'p.u.'}}"):
        load_maps({kind: path})
    given = load_maps({kind: path}, units={kind: "p.u."})  # which the noise does not contradict
    assert float(given[0, 20, 20, 20]) == pytest.approx(stored / 100)
    assert f"a_{kind}.nii read in 'p.u.' gives a median" in caplog.text
    assert "as noise in air does: mask the air" in caplog.text


def test_a_fraction_said_to_be_in_per_cent_is_refused_in_noisy_air_too(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(in_noisy_air(0.0167, 0.02), AFFINE), tmp_path / "a_MTsat.nii")
    with pytest.raises(ValueError, match=r"read in 'p.u.' gives a median mtsat of 0\.000"):
        load_maps({"MTsat": tmp_path / "a_MTsat.nii"}, units={"MTsat": "p.u."})


def test_a_fraction_with_a_few_failed_fits_stays_one(tmp_path: Path) -> None:
    values = in_noisy_air(0.0175, 0.002)
    values[0, 0, :5] = 3.0
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / "a_MTsat.nii")
    maps = load_maps({"MTsat": tmp_path / "a_MTsat.nii"})
    assert maps.meta["mr_maps"]["mtsat"]["units"] == "fraction"
    assert float(maps[0, 20, 20, 20]) == pytest.approx(0.0175)


def test_units_that_the_values_contradict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"read in 's' gives a median t1 of 860, outside 0.05 to 15; correct Units"):
        load_maps({"T1map": write(tmp_path / "a_T1map.nii", 860.0)})
    with pytest.raises(ValueError, match=r"read in 'p.u.' gives a median mtsat of 0.000175"):
        load_maps({"MTsat": write(tmp_path / "a_MTsat.nii", 0.0175, "p.u.")})
    given = load_maps({"T1map": tmp_path / "a_T1map.nii"}, units={"t1": "ms"})
    np.testing.assert_allclose(inner(given), [0.86], rtol=1e-5)
    assert given.meta["mr_maps"]["t1"]["units_from"] == "given"


def test_unknown_units_are_refused(tmp_path: Path) -> None:
    message = r"unit of .*a_T1map.nii must be one of \('s', 'ms'\) or .* got 'furlong'; correct Units .*'T1map': \.\.\."
    with pytest.raises(ValueError, match=message):
        load_maps({"T1map": write(tmp_path / "a_T1map.nii", 0.8, "furlong")})
    with pytest.raises(ValueError, match=r"must be one of \('1/s', '1/ms'\) or .* got 's\^2'"):
        load_maps({"R1map": write(tmp_path / "a_R1map.nii", 1.2, "s^2")})


RATES = ("1/s", "1 / s", "1/seconds", "second^-1", "per second", "Per Second", "sec^-1", "s^{-1}", "s⁻¹", "/sec", "Hz")
SLOW = ("1/ms", "1/milliseconds", "msec^-1", "per millisecond")


@pytest.mark.parametrize(
    ("kind", "stored", "units", "expected"),
    [
        *(("R2starmap", 20.0, unit, 0.05) for unit in RATES),
        *(("R2starmap", 0.02, unit, 0.05) for unit in SLOW),
        *(("T2map", 0.05, unit, 0.05) for unit in ("s", "Second", "secs", "seconds")),
        *(("T2map", 50.0, unit, 0.05) for unit in ("msec", "msecs", "millisecond", "Milliseconds")),
    ],
)
def test_usual_wordings_of_a_unit_mean_the_same(
    tmp_path: Path, kind: str, stored: float, units: str, expected: float
) -> None:
    maps = load_maps({kind: write(tmp_path / f"a_{kind}.nii", stored, units)})
    np.testing.assert_allclose(inner(maps), [expected], rtol=1e-5)


def test_a_sidecar_is_inherited_from_folders_above(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    (tmp_path / "T1map.json").write_text(json.dumps({"Units": "ms"}))
    (tmp_path / "acq-other_T1map.json").write_text(json.dumps({"Units": "furlong"}))
    write(tmp_path / "sub-01/anat/sub-01_T1map.nii.gz", 860.0)
    np.testing.assert_allclose(inner(load_maps(tmp_path)), [0.86], rtol=1e-5)


@pytest.mark.parametrize(
    ("stored", "units"), [(90.0, "p.u."), (0.9, None), (90.0, "arbitrary"), (90.0, "p.u. nominal FA")]
)
def test_transmit_field_is_relative_to_nominal(tmp_path: Path, stored: float, units: str | None) -> None:
    np.testing.assert_allclose(inner(load_maps({"TB1map": write(tmp_path / "TB1map.nii", stored, units)})), [0.9], 1e-5)


def test_field_offset_in_radians_becomes_hertz(tmp_path: Path) -> None:
    maps = load_maps({"b0": write(tmp_path / "a_fieldmap.nii", -100.0, "rad/s")})
    np.testing.assert_allclose(inner(maps), [-100 / (2 * np.pi)], rtol=1e-5)


def test_a_time_is_preferred_to_a_rate_and_channels_come_as_wanted(tmp_path: Path) -> None:
    paths = {
        "R1map": write(tmp_path / "R1map.nii", 5.0),
        "T1map": write(tmp_path / "T1map.nii", 1.2),
        "pd": write(tmp_path / "PD.nii", 1.0),
    }
    np.testing.assert_allclose(inner(load_maps(paths, maps=("t1", "pd"))), [1.2, 1.0], rtol=1e-6)


def test_values_that_physics_forbids_are_limited_and_counted(tmp_path: Path) -> None:
    paths = {"T1map": write(tmp_path / "T1map.nii", 1.0), "T2map": write(tmp_path / "T2map.nii", 1.5)}
    maps = load_maps(paths)
    assert maps.meta["mr_maps"]["limited"] == {"t2 <= t1": 24}
    assert inner(maps) == [1.0, 1.0]
    assert inner(load_maps(paths, limit=False)) == [1.0, 1.5]


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold maps with BIDS suffixes"):
        find_maps(tmp_path)
    with pytest.raises(ValueError, match="must be a folder with quantitative maps"):
        find_maps(tmp_path / "none")
    write_subject(tmp_path)
    with pytest.raises(ValueError, match=r"wanted, but \['b1'\] cannot be had"):
        load_maps(tmp_path, maps=("t1", "b1"))
    with pytest.raises(ValueError, match=r"maps must be a list of .* got \['r1'\]"):
        load_maps(tmp_path, maps=("r1",))
    with pytest.raises(ValueError, match=r"units must be for maps that exist, .* got some for \['TB1map'\]"):
        load_maps(tmp_path, units={"b1": "p.u."})
    with pytest.raises(ValueError, match="MTRmap is the magnetisation transfer ratio"):
        load_maps({"MTRmap": tmp_path / "a.nii"})
    with pytest.raises(ValueError, match=r"maps must be named .* got 'T3'"):
        load_maps({"T3": tmp_path / "a.nii"})
    write(tmp_path / "sub-01/anat/sub-01_acq-b_R1map.nii.gz", 1.0)
    with pytest.raises(ValueError, match="sub-01 must have one R1map, got"):
        find_maps(tmp_path)


def test_grids_that_differ_and_damaged_files_are_refused(tmp_path: Path) -> None:
    paths = {"T1map": write(tmp_path / "T1map.nii", 1.0), "PDmap": write(tmp_path / "PD.nii", 1.0, affine=np.eye(4))}
    with pytest.raises(ValueError, match="maps must lie on one grid"):
        load_maps(paths)
    paths["T1map"].write_bytes(paths["T1map"].read_bytes()[:-20])
    with pytest.raises(ValueError, match="cut short"):
        load_maps({"T1map": paths["T1map"]})
    path = write(tmp_path / "b_T1map.nii", 1.0, "s")
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match="cannot read the sidecar"):
        load_maps({"T1map": path})
