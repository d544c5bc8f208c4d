"""The file that says between which scans, and with which networks, invariance to the sequence is measured."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_cl._files import read_yaml
from monai_cl._locks import alone_in
from monai_cl.evaluation.sequence_invariance import (
    Descriptor,
    Invariance,
    load_sequences,
    measure_invariance,
    mind_descriptor,
    network_descriptor,
    shift_for,
    write_invariance,
)
from monai_cl.weights import transfer

_DEFAULTS: dict[str, Any] = {
    "patients": None, "output": "runs/invariance", "spacing": 2.0, "points": 256, "stride": 2, "seed": 0,
    "network": None, "checkpoints": {}, "taps": "all", "window": None, "mind": {},
}  # fmt: skip


def run_invariance(
    config: str | Path, *, output: str | Path | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Invariance], Path]:
    """Measure what a file describes: MIND-SSC, the network's random initialisation, and its checkpoints.

    Args:
        config: YAML file; ``tutorials/invariance_brain.yaml`` is one to start from.
        output: Another output folder than that of the file.
        progress: Called with (images described, images in all) after each.

    Returns:
        The results, and the table that was written.

    Raises:
        ValueError: If a setting is unknown or missing, or a checkpoint does not fit.
        FileNotFoundError: If a scan or checkpoint is not there.
    """
    settings = _read(Path(config))
    folder = Path(output or settings["output"])
    with alone_in(folder):
        return _measure(settings, folder, progress)


def _measure(
    settings: dict[str, Any], folder: Path, progress: Callable[[int, int], None] | None
) -> tuple[list[Invariance], Path]:
    patients = {
        name: load_sequences({s: _there(path) for s, path in files.items()}, spacing=settings["spacing"])
        for name, files in settings["patients"].items()
    }
    results = measure_invariance(
        patients, _descriptors(settings), points=settings["points"], stride=settings["stride"], seed=settings["seed"],
        shift=shift_for(settings["window"]), progress=progress,
    )  # fmt: skip
    told = {k: v for k, v in settings.items() if k not in ("patients", "output", "checkpoints")}
    told["sequences"] = {name: list(files) for name, files in settings["patients"].items()}
    return results, write_invariance(results, folder, settings=told)


def _read(path: Path) -> dict[str, Any]:
    given = read_yaml(path, "the file of a comparison")
    if not isinstance(given, dict):
        raise ValueError(f"{path} must hold settings by name, got {type(given).__name__}")
    for name in given:
        if name not in _DEFAULTS:
            close = difflib.get_close_matches(str(name), _DEFAULTS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"settings of {path} must be of {tuple(_DEFAULTS)}, got {name!r}{hint}")
    settings = {**_DEFAULTS, **given}
    if not isinstance(settings["patients"], dict) or not settings["patients"]:
        raise ValueError(f"{path} must name patients with their sequences, e.g. patients: {{p1: {{T1: ..., T2: ...}}}}")
    marked = [s for sequences in settings["patients"].values() for s in sequences if ": " in s or " -> " in s]
    if marked:
        raise ValueError(
            f"names of sequences must hold neither ': ' nor ' -> ', which pairs are told by, got {marked[0]!r}"
        )
    if settings["checkpoints"] and settings["network"] is None:
        raise ValueError(f"{path} names checkpoints and must therefore describe the network, as a bundle's network_def")
    return settings


def _there(path: str) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"no scan at {path}; paths start from the folder in which the command is given")
    return Path(path)


def _descriptors(settings: dict[str, Any]) -> dict[str, Descriptor]:
    descriptors = {"MIND-SSC": mind_descriptor(**settings["mind"])}
    if settings["network"] is None:
        return descriptors
    shown = {"taps": settings["taps"], "window": settings["window"]}
    descriptors["random initialisation"] = network_descriptor(_network(settings), **shown)
    for name, path in settings["checkpoints"].items():
        network = _network(settings)
        transfer(network, _there(path))
        descriptors[name] = network_descriptor(network, **shown)
    return descriptors


def _network(settings: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])
        network: nn.Module = ConfigParser(dict(settings["network"])).get_parsed_content()
    return network
