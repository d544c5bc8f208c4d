"""Features that an encoder-decoder makes of an image on its way to the output, taken from one run of the network."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from monai_cl.networks._parts import Tap
from monai_cl.networks.decoders import decoder_blocks, decoder_modules
from monai_cl.networks.encoders import encoder_taps, output_module


class Features(NamedTuple):
    """Feature maps of one run of a network.

    Attributes:
        encoder: One (B, C_l, *S_l) map a level of the encoder, fine to coarse.
        decoder: Map that the network turns into classes, see :func:`monai_cl.networks.output_module`: (B, C, *S) of the
            size of the image, or half of it for MONAI's ``UNet``.
        blocks: One (B, C_l, *S_l) map a block of the decoder, coarse to fine, where they were asked for.
        output: Output of the network.
    """

    encoder: list[Tensor]
    decoder: Tensor
    blocks: tuple[Tensor, ...] = ()
    output: Any = None


def network_features(network: nn.Module, x: Tensor, *, blocks: bool = False) -> Features:
    """Run the whole network and keep the feature maps of encoder and decoder.

    Args:
        network: A network that :func:`monai_cl.networks.encoder_features` knows, without deep supervision.
        x: Images (B, C, *S).
        blocks: Keep the maps of the decoder's blocks as well, for networks that
            :func:`monai_cl.networks.decoder_features` knows.

    Returns:
        The maps. Maps of the encoder are the ones of ``encoder_features``, maps of the blocks the ones of
        ``decoder_features``.

    Raises:
        ValueError: If the encoder, or with ``blocks`` the decoder, of this class of network is not known.
    """
    kept: dict[str, Tensor] = {}

    def output_to(name: str, tap: Tap) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: kept.__setitem__(name, tap.of(output))

    taps = {f"encoder {level}": tap for level, tap in enumerate(encoder_taps(network))}
    if blocks:
        numbers = range(1, decoder_blocks(network) + 1)
        taps |= {f"block {number}": Tap(decoder_modules(network, blocks=number)[-1]) for number in numbers}
    handles = [tap.module.register_forward_hook(output_to(name, tap)) for name, tap in taps.items()]
    last = output_module(network)
    handles.append(last.register_forward_pre_hook(lambda module, inputs: kept.__setitem__("decoder", inputs[0])))
    try:
        output = network(x)
    finally:
        for handle in handles:
            handle.remove()
    named = {kind: [kept[name] for name in taps if name.startswith(kind)] for kind in ("encoder", "block")}
    return Features(named["encoder"], kept["decoder"], tuple(named["block"]), output)
