"""Settings of a measurement of sequence invariance: scans and networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from monai.bundle import ConfigParser
from pydantic import BeforeValidator, Field, model_validator
from torch import nn

from monai_cl._locks import alone_in
from monai_cl.evaluation._keys import Keys, must, read_keys
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
from monai_cl.privacy.plain import plain_or
from monai_cl.weights import transfer

Files = Annotated[dict[str, str], must("name files or folders by sequence")]
Whole = Annotated[int, Field(strict=True, ge=1), must("be a whole number from 1")]


def _some(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"must name patients with their sequences, e.g. patients: {{p1: {{T1: ..., T2: ...}}}}, got {value!r}"
        )
    return {str(name): files for name, files in value.items()}


class InvarianceConfig(Keys):
    """Settings of a measurement of invariance; ``tutorials/invariance_brain.yaml`` explains every key."""

    patients: Annotated[dict[str, Files], BeforeValidator(_some)]
    output: Path = Path("runs/invariance")
    spacing: Annotated[float, Field(strict=True, gt=0), must("be a length in mm above 0")] = 2.0
    points: Whole = 256
    stride: Whole = 2
    seed: Annotated[int, Field(strict=True), must("be a whole number")] = 0
    network: dict[str, Any] | None = None
    checkpoints: Annotated[Files, BeforeValidator(lambda value: value or {})] = Field(default_factory=dict)
    taps: Annotated[Literal["encoder", "decoder", "all"], must("be encoder, decoder or all")] = "all"
    window: Whole | None = None
    mind: Annotated[dict[str, Any], BeforeValidator(lambda value: value or {})] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agree(self) -> InvarianceConfig:
        marked = [s for files in self.patients.values() for s in files if ": " in s or " -> " in s]
        if marked:
            raise ValueError(
                f"names of sequences must hold neither ': ' nor ' -> ', which separate pairs, got {marked[0]!r}"
            )
        if self.checkpoints and self.network is None:
            raise ValueError("checkpoints are named, which must therefore describe the network, as network_def does")
        return self


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
        FileNotFoundError: If a scan or checkpoint is missing.
    """
    read = read_keys(
        InvarianceConfig, Path(config), "the file of a comparison", lambda place: ".".join(map(str, place))
    )
    folder = Path(output or read.output)
    with alone_in(folder):
        listed = _shown(read.patients)
        patients = {
            name: load_sequences({s: _existing(path) for s, path in files.items()}, spacing=read.spacing)
            for name, files in listed.items()
        }
        shift = shift_for(read.window)
        drawn = {"points": read.points, "stride": read.stride, "seed": read.seed}
        results = measure_invariance(patients, _descriptors(read), shift=shift, progress=progress, **drawn)
        settings = read.model_dump(exclude={"patients", "output", "checkpoints"})
        settings["sequences"] = {name: list(files) for name, files in listed.items()}
        return results, write_invariance(results, folder, settings=settings)


def _shown(patients: dict[str, Files]) -> dict[str, Files]:
    """Patients by the names that results may show: numbers take the place of those that might name somebody."""
    return {
        plain_or(name, f"patient {number}"): files for number, (name, files) in enumerate(patients.items(), start=1)
    }


def _existing(path: str) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"no scan at {path}; paths start from the folder in which the command is given")
    return Path(path)


def _descriptors(read: InvarianceConfig) -> dict[str, Descriptor]:
    descriptors = {"MIND-SSC": mind_descriptor(**read.mind)}
    if read.network is None:
        return descriptors
    for name, path in {"random initialisation": None, **read.checkpoints}.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(read.seed)
            network: nn.Module = ConfigParser(dict(read.network)).get_parsed_content()
        if path is not None:
            transfer(network, _existing(path))
        descriptors[name] = network_descriptor(network, taps=read.taps, window=read.window)
    return descriptors
