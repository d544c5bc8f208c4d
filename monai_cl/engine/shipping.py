"""A finished run on random anatomies as weights that come with a bundle."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_cl import bundles, weights
from monai_cl._files import read_json, read_yaml
from monai_cl._overrides import lay
from monai_cl.engine.run_record import read_run_record
from monai_cl.engine.run_settings import RunSettings

NO_PATIENT = "random anatomies: no patient"
LICENCE = "Apache-2.0"
_PLACES = ("bundle_root", "output_dir", "pretrained", "resume", "num_workers", "device", "save_every")
_PACKAGES = ("monai_cl", "torch", "monai", "numpy")


def ship_run(
    files: Sequence[str | Path], file: str | Path, run: str | Path, out: str | Path, **overrides: Any
) -> dict[str, Any]:
    """Write the weights of a finished run on random anatomies as a file that can come with a bundle.

    The configuration must be that of the run, which is compared with its record, since the file states the command
    that makes it again.

    Args:
        files: Config files of the run, in its order: ``pretrain.yaml``, ``random_anatomy.yaml``, ``small.yaml``, ...
        file: The weights that it wrote.
        run: Its folder, with ``run.json``.
        out: ``models/shipped/NAME.safetensors`` of a bundle; NAME names its network.
        **overrides: Overrides of the run.

    Returns:
        The contract that the file holds.

    Raises:
        ValueError: If the run is not finished, had data or weights to begin with, or other settings.
        WeightsMismatchError: If the weights are of another network.
    """
    if Path(out).suffix != ".safetensors":
        raise ValueError(f"shipped weights end in .safetensors, got {Path(out).name!r}")
    parser = ConfigParser()
    parser.read_config([str(one) for one in files])
    lay(overrides, parser)
    record, contract = read_run_record(run), weights.read_contract(file)
    _check_data(record, contract)
    settings, steps = parser.get_parsed_content("settings"), int(parser.get_parsed_content("steps"))
    _check_settings(record, settings, steps, contract)
    network = parser.get_parsed_content("network_def")
    weights.load_network(network, file)
    facts = {**settings.contract, "data": NO_PATIENT, "intensities": [0, 1], "licence": LICENCE, "steps": steps}
    facts |= {"method": settings.method, "settings": _plain(settings.own), "configs": _digests(files)}
    facts |= {"command": _command(files, overrides), **_circumstances(record)}
    weights.save_shipped(network, out, touched=contract["touched"], contract=_plain(facts))
    return weights.read_contract(out)


def _check_data(record: Mapping[str, Any], contract: Mapping[str, Any]) -> None:
    """Refuse runs that patients had a part in, be it by weights to begin with."""
    data = record.get("data", {})
    if contract.get("data") != NO_PATIENT or data.get("datalist") or record.get("recipe"):
        raise ValueError(
            "shipped weights must be of random anatomies alone (random_anatomy.yaml, no datalist), got a run on "
            f"{data.get('datalist') or contract.get('data') or 'data that its contract does not name'}"
        )
    if record.get("settings", {}).get("start") or record.get("receipt"):
        raise ValueError("shipped weights must be trained from scratch, got a run that began with a file (start)")


def _check_settings(record: Mapping[str, Any], settings: RunSettings, steps: int, contract: Mapping[str, Any]) -> None:
    """Refuse a configuration that is not the run's, and a run that has not come to its end."""
    then, now = record["settings"], _plain(settings.to_compare())
    other = [f"{key}: {then[key]!r} -> {now[key]!r}" for key in now if key in then and then[key] != now[key]]
    if other:
        raise ValueError(
            "configuration and overrides must be those of the run, or nobody could make it again; different: "
            f"{'; '.join(other)}"
        )
    last = record["parts"][-1]
    if last.get("finished") is None or not steps == last.get("to_step") == contract.get("steps"):
        raise ValueError(
            f"the run must be finished, with the steps of the configuration ({steps}), got step {last.get('to_step')} "
            f"in its record and {contract.get('steps')} in the weights; let it end, or give its max_epochs"
        )


def _command(files: Sequence[str | Path], overrides: Mapping[str, Any]) -> str:
    """Command that makes the weights again, from the folder of the bundle."""
    listed = ",".join(f"'configs/{Path(file).name}'" for file in files)
    given = [(key, value) for key, value in overrides.items() if key not in _PLACES]
    words = ["--bundle_root", ".", "--config_file", f"[{listed}]"]
    words += [word for key, value in given for word in (f"--{key}", value if isinstance(value, str) else repr(value))]
    name = next((one for one in bundles.names() if _is_bundle(one, files)), Path(files[0]).resolve().parents[1].name)
    return f"cd bundles/{name} && python -m monai.bundle run {shlex.join(words)}"


def _is_bundle(name: str, files: Sequence[str | Path]) -> bool:
    one, other = bundles.path(name) / "configs" / "metadata.json", Path(files[0]).parent / "metadata.json"
    return other.is_file() and read_json(one)["name"] == read_json(other).get("name")


def _circumstances(record: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, hardware and time of the run, and the steps of each of its starts."""
    parts = record["parts"]
    known = parts[-1].get("versions", {})
    return {
        "versions": {name: known[name] for name in _PACKAGES if name in known},
        "hardware": sorted({str(part["hardware"]) for part in parts if part.get("hardware")}),
        "parts": [[part.get("from_step"), part.get("to_step")] for part in parts],
        "seconds": round(sum(part.get("seconds") or 0.0 for part in parts), 1),
    }


def _digests(files: Sequence[str | Path]) -> dict[str, str]:
    """SHA-256 of the content of each config file without comments."""
    contents = {Path(file).name: json.dumps(read_yaml(file, "a config file"), sort_keys=True) for file in files}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}


def _plain(value: Any) -> Any:
    """Value after a round trip through JSON."""
    return json.loads(json.dumps(value, default=str))
