"""Names of patients in file names, folders and headers come out nowhere when masks are made of their scans."""

import logging
import os
import re
import stat
import unicodedata
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import write_volume
from dicom_series import write_series
from forks import SECONDS, Fork
from monai.networks.nets import SegResNet
from typer.testing import CliRunner

from monai_cl import bundles, weights
from monai_cl.cli import app
from monai_cl.data import MaskFiles, PreparedStream, TooManyFaultsError, find_images, load_datalist, scan, scans_of
from monai_cl.privacy.plain import is_plain
from monai_cl.transforms.load import LoadVolumed

WHO = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Müller^Jürgen",
    "PatientID": "MRN-48213",
    "PatientBirthDate": "17.4.61",  # not as DICOM writes dates: a reader may complain and quote it
    "StudyDate": "20190823",
    "AccessionNumber": "ACC7788990",
}
SECRETS = (
    *("Müller", "Mueller", "Muller", "Jürgen", "Juergen", "Jurgen", "48213", "17.4.61", "20190823", "2019-08-23"),
    *("7788990", "Smith", "Yamada", "Quacksalber", "Jane", "Schmidt", "61-04-17"),
)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Scans as they lie about in a clinic, below a folder that bears the name of a patient."""
    root = tmp_path / "Müller Jürgen 2019-08-23"
    for number, name in enumerate(("smith", "T1_61-04-17", "sub/MRN48213", "sub/case_7", "Yamada.v2", "case_8")):
        write_volume(root / f"{name}.nii.gz", number, shape=(16, 18, 12))
    write_volume(root / "quacksalber_T1.nii", 9, shape=(16, 18, 12))
    (root / "quacksalber_T1.nii").write_bytes((root / "quacksalber_T1.nii").read_bytes()[:400])
    labelled = nib.load(root / "case_8.nii.gz")
    labelled.header["descrip"], labelled.header["aux_file"] = b"Quacksalber Jane", b"48213"
    nib.save(labelled, root / "case_8.nii.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(2):  # two series in one folder
            for file in write_series(root / "schmidt", Columns=16, Rows=18, **WHO):
                file.rename(file.with_name(f"Mueller{number}{file.name}.dcm"))
        write_series(root / "series 3", Columns=16, Rows=18, **WHO)
    return root


def leaks(text: str) -> list[str]:
    folded = unicodedata.normalize("NFC", text).casefold()
    return [secret for secret in SECRETS if secret.casefold() in folded]


def everything_below(folder: Path) -> str:
    """Names and contents of files, the weights aside."""
    paths = [path for path in folder.rglob("*") if path.suffix != ".pt"]
    contents = [str(nib.load(p).header.structarr) if p.suffix == ".gz" else p.read_text() for p in paths if p.is_file()]
    return "\n".join([str(path.relative_to(folder)) for path in paths] + contents)


def test_the_planted_values_are_found_by_this_test(clinic: Path) -> None:
    assert len(leaks("\n".join(str(path) for path in clinic.rglob("*")))) >= 9


def test_no_output_of_the_command_names_anybody(clinic: Path, tmp_path: Path) -> None:
    bundle = bundles.copy("volume_contrast", tmp_path / "out/bundle")
    torch.manual_seed(0)
    weights.save_network(
        SegResNet(out_channels=3, init_filters=8, blocks_down=(1, 2, 2, 4)), bundle / "models/model.pt"
    )
    options = {
        "config_file": "['bundle/configs/inference.yaml','bundle/configs/small.yaml']",
        "bundle_root": "bundle",
        "dataset_dir": str(clinic),
        "recipe": "small_mr",
        "roi_size": "[16, 16, 16]",
        "max_faults": "0.3",
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    key = tmp_path / "key" / "pseudonym.key"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MONAI_CL_KEY": str(key)}
    process = Fork(["-m", "monai.bundle", "run", *arguments], tmp_path / "log.txt", tmp_path / "out", environment)
    code, said = process.wait(SECONDS), (tmp_path / "log.txt").read_text()
    assert code == 0, said
    assert re.search(r"left out dir-[0-9a-f]{16}|left out file-[0-9a-f]{16}", said)
    assert leaks(said) == []
    assert leaks(everything_below(tmp_path / "out")) == []

    masks = sorted((tmp_path / "out/bundle/runs/inference").rglob("*_seg.nii.gz"))
    assert len(masks) == 9
    assert {"case_8_seg.nii.gz", "case_7_seg.nii.gz", "series 3_seg.nii.gz"} < {path.name for path in masks}
    for text in ("descrip", "aux_file", "db_name", "intent_name"):
        assert {nib.load(mask).header[text].tobytes().strip(b"\0") for mask in masks} == {b""}

    assert stat.S_IMODE((key.parent / "masks.csv").stat().st_mode) == 0o600
    told = CliRunner(env={"MONAI_CL_KEY": str(key)}).invoke(app, ["whose", str(tmp_path / "out")])
    assert told.exit_code == 0
    for name in ("smith.nii.gz", "MRN48213.nii.gz", "Yamada.v2.nii.gz", "series 3"):
        assert re.search(rf"_seg\.nii\.gz\t.*/{re.escape(name)}\n", told.output)


# --- what a scan is called


def test_names_do_not_depend_on_the_run_and_are_found_again(clinic: Path, tmp_path: Path) -> None:
    first, second = (find_images(clinic) for _ in range(2))
    assert [item["place"] for item in first] == [item["place"] for item in second]
    assert len({item["place"] for item in first}) == len(first) == 9
    files = MaskFiles(first, tmp_path / "masks")
    for item in first:
        image = item["image"][0] if isinstance(item["image"], list) else item["image"]
        Path(files.filename(image)).touch()
    found = scans_of(tmp_path / "masks")
    assert len(found) == 9
    smith = next(mask for mask, real in found.items() if real.endswith("smith.nii.gz"))
    assert leaks(smith.removeprefix(str(tmp_path))) == []
    assert scans_of(smith) == {smith: str(clinic / "smith.nii.gz")}
    moved = Path(smith).rename(tmp_path / Path(smith).name)
    assert scans_of(moved) == {str(moved): str(clinic / "smith.nii.gz")}


def test_names_are_kept_on_request_and_nothing_is_noted(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONAI_CL_KEY", str(tmp_path / "none/key"))
    items = find_images(clinic, hide_names=False)
    assert {"smith", "case_7"} < {item["case"] for item in items}
    files = MaskFiles(items, tmp_path, hide_names=False)
    assert files.filename(clinic / "smith.nii.gz") == str(tmp_path / clinic.name / "smith_seg.nii.gz")
    assert not (tmp_path / "none").exists()


def test_a_file_alone_is_named_like_one_of_many(clinic: Path) -> None:
    (item,) = find_images(clinic / "smith.nii.gz")
    assert re.fullmatch(r"file-[0-9a-f]{16}", item["place"])
    assert item["place"] == item["case"]
    assert item["place"] in {os.path.basename(one["place"]) for one in find_images(clinic)}
    (item,) = find_images(clinic / "series 3")
    assert (item["case"], item["place"]) == ("series 3", "series 3")


def test_a_datalist_says_which_scans_and_how_they_are_named(clinic: Path, tmp_path: Path) -> None:
    made = scan(clinic, tmp_path / "study.json")
    items = find_images(clinic, datalist=made.datalist, sections="unlabelled")
    listed = load_datalist(made.datalist, "unlabelled", dataset_dir=clinic)
    assert [item["case"] for item in items] == [item["case"] for item in listed]
    assert {item["subject"] for item in items if isinstance(item["image"], list)} <= {i["subject"] for i in listed}
    assert not any(os.path.isabs(item["place"]) for item in items)


def test_a_list_made_by_hand_is_not_trusted(study: Path, tmp_path: Path) -> None:
    (tmp_path / "smith").mkdir()
    volume = tmp_path / "smith/jane.nii.gz"
    volume.symlink_to(study / "images/case_0.nii.gz")
    for path in ("smith/jane.nii.gz", str(volume), "../" + tmp_path.name + "/smith/jane.nii.gz"):
        (tmp_path / "d.json").write_text(f'{{"test": ["{path}"]}}')
        (item,) = find_images(tmp_path, datalist=tmp_path / "d.json")
        assert leaks(item["place"] + item["case"]) == []
        assert not item["place"].startswith((".", "/"))
        assert LoadVolumed("image")(item)["image"].shape == (1, 20, 22, 18)


def test_two_scans_never_share_a_mask(tmp_path: Path) -> None:
    for name in ("case_1.nii.gz", "case_1.nii", "case_2.nii"):
        write_volume(tmp_path / "images" / name, len(name))
    places = [item["place"] for item in find_images(tmp_path / "images")]
    assert places == ["images/case_1.nii", "images/case_1.nii.gz", "images/case_2"]


def test_a_scan_that_breaks_is_named_by_what_stands_for_it(clinic: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = find_images(clinic)
    caplog.clear()
    for file in clinic.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-1000])
    with caplog.at_level(logging.DEBUG), pytest.raises(TooManyFaultsError, match="got 9 of 9; mend") as error:
        list(PreparedStream(items, LoadVolumed("image"), max_faults=1.0))
    assert caplog.text.count("left out") == 9
    assert leaks(caplog.text + str(error.value)) == []


def test_what_must_not_happen_is_refused(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = MaskFiles(find_images(study / "images"), tmp_path / "masks")
    with pytest.raises(ValueError, match="a mask must be of one of the items"):
        files.filename("/elsewhere/smith.nii.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"none of the 0 masks at .* is on record"):
        scans_of(tmp_path / "empty")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/cache.json").write_text("{}")
    with pytest.raises(ValueError, match="got a cache of prepared volumes; give the datalist it was made from"):
        find_images(study, datalist=tmp_path / "cache")
    (tmp_path / "file").touch()
    monkeypatch.setenv("MONAI_CL_KEY", str(tmp_path / "file/key"))
    with pytest.raises(OSError, match=r"can be neither read nor made: .*; set MONAI_CL_KEY .*--hide_names false"):
        find_images(study / "images")


@pytest.mark.parametrize(
    "name",
    """hippocampus_001.nii.gz sub-01_ses-2_T1w.nii.gz imagesTr case_0001_0000.nii.gz patient003_frame01 T2_FLAIR
    12-T1post-05670 CT x Study1""".split(),  # noqa: SIM905
)
def test_names_of_studies_are_shown(name: str) -> None:
    assert is_plain(name)


@pytest.mark.parametrize(
    "name", ["smith", "T1_smith.nii", "48213", "17_04_61", "js_1", "j.s.", "1961-04", "1234 5678 9012", "山田", "P-ü"]
)
def test_anything_else_is_hidden(name: str) -> None:
    assert not is_plain(name)


def test_the_bundles_name_masks_alike() -> None:
    keys = (
        "images",
        "masks",
        "writer",
        "format",
        "classes",
        "codes",
        "segmentation",
        "datalist",
        "sections",
        "hide_names",
    )
    from monai.bundle import ConfigParser

    named = {n: ConfigParser.load_config_file(bundles.path(n) / "configs/inference.yaml") for n in bundles.names()}
    studies = named["missing_sequences"]  # several images have one mask, named after the first of them
    assert studies["masks"].pop("data") == "$data.first_series(@images)"
    first = named["volume_contrast"]
    assert {key: studies[key] for key in keys[2:]} == {key: first[key] for key in keys[2:]}
    assert studies["masks"] == {key: value for key, value in first["masks"].items() if key != "data"}
    configs = [config for name, config in named.items() if name != "missing_sequences"]
    assert all({key: config[key] for key in keys} == {key: first[key] for key in keys} for config in configs)
    assert np.all([config["hide_names"] is True for config in configs])
