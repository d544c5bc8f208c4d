"""Trial of the sizes of images: whether they can pass through a network, and what maps it makes of them."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from monai_cl.methods.extraction import Maps, run
from monai_cl.networks import decoder_modules, encoder_stride, fixed_size, input_channels, trial_size

Size = int | Sequence[int]


def spatial_dims(network: nn.Module) -> int:
    """Spatial axes of the images of a network.

    Raises:
        ValueError: If it has no convolution.
    """
    for module in network.modules():  # not any parameter: embeddings of places have axes of their own
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return module.weight.ndim - 2
    raise ValueError(f"{type(network).__name__} has no convolution; its output channels cannot be determined")


def tried(
    network: nn.Module,
    size: Size | None,
    needs: frozenset[str],
    *,
    blocks: int | None = None,
    size_name: str = "crop_size",
    decoder: bool = True,
) -> Maps:
    """Maps that a network makes of images of a size, without values.

    Tried on a copy that lets go of its values, so that nothing is computed, and in training mode: some networks take
    a size in evaluation that their normalisation refuses in training, with one voxel left.

    Args:
        network: The network.
        size: Edge lengths, or one for all axes; the smallest size that fits when left out.
        needs: Some of :data:`monai_cl.methods.extraction.MAPS`.
        blocks: Blocks of the decoder that run.
        size_name: Name of the size in a configuration.
        decoder: Try the decoder too, since fine-tuning will give the network crops of the same kind.

    Raises:
        ValueError: If the network is unknown, or cannot take images of this size.
    """
    dims = spatial_dims(network)
    smallest = trial_size(network, dims)  # an unknown network is named before anything is tried
    sides = smallest if size is None else _sides(size, dims, network, size_name)
    trial = deepcopy(network).to("meta").train()
    if hasattr(trial, "use_vae"):  # the branch of SegResNetVAE takes one size alone, and is no part of the features
        setattr(trial, "use_vae", False)  # noqa: B010 - to mypy an attribute of a module is a module
    dtype = next(trial.parameters()).dtype
    image = torch.zeros(2, input_channels(trial), *sides, device="meta", dtype=dtype)
    if "blocks" in needs:  # a decoder that is not known, or has not so many blocks, is another fault than a size
        decoder_modules(network, blocks=blocks)
    try:
        with torch.no_grad():
            maps = run(trial, image, needs, blocks=blocks)
            if decoder:
                trial(image)
    except (RuntimeError, ValueError) as error:
        raise ValueError(_advice(network, sides, str(error).rstrip("."), size_name)) from error
    return maps


class FittingImages:
    """Refuses images that a network cannot take, once for each shape.

    Args:
        network: The network.
        size: A size that is known to pass; ``None`` if none exists.
    """

    def __init__(self, network: nn.Module, size: Size | None) -> None:
        self.channels = input_channels(network)
        self._dims = spatial_dims(network)
        self._known = set() if size is None else {_sides(size, self._dims, network, "image_size")}

    def __call__(self, network: nn.Module, images: Tensor, size_name: str) -> None:
        """Raise ``ValueError`` unless ``images`` (..., C, *S) have the network's channels and a size it can take.

        Args:
            network: The network that was given to the constructor.
            images: The images.
            size_name: Name of their size in a configuration.
        """
        channels, size = images.shape[-self._dims - 1], tuple(images.shape[-self._dims :])
        if channels != self.channels:
            raise ValueError(
                f"images must have the {self.channels} input channels of {type(network).__name__}, got {channels}; "
                f"build the network with in_channels={channels}"
            )
        if size not in self._known:
            tried(network, size, frozenset({"encoder"}), size_name=size_name, decoder=False)
            self._known.add(size)


def _sides(size: Size, dims: int, network: nn.Module, size_name: str) -> tuple[int, ...]:
    sides = (size,) * dims if isinstance(size, int) else tuple(size)
    if len(sides) != dims or min(sides) < 1:
        raise ValueError(
            f"{size_name} must be one positive number or {dims} of them for this {type(network).__name__} of "
            f"{dims} spatial dimensions, got {size}; give one for each axis"
        )
    return sides


def _advice(network: nn.Module, size: tuple[int, ...], error: str, size_name: str) -> str:
    stride = encoder_stride(network, len(size))
    fitting = tuple(-(-side // s) * s for side, s in zip(size, stride, strict=True))
    if fitting == stride:  # one voxel would be left at the coarsest map, which no normalisation can do anything with
        fitting = tuple(2 * s for s in stride)
    fitting = fixed_size(network) or fitting
    return (
        f"{size_name} {size} cannot pass through {type(network).__name__}: {error}. Its encoder reduces the axes by "
        f"{stride}: sides must be multiples of these, and more than one voxel must be left in training, as with "
        f"{fitting}, got {size}; choose a larger crop or a network with fewer levels"
    )
