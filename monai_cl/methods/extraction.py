"""Feature maps of the network that a method pretrains, as its terms look at them: each image once, and no more."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_cl.networks import decoder_features, encoder_features, network_features

MAPS = ("encoder", "deepest", "blocks", "decoder", "output")


class Maps:
    """Feature maps of one pass through a network; asking for one that no term needs is an error.

    Args:
        encoder: One (N, C_l, *S_l) map a level, fine to coarse; of the deepest level alone where no more is needed.
        blocks: One map a block of the decoder, coarse to fine.
        decoder: The map that the network turns into classes.
        output: Output of the network.
    """

    def __init__(
        self,
        encoder: list[Tensor] | None = None,
        blocks: list[Tensor] | None = None,
        decoder: Tensor | None = None,
        output: Any = None,
    ) -> None:
        self._maps: dict[str, Any] = {"encoder": encoder, "blocks": blocks, "decoder": decoder, "output": output}

    @property
    def encoder(self) -> list[Tensor]:
        """Maps of the encoder, fine to coarse."""
        maps: list[Tensor] = self._map("encoder")
        return maps

    @property
    def blocks(self) -> list[Tensor]:
        """Maps of the decoder's blocks, coarse to fine."""
        maps: list[Tensor] = self._map("blocks")
        return maps

    @property
    def decoder(self) -> Tensor:
        """The map that the network turns into classes, see :func:`monai_cl.networks.output_module`."""
        maps: Tensor = self._map("decoder")
        return maps

    @property
    def output(self) -> Any:
        """Output of the network."""
        return self._map("output")

    def _map(self, name: str) -> Any:
        if self._maps[name] is None:
            has = [known for known, maps in self._maps.items() if maps is not None]
            raise ValueError(f"this pass has no {name!r} maps, it has {has}; add {name!r} to the needs of the term")
        return self._maps[name]


def run(
    network: nn.Module, x: Tensor, needs: frozenset[str], *, blocks: int | None = None, fixed_encoder: bool = False
) -> Maps:
    """Run as much of a network as the needs ask for.

    Args:
        network: A network that :func:`monai_cl.networks.encoder_features` knows; any one for ``"output"`` alone.
        x: Images (N, C, *S).
        needs: Some of ``MAPS``.
        blocks: Blocks of the decoder that run, counted from the bottom, where no more than blocks is needed.
        fixed_encoder: Run the encoder without gradient.
    """
    if needs == {"output"}:
        return Maps(output=network(x))
    if needs & {"decoder", "output"}:
        result = network_features(network, x, blocks="blocks" in needs)
        return Maps(result.encoder, list(result.blocks)[:blocks] or None, result.decoder, result.output)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not fixed_encoder):
        maps = encoder_features(network, x, levels="all" if needs & {"encoder", "blocks"} else "deepest")
    return Maps(maps, decoder_features(network, maps, blocks=blocks) if "blocks" in needs else None)


class FeatureExtractor:
    """The network as the terms of one key see it in one batch: images in, :class:`Maps` out.

    Calling it twice with the same tensor runs the network once, so terms that look at the same images share a pass.

    Args:
        network: The network that learns.
        forward: Runs a network on images (N, C, *S), for the union of what the terms need.
        check: Refuses images that the network cannot take, by the name of their size in a configuration.
        spatial_dims: Spatial axes of the images.
        teacher: The teacher's network, where it has one of its own.
        twins: The teacher's copy of a term by the identity of the term.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        forward: Callable[[nn.Module, Tensor], Maps],
        check: Callable[[Tensor, str], None],
        spatial_dims: int,
        teacher: nn.Module | None = None,
        twins: Mapping[int, nn.Module] | None = None,
    ) -> None:
        self.network = network
        self._teacher = teacher
        self._forward = forward
        self._check = check
        self._dims = spatial_dims
        self._twins = twins or {}
        self._made: dict[Hashable, tuple[Any, Any]] = {}

    def __call__(self, images: Tensor, size_name: str = "image_size") -> Maps:
        r"""Maps of images (..., C, \*S), all leading axes in one.

        Args:
            images: The images.
            size_name: Name of their size in a configuration.

        Raises:
            ValueError: If the network cannot take images of this size or number of channels.
        """
        maps: Maps = self.once("maps", images, lambda: self._run(self.network, images, size_name))
        return maps

    def once(self, name: Hashable, given: Any, make: Callable[[], Any]) -> Any:
        """Return what ``make`` gives; made once a batch for each name and ``given`` object."""
        key = (name, id(given))
        if key not in self._made:
            self._made[key] = (given, make())  # keeps what was given, so that its identity is not used again
        return self._made[key][1]

    @property
    def has_teacher(self) -> bool:
        """True where the teacher has a network of its own."""
        return self._teacher is not None

    @torch.no_grad()
    def fixed(self, images: Tensor, size_name: str = "image_size") -> Maps:
        """Maps without gradient: by the teacher's network where it has one, else by the one that learns."""
        return self._run(self.network if self._teacher is None else self._teacher, images, size_name)

    def twin(self, term: nn.Module) -> Any:
        """Return the teacher's copy of a term; ``None`` without a teacher."""
        return self._twins.get(id(term))

    def _run(self, network: nn.Module, images: Tensor, size_name: str) -> Maps:
        self._check(images, size_name)
        return self._forward(network, images.flatten(0, images.ndim - self._dims - 2))
