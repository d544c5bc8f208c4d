"""Embeddings of volumes in a common and a salient space, and linear probes of each."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch import Tensor

from monai_cl import weights
from monai_cl._files import atomic_write
from monai_cl.data import ViewDataset, fixed_batches
from monai_cl.engine.embedding import WHOLE, Embeddings, slice_picture
from monai_cl.engine.trainer import to_device
from monai_cl.methods import Method
from monai_cl.methods.two_spaces import in_two_spaces
from monai_cl.metrics import cross_validated_probe_accuracy
from monai_cl.metrics.domain_leakage import share_above_chance

PATIENT = "patient"


@dataclass(frozen=True)
class TwoSpaces:
    """Volumes in both spaces.

    Attributes:
        common: Vectors of the common space.
        salient: Vectors of the salient space.
        labels: Fields of each volume in the datalist, by name: ``patient`` (0 or 1), and attributes as texts, empty
            if none exists.
        domain: Name of that field which is the site or scanner, if one is.
    """

    common: Embeddings
    salient: Embeddings
    labels: Mapping[str, tuple[str, ...]]
    domain: str | None = None

    def probes(self, *, folds: int = 4) -> list[dict[str, Any]]:
        """Linear probe (scikit-learn) of each space for each label, cross-validated over subjects.

        Attributes other than ``patient`` and the site are probed among patients. A label that all have, or that fewer
        subjects than folds have, is left out.

        Returns:
            Rows with ``space``, ``label``, ``volumes``, ``accuracy`` and ``chance``, the share of the commonest value;
            that of the site with ``leakage`` (:func:`monai_cl.metrics.domain_leakage`).
        """
        rows: list[dict[str, Any]] = []
        for name, values in self.labels.items():
            sick = [name in (PATIENT, self.domain) or one == "1" for one in self.labels[PATIENT]]
            kept = np.array([bool(value) and is_patient for value, is_patient in zip(values, sick, strict=True)])
            result, number = np.unique(np.array(values)[kept], return_inverse=True)
            subjects = np.unique(np.array(self.common.subjects)[kept], return_inverse=True)[1]
            fewest = min((len(set(subjects[number == one])) for one in range(len(result))), default=0)
            if len(result) < 2 or fewest < 2 or len(set(subjects)) < folds:
                continue
            chance = float(np.bincount(number).max() / len(number))
            for space in ("common", "salient"):
                x, y, groups = map(torch.from_numpy, (getattr(self, space).vectors[kept], number, subjects))
                over = min(folds, 2 * fewest)
                accuracy = float(cross_validated_probe_accuracy(x, y, groups=groups, folds=over))
                row = {"space": space, "label": name, "volumes": len(number), "accuracy": accuracy, "chance": chance}
                if name == self.domain:
                    row["leakage"] = share_above_chance(accuracy, chance)  # as domain_leakage, whose probe this was
                rows.append(row)
        return rows

    def write(self, folder: str | Path, *, folds: int = 4) -> list[dict[str, Any]]:
        """Write the vectors of each space to a folder of its name, and ``probes.csv``; return its rows."""
        folder = Path(folder)
        self.common.write(folder / "common")
        self.salient.write(folder / "salient")
        rows = self.probes(folds=folds)
        with atomic_write(folder / "probes.csv") as temporary, open(temporary, "w", newline="") as file:
            columns = ["space", "label", "volumes", "accuracy", "chance", "leakage"]
            table = csv.DictWriter(file, columns if self.domain else columns[:-1], lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        return rows


def restored(method: Method, checkpoint: str | Path) -> Method:
    """The method with the state of a checkpoint of its pretraining.

    Raises:
        FileNotFoundError: If no such file exists.
        ValueError: If the checkpoint is of another method, or of other sizes.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}; pretrain first, or set checkpoint")
    content = torch.load(path, map_location="cpu", weights_only=True)
    try:
        method.load_state_dict(content["method"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit the method; pass the settings and overlays of its run") from error
    weights.require_finite(method.state_dict(), str(path))
    return method


def embed_spaces(
    method: Method,
    volumes: Any,
    views: Randomizable,
    *,
    draws: int = 2,
    batch_size: int = 8,
    attributes: Sequence[str] = (),
    domain: str | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> TwoSpaces:
    """Embed prepared volumes in both spaces of a method, the mean over views that are drawn once.

    Args:
        method: A method with a term of two spaces.
        volumes: Prepared volumes with ``patient``, as from :func:`monai_cl.data.weak_labels`.
        views: Random views of an item.
        draws: How often views are drawn of each volume.
        batch_size: Volumes at a time.
        attributes: Fields of the datalist to keep.
        domain: Field of the datalist with the site or scanner, whose leakage is measured.
        seed: Seed of the views.
        device: Where the method runs.

    Raises:
        ValueError: If the method has no two spaces.
    """
    method.to(device)
    dataset = ViewDataset(volumes, views, keys=["image", PATIENT])
    batches = fixed_batches(dataset, len(volumes), batch_size=batch_size, seed=seed, draws=draws)
    result = [in_two_spaces(method, to_device(batch, torch.device(device))) for batch in batches]
    items = [volumes[index] for index in range(len(volumes))]
    cases = tuple(str(item["case"]) for item in items)
    subjects = tuple(str(item.get("subject", case)) for item, case in zip(items, cases, strict=True))
    pictures = tuple(slice_picture(torch.as_tensor(item["image"])) for item in items)

    def embeddings(parts: list[Tensor]) -> Embeddings:
        rows = torch.cat(parts).float().mean(1).unflatten(0, (draws, len(items))).mean(0)
        return Embeddings(rows.cpu().numpy(), cases, subjects, (WHOLE,) * len(items), pictures)

    fields = dict.fromkeys((PATIENT, *attributes, *([] if domain is None else [domain])))
    labels = {name: tuple(_text(item.get(name)) for item in items) for name in fields}
    common, salient = (embeddings([getattr(one, name) for one in result]) for name in ("common", "salient"))
    return TwoSpaces(common, salient, labels, domain)


def _text(value: Any) -> str:
    return "" if value is None else str(int(value) if isinstance(value, bool | Tensor) else value)
