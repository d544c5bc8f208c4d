"""What a reader must not conclude: limits that follow from the runs, and those a bundle's card states."""

from __future__ import annotations

import re
from pathlib import Path

from monai_cl.report._folders import Found
from monai_cl.report._safety import inside


def limits(found: Found) -> list[str]:
    """One sentence or two a limit."""
    return [*_of_runs(found), *dict.fromkeys(text for bundle in found.bundles for text in _of_card(bundle.folder))]


def _of_runs(found: Found) -> list[str]:
    evaluations, curves = found.of("evaluate"), found.of("curve")
    said = ["For research. Not for diagnosis or treatment."]
    if evaluations and not curves:
        said.append(
            "There is no label-efficiency curve here: each evaluation is of one network, from one seed and one subset "
            "of labels. Whether pretraining helped cannot be told from them."
        )
    if not evaluations and not curves:
        said.append("Nothing here was evaluated on unseen cases: losses alone do not show that pretraining helped.")
    silent = [run.name for run in found.of("pretrain", "train", "evaluate") if not run.record]
    if silent:
        said.append(f"Versions, hardware, data and times were not recorded by: {', '.join(silent)}.")
    cut = [run.name for run in found.runs if run.record.get("parts") and not run.record["parts"][-1].get("finished")]
    if cut:
        said.append(f"These runs had not finished when the report was made: {', '.join(cut)}.")
    resumed = [run.name for run in found.runs if len(run.record.get("parts", ())) > 1]
    if resumed:
        said.append(f"These runs were stopped and went on later: {', '.join(resumed)}.")
    return said


def _of_card(bundle: Path) -> list[str]:
    """The points under the heading "Limits" of a bundle's model card."""
    card = bundle / "docs/README.md"
    text = card.read_text(encoding="utf-8") if inside(bundle, card) else ""
    section = re.search(r"^## Limits\s*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    points = re.split(r"^- ", section.group(1), flags=re.MULTILINE)[1:] if section else []
    return [" ".join(point.split()).replace("`", "") for point in points]
