"""The control method through the bundle, beside volume contrast."""

import re
from pathlib import Path

from test_bundle_runs import run, user_sees

from monai_cl import bundles, weights
from monai_cl.engine import read_history


def test_the_control_pretrains_and_fine_tuning_starts_from_it(study: Path, tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    run(root, "pretrain", study, ("masked_reconstruction.yaml",), max_epochs=2, epoch_length=2)
    contract = weights.read_contract(root / "models/pretrained_masked.pt")
    assert contract["method"] == "masked_reconstruction"
    assert any(name.startswith("up_layers") for name in contract["touched"])  # the decoder learns too
    assert {"loss", "visible", "step"} <= set(read_history(root / "runs/pretrain_masked/history.csv")[0])
    said = user_sees(
        root, "pretrain", study, ("masked_reconstruction.yaml",), max_epochs=3, epoch_length=2, mask_ratio=0.3
    )
    assert re.search(r"mask_ratio: 0\.6 -> 0\.3", said)
    run(root, "train", study, pretrained=str(root / "models/pretrained_masked.pt"))
    assert (root / "models/model.pt").exists()
