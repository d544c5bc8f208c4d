"""Volumes that cannot be read: counted, named, left out up to a limit."""

import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from monai_cl.datalist import FILE_KEYS
from monai_cl.privacy.hidden_paths import HiddenPath, shown, without_hidden
from monai_cl.privacy.naming import PlainNames
from monai_cl.privacy.pseudonyms import find_or_make_key
from monai_cl.privacy.table import IdTable
from monai_cl.transforms.stored import UnreadableVolumeError

logger = logging.getLogger(__name__)

MAX_FAULTS = 0.01  # share of the volumes


class TooManyFaultsError(RuntimeError):
    """More volumes than allowed could not be read or prepared."""


class Faults:
    """Volumes that could not be read or prepared, and the limit to their number.

    Args:
        total: Number of volumes.
        max_faults: Share of them that may fail, in [0, 1].
    """

    def __init__(self, total: int, max_faults: float = MAX_FAULTS) -> None:
        if not 0 <= max_faults <= 1:
            raise ValueError(f"max_faults must be between 0 and 1, got {max_faults!r}")
        self.total = total
        self.max_faults = max_faults
        self.found: list[tuple[str, str]] = []

    def add(self, case: str, reason: str) -> None:
        """Note a fault in the log; each volume counts once."""
        if case not in {name for name, _ in self.found}:
            self.found.append((case, reason))
            logger.warning("left out %s: %s", case, reason)

    def prepare(self, item: dict[str, Any], transform: Callable[[dict[str, Any]], Any]) -> Any:
        """The prepared item, or ``None`` once its fault is noted."""
        try:
            return transform(dict(item))
        except Exception as error:  # whatever a reader may throw at a broken file
            named = item if "case" in item else _named(item)
            self.add(str(named["case"]), without_hidden(reason_of(error), named))
            return None

    @property
    def too_many(self) -> bool:
        """Return whether more volumes are faulty than allowed, or none is left."""
        return len(self.found) > self.max_faults * self.total or len(self.found) == self.total

    def judge(self) -> None:
        """Raise an error if more volumes are faulty than allowed."""
        if self.too_many:
            listed = "\n".join(f"  {case}: {reason}" for case, reason in sorted(self.found)[:10])
            raise TooManyFaultsError(
                f"at most {100 * self.max_faults:g} % of the volumes may fail (max_faults), got {len(self.found)} of "
                f"{self.total}; mend or remove these files, or allow more:\n{listed}"
            )


def _named(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of another program, which lists files as they are, with what may be shown of their paths."""
    names = PlainNames(find_or_make_key)
    try:
        named = _shown_by(names.path, item)
        IdTable().add(names.files)
    except (OSError, ValueError):  # without a key; the fault matters more
        named = _shown_by(lambda _: "a file", item)
    return named


def _shown_by(show: Callable[[str], str], item: Mapping[str, Any]) -> dict[str, Any]:
    def hidden(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [hidden(one) for one in value]
        if isinstance(value, HiddenPath) or not isinstance(value, str | os.PathLike):
            return value
        return HiddenPath(os.fspath(value), show(os.fspath(value)))

    files = {key: hidden(item[key]) for key in FILE_KEYS if key in item}
    image = files.get("image")
    first = image[0] if isinstance(image, list) and image else image
    return {**item, **files, "case": shown(first) if isinstance(first, HiddenPath) else "a volume"}


def require_voxels(item: Any) -> None:
    """Raise ``ValueError`` if the image or the label of an item has no voxel, or one that is NaN or infinite.

    A recipe that crops to the body leaves nothing of a scan without one; MONAI only warns of it. One NaN makes that of
    the loss and of every weight.
    """
    for key in FILE_KEYS if isinstance(item, Mapping) else ():
        shape = tuple(getattr(item.get(key), "shape", ()))
        if 0 in shape:
            raise ValueError(
                f"{key} must have a voxel after preparation, got shape {shape}: the recipe found nothing in it that "
                "is not background; leave the file out or use another recipe"
            )
        if bad := _not_finite(item.get(key)):
            raise ValueError(
                f"{key} must hold finite values, {bad} of {math.prod(shape)} prepared values are not finite: set them "
                "to the value of air in the file, or leave the file out"
            )


def _not_finite(volume: Any) -> int:
    """Number of values that are NaN or infinite."""
    if not isinstance(volume, torch.Tensor | np.ndarray):
        return 0
    values = torch.from_numpy(np.ascontiguousarray(volume)) if isinstance(volume, np.ndarray) else volume
    if bool(values.sum().isfinite()):  # quick, and true of nearly all volumes; a sum may overflow all the same
        return 0
    return int(values.numel() - values.isfinite().sum())


def unreadable(error: BaseException) -> str | None:
    """The reason if an error is that a volume could not be read, however wrapped; ``None`` if it is another."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UnreadableVolumeError):
            return str(cause)
        cause = cause.__cause__
    return None


def reason_of(error: BaseException) -> str:
    """Reason of an error, without the wrapper of MONAI that names only the transform."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}"
