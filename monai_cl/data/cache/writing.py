"""Preparing every volume of a study once and keeping the results on disk, with the manifest that lists them."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from torch.utils.data import DataLoader

from monai_cl._cores import threads as allowed_threads
from monai_cl._files import atomic_write, read_json
from monai_cl._locks import alone_in
from monai_cl.data.cache.arrays import array_class
from monai_cl.data.cache.encoding import DTYPES
from monai_cl.data.cache.job import Job, Outcome, file_name
from monai_cl.data.loading.faults import MAX_FAULTS, Faults
from monai_cl.datalist import (
    CACHE_FILE,
    CACHED,
    FILE_KEYS,
    Item,
    beside_datalist,
    load_datalist,
    read_datalist,
    section_names,
    subject_of,
)
from monai_cl.transforms._labels import SAID

_FULL = (errno.ENOSPC, errno.EDQUOT)
_OURS = re.compile(r"-[0-9a-f]{8}\.(json$|[0-9a-f]{12}\.)")  # names that this module gives
_GO_ON = "nothing is half-written: make room and give the same command again, which goes on from here, or another --out"


class DiskFullError(OSError):
    """Error of a cache that exceeds the free disk space."""


@dataclass(frozen=True)
class CacheResult:
    """Result of :func:`write_cache`.

    Args:
        folder: The cache.
        prepared: Names of the volumes prepared by this call.
        kept: Names of the volumes that an earlier call has prepared.
        changed: Names of those prepared again because their source had changed.
        left_out: Name and reason of each volume that could not be prepared.
        megabytes: Size on disk.
        error: Largest error of what is stored, in steps of its volume; 0 where values are exact.
        rounded: Number of volumes whose labels were near whole numbers and were rounded.
    """

    folder: Path
    prepared: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    megabytes: float = 0.0
    error: float = 0.0
    rounded: int = 0

    @property
    def next_command(self) -> str:
        """Command with which a bundle takes the cache."""
        return f"python -m monai.bundle run ... --datalist {self.folder}"

    def table(self) -> Table:
        """The counts for a terminal."""
        table = Table("volumes", "number", title=Text(str(self.folder)))
        table.add_row("prepared now", str(len(self.prepared)))
        table.add_row("of these, source changed", str(len(self.changed)))
        table.add_row("prepared earlier", str(len(self.kept)))
        table.add_row("left out", str(len(self.left_out)))
        if self.rounded:
            table.add_row("labels rounded to whole numbers", str(self.rounded))
        table.add_section()
        table.add_row("MB on disk", f"{self.megabytes:.1f}")
        table.add_row("largest error", f"{self.error:.2f} steps" if self.error else "none")
        return table


def write_cache(
    datalist: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    recipe: str | Path,
    options: Mapping[str, Any] | None = None,
    dataset_dir: str | os.PathLike[str] | None = None,
    dtype: str = "int16",
    storage: str = "npy",
    max_faults: float = MAX_FAULTS,
    processes: int | None = None,
    rebuild: bool = False,
    console: Console | None = None,
) -> CacheResult:
    """Run a recipe on every volume of a datalist once and store the results, to be read box by box.

    Each volume is written whole or not at all, and ``cache.json`` last; a call that was interrupted or killed is gone
    on with by the next one, and ends with the same bytes. Volumes whose source has changed are prepared again. The
    folder can then take the place of the datalist, in :func:`monai_cl.datalist.load_datalist` and in every bundle.

    Args:
        datalist: The JSON file; all its sections are cached, an image in several of them once.
        out: Folder of the cache; beside the datalist, with ``_cache`` added to its name, when left out.
        recipe: Name or path of a recipe.
        options: Parameters of the recipe.
        dataset_dir: Folder that relative paths start from; by default that of the JSON file.
        dtype: ``"int16"`` with a scale and an offset a channel, ``"float16"`` or ``"float32"``; labels stay integers.
        storage: ``"npy"``, memory-mapped, or ``"blosc2"``, compressed.
        max_faults: Share of the volumes that may fail, in [0, 1].
        processes: Number of processes; one per core when left out, 0 for none beside this one.
        rebuild: Replace what another recipe, type or storage has made.
        console: Where progress is shown.

    Returns:
        Summary of the volumes written, kept and failed.

    Raises:
        ValueError: If the folder holds the cache of another recipe, type or storage and ``rebuild`` is not set.
        TooManyFaultsError: If more than ``max_faults`` of the volumes fail, or all; what is done stays.
        DiskFullError: If the disk is full; finished volumes stay.
        OccupiedError: If another process is writing the same folder; a ``RuntimeError``.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    array_class(storage)
    source = Path(datalist)
    folder = beside_datalist(source, "_cache") if out is None else Path(out)
    items = read_items(source, dataset_dir)
    job = Job(items, folder, recipe=recipe, options=options or {}, dtype=dtype, storage=storage)
    _check_folder(job, rebuild)
    with _writing(folder):
        outcomes = _run(job, max_faults, processes, console or Console(stderr=True))
        write_manifest(job, source, outcomes, dataset_dir)
        _remove_others(job, outcomes)
    return _result(folder, outcomes)


def _check_folder(job: Job, rebuild: bool) -> None:
    file = job.folder / CACHE_FILE
    if job.folder.exists() and not job.folder.is_dir():
        raise ValueError(f"the cache must be a folder, {job.folder} is a file; give another --out")
    if rebuild or not file.is_file():
        return
    try:
        made_by = dict(read_json(file)["cache"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is damaged or of no cache; give another --out, or --rebuild to replace it") from None
    for what in ("format", "dtype", "storage", "recipe"):
        if made_by.get(what) != job.made_by[what]:
            raise ValueError(
                f"{job.folder} holds a cache with {what} {made_by.get(what)}, asked for is {job.made_by[what]}; give "
                "another --out, or --rebuild to replace it"
            )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make the folder, lock it against a second process, and turn a full disk into an error with a remedy."""
    try:
        with alone_in(folder):
            for part in ("volumes", "entries"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            _remove_leftovers(folder)
            yield
    except OSError as error:
        if error.errno in _FULL and not isinstance(error, DiskFullError):
            raise DiskFullError(error.errno, f"the disk of {folder} is full; {_GO_ON}") from error
        raise


def _run(job: Job, max_faults: float, processes: int | None, console: Console) -> list[Outcome]:
    faults = Faults(len(job), max_faults)
    workers = min(allowed_threads() if processes is None else processes, len(job))
    loader = DataLoader(job, batch_size=None, num_workers=workers, collate_fn=_as_is)
    outcomes: list[Outcome] = []
    with _one_thread():  # as in the workers: the bytes must not depend on the number of processes
        quiet = not console.is_terminal
        for one in track(loader, "preparing volumes", len(job), console=console, transient=True, disable=quiet):
            if one.how == "disk":
                raise _cannot_write(job, one, outcomes)
            if one.how == "fault":
                faults.add(one.case, one.reason)
                faults.judge()
            outcomes.append(one)
    return outcomes


def _as_is(outcome: Any) -> Any:
    return outcome


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cannot_write(job: Job, failed: Outcome, done: Sequence[Outcome]) -> OSError:
    if failed.errno not in _FULL:
        return OSError(f"{job.folder} cannot be written to ({failed.reason}); {_GO_ON}")
    written, left = sum(one.bytes for one in done) / 1e6, len(job) - len(done)
    needed = f"; about {written / len(done) * left:.0f} MB more are needed" if done else ""
    free = shutil.disk_usage(job.folder).free / 1e6
    return DiskFullError(
        failed.errno,
        f"the disk of {job.folder} is full after {len(done)} of {len(job)} volumes ({written:.0f} MB){needed}, "
        f"{free:.0f} MB are free; {_GO_ON}",
    )


def _remove_leftovers(folder: Path) -> None:
    """Remove files of processes that were killed while they wrote; no other process is writing now."""
    for part in (folder, folder / "volumes", folder / "entries"):
        for leftover in part.glob(f".{'[0-9a-f]' * 16}.*"):
            leftover.unlink(missing_ok=True)


def _remove_others(job: Job, outcomes: Sequence[Outcome]) -> None:
    """Files that the manifest just written does not name: of volumes, sources or recipes as they were before."""
    pairs = list(zip(job.items, outcomes, strict=True))
    named = {volume["file"] for _, one in pairs if one.entry for volume in one.entry["volumes"].values()}
    named |= {f"{file_name(item)}.json" for item, one in pairs if one.entry}
    for part in ("volumes", "entries"):
        for path in (job.folder / part).iterdir():
            if path.name not in named and _OURS.search(path.name):
                path.unlink()


def _result(folder: Path, outcomes: Sequence[Outcome]) -> CacheResult:
    def cases(*how: str) -> list[str]:
        return [one.case for one in outcomes if one.how in how]

    whole = totals(outcomes)
    return CacheResult(
        folder=folder,
        prepared=cases("prepared", "changed"),
        kept=cases("kept"),
        changed=cases("changed"),
        left_out=[(one.case, one.reason) for one in outcomes if one.how == "fault"],
        megabytes=whole["bytes"] / 1e6,
        error=whole["error_in_steps"],
        rounded=sum(one.entry["volumes"].get("label", {}).get("rounded", 0) > SAID for one in outcomes if one.entry),
    )


def read_items(datalist: Path, dataset_dir: str | os.PathLike[str] | None) -> list[Item]:
    """Items of a datalist, each image once, with its label if any section gives one."""
    names = section_names(read_datalist(datalist))
    if not names:
        raise ValueError(f"{datalist} must hold a section with at least one image, it has none; scan the folder again")
    everything = load_datalist(datalist, names, dataset_dir=dataset_dir)
    each = [item for name in names for item in load_datalist(datalist, name, dataset_dir=dataset_dir)]
    labels = {_key(item): item["label"] for item in each if item.get("label")}
    return [{**item, "label": labels[_key(item)]} if _key(item) in labels else item for item in everything]


def write_manifest(
    job: Job, datalist: Path, outcomes: Sequence[Outcome], dataset_dir: str | os.PathLike[str] | None
) -> None:
    """Write ``cache.json``, which marks the cache as complete."""
    content = read_datalist(datalist)
    done = {_key(i): _cached(i, o.entry) for i, o in zip(job.items, outcomes, strict=True) if o.entry}
    sections = section_names(content)
    manifest: dict[str, Any] = {key: value for key, value in content.items() if key not in sections}
    manifest["cache"] = {
        **job.made_by,
        "left_out": [{"case": one.case, "reason": one.reason} for one in outcomes if not one.entry],
        **totals(outcomes),
    }
    for name in sections:
        listed = load_datalist(datalist, name, dataset_dir=dataset_dir)
        manifest[name] = [done[_key(item)] for item in listed if _key(item) in done]
    with atomic_write(job.folder / CACHE_FILE) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True))


def totals(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Size, largest error, and a hash over all sources in order, which identifies the content of a cache."""
    entries = [one.entry for one in outcomes if one.entry]
    sources = "".join(entry["source"]["sha256"] for entry in entries)
    return {
        "bytes": sum(one.bytes for one in outcomes),
        "error_in_steps": max((v["error_in_steps"] for e in entries for v in e["volumes"].values()), default=0.0),
        "sources": hashlib.sha256(sources.encode()).hexdigest(),
    }


def _cached(item: Item, entry: Mapping[str, Any]) -> Item:
    """The item as the cache lists it: paths into the cache, in the place of those of its sources."""
    kept = {key: value for key, value in item.items() if key not in FILE_KEYS}
    kept["subject"] = item["case"] if item.get("subject") is None else subject_of(item)
    paths = {key: f"volumes/{volume['file']}" for key, volume in entry["volumes"].items()}
    stored = {key: {k: v for k, v in volume.items() if k != "file"} for key, volume in entry["volumes"].items()}
    cached = {"recipe": entry["recipe"], "source": entry["source"]["sha256"], "volumes": stored}
    return {**kept, **paths, CACHED: cached}


def _key(item: Item) -> str:
    return json.dumps(item["image"])
