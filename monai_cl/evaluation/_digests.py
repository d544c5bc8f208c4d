"""What a section of a datalist lists, as a digest that other sections do not change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from monai_cl.datalist import read_datalist, split_sections

_FIELDS = ("image", "label", "subject")


def digest_sections(datalist: str | Path, sections: str | list[str]) -> str:
    """SHA-256 of what sections of a datalist list: neither other sections nor remarks on a patient change it."""
    content = read_datalist(datalist)
    items = [item for name in split_sections(sections) for item in content.get(name, [])]
    listed = [
        {field: item.get(field) for field in _FIELDS} if isinstance(item, dict) else {"image": item} for item in items
    ]
    return hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()


__all__ = ["digest_sections"]
