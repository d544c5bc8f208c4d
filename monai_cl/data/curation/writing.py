"""The datalist of what is kept, and the table of what became of everything."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl._files import atomic_write
from monai_cl.data.curation.entries import marked
from monai_cl.data.curation.result import CurationResult
from monai_cl.data.curation.slices import runs_of
from monai_cl.datalist import section_names, subject_of


def write_table(result: CurationResult, sections: Sequence[str]) -> None:
    """One row a volume: kept or dropped, and why."""
    leaking = {leak.first for leak in result.leaks}
    with (
        atomic_write(_target(result.table_file)) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ("image", "section", "subject", "group", "kept", "reason", "like", "slices", "slices_kept", "leak")
        )
        for entry in result.entries:
            count = len(entry.marks.hashes) if entry.marks else ""
            left = len(entry.slices) if entry.slices is not None else count
            subject = subject_of(entry.item)
            leak = entry.section in sections and bool({subject, entry.name} & leaking)
            row = (entry.name, entry.section, subject, entry.group, "no" if entry.reason else "yes", entry.reason)
            writer.writerow((*row, entry.like, count, left, "yes" if leak else ""))


def write_datalist(result: CurationResult, content: Mapping[str, Any]) -> None:
    """All fields of the study, its items without those dropped, with what curating adds."""
    sections: dict[str, list[dict[str, Any]]] = {name: [] for name in section_names(content)}
    for entry in result.entries:
        if entry.reason:
            continue
        item = marked(entry)
        if entry.slices is not None and entry.marks is not None:
            count = len(entry.marks.hashes)
            item |= {"slices": runs_of(entry.slices), "slices_of": count, "weight": round(len(entry.slices) / count, 4)}
            item["slice_step"] = [round(part, 5) + 0.0 for part in entry.marks.slice_step]  # mm; + 0.0 against -0.0
        sections.setdefault(entry.section, []).append(item)
    dropped = Counter(entry.reason for entry in result.entries if entry.reason)
    curation = {"method": result.method, "threshold": result.threshold, "dropped": dict(sorted(dropped.items()))}
    with atomic_write(_target(result.datalist)) as temporary:
        text = json.dumps({**content, **sections, "curation": curation}, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")


def _target(path: Path | None) -> Path:
    if path is None:
        raise ValueError("a dry run writes nothing; curate with dry_run=False")
    return path
