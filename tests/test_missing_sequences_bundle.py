"""Templates of the bundle for missing sequences, pretrained as users pretrain it on brains whose truth is known."""

import json
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import pytest
import torch
from conftest import ROOT
from monai.utils import set_determinism
from torch import Tensor

from monai_cl import bundles, data, recipes
from monai_cl.intake.scan import scan
from monai_cl.phantoms import brain_maps
from monai_cl.qmri.signal import inversion_recovery, spoiled_gradient_echo
from monai_cl.transforms import PrepareStudy

REAL = ROOT.parent / "shared" / "data" / "dicom_brain"
SPACING, SIZE = 8.0, (24, 32, 24)
OPTIONS = {"spacing": SPACING}
SMALL = {"crop_size": [16, 16, 16], "template_size": list(SIZE), "max_epochs": 1, "epoch_length": 30}


def images(number: int) -> tuple[dict[str, Tensor], Tensor]:
    """Three sequences of a brain, 0 outside of it, and their affine."""
    brain = brain_maps((11, number), spacing=SPACING)
    pd, t1, t2, t2_star, _ = brain.maps
    inside = t2 > 0
    pd, t1, t2, t2_star = (value.where(inside, torch.ones(())) for value in (pd, t1, t2, t2_star))
    made = {
        "T1w": spoiled_gradient_echo(pd, t1, t2_star, tr=0.02, te=0.004, flip_angle=25.0),
        "FLAIR": inversion_recovery(pd, t1, t2, tr=9.0, ti=2.5, te=0.12),
        "PDw": pd,
    }
    return {name: image * inside for name, image in made.items()}, brain.affine


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Six brains of which every third has both sequences to train on; two to look at, with one more sequence."""
    listed: dict[str, list[dict[str, str]]] = {"training": [], "validation": []}
    for number in range(8):
        made, affine = images(number)
        probed = number >= 6
        names = ["T1w", "PDw"] if probed else [["T1w"], ["FLAIR"], ["T1w", "FLAIR"]][number % 3]
        for name in names:
            path = tmp_path / f"brain_{number}_{name}.nii.gz"
            nib.save(nib.Nifti1Image(made[name].numpy(), affine.numpy()), path)
            entry = {"image": path.name, "subject": f"brain {number}", "sequence": name}
            listed["validation" if probed else "training"].append(entry)
    (tmp_path / "datalist.json").write_text(json.dumps(listed))
    return tmp_path


def pretrained(root: Path, images: Path, datalist: Path, **options: Any) -> Path:
    """A copy of the bundle after its pretraining."""
    bundles.copy("missing_sequences", root)
    try:
        monai.bundle.run(
            bundle_root=str(root), config_file=[str(root / "configs" / f"{n}.yaml") for n in ("pretrain", "small")],
            dataset_dir=str(images), datalist=str(datalist), logging_file=False, recipe_options=OPTIONS, **options,
        )  # fmt: skip
    finally:
        set_determinism(seed=None)
    return root


def means(study: Path) -> dict[str, Tensor]:
    """Mean over the patients of each sequence as the network sees it, its centre on that of the template."""
    split = data.split_studies(study / "datalist.json", "training", "validation", dataset_dir=study, count=2)
    found: dict[str, list[Tensor]] = {}
    for item in map(PrepareStudy(recipes.load("brain_mr", **OPTIONS)), split["train"]):
        for name, image in zip(item["sequences"], item["image"].as_tensor(), strict=True):
            around = [whole - side for side, whole in zip(image.shape, SIZE, strict=True)]
            pad = [part for space in reversed(around) for part in (space // 2, space - space // 2)]
            found.setdefault(name, []).append(torch.nn.functional.pad(image, pad))
    return {name: torch.stack(seen).mean(0) for name, seen in found.items()}


def test_templates_of_a_run_are_the_mean_brain_of_their_sequence_and_that_of_none_stays_zero(study: Path) -> None:
    """With the defaults of the bundle and of ``small.yaml``, in thirty steps on small crops."""
    root = pretrained(study / "bundle", study, study / "datalist.json", sections="training", **SMALL)
    templates, truth = data.read_templates(root / "models" / "templates"), means(study)
    assert sorted(templates) == ["FLAIR", "PDw", "T1w"]
    for name in ("T1w", "FLAIR"):
        body = truth[name] != 0
        pair = torch.stack([templates[name][body], truth[name][body]])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.9
    assert not templates["PDw"].any()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real scans are not there")
def test_dicom_studies_go_from_the_scan_into_the_bundle_as_they_are(tmp_path: Path) -> None:
    """Two patients with four series each, two of them T1-weighted."""
    scan(REAL, tmp_path / "datalist.json")
    listed = json.loads((tmp_path / "datalist.json").read_text())
    studies = data.study_items(listed["unlabelled"])
    assert [sorted(study["sequences"]) for study in studies] == [["FLAIR", "T1w", "T1w", "T2w"]] * 2
    options = SMALL | {"epoch_length": 4, "batch_size": 2, "probe_volumes": 0}
    root = pretrained(tmp_path / "bundle", REAL, tmp_path / "datalist.json", **options)
    templates = data.read_templates(root / "models" / "templates")
    assert sorted(templates) == ["FLAIR", "T1w", "T2w"]
    assert any(bool(template.any()) for template in templates.values())
    assert (root / "models" / "pretrained.pt").is_file()
