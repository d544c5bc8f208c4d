"""Measurement of the salient space on brains with lesions in one half, a side that no label tells.

``python tests/lesion_sides.py RECORD`` measures it and writes the record of the model card, in about two minutes of
processor time.
"""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.networks.nets import SegResNet
from monai.transforms import Compose, RandAffined, RandGaussianNoised, RandScaleIntensityd
from torch import Tensor

from monai_cl.data import ViewDataset, WeakLabelBalancedSampler, view_loader
from monai_cl.engine import adamw, warmup_cosine
from monai_cl.engine.machine import hardware, versions
from monai_cl.engine.spaces import TwoSpaces, embed_spaces
from monai_cl.methods import CasesAndControls
from monai_cl.phantoms import brain_maps
from monai_cl.qmri.signal import inversion_recovery
from monai_cl.report.tables import Table, to_json
from monai_cl.transforms import RandViewsd

SPACING, SIZE = 8.0, (16, 24, 16)
LESIONS = (60, 100)  # large enough a load to be seen at this voxel size


def flair(number: int, lesions: int | tuple[int, int]) -> Tensor:
    maps = dict(zip(("pd", "t1", "t2"), brain_maps((7, number), spacing=SPACING, lesions=lesions).maps, strict=False))
    here = maps["t2"] > 0
    values = {name: value.where(here, torch.ones_like(value)) for name, value in maps.items()}
    return inversion_recovery(**values, tr=9.0, ti=2.5, te=0.12) * here


def subject(number: int) -> dict[str, Any]:
    """Healthy, or with lesions on the left or the right, in turn; an image of zero mean and unit deviation."""
    image, kind = flair(number, 0), ("healthy", "left", "healthy", "right")[number % 4]
    if kind != "healthy":
        spoiled, half = flair(number, LESIONS), image.shape[0] // 2
        part = slice(0, half) if kind == "left" else slice(half, None)
        image = image.clone()
        image[part] = spoiled[part]
    brain = image > 0
    image = (image - image[brain].mean()) / image[brain].std() * brain
    return {
        "image": MetaTensor(image[None].float()), "patient": int(kind != "healthy"), "case": f"brain {number}",
        "subject": str(number), "side": None if kind == "healthy" else kind,
    }  # fmt: skip


def views() -> RandViewsd:
    pose = RandAffined("image", prob=1.0, rotate_range=[0.15] * 3, scale_range=[0.1] * 3, translate_range=[1.0] * 3,
                       spatial_size=SIZE, mode="bilinear", padding_mode="zeros")  # fmt: skip
    noise = RandGaussianNoised("image", prob=1.0, std=0.1)
    return RandViewsd("image", Compose([pose, RandScaleIntensityd("image", factors=0.1, prob=1.0), noise]), num_views=2)


def learned(
    training: list[dict[str, Any]], test: list[dict[str, Any]], *, steps: int, joint_entropy: float, seed: int
) -> TwoSpaces:
    torch.manual_seed(seed)
    network = SegResNet(out_channels=2, init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1))
    method = CasesAndControls(network, SIZE, pool_size=4, joint_entropy_weight=joint_entropy)
    pairs = ViewDataset(training, views(), keys=["image"], group_key="patient")  # type: ignore[arg-type]
    sampler = WeakLabelBalancedSampler(pairs.groups or [], 16, steps, seed=seed)
    optimizer = adamw(method, 2e-3)
    scheduler = warmup_cosine(optimizer, steps)
    for batch in view_loader(pairs, len(training), batch_size=16, steps=steps, seed=seed, sampler=sampler):
        optimizer.zero_grad()
        method(batch)["loss"].backward()
        optimizer.step()
        scheduler.step()
    return embed_spaces(method, test, views(), attributes=["side"], draws=2)


def study(training: int, test: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    items = [subject(number) for number in range(training + test)]
    return items[:training], items[training:]


def main(record: Path, steps: int, weights: tuple[float, ...], seeds: tuple[int, ...], number: int) -> None:
    """Measure and write the record."""
    torch.set_num_threads(1)
    training, test = study(number, number)
    rows: list[tuple[Any, ...]] = []
    for weight in weights:
        for seed in seeds:
            found = learned(training, test, steps=steps, joint_entropy=weight, seed=seed).probes(folds=4)
            told = {(row["space"], row["label"]): round(row["accuracy"], 2) for row in found}
            cells = [told[space, label] for label in ("patient", "side") for space in ("common", "salient")]
            rows.append((f"{weight:g}", str(seed), *cells))
            print(rows[-1], flush=True)  # noqa: T201 - a script
    columns = ("joint_entropy_weight", "seed", "patient, common", "patient, salient", "side, common", "side, salient")
    notes = (
        f"accuracy of a linear probe, cross-validated over the {number} brains not trained on, half of them of "
        f"patients; a blind guess is right in 0.50, and one brain of {number // 2} is {2 / number:.2f} of the sides",
        f"{number} brains to train on, {SPACING:g} mm, simulated FLAIR, {LESIONS[0]} to {LESIONS[1]} lesions of which "
        f"those of one side are kept; {steps} steps of 16 brains; the side is told to nothing that is trained",
    )
    table = Table("Linear probes of the two spaces on brains with lesions of one side", columns, tuple(rows), notes)
    record.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": 1, "title": "Lesions on one side of synthetic brains",
        "date": datetime.now(timezone.utc).date().isoformat(), "hardware": hardware(), "versions": versions(),
        "command": "python tests/lesion_sides.py bundles/cases_and_controls/docs/records/lesions.json",
        "tables": [to_json(table)], "notes": [],
    }  # fmt: skip
    record.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), 120, (10.0,), (0,), 40)
