"""Names of a network's tensors, each tensor by one of them."""

from torch import Tensor, nn


def tensors_of(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State dict of a network with each tensor once, and the further names of shared tensors.

    ``DynUNet`` and the networks of nnU-Net hold the same parameters under two or three names.

    Example:
        >>> one = nn.Linear(1, 1, bias=False)
        >>> tensors_of(nn.ModuleDict({"a": one, "b": one}))[1]
        {'b.weight': 'a.weight'}
    """
    first: dict[int, str] = {}
    own: dict[str, Tensor] = {}
    others: dict[str, str] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            others[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            own[name] = tensor.detach() if isinstance(tensor, Tensor) else tensor
    return own, others


def by_one_name(state: dict[str, Tensor], others: dict[str, str]) -> dict[str, Tensor]:
    """State with tensors under their first names; of two under one name that which had it stays."""
    return {
        others.get(name, name): tensor
        for name, tensor in state.items()
        if name not in others or others[name] not in state
    }
