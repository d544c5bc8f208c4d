"""A datalist as a raw data folder of nnU-Net: ``imagesTr``, ``labelsTr``, ``imagesTs``, ``dataset.json``, splits."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.transforms import Compose, Orientationd
from numpy.typing import NDArray

from monai_cl._files import atomic_write, write_json
from monai_cl.data.loading.faults import reason_of
from monai_cl.datalist import load_datalist, read_datalist, section_names
from monai_cl.privacy.hidden_paths import without_hidden
from monai_cl.transforms.load import LoadVolumed

logger = logging.getLogger(__name__)

_ENDING = ".nii.gz"
_PARTS = {"training": "Tr", "validation": "Tr", "test": "Ts"}


def write_nnunet_folder(
    datalist: str | Path,
    out: str | Path,
    *,
    number: int,
    name: str,
    dataset_dir: str | Path | None = None,
    modality: str | None = None,
    ignore_index: int | None = None,
) -> Path:
    """Write the labelled volumes of a datalist as a data set of nnU-Net.

    Volumes of ``training`` and ``validation`` become its training set, and ``splits_final.json`` separates them:
    copy it into the folder of the preprocessed data set to keep the split. Volumes of ``test`` become ``imagesTs``.
    Images are turned to RAS and written anew, with geometry and values and no text; cases are named by the ids of the
    datalist.

    Args:
        datalist: The JSON file.
        out: Folder of the raw data, ``nnUNet_raw``.
        number: Number of the data set, 1 to 999.
        name: Its name.
        dataset_dir: Folder that paths of the datalist start from.
        modality: ``"CT"`` or ``"MR"``, or a list of one for each channel joined by commas; as in the datalist when
            left out. nnU-Net normalises ``CT`` over the data set and anything else by itself.
        ignore_index: Label of voxels that do not count.

    Returns:
        Folder of the data set.

    Raises:
        ValueError: If no labelled volumes are given, channels differ from case to case, or labels are negative.
        FileExistsError: If that folder holds something already.
    """
    if not 1 <= number <= 999 or not re.fullmatch(r"\w+", name):
        raise ValueError(f"number must be 1 to 999 and name letters, digits or _, got {number} and {name!r}")
    content = read_datalist(datalist)
    sections = [part for part in _PARTS if part in section_names(content) and content[part]]
    listed = {part: load_datalist(datalist, part, dataset_dir=dataset_dir) for part in sections}
    for part in ("training", "validation"):
        listed[part] = [item for item in listed.get(part, []) if item.get("label")]
    if not listed["training"]:
        raise ValueError(f"nnU-Net needs labelled volumes in training, {datalist} has none")
    folder = Path(out) / f"Dataset{number:03d}_{name}"
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds something already; give another number or name")
    writer = _Writer(folder, ignore_index)
    cases = {part: [writer.write(item, _PARTS[part]) for item in items] for part, items in listed.items()}
    writer.relabel(_classes(content, writer.seen, ignore_index))
    write_json(folder / "dataset.json", _description(content, writer, cases, modality, ignore_index))
    if cases["validation"]:
        write_json(folder / "splits_final.json", [{"train": cases["training"], "val": cases["validation"]}])
    logger.info("wrote %d cases to %s", sum(map(len, cases.values())), folder.name)
    return folder


class _Writer:
    """Writes cases, and notes their channels and labels."""

    def __init__(self, folder: Path, ignore_index: int | None) -> None:
        self.folder = folder
        self.channels: set[int] = set()
        self.seen: set[int] = set()
        self.ignore_index = ignore_index
        self._names: set[str] = set()
        self._labels: list[Path] = []
        keys = ["image", "label"]
        self._load = Compose(
            [
                LoadVolumed(keys, allow_missing_keys=True),
                Orientationd(keys, axcodes="RAS", labels=None, allow_missing_keys=True),
            ]
        )

    def write(self, item: Mapping[str, Any], part: str) -> str:
        """Write one case and return its name."""
        name = re.sub(r"\W+", "_", str(item["case"])).strip("_") or "case"
        while name in self._names:
            name += "_"
        self._names.add(name)
        wanted = {key: item[key] for key in ("image", "label") if item.get(key) and (key == "image" or part == "Tr")}
        try:
            loaded = self._load(wanted)
        except Exception as error:  # whatever a reader may throw at a broken file; its text names the file
            raise ValueError(f"{name} cannot be read: {without_hidden(reason_of(error), item)}") from None
        image = np.asarray(loaded["image"])
        self.channels.add(len(image))
        if len(self.channels) > 1:
            raise ValueError(f"cases must have as many channels each, got {sorted(self.channels)} at {name}")
        for channel, values in enumerate(image):
            path = self.folder / f"images{part}" / f"{name}_{channel:04d}{_ENDING}"
            _save(_narrow(values), loaded["image"].affine, path)
        if "label" in loaded:
            label = np.rint(np.asarray(loaded["label"][0])).astype(np.int16)
            self.seen |= set(np.unique(label).tolist())
            path = self.folder / f"labels{part}" / f"{name}{_ENDING}"
            _save(label, loaded["label"].affine, path)
            self._labels.append(path)
        return name

    def relabel(self, classes: Sequence[int]) -> None:
        """Give the label to ignore the number after the last class, as nnU-Net asks for."""
        if self.ignore_index is None or self.ignore_index not in self.seen:
            return
        for path in self._labels:
            image = nibabel.load(path)
            values = np.asarray(image.dataobj).astype(np.int16)
            values[values == self.ignore_index] = max(classes) + 1
            _save(values, image.affine, path)


def _classes(content: Mapping[str, Any], seen: set[int], ignore_index: int | None) -> list[int]:
    named = {int(label) for label in content.get("labels") or {}}
    result = sorted((named | seen | {0}) - {ignore_index})
    if result != list(range(len(result))):
        raise ValueError(f"labels must be 0, 1, 2 and so on for nnU-Net, got {result}; give ignore_index, or renumber")
    return result


def _description(
    content: Mapping[str, Any],
    writer: _Writer,
    cases: Mapping[str, Sequence[str]],
    modality: str | None,
    ignore_index: int | None,
) -> dict[str, Any]:
    classes = _classes(content, writer.seen, ignore_index)
    names = {int(label): str(text) for label, text in (content.get("labels") or {}).items()}
    labels = {"background": 0, **{names.get(one) or f"class_{one}": one for one in classes if one}}
    if ignore_index is not None and ignore_index in writer.seen:
        labels["ignore"] = len(classes)
    (count,) = writer.channels
    stated = content.get("modality")
    listed = modality.split(",") if modality else [str(v) for v in stated.values()] if isinstance(stated, dict) else []
    listed = listed * count if len(listed) == 1 else listed
    if len(listed) != count:
        listed = [f"channel_{channel}" for channel in range(count)]
    return {
        "channel_names": {str(channel): text.strip() for channel, text in enumerate(listed)},
        "labels": labels,
        "numTraining": len(cases["training"]) + len(cases["validation"]),
        "file_ending": _ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
    }


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers of 16 bits as such, other values as they are."""
    low, high = float(values.min()), float(values.max())
    if low >= -32768 and high <= 32767 and np.array_equal(values, np.rint(values)):
        return values.astype(np.int16)
    return values.astype(np.float32)


def _save(values: NDArray[Any], affine: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, np.asarray(affine, dtype=np.float64))
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as temporary:
        nibabel.save(image, temporary)
