"""Handing weights over: from pretraining to fine-tuning, with a receipt of what arrived."""

from typing import TYPE_CHECKING

from monai_cl._lazy import face

if TYPE_CHECKING:
    from monai_cl.weights._contract import read_contract as read_contract
    from monai_cl.weights._files import save_network as save_network
    from monai_cl.weights._finite import (
        NonFiniteWeightsError as NonFiniteWeightsError,
        require_finite as require_finite,
    )
    from monai_cl.weights._origin import Origin as Origin
    from monai_cl.weights._reading import require_file as require_file
    from monai_cl.weights._receipt import (
        ContractMismatchError as ContractMismatchError,
        Receipt as Receipt,
        WeightsMismatchError as WeightsMismatchError,
        receipt_of as receipt_of,
    )
    from monai_cl.weights._start import (
        Start as Start,
        choose_start as choose_start,
        start_digest as start_digest,
        start_from as start_from,
        start_of as start_of,
    )
    from monai_cl.weights._transfer import load_network as load_network, transfer as transfer
    from monai_cl.weights.export import save_encoder as save_encoder, save_safetensors as save_safetensors
    from monai_cl.weights.for_nnunet import save_for_nnunet as save_for_nnunet
    from monai_cl.weights.published import (
        PUBLISHED as PUBLISHED,
        dynunet_arguments as dynunet_arguments,
        network_definition as network_definition,
        published_table as published_table,
        require_source as require_source,
    )
    from monai_cl.weights.shipped import (
        Shipped as Shipped,
        save_shipped as save_shipped,
        shipped_for as shipped_for,
        shipped_weights as shipped_weights,
    )

__getattr__, __dir__, __all__ = face(__name__)
