"""The manifest of a cache: a datalist of its volumes, with what made them and how they are stored."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl._files import atomic_write
from monai_cl.data.cache.job import Job, Outcome
from monai_cl.datalist import (
    CACHE_FILE,
    CACHED,
    FILE_KEYS,
    Item,
    load_datalist,
    read_datalist,
    section_names,
    subject_of,
)


def read_items(datalist: Path, dataset_dir: str | os.PathLike[str] | None) -> list[Item]:
    """Every image of a datalist once, with its label if any section gives one."""
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
    """Write ``cache.json``, which says that the cache is complete."""
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
    """Size, largest error, and a hash over all sources in their order, which tells two caches of a study apart."""
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
