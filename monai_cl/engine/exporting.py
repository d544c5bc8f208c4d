"""Networks of a bundle's configuration, written for other programs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_cl import weights
from monai_cl._overrides import lay
from monai_cl.weights.export import KINDS

logger = logging.getLogger(__name__)

ENDINGS = (".safetensors", ".pth", *KINDS)


def export_run(files: Sequence[str | Path], file: str | Path, out: str | Path, **overrides: Any) -> None:
    """Fill the network of a configuration from a file of weights and write it.

    Args:
        files: Config files of the bundle, such as ``inference.yaml``.
        file: The weights.
        out: ``.safetensors`` (with contract and receipt inside), ``.pth`` (for nnU-Net's fine-tuning), ``.onnx`` or
            ``.pt2`` (the encoder alone, for images of ``roi_size``).
        **overrides: As on the command line of ``monai.bundle run``.

    Raises:
        FileNotFoundError: If the file of weights does not exist.
        ValueError: If the ending is another, or the configuration lacks the network or what is needed for it.
        WeightsMismatchError: If the weights do not fit.
    """
    suffix = Path(out).suffix
    if suffix not in ENDINGS:
        raise ValueError(f"out must end in one of {ENDINGS}, got {Path(out).name!r}")
    parser = ConfigParser()
    parser.read_config([str(one) for one in files])
    lay(overrides, parser)
    needed = ("network_def",) if suffix == ".safetensors" else ("network_def", "roi_size")
    if missing := [name for name in needed if name not in parser]:
        raise ValueError(f"a bundle's inference.yaml or train.yaml is needed, the files lack {', '.join(missing)}")
    weights.require_file(file)  # not the words that settings take for a start, such as none: nothing would be filled
    network = parser.get_parsed_content("network_def")
    contract = weights.read_contract(file)
    recipe = contract.get("recipe") or (parser.get_parsed_content("recipe") if "recipe" in parser else None)
    receipt = weights.start_from(network, file, recipe=recipe, recipe_options=contract.get("recipe_options"))
    if receipt is not None and suffix not in KINDS:  # of an encoder alone the floor of the transfer is enough
        _warn_of_drawn(receipt, file)
    if suffix == ".safetensors":
        weights.save_safetensors(network, out, contract=contract)
    elif suffix == ".pth":
        weights.save_for_nnunet(
            network, out, patch_size=parser.get_parsed_content("roi_size"), recipe=recipe,
            recipe_options=contract.get("recipe_options"),
        )  # fmt: skip
    else:
        weights.save_encoder(network, out, size=parser.get_parsed_content("roi_size"))


def _warn_of_drawn(receipt: weights.Receipt, file: str | Path) -> None:
    """Name the tensors of an exported network that are not those of the file."""
    drawn = [*receipt.missing, *(name for name, *_ in receipt.wrong_shape)]
    if drawn:
        listed = ", ".join(drawn[:4]) + (", ..." if drawn[4:] else "")
        logger.warning(
            "%d of %d tensors of the network are not in %s, or have another size, and are written as they were drawn "
            "at random (%s): train them before use, or give the settings that the file was written with",
            len(drawn), len(drawn) + len(receipt.matched), file, listed,
        )  # fmt: skip
