"""Choice of the parameters of a network that learn: those that the maps in use depend on."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from monai_cl.methods._fitting import spatial_dims
from monai_cl.methods.extraction import run
from monai_cl.networks import decoder_modules, encoder_modules, encoder_stride, input_channels

Pass = tuple[frozenset[str], int | None]


def choose_what_learns(network: nn.Module, passes: Sequence[Pass], trains: str) -> None:
    """Set ``requires_grad`` of the parameters of a network.

    Parameters that no map depends on would otherwise be counted as pretrained, and stop a run of several processes.
    Where the output itself is learned from, all stay as they are.

    Args:
        network: The network.
        passes: Needs of each pass, and the number of decoder blocks that run.
        trains: ``"all"``, ``"encoder"`` or ``"decoder"``.
    """
    needs = frozenset[str]().union(*(needs for needs, _ in passes))
    if needs.isdisjoint({"decoder", "output"}):
        network.requires_grad_(False)
        for module in _modules(network, passes):
            module.requires_grad_(True)
    elif "output" not in needs:
        _by_trying(network, passes)
    if trains == "all":
        return
    encoder = {id(p) for module in encoder_modules(network) for p in module.parameters()}
    for parameter in network.parameters():
        if (id(parameter) in encoder) != (trains == "encoder"):
            parameter.requires_grad_(False)


def _modules(network: nn.Module, passes: Sequence[Pass]) -> list[nn.Module]:
    """Modules that maps of the encoder and of blocks of the decoder depend on."""
    modules: list[nn.Module] = []
    for needs, blocks in passes:
        modules += encoder_modules(network, levels="all" if needs & {"encoder", "blocks"} else "deepest")
        modules += decoder_modules(network, blocks=blocks) if "blocks" in needs else []
    return modules


def _by_trying(network: nn.Module, passes: Sequence[Pass]) -> None:
    trial = deepcopy(network).cpu().train().requires_grad_(True)
    dims = spatial_dims(trial)
    size = [2 * s for s in encoder_stride(network, dims)]
    used = []
    for needs, blocks in passes:
        maps = run(trial, torch.rand(2, input_channels(trial), *size), needs, blocks=blocks)
        used += maps.encoder if "encoder" in needs else maps.encoder[-1:] if "deepest" in needs else []
        used += maps.blocks if "blocks" in needs else []
        used += [maps.decoder] if "decoder" in needs else []
    torch.stack([one.square().mean() for one in used]).sum().backward()
    for own, tried in zip(network.parameters(), trial.parameters(), strict=True):
        own.requires_grad_(tried.grad is not None)
