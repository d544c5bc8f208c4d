"""Anatomies of nobody: label maps of random shapes, and views of them whose voxels correspond exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from torch import Tensor
from torch.utils.data import Dataset

from monai_cl.phantoms.anatomy_appearance import AnatomyAppearance, Appearance, image_of
from monai_cl.phantoms.anatomy_geometry import AnatomyGeometry, ViewGeometry, source_places
from monai_cl.phantoms.anatomy_shapes import AnatomyShapes, Shapes, label_map
from monai_cl.phantoms.anatomy_tissues import draw_tissues

_LABELS = 256


@dataclass(frozen=True)
class AnatomyDraw:
    """Random parameters of the views of an anatomy.

    Attributes:
        shapes: Content of the label map.
        geometries: Geometry of each view.
        looks: Appearance of each view.
    """

    shapes: Shapes
    geometries: tuple[ViewGeometry, ...]
    looks: tuple[Appearance, ...]


class RandomAnatomy(Randomizable, Transform):
    r"""Draw a random anatomy, and views of it with a geometry and an appearance each.

    The label map is made of smooth noise, superellipsoids, shells, tubes and an envelope, on a box somewhat larger than
    a view. Each view is turned, scaled, shifted and bent by itself; a voxel has the label of the nearest voxel of the
    map, and an appearance in which labels have intensities and textures that another view does not share. Two voxels
    show the same place where their coordinates are equal, whatever they look like. No patient and no data set has any
    part in it.

    Args:
        size: Voxels of a view along each axis, two or three.
        num_views: Views of an anatomy.
        margin: Share by which the box of the label map is longer than a view.
        shapes: Ranges of the label map.
        geometry: Ranges of the geometry of views.
        appearance: Ranges of their appearance.

    Returns:
        The item with ``image`` (V, 1, \*S), float32 from 0 to 1; ``label`` (V, \*S), int64, of which 0 is outside;
        ``coords`` (V, nd, \*S), indices of voxels in the label map; and ``valid`` (V, \*S), true where a voxel shows a
        place inside of the label map. As in views of :class:`monai_cl.transforms.RandViewsd`.

    Raises:
        ValueError: If ``size`` is not of two or three axes, or an option is out of range.

    References:
        Random shapes with random contrasts: SynthMorph, arXiv 2004.10282; contrast of them: anatomix,
        arXiv 2411.02372.

    Example:
        >>> anatomy = RandomAnatomy((16, 16, 16)).set_random_state(seed=0)
        >>> views = anatomy({})
        >>> views["image"].shape, views["coords"].shape, views["valid"].dtype
        (torch.Size([2, 1, 16, 16, 16]), torch.Size([2, 3, 16, 16, 16]), torch.bool)
        >>> draw = anatomy.randomize()
        >>> bool((anatomy.apply(draw)["image"] == anatomy.apply(draw)["image"]).all())
        True
    """

    def __init__(
        self,
        size: Sequence[int],
        *,
        num_views: int = 2,
        margin: float = 0.15,
        shapes: AnatomyShapes | None = None,
        geometry: AnatomyGeometry | None = None,
        appearance: AnatomyAppearance | None = None,
    ) -> None:
        if isinstance(size, int) or len(size) not in (2, 3) or min(size) < 4:
            raise ValueError(f"size must be two or three numbers of voxels of at least 4, got {size!r}")
        if num_views < 1:
            raise ValueError(f"num_views must be at least 1, got {num_views!r}")
        if not 0 <= margin < float("inf"):
            raise ValueError(f"margin must be a share of at least 0, got {margin!r}")
        self.size = tuple(int(n) for n in size)
        self.num_views = num_views
        self.margin = margin
        self.shapes = AnatomyShapes() if shapes is None else shapes
        self.geometry = AnatomyGeometry() if geometry is None else geometry
        self.appearance = AnatomyAppearance() if appearance is None else appearance
        self.box = tuple(int(np.ceil(n * (1 + margin))) for n in self.size)
        self.unit = max(self.size) / 2  # voxels of a length of 1

    def randomize(self, data: Any = None) -> AnatomyDraw:
        """Draw an anatomy and its views."""
        rng, dims = np.random.default_rng(int(self.R.randint(2**32, dtype=np.uint64))), len(self.size)
        shapes = self.shapes.draw(rng, [n / 2 / self.unit for n in self.box])
        tissues = draw_tissues(rng, _LABELS)
        geometries = tuple(self.geometry.draw(rng, dims) for _ in range(self.num_views))
        looks = tuple(self.appearance.draw(rng, tissues, dims) for _ in range(self.num_views))
        return AnatomyDraw(shapes, geometries, looks)

    def label_map(self, draw: AnatomyDraw) -> Tensor:
        r"""Label map (\*box) of an anatomy, uint8."""
        return label_map(draw.shapes, self.box, self.unit)

    def apply(self, draw: AnatomyDraw) -> dict[str, Tensor]:
        """Views of an anatomy: a function of what was drawn alone."""
        whole = self.label_map(draw)
        places = [source_places(geometry, self.size, self.box, self.unit) for geometry in draw.geometries]
        seen = [labels_at(whole, place) for place in places]
        images = [image_of(labels, look) for (labels, _), look in zip(seen, draw.looks, strict=True)]
        return {
            "image": torch.stack(images)[:, None],
            "label": torch.stack([labels for labels, _ in seen]).long(),
            "coords": torch.stack(places),
            "valid": torch.stack([valid for _, valid in seen]),
        }

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Draw an anatomy and add its views to an item."""
        return {**data, **self.apply(self.randomize())}


def labels_at(labels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    r"""Labels at the voxels nearest to places, 0 outside of the map; and which places are inside.

    Args:
        labels: Label map (\*box).
        places: Indices (nd, \*S).

    Returns:
        Labels (\*S) and a mask (\*S).
    """
    index = torch.zeros(places.shape[1:], dtype=torch.int32)
    valid = torch.ones(places.shape[1:], dtype=torch.bool)
    for place, n in zip(places, labels.shape, strict=True):
        valid &= (place >= 0) & (place <= n - 1)
        index.mul_(n).add_(place.clamp(0, n - 1).round_().int())
    return labels.flatten()[index.long()] * valid, valid


class Anatomies(Dataset[dict[str, Any]]):
    """Stand-ins of volumes for views that need none: each item names itself and holds nothing else.

    With :class:`monai_cl.data.ViewDataset` and :func:`monai_cl.data.view_loader` the views of a batch are a function
    of the seed of the run and of the step: :class:`RandomAnatomy` draws a new anatomy for each item of each batch.

    Args:
        number: Number of items, at least that of a batch.

    Raises:
        ValueError: If ``number`` is below 1.
    """

    def __init__(self, number: int) -> None:
        if number < 1:
            raise ValueError(f"number must be at least 1, got {number!r}")
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.number:
            raise IndexError(f"index must be below {self.number}, the number of anatomies, got {index}")
        return {"case": f"random anatomy {index}"}
