"""Pretraining on anatomical pairs through the bundle: CT and MR, resumed bit for bit, by each correspondence."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from test_bundle_runs import identical, run, user_sees

from monai_cl import bundles, weights
from monai_cl.data import AnatomicalPairs
from monai_cl.engine import read_history, read_run_record

OVERLAYS = ("anatomical_pairs.yaml",)
TINY = {"patch_size": [16, 16, 16], "prototypes": 16, "max_epochs": 2, "epoch_length": 1, "probe_volumes": 2}


def pretrain(root: Path, study: Path, **changes: Any) -> dict[str, Any]:
    bundle = root if root.exists() else bundles.copy("volume_contrast", root)
    run(bundle, "pretrain", study, OVERLAYS, **{**TINY, **changes})
    content: dict[str, Any] = torch.load(root / "runs/pretrain_anatomical/checkpoint.pt", weights_only=True)
    return content


def test_a_run_teaches_the_decoder_goes_on_bit_for_bit_and_fine_tuning_starts_from_it(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(tmp_path / "whole", study)
    file = tmp_path / "whole/models/pretrained_anatomical.pt"
    contract = weights.read_contract(file)
    assert contract["method"] == "anatomical_pairs"
    assert any(name.startswith("up_layers") for name in contract["touched"])
    folder = tmp_path / "whole/runs/pretrain_anatomical"
    assert {"views", "tokens", "hidden", "rejected", "target_dimensions"} <= set(
        read_history(folder / "history.csv")[0]
    )
    assert "pair_retrieval" in read_history(folder / "health.csv")[-1]
    made, calls = AnatomicalPairs._pair, []

    def failing(self: AnatomicalPairs, *args: Any) -> Any:
        calls.append(args)
        if len(calls) > 4:  # two of the probe, two of the first step
            raise RuntimeError("the power went out")
        return made(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(AnatomicalPairs, "_pair", failing)
        with pytest.raises(RuntimeError, match=r"trainer.*\.run\(\)"):
            pretrain(tmp_path / "parts", study)
    bundles.release()
    parts = pretrain(tmp_path / "parts", study)
    assert identical(whole["method"], parts["method"])
    assert identical(whole["optimizer"], parts["optimizer"])
    said = user_sees(tmp_path / "parts", "pretrain", study, OVERLAYS, **{**TINY, "max_epochs": 3, "columns": 2})
    assert re.search(r"columns: 4 -> 2|hidden: \[0\.75, 4\] -> \[0\.75, 2\]", said)
    run(tmp_path / "whole", "train", study, pretrained=str(file))
    assert read_run_record(tmp_path / "whole/runs/train")["receipt"]["share"] == pytest.approx(1.0)


@pytest.mark.slow
def test_ct_by_registration_and_by_the_embedding_of_what_was_pretrained(study: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    options = {"grid_mm": 3.0, "iterations": 10}
    registered = {"correspondence": "registration", "match_threshold": -1.0, "match_options": options}
    pretrain(root, study, recipe="ct_abdomen", recipe_options={"spacing": [1.0, 1.0, 1.2]}, **registered)
    file = root / "models/pretrained_anatomical.pt"
    kept = tmp_path / "encoder.pt"
    kept.write_bytes(file.read_bytes())
    kept.with_suffix(".json").write_bytes(file.with_suffix(".json").read_bytes())
    options = {"window": 32, "back": 50.0}
    pretrain(root, study, correspondence="embedding", match_weights=str(kept), match_threshold=-1.0, resume=False,
             match_options=options)  # fmt: skip
    said = user_sees(root, "pretrain", study, OVERLAYS, **TINY, correspondence="embedding", resume=False)
    assert "needs a pretrained encoder" in said
    said = user_sees(root, "pretrain", study, OVERLAYS, **TINY, correspondence="embedding", resume=False,
                     match_weights=str(kept), match_threshold=1.0)  # fmt: skip
    assert "no further one has any; lower the threshold" in said
