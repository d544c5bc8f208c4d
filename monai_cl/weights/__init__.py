"""Handing weights over: from pretraining to fine-tuning, with a receipt of what arrived."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.weights._files import read_contract, save_network
    from monai_cl.weights._finite import NonFiniteWeightsError, require_finite
    from monai_cl.weights._receipt import Receipt, WeightsMismatchError
    from monai_cl.weights._transfer import load_network, receipt_of, start_from, transfer

__all__ = [
    "NonFiniteWeightsError",
    "Receipt",
    "WeightsMismatchError",
    "load_network",
    "read_contract",
    "receipt_of",
    "require_finite",
    "save_network",
    "start_from",
    "transfer",
]

__getattr__, __dir__ = face(__name__)
