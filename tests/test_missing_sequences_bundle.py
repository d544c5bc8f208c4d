"""Templates of the bundle for missing sequences, pretrained as users pretrain it on brains whose truth is known."""

import json
from pathlib import Path

import monai.bundle
import nibabel as nib
import pytest
import torch
from monai.utils import set_determinism
from torch import Tensor

from monai_cl import bundles, data, recipes
from monai_cl.phantoms import brain_maps
from monai_cl.qmri.signal import inversion_recovery, spoiled_gradient_echo
from monai_cl.transforms import PrepareStudy

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
    root = bundles.copy("missing_sequences", study / "bundle")
    try:
        monai.bundle.run(
            bundle_root=str(root), config_file=[str(root / "configs" / f"{n}.yaml") for n in ("pretrain", "small")],
            dataset_dir=str(study), datalist=str(study / "datalist.json"), logging_file=False, recipe_options=OPTIONS,
            sections="training", **SMALL,
        )  # fmt: skip
    finally:
        set_determinism(seed=None)
    templates, truth = data.read_templates(root / "models" / "templates"), means(study)
    assert sorted(templates) == ["FLAIR", "PDw", "T1w"]
    for name in ("T1w", "FLAIR"):
        body = truth[name] != 0
        pair = torch.stack([templates[name][body], truth[name][body]])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.9
    assert not templates["PDw"].any()
