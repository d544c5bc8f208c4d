"""Opening what ``monai-cl cache`` has written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monai_cl.data.cache.arrays import array_class
from monai_cl.datalist import CACHED
from monai_cl.transforms.stored import StoredVolume

FORMAT = 1


def check_prepared_by(items: Sequence[Mapping[str, Any]], transform: Callable[[Any], Any] | None) -> None:
    """Refuse volumes of a cache that another recipe than ``transform`` has prepared.

    Args:
        items: Items as from :func:`monai_cl.datalist.load_datalist`; those that no cache holds are passed over.
        transform: Recipe of :func:`monai_cl.recipes.load`; ``None`` takes the cached volumes as they are.

    Raises:
        ValueError: If the recipe or its options differ, or the transform is of no recipe.
    """
    made = {str(item[CACHED]["recipe"]["digest"]): item[CACHED]["recipe"] for item in items if CACHED in item}
    if not made or transform is None:
        return
    recipe = getattr(transform, "recipe", None)
    wrong = [other for digest, other in made.items() if recipe is None or digest != recipe["digest"]]
    if wrong:
        asked = "a transform that is no recipe" if recipe is None else _describe(recipe)
        same = recipe is not None and (recipe["name"], recipe["options"]) == (wrong[0]["name"], wrong[0]["options"])
        raise ValueError(
            f"the cache was prepared by {_describe(wrong[0])}, the run asks for {asked}"
            + (", whose content has changed since; run `monai-cl cache --rebuild`" if same else "")
            + "; give the same recipe and options, or write a cache for these (`monai-cl cache`)"
        )


def open_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item with a :class:`~monai_cl.transforms.StoredVolume` for each path into the cache.

    Raises:
        OSError: If a file is absent or not as long as when it was written.
    """
    description = item[CACHED]
    opened = {key: value for key, value in item.items() if key != CACHED}
    for key, volume in description["volumes"].items():
        if key in item:
            opened[key] = open_volume(Path(item[key]), volume, name=str(item.get("case", "volume")))
    return opened


def open_volume(path: Path, volume: Mapping[str, Any], *, name: str) -> StoredVolume:
    """Open a volume by its entry in a manifest."""
    size = path.stat().st_size
    if size != volume["bytes"]:
        raise OSError(f"{path.name} must have {volume['bytes']} bytes as when it was written, got {size}")
    kind, _ = array_class(volume["storage"])
    return StoredVolume(
        kind(path, tuple(volume["shape"]), volume["dtype"]),
        affine=torch.tensor(volume["affine"], dtype=torch.float64),
        dtype=getattr(torch, volume["values"]),
        scale=tuple(volume["scale"]),
        shift=tuple(volume["shift"]),
        minimum=min(volume["statistics"]["min"]),
        # the source's path stays out: it may name a patient
        meta={"filename_or_obj": name, "rounded": volume.get("rounded", 0.0)},
    )


def _describe(recipe: Mapping[str, Any]) -> str:
    return f"recipe {recipe['name']} {recipe['options'] or ''}".strip()
