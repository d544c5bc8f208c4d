"""Questions that a run asks about its data before it starts."""

import hashlib
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from monai_cl.data.datalist import load_datalist, shared_subjects
from monai_cl.data.scan import scan

logger = logging.getLogger(__name__)


def digest(datalist: str | Path) -> str:
    """SHA-256 of a datalist, to tell whether a run goes on with the data it began with."""
    return hashlib.sha256(Path(datalist).read_bytes()).hexdigest()


def check_study(datalist: str | Path, *, out_channels: int) -> None:
    """Refuse a study that cannot give an honest result.

    Raises:
        ValueError: If the datalist's ``labels`` need another number of output channels, or a patient is in both
            ``training`` and ``validation`` (or ``test``).
    """
    content: dict[str, Any] = json.loads(Path(datalist).read_text(encoding="utf-8"))
    labels = content.get("labels") or {}
    needed = max((int(label) for label in labels), default=out_channels - 1) + 1
    if needed != out_channels:
        raise ValueError(
            f"out_channels must be {needed} for the labels of {datalist} ({', '.join(map(str, labels.values()))}), "
            f"got {out_channels}; add `--out_channels {needed}`"
        )
    for held_out in ("validation", "test"):
        both = shared_subjects(content.get("training", []), content.get(held_out, []))
        if both:
            raise ValueError(
                f"no patient may be in both training and {held_out}, got {len(both)} ({', '.join(map(str, both[:5]))})"
                f" in {datalist}; move all volumes of a patient to one side"
            )


def class_names(datalist: str | Path) -> dict[int, str]:
    """Names of the classes above background that a datalist gives."""
    labels = json.loads(Path(datalist).read_text(encoding="utf-8")).get("labels") or {}
    return {int(label): str(name) for label, name in labels.items() if int(label) > 0}


def find_images(path: str | Path) -> list[dict[str, Any]]:
    """Items for the scan at ``path``: a file, a DICOM series, or all volumes below a folder, labels aside.

    What cannot be used is logged with its reason.

    Raises:
        FileNotFoundError: If there is nothing at ``path``.
        ValueError: If nothing below it can be used.
    """
    path = Path(path)
    if path.is_file():
        return [{"image": str(path), "case": path.name.split(".")[0]}]
    if not path.is_dir():
        raise FileNotFoundError(f"no scan, series or folder at {path}; give an existing one as dataset_dir")
    with tempfile.TemporaryDirectory() as folder:
        result = scan(path, Path(folder) / "datalist.json")
        for left_out in result.left_out:
            logger.warning("left out %s: %s, %s", left_out.paths[0], left_out.reason, left_out.detail)
        sections = [name for name, count in result.counts.items() if count]
        return load_datalist(Path(folder) / "datalist.json", sections, dataset_dir=path, labelled=False)
