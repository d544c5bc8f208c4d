"""What the MONAI model zoo asks of a bundle that is handed in, beside what :mod:`bundle_gate` holds already.

Functions take the root of a bundle and return what is wrong with it. Read off the zoo's template of a card and its
``verify_bundle``: sections of the card, weights or ``large_files.yml``, a changelog that begins with the version, exact
versions of required packages, a name for the test.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

CARD_SECTIONS = (
    "Authors", "Tags", "Model Description", "Data", "Preprocessing", "Performance", "System Configuration",
    "Limitations", "Citation Info", "References",
)  # fmt: skip
METADATA = (
    "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
    "description", "authors", "copyright", "network_data_format", "name",
)  # fmt: skip
LARGE = 25 * 2**20  # bytes; larger files are fetched, by large_files.yml
WEIGHTS = ("models/model.pt", "models/model.ts")
TESTS = Path(__file__).parent


def wrong_card(root: Path) -> list[str]:
    """The card has a title and every section of the zoo's template, none of them empty."""
    text = (root / "docs" / "README.md").read_text(encoding="utf-8")
    found = [] if text.startswith("# ") else ["card: no title"]
    # a section ends where another of its level or above begins
    parts = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    parts |= dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^#{2,3} |\Z)", text, re.MULTILINE | re.DOTALL))
    bodies = {name: parts.get(name) for name in CARD_SECTIONS}
    found += [f"card: no section {name}" for name, body in bodies.items() if body is None]
    return found + [f"card: nothing in {n}" for n, b in bodies.items() if b is not None and not b.strip()]


def wrong_metadata_keys(root: Path) -> list[str]:
    """Every key is there, the changelog begins with the version, packages have exact versions."""
    content = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    found = [f"metadata: no {key}" for key in METADATA if not content.get(key)]
    newest = next(iter(content.get("changelog", {})), None)
    if newest != content.get("version"):
        found.append(f"metadata: the changelog begins with {newest}, not with version {content.get('version')}")
    packages = content.get("required_packages_version") or {}
    loose = [name for name, number in packages.items() if not re.fullmatch(r"\d[\w.]*", str(number))]
    return found + [f"metadata: {name} has no exact version" for name in loose]


def wrong_weights(root: Path) -> list[str]:
    """Weights lie in the bundle or are listed with address and checksum; what is larger than 25 MB is listed."""
    listed = {str(entry.get("path")): entry for entry in _large_files(root)}
    there = {path.relative_to(root).as_posix(): path for path in sorted(root.glob("models/*")) if path.is_file()}
    found = [] if {*WEIGHTS} & {*there, *listed} else [f"weights: neither {' nor '.join(WEIGHTS)}"]
    large = [name for name, path in there.items() if _is_large(path) and name not in listed]
    found += [f"weights: {name} is above 25 MB and not listed" for name in large]
    for name, entry in listed.items():
        absent = [key for key in ("url", "hash_val", "hash_type") if not entry.get(key)]
        found += [f"large_files.yml: {name} has no {key}" for key in absent]
        known = name in there and entry.get("hash_type") == "sha256"
        if known and hashlib.sha256(there[name].read_bytes()).hexdigest() != entry.get("hash_val"):
            found.append(f"large_files.yml: {name} has another checksum")
    return found


def missing_test(root: Path) -> list[str]:
    """The zoo runs ``test_<bundle>.py``; ours is that of the bundle's folder."""
    name = f"test_{root.name}.py"
    return [] if (TESTS / name).is_file() else [f"test: no {name}"]


def _large_files(root: Path) -> list[dict[str, Any]]:
    path = root / "large_files.yml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return list((content or {}).get("large_files") or [])


def _is_large(path: Path) -> bool:
    return path.stat().st_size > LARGE
