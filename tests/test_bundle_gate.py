"""Every bundle passes the gate of :mod:`bundle_gate`, and the gate can fail."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from bundle_gate import (
    CHECKS,
    SCHEMA,
    STEPS,
    config_files,
    missing_files,
    missing_properties,
    network,
    small_input,
    where,
    wrong_configs,
    wrong_metadata,
    wrong_network,
    wrong_overlays,
    wrong_versions,
)
from monai.bundle import ConfigWorkflow

from monai_cl import bundles, weights

pytestmark = pytest.mark.parametrize("name", bundles.names())
SMALL = ((), ("small.yaml",))
another_network = pytest.mark.one_bundle("global_local_contrast")  # the others have the class of volume_contrast
Spoil = Callable[[Any], None]
Check = Callable[[Path], list[str]]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate needs no network: an attempt to fetch something fails."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"something was to be fetched: {args}")

    monkeypatch.setattr("monai.apps.utils._download_with_progress", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)


# --- every bundle passes


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nothing_is_wrong(name: str, check: Check) -> None:
    assert check(bundles.path(name)) == []


@pytest.mark.filterwarnings("ignore:Divide by zero")  # a view of a small phantom may be flat
@pytest.mark.parametrize("overlays", SMALL, ids=("plain", "small"))
@pytest.mark.parametrize("step", STEPS)
def test_properties_can_be_built(name: str, step: str, overlays: tuple[str, ...], study_with_maps: Path) -> None:
    kind, files = STEPS[step]
    workflow = ConfigWorkflow(
        config_files(bundles.path(name), *files, *overlays),
        logging_file=False,
        workflow_type=kind,
        init_id="none",  # nothing has been pretrained that the steps could begin with
        **where(bundles.path(name), step, study_with_maps),
        output_dir=str(study_with_maps / "never"),
        recipe="small_mr",
        **({"num_workers": 0} if kind == "train" else {}),
        **({"probe_crops": 2} if (name, step) == ("sequence_contrast", "pretrain") else {}),  # simulated one by one
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert isinstance(workflow.network_def, torch.nn.Module)


def test_a_bundle_checks_its_package_and_its_command_line_first(name: str) -> None:
    for kind, files in STEPS.values():
        workflow = ConfigWorkflow(config_files(bundles.path(name), *files), logging_file=False, workflow_type=kind)
        first = list(workflow.parser["initialize"])[:3]
        assert first[0] == "$bundles.plain_errors()"
        assert first[1].startswith("$bundles.require_version(")
        assert first[2] == "$bundles.check_command_line()"


@pytest.mark.parametrize("overlays", SMALL, ids=("plain", "small"))
def test_weights_are_a_plain_state_dict(name: str, overlays: tuple[str, ...], tmp_path: Path) -> None:
    net, other = (network(bundles.path(name), "inference", *overlays) for _ in range(2))
    weights.save_network(net, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in content.values())
    other.load_state_dict(content)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


@another_network
def test_traced_to_torchscript_the_network_gives_the_same(name: str, tmp_path: Path) -> None:
    net, image = network(bundles.path(name)).eval(), small_input(bundles.path(name))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # MONAI looks at shapes
        torch.jit.save(torch.jit.trace(net, image, check_trace=False), tmp_path / "model.ts")
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(image), net(image), rtol=0, atol=0)


@another_network
def test_exported_to_onnx_the_network_gives_the_same(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    net, image = network(bundles.path(name)).eval(), small_input(bundles.path(name))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(net, (image,), tmp_path / "model.onnx", dynamo=True, verbose=False)
        expected = net(image).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    difference = (output - expected) / np.abs(expected).max()  # normalisation sums a million voxels in another order
    assert np.sqrt(np.mean(difference**2)) < 1e-5
    assert np.abs(difference).max() < 1e-4


# --- the gate can fail


def edit(file: Path, change: Spoil) -> None:
    """Change a JSON or YAML file by way of its content."""
    as_json = file.suffix == ".json"
    content = json.loads(file.read_text()) if as_json else yaml.safe_load(file.read_text())
    change(content)
    file.write_text(json.dumps(content) if as_json else yaml.safe_dump(content))


def more_channels(metadata: dict[str, Any]) -> None:
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] += 1


def small_images(metadata: dict[str, Any]) -> None:
    for part in ("inputs", "outputs"):
        for tensor in metadata["network_data_format"][part].values():
            tensor["spatial_shape"] = [32] * len(tensor["spatial_shape"])


def smaller_output(metadata: dict[str, Any]) -> None:
    pred = metadata["network_data_format"]["outputs"]["pred"]
    pred["spatial_shape"] = [n // 2 for n in pred["spatial_shape"]]


def retired_key(metadata: dict[str, Any]) -> None:
    metadata["optional_packages_version"] = metadata.pop("required_packages_version")


def no_authors(metadata: dict[str, Any]) -> None:
    del metadata["authors"]


def shape_as_text(metadata: dict[str, Any]) -> None:
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = "96"


def unlogged_version(metadata: dict[str, Any]) -> None:
    metadata["version"] = "0.0.7"


def untested_version(metadata: dict[str, Any]) -> None:
    metadata["required_packages_version"]["nibabel"] = "3.0.0"


def no_inferer(config: dict[str, Any]) -> None:
    config["train"]["trainer"]["inferer"] = config["train"].pop("inferer")


def inlined_train_handlers(config: dict[str, Any]) -> None:
    config["train"]["trainer"]["train_handlers"] = config["train"]["handlers"]


def inlined_handlers(config: dict[str, Any]) -> None:
    config["evaluator"]["val_handlers"] = config.pop("handlers")


def dangling_reference(config: dict[str, Any]) -> None:
    config["train"]["trainer"]["optimizer"] = "@optimiser"


def sliding_window(config: dict[str, Any]) -> dict[str, Any]:
    """The inferer of whole windows, of which some bundles have another beside it."""
    found: dict[str, Any] = config["window_inferer" if "window_inferer" in config else "inferer"]
    return found


def misspelt_target(config: dict[str, Any]) -> None:
    sliding_window(config)["_target_"] = "SlidingWindowInferrer"


def misspelt_argument(config: dict[str, Any]) -> None:
    inferer = sliding_window(config)
    inferer["over_lap"] = inferer.pop("overlap")


def broken_expression(config: dict[str, Any]) -> None:
    config["steps"] = "$@max_epochs * (@epoch_length"


def misspelt_override(overlay: dict[str, Any]) -> None:
    overlay["batchsize"] = 1


def unread_setting(config: dict[str, Any]) -> None:
    config["warmup"] = 0.1


def wider_network(config: dict[str, Any]) -> None:
    config["init_filters"] *= 2


CASES: tuple[tuple[Check, str, Spoil, str], ...] = (
    (wrong_network, "metadata.json", more_channels, r"network: output channel number `(3|4)` doesn't match: `(4|5)`"),
    (wrong_network, "metadata.json", smaller_output, r"network: output spatial shape .* doesn't match"),
    (wrong_metadata, "metadata.json", retired_key, r"metadata: 'required_packages_version' is a required property"),
    (wrong_metadata, "metadata.json", no_authors, r"metadata: 'authors' is a required property"),
    (wrong_metadata, "metadata.json", shape_as_text, r"metadata: '96' is not of type 'array'"),
    (wrong_metadata, "metadata.json", unlogged_version, r"metadata: version 0\.0\.7 is not in the changelog"),
    (wrong_versions, "metadata.json", untested_version, r"versions: nibabel 3\.0\.0 is not the tested 5\."),
    (missing_properties, "pretrain.yaml", no_inferer, r"pretrain: property train_inferer is missing or inlined"),
    (missing_properties, "train.yaml", inlined_train_handlers, r"train: handlers are inlined"),
    (missing_properties, "inference.yaml", inlined_handlers, r"inference: handlers are inlined"),
    (wrong_configs, "train.yaml", dangling_reference, r"train: train::trainer refers to optimiser, which is not there"),
    (
        wrong_configs,
        "inference.yaml",
        misspelt_target,
        r"inference: (window_)?inferer: there is no SlidingWindowInferrer",
    ),
    (
        wrong_configs,
        "inference.yaml",
        misspelt_argument,
        r"inference: (window_)?inferer: .*SlidingWindowInferer: .*'over_lap'",
    ),
    (wrong_configs, "pretrain.yaml", broken_expression, r"pretrain: steps is no Python: '\(' was never closed"),
    (wrong_overlays, "small.yaml", misspelt_override, r"small\.yaml: no config has an id batchsize"),
    (wrong_overlays, "train.yaml", unread_setting, r"train\.yaml: nothing reads warmup"),
    (wrong_network, "pretrain.yaml", wider_network, r"pretrain: network_def differs from that of inference"),
)


@pytest.mark.parametrize(("check", "file", "spoil", "complaint"), CASES, ids=[case[2].__name__ for case in CASES])
@pytest.mark.filterwarnings("ignore:Detected deprecated name:UserWarning")
@pytest.mark.one_bundle
def test_the_gate_sees_what_is_wrong(
    name: str, check: Check, file: str, spoil: Spoil, complaint: str, tmp_path: Path
) -> None:
    root = bundles.copy(name, tmp_path / "bundle")
    if check is wrong_network:  # the smallest images that pass through; the shape is not the point
        edit(root / "configs" / "metadata.json", small_images)
    assert check(root) == []
    edit(root / "configs" / file, spoil)
    found = check(root)
    assert any(re.search(complaint, text) for text in found), found


@pytest.mark.parametrize("file", ["LICENSE", "configs/inference.yaml"])
def test_the_gate_sees_a_missing_file(name: str, file: str, tmp_path: Path) -> None:
    root = bundles.copy(name, tmp_path / "bundle")
    (root / file).unlink()
    assert f"missing file {file}" in missing_files(root)


def test_the_schema_is_the_published_one(name: str) -> None:
    content = json.loads(SCHEMA.read_text())
    assert {"required", "properties"} <= set(content)
    metadata = json.loads((bundles.path(name) / "configs" / "metadata.json").read_text())
    assert Path(metadata["schema"]).name == SCHEMA.name
