"""Overlays are laid in one order, which every file states, and any other that may be tried by chance says the same."""

import copy
import functools
from collections.abc import Iterator
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundle_gate import _wrong_items
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from monai_cl import bundles

RULE = "Order: pretrain or train, the overlay of a method or task, small, volumes, multi_gpu; later files win."
LAST = ("small", "volumes", "multi_gpu")
LABEL_SERVER = "multi_gpu_train"  # multi_gpu by the name that MONAI Label looks for; the server lays it
TASKS = ("evaluate", "denoise", "selftrain")  # overlays on train.yaml
ROOT = Path(__file__).parents[1]


@functools.cache  # files are read once for some two hundred configurations
def contents(name: str) -> dict[str, dict[str, Any]]:
    folder = bundles.path(name) / "configs"
    return {file.stem: yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yaml"))}


def overlays(name: str) -> dict[str, dict[str, Any]]:
    own = {stem: content for stem, content in contents(name).items() if stem != LABEL_SERVER}
    return {stem: content for stem, content in own.items() if "bundle_root" not in content}


def methods(name: str) -> list[str]:
    return [stem for stem in overlays(name) if stem not in (*LAST, *TASKS)]


def ordered() -> Iterator[Any]:
    """Each step with each overlay of a method or task, or none, and each choice of the others, in the order stated."""
    for name in bundles.names():
        there = overlays(name)
        last = [stem for stem in LAST if stem in there]
        chosen = [some for count in range(len(last) + 1) for some in combinations(last, count)]
        for step, own in (("pretrain", methods(name)), ("train", [task for task in TASKS if task in there])):
            for middle in ([], *([one] for one in own)):
                for some in chosen:
                    yield pytest.param(name, (step, *middle, *some), id="-".join((name, step, *middle, *some)))


def laid(name: str, stems: tuple[str, ...]) -> ConfigParser:
    parser = ConfigParser({})
    for stem in stems:  # as MONAI does it
        for key, value in copy.deepcopy(contents(name)[stem]).items():
            merge_kv(parser, key, value)
    return parser


@pytest.mark.parametrize(("name", "stems"), list(ordered()))
def test_what_the_order_permits_is_a_whole_configuration(name: str, stems: tuple[str, ...]) -> None:
    parser = laid(name, stems)
    content = dict(parser.get())
    for stem in stems[1:]:
        later = {key for other in stems[stems.index(stem) + 1 :] for key in overlays(name)[other]}
        kept = {key: value for key, value in overlays(name)[stem].items() if not set(key) & set("#+") | ({key} & later)}
        assert {key: content[key] for key in kept} == kept
    parser.parse()
    assert list(_wrong_items(parser)) == []
    size = parser.get_parsed_content("roi_size" if stems[0] == "train" else next(k for k in SIZES if k in content))
    assert parser.get_parsed_content("network_def::spatial_dims") == len(size)
    assert len(size) == (3 if "volumes" in stems or name != "global_local_contrast" else 2)


SIZES = ("image_size", "crop_size")


@pytest.mark.parametrize("step", ["pretrain", "train", "inference"])
@pytest.mark.parametrize(
    ("last", "filters"),
    [
        ((), [16, 32, 64, 128, 128, 128]),
        (("small",), [8, 16, 32, 64, 64, 64]),
        (("volumes",), [16, 32, 64, 128]),
        (("small", "volumes"), [8, 16, 32, 64]),
    ],
)
def test_small_halves_the_channels_of_slices_and_volumes_alike(
    step: str, last: tuple[str, ...], filters: list[int]
) -> None:
    parser = laid("global_local_contrast", (step, *last))
    parser.parse()
    assert parser.get_parsed_content("filters") == filters


@pytest.mark.parametrize(("name", "stems"), list(ordered()))
def test_overlays_given_otherwise_mean_the_same_but_for_small_and_volumes(name: str, stems: tuple[str, ...]) -> None:
    expected = laid(name, stems).get()
    for other in permutations(stems[1:]):
        if {"small", "volumes"} <= set(other) and other.index("small") > other.index("volumes"):
            continue
        if {"evaluate", "multi_gpu"} <= set(other) or "denoise" in other:
            continue  # these merge into what comes before
        assert laid(name, (stems[0], *other)).get() == expected


@pytest.mark.parametrize("name", bundles.names())
def test_every_config_says_in_which_order_overlays_are_given(name: str) -> None:
    folder = bundles.path(name) / "configs"
    silent = [file.name for file in folder.glob("*.yaml") if RULE not in file.read_text() and file.stem != "inference"]
    assert silent == []


@pytest.mark.parametrize(
    "file", ["tutorials/pages/get_started.md", *(f"bundles/{name}/docs/README.md" for name in bundles.names())]
)
def test_the_first_page_and_cards_state_the_order(file: str) -> None:
    assert RULE.removeprefix("Order: ") in " ".join((ROOT / file).read_text().replace("`", "").split())


def test_an_overlay_of_one_name_means_one_method() -> None:
    found: dict[str, set[str]] = {}
    for name in bundles.names():
        for stem in methods(name):
            found.setdefault(stem, set()).add(str(overlays(name)[stem].get("method_name")))
    assert {stem: names for stem, names in found.items() if len(names) > 1} == {}


@pytest.mark.parametrize("file", sorted((ROOT / "tutorials").glob("curve*.yaml")), ids=lambda file: file.stem)
def test_curves_keep_the_order(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    pretrained = [arm["pretrained"] for arm in content["arms"].values() if isinstance(arm.get("pretrained"), dict)]
    own = [each.get("overlays", []) for each in pretrained]
    for given in ([*each, *content.get("overlays", [])] for each in own):
        places = [LAST.index(stem) if stem in LAST else -1 for stem in given]
        assert places == sorted(places)
