"""Contract of a file of weights, read without torch."""

import json
from pathlib import Path
from typing import Any

from monai_cl._files import read_json
from monai_cl.weights._safetensors import safetensors_notes

NOTE = "monai_cl"  # entry of a file of ours for other programs


def read_contract(path: str | Path) -> dict[str, Any]:
    """Contract that :func:`save_network` stored beside a file of weights, or one of safetensors holds inside.

    Empty if none exists.

    Raises:
        ValueError: If the file beside the weights is no JSON.
    """
    beside = Path(path).with_suffix(".json")
    if beside.exists():
        try:
            content = read_json(beside)
        except ValueError as error:
            raise ValueError(
                f"the contract beside {path}, {beside.name}, must be JSON: {error}; copy it again together with the "
                "weights, or move it away if it does not belong to them"
            ) from error
        return content if isinstance(content, dict) else {}
    text = safetensors_notes(Path(path)).get(NOTE)
    inside = {} if text is None else json.loads(text)
    return inside.get("contract", {}) if isinstance(inside, dict) else {}
