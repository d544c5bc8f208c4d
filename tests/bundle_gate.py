"""The gate that every bundle passes: functions that take a bundle root and return what is wrong with it.

It asks for what the MONAI model zoo asks for, offline, and for what the zoo's gate lets through: a wrong spatial shape,
references to nothing, misspelt arguments and overlays, networks that differ from config to config.
"""

import ast
import inspect
import json
import pydoc
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.bundle.config_item import ConfigComponent, ConfigExpression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

HERE = Path(__file__).parent
SCHEMA = HERE / "data" / "meta_schema_20240725.json"  # MONAI's, as published
SCHEMA_SHA256 = "e0c7d6acae10140ebf7f18fccaeec554b106e3318e6af2738f362dc731f67fc4"
CONSTRAINTS = HERE.parent / "constraints.txt"

FILES = ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/metadata.json", "configs/logging.conf")
STEPS: dict[str, tuple[str, tuple[str, ...]]] = {  # name: workflow type, config files
    "pretrain": ("train", ("pretrain.yaml",)),
    "train": ("train", ("train.yaml",)),
    "evaluate": ("train", ("train.yaml", "evaluate.yaml")),
    "inference": ("infer", ("inference.yaml",)),
}
OVERLAYS = ("small.yaml", "multi_gpu.yaml")
PHASES = ("initialize", "run", "finalize")


def config_files(root: Path, *names: str) -> list[str]:
    """Paths of configs, as MONAI takes them."""
    return [str(root / "configs" / name) for name in names]


def pretrains_on_maps(root: Path) -> bool:
    """Whether a bundle pretrains on the quantitative maps of a folder, not on the images of a datalist."""
    return _config(root, "pretrain.yaml")["datalist"] is None


def where(root: Path, step: str, study: Path) -> dict[str, str]:
    """Where a step finds its data in ``study_with_maps``."""
    if step == "inference":
        return {"dataset_dir": str(study / "images")}
    if step == "pretrain" and pretrains_on_maps(root):
        return {"dataset_dir": str(study / "maps")}
    return {"dataset_dir": str(study), "datalist": str(study / "datalist.json")}


def network(root: Path, step: str = "inference", *overlays: str) -> torch.nn.Module:
    """The ``network_def`` of a step."""
    parser = ConfigParser()
    parser.read_config(config_files(root, *STEPS[step][1], *overlays))
    net: torch.nn.Module = parser.get_parsed_content("network_def")
    return net


def declared_shape(root: Path) -> tuple[int, ...]:
    """Shape of a batch of one image as the metadata declares it."""
    image = _metadata(root)["network_data_format"]["inputs"]["image"]
    return (1, image["num_channels"], *image["spatial_shape"])


def small_input(root: Path) -> torch.Tensor:
    """A random image of the declared axes and channels; of a volume, 32 voxels along each axis are enough."""
    batch, channels, *sides = declared_shape(root)
    sides = [min(n, 32) for n in sides] if len(sides) == 3 else sides
    return torch.rand(batch, channels, *sides, generator=torch.Generator().manual_seed(0))


def missing_files(root: Path) -> list[str]:
    configs = {file for _, files in STEPS.values() for file in files} | set(OVERLAYS)
    wanted = [*FILES, *sorted(f"configs/{file}" for file in configs)]
    return [f"missing file {file}" for file in wanted if not (root / file).is_file()]


def wrong_metadata(root: Path) -> list[str]:
    """MONAI's own check against the schema, which stays offline where the file is there already."""
    found = []
    try:
        meta = str(root / "configs" / "metadata.json")
        verify_metadata(meta_file=meta, filepath=str(SCHEMA), hash_val=SCHEMA_SHA256, hash_type="sha256")
    except ValueError as error:
        found.append(f"metadata: {error}")
    content = _metadata(root)
    published = "https://project-monai.github.io/schema/"
    if content.get("schema") != published + SCHEMA.name:
        found.append(f"metadata: schema must be {published + SCHEMA.name}, got {content.get('schema')}")
    if content.get("version") not in content.get("changelog", {}):
        found.append(f"metadata: version {content.get('version')} is not in the changelog")
    return found


def wrong_versions(root: Path) -> list[str]:
    """Versions must be those of ``constraints.txt``, which the tests ran with, and of this package."""
    from importlib.metadata import version

    tested = {r.name: str(r.specifier).removeprefix("==") for r in map(Requirement, _lines(CONSTRAINTS))}
    tested = {canonicalize_name(name): number for name, number in tested.items()}
    tested["monai-cl"] = version("monai_cl")
    content = _metadata(root)
    given = {"torch": content.get("pytorch_version")}
    given |= {name: content.get(f"{name}_version") for name in ("monai", "numpy")}
    packages = content.get("required_packages_version")
    given |= packages if isinstance(packages, dict) else {}
    found = [
        f"versions: {name} {number} is not the tested {tested.get(canonicalize_name(name), '(no version)')}"
        for name, number in given.items()
        if tested.get(canonicalize_name(name)) != number
    ]
    try:
        Version(str(content.get("version")))
    except InvalidVersion:
        found.append(f"versions: {content.get('version')} is not a version")
    return found


class _Unbuilt(ConfigWorkflow):  # type: ignore[misc]
    """Asks whether properties are there without building them, which would need data; a missing one is counted."""

    def _get_property(self, name: str, property: dict[str, Any]) -> Any:
        try:
            return self._get_prop_id(name, property)
        except KeyError as error:
            raise AttributeError(str(error)) from error


def missing_properties(root: Path) -> list[str]:
    """The ids that MONAI's workflows and the programs built on them look for."""
    found = []
    for (step, (kind, files)), overlays in product(STEPS.items(), ((), ("small.yaml",))):
        workflow = _Unbuilt(config_files(root, *files, *overlays), logging_file=False, workflow_type=kind)
        workflow.parser.parse()  # as `initialize` does; before it references may be written with another separator
        try:
            missing = workflow.check_properties()
        except (
            AttributeError,
            TypeError,
        ) as error:  # what it does on a list, or a reference, where it wants a component
            found.append(f"{_title(step, overlays)}: handlers are inlined or no components: {error}")
            continue
        found += [f"{_title(step, overlays)}: property {name} is missing or inlined" for name in missing or ()]
    return found


def wrong_configs(root: Path) -> list[str]:
    """Every reference leads somewhere, every expression is Python, every component exists and takes its arguments."""
    found = []
    for step, overlays in product(STEPS, ((), ("small.yaml",), ("multi_gpu.yaml",), OVERLAYS)):
        if step == "inference" and "multi_gpu.yaml" in overlays:
            continue
        found += [f"{_title(step, overlays)}: {text}" for text in _wrong_items(_parsed(root, step, overlays))]
    return found


def wrong_overlays(root: Path) -> list[str]:
    """What an overlay sets must be known to a config that it is laid on, and what a config sets must be read."""
    steps = {file: _config(root, file) for _, files in STEPS.values() for file in files}
    overlays = {file: _config(root, file) for file in OVERLAYS}
    found = []
    for file, overlay in overlays.items():
        known = {key for config in steps.values() for key in config}
        found += [f"{file}: no config has an id {key}" for key in overlay if _head(key) not in {*known, *PHASES}]
    read = {file: set(_references(config)) for file, config in (steps | overlays).items()}
    for file, config in steps.items():
        partners = [set(files) for _, files in STEPS.values() if file in files]
        readers = set().union(*(read[each] for files in partners for each in files))
        # MONAI and the programs built on it read these by name
        readers |= {"imports", "bundle_root", "dataset_dir", "device", "network_def", "handlers", *PHASES}
        readers |= {"save_execute_config"}
        found += [f"{file}: nothing reads {key}" for key in config if _head(key) not in readers]
    return found


def wrong_network(root: Path) -> list[str]:
    """``network_def`` is one and the same in every step, and does what the metadata say."""
    found = []
    for overlays in ((), ("small.yaml",)):
        nets = {step: network(root, step, *overlays).state_dict() for step in STEPS}
        shapes = {step: {name: tuple(t.shape) for name, t in state.items()} for step, state in nets.items()}
        found += [
            f"{_title(step, overlays)}: network_def differs from that of inference"
            for step in STEPS
            if shapes[step] != shapes["inference"]
        ]
    meta = root / "configs" / "metadata.json"
    try:
        config = config_files(root, "inference.yaml")
        verify_net_in_out("network_def", meta_file=str(meta), config_file=config, device="cpu")
    except (ValueError, RuntimeError) as error:
        return [*found, f"network: {error}"]
    with torch.no_grad():  # shapes alone, since MONAI has run it on values
        output = network(root).eval().to("meta")(torch.empty(declared_shape(root), device="meta"))
    declared = tuple(_metadata(root)["network_data_format"]["outputs"]["pred"]["spatial_shape"])
    if tuple(output.shape[2:]) != declared:
        found.append(f"network: output spatial shape {tuple(output.shape[2:])} doesn't match: {declared}")
    return found


def _metadata(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "configs" / "metadata.json").read_text())
    return content


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def _config(root: Path, file: str) -> dict[str, Any]:
    content: dict[str, Any] = ConfigParser.load_config_file(str(root / "configs" / file))
    return content


def _title(step: str, overlays: Sequence[str]) -> str:
    return " + ".join((step, *overlays))


def _head(key: str) -> str:
    return re.split("#|::", key.removeprefix("+"))[0]


def _references(config: Any) -> Iterator[str]:
    """First parts of all ids that a config refers to."""
    if isinstance(config, str):
        yield from (_head(name) for name in re.findall(r"@(\w[\w#:]*)", config))
    elif isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _references(value)


def _parsed(root: Path, step: str, overlays: Sequence[str]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(config_files(root, *STEPS[step][1], *overlays))
    parser.parse()
    return parser


def _wrong_items(parser: ConfigParser) -> Iterator[str]:
    resolver = parser.ref_resolver
    for name, item in resolver.items.items():
        config = item.get_config()
        for wanted in resolver.find_refs_in_config(config, name):
            if wanted not in resolver.items:
                yield f"{name} refers to {wanted}, which is not there"
        if isinstance(item, ConfigExpression):
            code = re.sub(r"@\w[\w:#]*", "_", config.removeprefix("$"))
            try:
                ast.parse(code.strip())
            except SyntaxError as error:
                yield f"{name} is no Python: {error.msg} in {config!r}"
        elif isinstance(item, ConfigComponent):
            yield from (f"{name}: {text}" for text in _wrong_component(item))


def _wrong_component(item: ConfigComponent) -> Iterator[str]:
    path = item.resolve_module_name()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what third parties say on import is not about the config
        target: Any = pydoc.locate(path) if isinstance(path, str) else path
    if target is None:
        yield f"there is no {path}"
        return
    if item.get_config().get("_mode_", "default") != "default":
        return
    try:
        inspect.signature(target).bind(**item.resolve_args())
    except TypeError as error:
        yield f"{path}: {error}"


CHECKS = (
    missing_files,
    wrong_metadata,
    wrong_versions,
    missing_properties,
    wrong_configs,
    wrong_overlays,
    wrong_network,
)
