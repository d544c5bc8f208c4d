"""Masks as derivatives of BIDS: a data set that a validator accepts, with the names of the classes."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor, NibabelWriter

from monai_cl._files import write_json, write_text
from monai_cl.io.bids_names import bids_name

BIDS_VERSION = "1.10.0"
# Entities of a raw image that a segmentation keeps, in the order of the specification.
_KEPT = ("sub", "ses", "acq", "ce", "rec", "run")


class BidsMasks:
    """Masks as ``sub-X[/ses-Y]/anat/sub-X[_ses-Y]_desc-NAME_dseg.nii.gz`` below a data set of derivatives.

    Entities of a scan with a name of BIDS are kept; of others the id of the patient is the subject, and that of the
    scan the acquisition. Beside each mask lie its ``.json`` and ``.tsv``, the names of the classes.

    Args:
        classes: Names of the classes above background by label.
        name: Name of the bundle.
        version: Its version.
    """

    extension = ".nii.gz"

    def __init__(self, classes: Mapping[int, str], *, name: str, version: str) -> None:
        self.classes, self.name, self.version = dict(classes), name, version
        self.postfix = f"desc-{_label(name)}_dseg"

    def place(self, place: str) -> str:
        """Place of a mask below the data set, without description and suffix.

        Example:
            >>> BidsMasks({1: "liver"}, name="x", version="1").place("study/sub-01/ses-2/anat/sub-01_ses-2_T1w")
            'sub-01/ses-2/anat/sub-01_ses-2_acq-T1w'
            >>> BidsMasks({1: "liver"}, name="x", version="1").place("sub-0123456789ab/ct-0123456789abcdef")
            'sub-0123456789ab/anat/sub-0123456789ab_acq-ct0123456789abcdef'
        """
        named = bids_name(place)
        if named is not None:
            entities = {key: named.entities[key] for key in _KEPT if key in named.entities}
            entities["acq"] = entities.get("acq", "") + named.suffix  # two sequences of a session are two masks
        else:
            *folders, name = place.split("/")
            subject = next((one[4:] for one in reversed(folders) if one.startswith("sub-")), "")
            entities = {"sub": _label(subject or name)}
            if subject:
                entities["acq"] = _label(name)
            elif folders:
                entities["sub"] = _label("".join((*folders, name)))
        folder = "/".join(f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities)
        file = "_".join(f"{key}-{entities[key]}" for key in _KEPT if key in entities)
        return f"{folder}/anat/{file}"

    def begin(self, items: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        """Write what describes the data set."""
        output_dir.mkdir(parents=True, exist_ok=True)
        made_by = {"Name": "monai_cl", "Description": f"{self.name} {self.version}; not for diagnosis"}
        description = {
            "Name": f"Masks of {self.name}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [made_by],
        }
        write_json(output_dir / "dataset_description.json", description, indent=2)
        write_text(output_dir / "README.md", f"Masks made by {self.name} {self.version}. Not for diagnosis.\n")

    def write(self, mask: MetaTensor, source: Any, path: Path) -> None:
        """Write a mask, after its names of classes and its sidecar."""
        target = path.with_name(re.sub(r"^\.[0-9a-f]{16}\.", "", path.name))
        base = target.name[: -len(self.extension)]
        rows = ["index\tname", "0\tbackground", *(f"{label}\t{name}" for label, name in sorted(self.classes.items()))]
        write_text(target.with_name(f"{base}.tsv"), "\n".join(rows) + "\n")
        write_json(target.with_name(f"{base}.json"), {"Manual": False, "Description": f"Made by {self.name}"}, indent=2)
        writer = NibabelWriter(output_dtype=np.uint8)
        writer.set_data_array(mask)
        writer.set_metadata(mask.meta, resample=False)
        writer.write(path)


def _label(text: str) -> str:
    """A label of BIDS: letters and digits."""
    return re.sub(r"[^A-Za-z0-9]", "", text) or "x"
