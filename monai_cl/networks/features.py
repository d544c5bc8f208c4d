"""What an encoder-decoder makes of an image on its way to the output, taken from one run of the whole network."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from monai_cl.networks.encoders import encoder_taps, output_module

_DECODER = -1  # beside the numbers of the levels


class Features(NamedTuple):
    """Feature maps of one run of a network.

    Attributes:
        encoder: One (B, C_l, *S_l) map a level of the encoder, fine to coarse.
        decoder: What the network turns into classes, see :func:`monai_cl.networks.output_module`: (B, C, *S) of the
            size of the image, or half of it for MONAI's ``UNet``.
    """

    encoder: list[Tensor]
    decoder: Tensor


def network_features(network: nn.Module, x: Tensor) -> Features:
    """Run the whole network and keep the feature maps of encoder and decoder.

    Args:
        network: A network that :func:`monai_cl.networks.encoder_features` knows, without deep supervision.
        x: Images (B, C, *S).

    Returns:
        The maps. Those of the encoder are the ones of ``encoder_features``.

    Raises:
        ValueError: If the encoder of this class of network is not known.
    """
    taps = encoder_taps(network)
    kept: dict[int, Tensor] = {}

    def output_of(level: int) -> Any:
        return lambda module, inputs, output: kept.__setitem__(level, output)

    handles = [tap.register_forward_hook(output_of(level)) for level, tap in enumerate(taps)]
    last = output_module(network)
    handles.append(last.register_forward_pre_hook(lambda module, inputs: kept.__setitem__(_DECODER, inputs[0])))
    try:
        network(x)
    finally:
        for handle in handles:
            handle.remove()
    return Features([kept[level] for level in range(len(taps))], kept[_DECODER])
