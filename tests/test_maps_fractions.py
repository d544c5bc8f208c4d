"""Tissue fractions beside maps: found, checked against the grid of the maps, mixed in the signal."""

import json
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from monai_cl.data import common_fractions, common_maps, find_fractions, find_maps, fractions_by_tissue, map_items
from monai_cl.qmri import draw_protocol, mix, simulate, tissue
from monai_cl.transforms import LoadMapsd, RandMRContrast, WeightedRatesd

SHAPE = (6, 5, 4)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
TISSUES = {"WM": "white_matter", "GM": "grey_matter", "CSF": "csf"}


def write(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), path)
    return path


def shares() -> dict[str, np.ndarray]:
    """White matter, grey matter and fluid in slabs, and one plane that white matter and fluid share equally."""
    found = {label: np.zeros(SHAPE) for label in TISSUES}
    found["WM"][:2], found["GM"][2:4], found["CSF"][5:] = 1, 1, 1
    found["WM"][4] = found["CSF"][4] = 0.5
    return found


def write_subject(root: Path, name: str, *, place: str = "") -> None:
    anat = root / name / "anat"
    parts = [(share, tissue(TISSUES[label]).typical()) for label, share in shares().items()]
    write(anat / f"{name}_PDmap.nii.gz", sum(share * one.pd for share, one in parts))
    write(anat / f"{name}_T2map.nii.gz", 1 / sum(share / one.t2 for share, one in parts))
    write(anat / f"{name}_R1map.nii.gz", sum(share / one.t1 for share, one in parts))
    for label, share in shares().items():
        write(root / place / name / "anat" / f"{name}_label-{label}_probseg.nii.gz", share)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2):
        write_subject(tmp_path, f"sub-{number:02d}")
    return tmp_path


def load(item: dict[str, Any], tissues: tuple[str, ...] = tuple(TISSUES.values())) -> Any:
    return LoadMapsd("image", ("pd", "t1", "t2"), fractions=tissues)(item)


def test_fractions_travel_with_the_maps(folder: Path) -> None:
    items = map_items(folder)
    assert common_maps(items) == ("pd", "t1", "t2")
    assert common_fractions(items) == ("white_matter", "grey_matter", "csf")
    loaded = load(items[0])
    assert "fractions" not in loaded
    assert loaded["image"].shape == (6, *SHAPE)
    np.testing.assert_allclose(loaded["image"].affine, AFFINE)
    np.testing.assert_allclose(loaded["image"][3:], np.stack(list(shares().values())))
    turned = WeightedRatesd("image", ("pd", "t1", "t2"))(loaded)["image"]
    np.testing.assert_allclose(turned[3:], loaded["image"][3:])


def test_they_are_mixed_in_the_signal(folder: Path) -> None:
    maps = load(map_items(folder)[0])["image"]
    protocol = draw_protocol("flair", np.random.RandomState(0))
    image = RandMRContrast([protocol], ("pd", "t1", "t2"), fractions=tuple(TISSUES.values()))(maps)
    pure = [tissue(name).typical() for name in ("white_matter", "csf")]
    signals = torch.stack([
        protocol.coherent(**{n: torch.tensor(getattr(one, n)) for n in ("pd", "t1", "t2")})[0] for one in pure
    ])  # fmt: skip
    expected = mix(torch.full((2, 1), 0.5), signals)
    torch.testing.assert_close(image[0, 4, 2, 2].as_subclass(torch.Tensor), expected[0], rtol=1e-4, atol=1e-4)
    averaged = simulate(protocol, **dict(zip(("pd", "t1", "t2"), maps, strict=False)))
    assert abs(float(averaged[4, 2, 2]) / float(expected) - 1) > 0.05  # which averaged rates would not give
    torch.testing.assert_close(image[0, :4].as_subclass(torch.Tensor), averaged[:4].as_subclass(torch.Tensor))


def test_they_are_dropped_where_nobody_wants_them(folder: Path) -> None:
    loaded = LoadMapsd("image")(map_items(folder)[0])
    assert loaded["image"].shape == (3, *SHAPE)
    assert "fractions" not in loaded


def test_segmentations_in_derivatives_belong_to_maps_of_their_space(tmp_path: Path) -> None:
    write_subject(tmp_path, "sub-01", place="derivatives/seg")
    anat = tmp_path / "derivatives/seg/sub-01/anat"
    write(anat / "sub-01_space-MNI152_label-GM_probseg.nii.gz", shares()["GM"])
    write(anat / "sub-01_label-L_probseg.nii.gz", shares()["GM"])
    write(anat / "sub-09_label-GM_probseg.nii.gz", shares()["GM"])
    found = find_fractions(tmp_path, find_maps(tmp_path))
    assert {case: list(files) for case, files in found.items()} == {"sub-01": list(TISSUES.values())}
    assert found["sub-01"]["grey_matter"].name == "sub-01_label-GM_probseg.nii.gz"


def test_a_tissue_that_one_subject_lacks_is_not_in_common(folder: Path) -> None:
    (folder / "sub-02/anat/sub-02_label-GM_probseg.nii.gz").unlink()
    items = map_items(folder)
    assert common_fractions(items) == ("white_matter", "csf")
    with pytest.raises(ValueError, match=r"\['grey_matter'\] missing; available are \('white_matter', 'csf'\)"):
        load(items[1])
    assert common_fractions([]) == ()


def test_a_list_names_fractions_among_the_files(folder: Path) -> None:
    files = [f"sub-01/anat/sub-01_{kind}.nii.gz" for kind in ("PDmap", "R1map", "T2map", "label-WM_probseg")]
    (folder / "list.json").write_text(json.dumps({"training": [{"image": files, "subject": "sub-01"}]}))
    items = map_items(folder, folder / "list.json")
    assert common_fractions(items) == ("white_matter",)
    assert load(items[0], ("white_matter",))["image"].shape == (4, *SHAPE)


@pytest.mark.parametrize(
    ("values", "affine", "message"),
    [
        (np.ones((6, 5, 3)), AFFINE, r"sub-01_label-GM_probseg\.nii\.gz has the shape \(6, 5, 3\) .* maps \(6, 5, 4\)"),
        (np.ones(SHAPE), np.diag([2.0, 2, 2, 1]), r"affine of .*label-GM_probseg\.nii\.gz differs by up to 1 mm"),
        (np.full(SHAPE, 80.0), AFFINE, r"between 0 and 1, got 80 to 80 in .*GM_probseg\.nii\.gz; divide percent"),
    ],
)
def test_fractions_that_do_not_fit_are_refused(
    folder: Path, values: np.ndarray, affine: np.ndarray, message: str
) -> None:
    write(folder / "sub-01/anat/sub-01_label-GM_probseg.nii.gz", values, affine)
    with pytest.raises(ValueError, match=message):
        load(map_items(folder)[0])


def test_a_tissue_with_several_files_is_left_out_with_a_word(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder / "derivatives/sub-01_label-GM_probseg.nii.gz", shares()["GM"])
    with caplog.at_level(logging.WARNING):
        assert common_fractions(map_items(folder)) == ("white_matter", "csf")
    assert (
        "left out 1 tissue fractions of which a subject has several files, such as derivatives/sub-01_" in caplog.text
    )


def test_files_of_no_tissue_and_damaged_ones_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"one for each LABEL of \('WM', .*\), got sub-01_label-L_probseg\.nii"):
        fractions_by_tissue(["sub-01_label-L_probseg.nii"])
    file = folder / "sub-01/anat/sub-01_label-GM_probseg.nii.gz"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"cannot (use|read) .*label-GM_probseg\.nii\.gz"):
        load(map_items(folder)[0])
