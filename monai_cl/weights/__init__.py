"""Handing weights over: from pretraining to fine-tuning, with a receipt of what arrived."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.weights._files import read_contract as read_contract, save_network as save_network
    from monai_cl.weights._finite import (
        NonFiniteWeightsError as NonFiniteWeightsError,
        require_finite as require_finite,
    )
    from monai_cl.weights._receipt import Receipt as Receipt, WeightsMismatchError as WeightsMismatchError
    from monai_cl.weights._transfer import (
        load_network as load_network,
        receipt_of as receipt_of,
        start_from as start_from,
        transfer as transfer,
    )

__getattr__, __dir__, __all__ = face(__name__)
