"""Check that preparing a volume leaves anything of it."""

from collections.abc import Mapping
from typing import Any

from monai_cl.datalist import FILE_KEYS


def require_voxels(item: Any) -> None:
    """Raise ``ValueError`` if the image or the label of an item has no voxel.

    A recipe that crops to the body leaves nothing of a scan without one; MONAI only warns of it.
    """
    for key in FILE_KEYS if isinstance(item, Mapping) else ():
        shape = tuple(getattr(item.get(key), "shape", ()))
        if 0 in shape:
            raise ValueError(
                f"{key} must have a voxel after preparation, got shape {shape}: the recipe found nothing in it that "
                "is not background; leave the file out or use another recipe"
            )
