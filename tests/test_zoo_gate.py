"""Every bundle could be handed in to the MONAI model zoo, and the gate to it can fail."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from bundle_gate import network
from zoo_gate import LARGE, missing_test, wrong_card, wrong_metadata_keys, wrong_weights

from monai_cl import bundles, weights

pytestmark = pytest.mark.parametrize("name", bundles.names())


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    """A bundle as it would be handed in: with weights of the default network."""
    folder = bundles.copy(name, tmp_path / name)
    weights.save_network(network(folder), folder / "models" / "model.pt")
    return folder


@pytest.mark.parametrize("check", [wrong_card, wrong_metadata_keys, wrong_weights, missing_test])
def test_nothing_stands_in_the_way(check: Callable[[Path], list[str]], root: Path) -> None:
    assert check(root) == []


def list_file(root: Path, **entry: str) -> None:
    (root / "large_files.yml").write_text(yaml.safe_dump({"large_files": [entry]}), encoding="utf-8")


def test_weights_must_be_there_or_listed(root: Path) -> None:
    file = root / "models" / "model.pt"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.unlink()
    assert wrong_weights(root) == ["weights: neither models/model.pt nor models/model.ts"]
    list_file(root, path="models/model.pt", url="https://example.org/model.pt", hash_val=digest, hash_type="sha256")
    assert wrong_weights(root) == []
    list_file(root, path="models/model.pt", url="https://example.org/model.pt")
    wanted = ("hash_val", "hash_type")
    assert wrong_weights(root) == [f"large_files.yml: models/model.pt has no {key}" for key in wanted]


def test_a_large_file_must_be_listed_with_its_checksum(root: Path) -> None:
    file = root / "models" / "model.pt"
    with file.open("r+b") as stream:
        stream.truncate(LARGE + 1)  # no more bytes on the disk than before
    assert wrong_weights(root) == ["weights: models/model.pt is above 25 MB and not listed"]
    list_file(root, path="models/model.pt", url="https://example.org/m.pt", hash_val="0" * 64, hash_type="sha256")
    assert wrong_weights(root) == ["large_files.yml: models/model.pt has another checksum"]


def test_a_card_must_have_its_sections(root: Path) -> None:
    card = root / "docs" / "README.md"
    text = card.read_text(encoding="utf-8")
    text = text.replace("## Limitations", "## Limits").replace("### Tags\n", "### Tags\n\n### More\n")
    card.write_text(text, encoding="utf-8")
    assert wrong_card(root) == ["card: no section Limitations", "card: nothing in Tags"]


def test_the_changelog_must_begin_with_the_version(root: Path) -> None:
    file = root / "configs" / "metadata.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["changelog"] = {"0.0.1": "older", **content["changelog"]}
    content["required_packages_version"]["nibabel"] = ">=5"
    content["copyright"] = ""
    file.write_text(json.dumps(content), encoding="utf-8")
    assert [text.split(", not")[0] for text in wrong_metadata_keys(root)] == [
        "metadata: no copyright", "metadata: the changelog begins with 0.0.1", "metadata: nibabel has no exact version",
    ]  # fmt: skip


def test_a_test_of_the_bundle_is_missed(root: Path) -> None:
    assert missing_test(root.with_name("another")) == ["test: no test_another.py"]
