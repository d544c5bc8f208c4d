"""Job of a cache for one volume: prepare, encode and write it, or skip it if complete."""

import contextlib
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from monai_cl import recipes
from monai_cl._files import atomic_write, read_json
from monai_cl.data.cache.arrays import array_class
from monai_cl.data.cache.encoding import Encoded, encode
from monai_cl.data.cache.reading import FORMAT
from monai_cl.data.loading.faults import reason_of, require_voxels
from monai_cl.datalist import FILE_KEYS
from monai_cl.io.itk import partners
from monai_cl.io.streams import open_regular
from monai_cl.privacy.hidden_paths import without_hidden

_PERCENTILES = (0.5, 50.0, 99.5)
_SAMPLE = 1_000_000  # voxels that percentiles are taken of

Item = dict[str, Any]
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """Outcome of preparing one volume.

    Args:
        case: Its name.
        how: ``"kept"``, ``"prepared"``, ``"changed"`` (prepared again), ``"fault"`` or ``"disk"`` (could not be
            written).
        entry: How it is stored; empty where it is not.
        reason: Why it is not.
        errno: Number of the error where it could not be written.
    """

    case: str
    how: str
    entry: Mapping[str, Any]
    reason: str = ""
    errno: int | None = None

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(volume["bytes"] for volume in self.entry.get("volumes", {}).values())


class Job(Dataset[Outcome]):
    """Job for every volume of a cache by index: reading an item prepares and writes it.

    Args:
        items: Items with paths and ``case``.
        folder: The cache.
        recipe: Name or path of a recipe.
        options: Its parameters.
        dtype: As for :func:`~monai_cl.data.cache.encoding.encode`.
        storage: A kind of :mod:`~monai_cl.data.cache.arrays`.
    """

    def __init__(
        self,
        items: Sequence[Item],
        folder: Path,
        *,
        recipe: str | Path,
        options: Mapping[str, Any],
        dtype: str,
        storage: str,
    ) -> None:
        self.items, self.folder, self.dtype, self.storage = list(items), folder, dtype, storage
        self.transform = recipes.load(recipe, **options)
        self.made_by = {
            "format": FORMAT,
            "monai_cl": importlib.metadata.version("monai_cl"),
            "recipe": self.transform.recipe,
            "dtype": dtype,
            "storage": storage,
        }

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Outcome:
        item = self.items[index]
        case, old = str(item["case"]), self._entry(item)
        try:
            files = source_files(item)
            stamp = source_stamp(files)
            if old is not None and old["source"]["stamp"] == stamp:
                return Outcome(case, "kept", old)
            source = {"sha256": source_hash(files), "stamp": stamp}
            same = old is not None and old["source"]["sha256"] == source["sha256"]  # copied or touched, not changed
            prepared = {} if same else self._prepare(item)
        except Exception as error:  # whatever a reader may throw at a broken file
            return Outcome(case, "fault", {}, _without_paths(reason_of(error), item))
        try:
            if same and old is not None:
                return Outcome(case, "kept", self._commit(item, {**old, "source": source}))
            volumes = {key: self._store(item, key, *one, source["sha256"]) for key, one in prepared.items()}
            entry = self._commit(item, {**self.made_by, "source": source, "volumes": volumes})
        except OSError as error:
            return Outcome(case, "disk", {}, str(error), error.errno)
        return Outcome(case, "prepared" if old is None else "changed", entry)

    def _prepare(self, item: Item) -> dict[str, tuple[NDArray[Any], Any, float, Encoded]]:
        """Values, affine, how far labels were rounded, and what to store of each volume."""
        result = {}
        prepared = self.transform(dict(item))
        require_voxels(prepared)
        for key, value in prepared.items():
            if key in FILE_KEYS:
                affine, rounded = getattr(value, "affine", None), getattr(value, "meta", {}).get("rounded", 0.0)
                values = torch.as_tensor(value).as_subclass(torch.Tensor).detach().cpu().numpy()
                result[key] = (values, affine, rounded, encode(values, self.dtype))
        return result

    def _store(
        self, item: Item, key: str, values: NDArray[Any], affine: Any, rounded: float, one: Encoded, source: str
    ) -> dict[str, Any]:
        kind, suffix = array_class(self.storage)
        # a file is never written to again: other content has another name, so what reads the old one goes on
        made_by = {name: value for name, value in self.made_by.items() if name != "monai_cl"}
        tag = hashlib.sha256(json.dumps([made_by, source, key], sort_keys=True).encode()).hexdigest()[:12]
        path = self.folder / "volumes" / f"{file_name(item)}.{tag}{suffix}"
        kind.write(one.stored, path)
        return _describe(path, one, values, affine) | {"rounded": float(rounded), "storage": self.storage}

    def _commit(self, item: Item, entry: dict[str, Any]) -> dict[str, Any]:
        """Write the entry that marks the volume as complete."""
        with atomic_write(self.folder / "entries" / f"{file_name(item)}.json") as temporary:
            temporary.write_text(json.dumps(entry, indent=1, sort_keys=True))
        return entry

    def _entry(self, item: Item) -> dict[str, Any] | None:
        """Entry that an earlier call stored for this item with the same settings, if it is complete."""
        try:
            entry: dict[str, Any] = read_json(self.folder / "entries" / f"{file_name(item)}.json")
            complete = set(entry["volumes"]) == {key for key in FILE_KEYS if item.get(key)} and all(
                (self.folder / "volumes" / volume["file"]).stat().st_size == volume["bytes"]
                for volume in entry["volumes"].values()
            )
        except (OSError, ValueError, KeyError):
            return None
        # another version of the package is no reason to prepare again: a recipe that changed has another digest
        same = all(entry.get(key) == value for key, value in self.made_by.items() if key != "monai_cl")
        return entry if same and complete else None


def file_name(item: Mapping[str, Any]) -> str:
    """File name for an item: a part of its case, and a hash that separates similar cases."""
    case = str(item["case"])
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", case)[-80:].strip(".")
    return f"{plain}-{hashlib.sha256(case.encode()).hexdigest()[:8]}"


def _describe(path: Path, one: Encoded, values: NDArray[Any], affine: Any) -> dict[str, Any]:
    """Description of a stored volume: its form, its place, and how far it is from what was prepared."""
    nd = values.ndim - 1
    matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "shape": list(one.stored.shape),
        "dtype": str(one.stored.dtype),
        "values": str(values.dtype),
        "scale": list(one.scale),  # value = stored * scale + offset = (stored + shift) * scale
        "offset": [scale * shift for scale, shift in zip(one.scale, one.shift, strict=True)],
        "shift": list(one.shift),
        "error": one.error,
        "error_in_steps": one.error / min(one.scale) if one.scale else 0.0,
        "affine": matrix.tolist(),
        "spacing": np.linalg.norm(matrix[:nd, :nd], axis=0).tolist(),
        "statistics": _statistics(values),
    }


def _statistics(values: NDArray[Any]) -> dict[str, list[float]]:
    """Statistics of each channel."""
    channels = values.reshape(len(values), -1)
    result = {
        "min": channels.min(1),
        "max": channels.max(1),
        "mean": channels.mean(1, dtype=np.float64),
        "std": channels.std(1, dtype=np.float64),
    }
    sample = channels[:, :: -(-channels.shape[1] // _SAMPLE)]
    for percentile, row in zip(_PERCENTILES, np.percentile(sample, _PERCENTILES, axis=1), strict=True):
        result[f"percentile_{percentile:g}"] = row
    return {name: [float(value) for value in row] for name, row in result.items()}


def _without_paths(text: str, item: Item) -> str:
    """The first line of a reason, the name of the case in the place of paths, which may name a patient."""
    named = [path for key in FILE_KEYS for path in paths_of(item, key)]
    with contextlib.suppress(OSError):  # the folder may be what cannot be read
        named += source_files(item)
    for path in sorted({str(path) for path in named}, key=len, reverse=True):
        text = text.replace(path, str(item["case"]))
    for path in sorted({str(path) for path in named}, key=len, reverse=True):
        text = text.replace(Path(path).name, str(item["case"]))
    return without_hidden(text, item).splitlines()[0]  # folders of series may be left


def paths_of(item: Mapping[str, Any], key: str) -> list[Path]:
    """The paths that an item gives for ``key``: none, one, or the files of a series."""
    value = item.get(key)
    return [Path(path) for path in (value if isinstance(value, (list, tuple)) else [value] if value else [])]


def source_files(item: Mapping[str, Any]) -> list[Path]:
    """Source files of an item, with all files of a series and the partners of headers."""
    return [file for key in FILE_KEYS for path in paths_of(item, key) for file in _below(path)]


def source_hash(files: list[Path]) -> str:
    """SHA-256 over the contents of files, in this order, whatever they are called."""
    total = hashlib.sha256()
    for path in files:
        one = hashlib.sha256()
        with open_regular(path) as file:
            while block := file.read(_BLOCK):
                one.update(block)
        total.update(one.digest())
    return total.hexdigest()


def source_stamp(files: list[Path]) -> str:
    """Hash of sizes and times of change (which are not kept themselves): it is compared without reading."""
    states = [path.stat() for path in files]
    return hashlib.sha256(json.dumps([(s.st_size, s.st_mtime_ns) for s in states]).encode()).hexdigest()


def _below(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(child for child in path.iterdir() if child.is_file())
    return [path, *_partners(path)]


def _partners(path: Path) -> list[Path]:
    """The files of voxels that belong to a header: what it names in its folder, one or several."""
    suffix = path.suffix.lower()
    result = [path.with_suffix(".img")] if suffix == ".hdr" else []  # of Analyze, which names nothing
    if suffix in (".mhd", ".nhdr"):
        result = partners(path)
    return [partner for partner in result if partner.is_file()]
