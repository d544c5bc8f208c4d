"""Embedding of a volume, or of its regions, by the encoder of a network."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_cl import weights
from monai_cl._files import atomic_write
from monai_cl._overrides import lay
from monai_cl.data import PreparedStream, find_images, load_datalist
from monai_cl.networks import encoder_features, encoder_stride
from monai_cl.recipes import load as load_recipe

WHOLE = 0  # the region that is the volume
_TINY = 1e-8


@dataclass(frozen=True)
class Embeddings:
    """Vectors of volumes or of regions of them.

    Attributes:
        vectors: (N, D).
        cases: Name of the volume of each.
        subjects: Its patient.
        regions: Label of the region; 0 is the whole volume.
        pictures: Middle slice of each volume, the slice with most of each region; values in [0, 1].
    """

    vectors: NDArray[np.float32]
    cases: tuple[str, ...]
    subjects: tuple[str, ...]
    regions: tuple[int, ...]
    pictures: tuple[NDArray[np.float32], ...] = ()

    def write(self, folder: str | Path) -> None:
        """Write ``embeddings.npz`` and ``embeddings.csv``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        cases, subjects = (np.array(texts, dtype=str) for texts in (self.cases, self.subjects))
        with atomic_write(folder / "embeddings.npz") as temporary:
            np.savez_compressed(
                temporary, vectors=self.vectors, regions=np.array(self.regions), cases=cases, subjects=subjects
            )
        with atomic_write(folder / "embeddings.csv") as temporary, open(temporary, "w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["case", "subject", "region", *(f"v{n}" for n in range(self.vectors.shape[1]))])
            for case, subject, region, vector in zip(
                self.cases, self.subjects, self.regions, self.vectors, strict=True
            ):
                table.writerow([case, subject, region, *(f"{value:.6g}" for value in vector)])

    def standardised(self) -> NDArray[np.float64]:
        """Vectors (N, D) of length 1, without the offsets and scales that all share; their products are cosines."""
        values = self.vectors.astype(np.float64)
        values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
        return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))

    def similarity(self) -> NDArray[np.float64]:
        """Cosine between standardised vectors (N, N)."""
        values = self.standardised()
        return np.asarray(values @ values.T)


def embed_run(files: Sequence[str | Path], file: str | Path, *, regions: bool = False, **overrides: Any) -> Embeddings:
    """Embed the volumes of a bundle's configuration by a network of its file of weights.

    Args:
        files: Config files of the bundle, such as ``inference.yaml``: network, recipe, data and size of a window.
        file: The weights, ours or published.
        regions: One vector a class of the labels as well; needs a datalist with labels.
        **overrides: As on the command line of ``monai.bundle run``.

    Raises:
        ValueError: If the configuration lacks what is needed, or regions are asked for and nothing has a label.
    """
    parser = ConfigParser()
    parser.read_config([str(one) for one in files])
    lay(overrides, parser)
    missing = [name for name in ("network_def", "recipe", "roi_size", "dataset_dir") if name not in parser]
    if missing:
        raise ValueError(
            f"a bundle's inference.yaml or train.yaml is needed, the files given lack {', '.join(missing)}"
        )

    def value(name: str, default: Any = None) -> Any:
        return parser.get_parsed_content(name) if name in parser else default

    network, options = value("network_def"), dict(value("recipe_options") or {})
    receipt = weights.start_from(
        network, file, key_map=value("key_map", "auto"), recipe=value("recipe"), recipe_options=options,
        min_matched=value("min_matched"), contract=value("contract", "warn"),
    )  # fmt: skip
    if receipt is None:
        raise ValueError(f"weights must be a file, got {file!r}")
    datalist = value("datalist")
    items = _items(datalist, value("dataset_dir"), value("sections"), regions=regions)
    stream = PreparedStream(items, load_recipe(value("recipe"), **options), max_faults=float(value("max_faults", 0.05)))
    return embed(
        network, stream, tuple(value("roi_size")), device=value("device", torch.device("cpu")), regions=regions
    )


def embed(
    network: nn.Module,
    volumes: Iterable[Mapping[str, Any]],
    window: Sequence[int],
    *,
    device: str | torch.device = "cpu",
    regions: bool = False,
) -> Embeddings:
    """Embed prepared volumes: the mean of each level of the encoder over all windows, levels side by side.

    Args:
        network: A network that :func:`monai_cl.networks.encoder_features` knows.
        volumes: Items with ``image`` (C, *S), ``case``, and ``label`` (1, *S) for regions.
        window: Voxels that the network sees at once.
        device: Where it runs.
        regions: One vector a class of the labels as well.

    Raises:
        ValueError: If no volumes are given, or regions are asked for and no volume has a label.
    """
    stride = encoder_stride(network, len(window))
    if any(edge % step for edge, step in zip(window, stride, strict=True)):
        raise ValueError(f"edges of the window must be multiples of {stride}, got {tuple(window)}")
    network = network.to(device).eval()
    rows: list[tuple[Tensor, str, str, int, NDArray[np.float32]]] = []
    for item in volumes:
        image, case = torch.as_tensor(item["image"]).float(), str(item.get("case", len(rows)))
        masks = {WHOLE: torch.ones(1, *image.shape[1:])}
        if regions and "label" in item:
            label = torch.as_tensor(item["label"])
            masks |= {int(one): (label == one).float() for one in label.unique().tolist() if int(one) > 0}
        for region, vector in _vectors(network, image, masks, window, device).items():
            picture = slice_picture(image, None if region == WHOLE else masks[region])
            rows.append((vector, case, str(item.get("subject", case)), region, picture))
    if not rows:
        raise ValueError("at least one volume is needed to embed, got none")
    if regions and not any(region for *_, region, _ in rows):
        raise ValueError("regions need labels, no volume has one; give a datalist whose items have `label`")
    vectors, cases, subjects, numbers, pictures = zip(*rows, strict=True)
    return Embeddings(torch.stack(vectors).numpy().astype(np.float32), cases, subjects, numbers, pictures)


@torch.no_grad()
def _vectors(
    network: nn.Module, image: Tensor, masks: Mapping[int, Tensor], window: Sequence[int], device: str | torch.device
) -> dict[int, Tensor]:
    """Vector of each region that a level of the encoder sees at least a part of."""
    sums: dict[int, list[Tensor]] = {}
    counts: dict[int, list[Tensor]] = {}
    for box in _boxes(image.shape[1:], window):
        maps = encoder_features(network, _cut(image, box, window)[None].to(device))
        for region, mask in masks.items():
            inside = _cut(mask, box, window)[None].to(device)
            if not bool(inside.any()):
                continue
            shares = [_share(inside, one.shape[2:]) for one in maps]
            axes = list(range(2, image.ndim + 1))
            result = [(one * share).sum(axes)[0].cpu() for one, share in zip(maps, shares, strict=True)]
            weight = [share.sum().cpu() for share in shares]
            before = sums.get(region), counts.get(region)
            sums[region] = result if before[0] is None else [a + b for a, b in zip(before[0], result, strict=True)]
            counts[region] = weight if before[1] is None else [a + b for a, b in zip(before[1], weight, strict=True)]
    return {
        region: torch.cat([total / (n + _TINY) for total, n in zip(sums[region], counts[region], strict=True)])
        for region in sums
    }


def _share(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Share of the region in each cell of a map."""
    pool = nn.AdaptiveAvgPool3d if mask.ndim == 5 else nn.AdaptiveAvgPool2d
    result: Tensor = pool(tuple(size))(mask)
    return result


def _boxes(size: Sequence[int], window: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Corners of windows that lie side by side; those at the end may reach beyond the volume."""
    axes = []
    for edge, width in zip(size, window, strict=True):
        axes.append(list(range(0, max(edge - width, 0) + 1, width)))
        if edge > width and edge % width:
            axes[-1].append(axes[-1][-1] + width)
    return itertools.product(*axes)


def _cut(volume: Tensor, corner: Sequence[int], window: Sequence[int]) -> Tensor:
    """Part of a volume (C, *S), filled with zeros where it ends."""
    box = (slice(None), *(slice(c, c + w) for c, w in zip(corner, window, strict=True)))
    part = volume[box]
    missing = [w - have for w, have in zip(window, part.shape[1:], strict=True)]
    return F.pad(part, [edge for one in reversed(missing) for edge in (0, one)])


def slice_picture(image: Tensor, mask: Tensor | None = None) -> NDArray[np.float32]:
    """Middle slice of an image (C, *S) along its last axis, or the one with most of a mask (1, *S), from 0 to 1."""
    if image.ndim == 3:
        plane = image[0].float()
    else:
        place = image.shape[-1] // 2 if mask is None else int(mask.sum((0, 1, 2)).argmax())
        plane = image[0, ..., place].float()
    low, high = float(plane.min()), float(plane.max())
    return np.asarray(((plane - low) / max(high - low, _TINY)).cpu().numpy(), dtype=np.float32)


def _items(datalist: Any, dataset_dir: Any, sections: Any, *, regions: bool) -> list[dict[str, Any]]:
    if datalist is None or not Path(str(datalist)).exists():
        if regions:
            raise ValueError("regions need a datalist with labels; give datalist")
        return find_images(dataset_dir)
    return load_datalist(datalist, sections or "training", dataset_dir=dataset_dir, labelled=None if regions else False)
