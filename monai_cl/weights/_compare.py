"""Comparison of a checkpoint's tensors with a network's, and the floor below which nothing is loaded."""

from collections.abc import Mapping

from torch import Tensor, nn

from monai_cl.weights._receipt import Receipt, WeightsMismatchError
from monai_cl.weights.families.key_map import KeyMap
from monai_cl.weights.published import detect, nearest

PLAIN_FLOOR = 0.9  # of the network's parameters
ENCODER_FLOOR = 1.0  # of the encoder's tensors: a published checkpoint has them all, or is another one


def compare(
    network: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor], key_map: KeyMap | None
) -> Receipt:
    """Receipt of what would be loaded.

    Args:
        network: The network.
        own: Its tensors, each under one name.
        state: Tensors of the checkpoint under the network's names.
        key_map: The key map that gave them these names, if one did.
    """
    shared = [name for name in own if name in state]
    matched = [name for name in shared if own[name].shape == state[name].shape]
    parameters = {name: p.numel() for name, p in network.named_parameters()}
    encoder = [] if key_map is None else [*key_map.covered(own, state), *key_map.homeless(own, state)]
    others = {str(state[name].dtype) for name in matched if _is_other_float(own[name], state[name])}
    return Receipt(
        matched=tuple(matched),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        wrong_shape=tuple(
            (name, tuple(own[name].shape), tuple(state[name].shape)) for name in shared if name not in set(matched)
        ),
        matched_parameters=sum(parameters.get(name, 0) for name in matched),
        total_parameters=sum(parameters.values()),
        key_map=None if key_map is None else key_map.name,
        encoder_matched=len(set(encoder) & set(matched)),
        encoder_total=len(encoder),
        converted=tuple(sorted(kind.removeprefix("torch.") for kind in others)),
    )


def refuse_integers(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Refuse quantised weights, which mean nothing without their scales."""
    floats = [name for name, tensor in own.items() if tensor.is_floating_point()]
    wrong = [name for name in floats if name in state and not state[name].is_floating_point()]
    if wrong:
        kind = str(state[wrong[0]].dtype).removeprefix("torch.")
        raise ValueError(
            f"weights must be floating-point numbers, got {kind} for {wrong[0]} and {len(wrong) - 1} more: quantised "
            "weights are not read; take the file before it was quantised"
        )


def require_enough(
    network: nn.Module,
    receipt: Receipt,
    *,
    key_map: KeyMap | None,
    min_matched: float | None,
    found: Mapping[str, Tensor],
    other_channels: Mapping[str, int],
) -> None:
    """Raise unless the floor is reached, by some tensor, not only by leaving out convolutions of other channels."""
    name = type(network).__name__
    if key_map is None:
        floor, share = PLAIN_FLOOR if min_matched is None else min_matched, receipt.share
        gain = sum(other_channels.values()) / max(receipt.total_parameters, 1)
        what, hint = f"the parameters of {name}", _why(receipt) or _whose(found)
    else:
        floor, share = ENCODER_FLOOR if min_matched is None else min_matched, receipt.encoder_share
        gain = len(other_channels) / max(receipt.encoder_total, 1)
        what = f"the {receipt.encoder_total} encoder tensors of {name}"
        hint = f" (read as {key_map.name}: {key_map.remedy})"
    enough = share >= floor
    if other_channels and share + gain >= floor and not (enough and min_matched is not None):
        raise WeightsMismatchError(
            f"the input channels of {name} must be the checkpoint's, got other ones in {', '.join(other_channels)}; "
            f"use inflate_channels=True to make the network's from them, or a network of as many channels\n{receipt}",
            receipt,
        )
    if enough and not receipt.matched:  # a floor of 0 asks for a part of the network, not for none of it
        raise WeightsMismatchError(
            f"some tensor of {name} must be in the checkpoint, none of its {len(found)} is; take another file, or none "
            f"for scratch{hint}\n{receipt}",
            receipt,
        )
    if not enough:
        raise WeightsMismatchError(
            f"at least {100 * floor:.0f} % of {what} must match, got {100 * share:.1f} %; is this the checkpoint of "
            f"another network or configuration?{hint}\n{receipt}",
            receipt,
        )


def target(key_map: KeyMap) -> str:
    """Network that a key map leads to, in words."""
    path = str(key_map.network["_target_"])
    return path.rsplit(".", maxsplit=1)[-1] if "." in path else f"MONAI's {path}"


def _why(receipt: Receipt) -> str:
    """Reason in words, of a file with no names but the network's; empty of others."""
    if receipt.unexpected or not (receipt.matched or receipt.wrong_shape):
        return ""
    if len(receipt.wrong_shape) > len(receipt.missing):
        return " (its names are the network's, its sizes are not: compare the settings of the network, as its width)"
    return f" (it holds a part of the network alone and lacks {len(receipt.missing)} tensors)"


def _whose(found: Mapping[str, Tensor]) -> str:
    if known := detect(found):
        return f" (its names are those of {known.source}, which fits {target(known)})"
    if near := nearest(found):
        return f" (its names are nearest to those of {near.source}, which fits {target(near)}: key_map {near.name})"
    return ""


def _is_other_float(mine: Tensor, theirs: Tensor) -> bool:
    return theirs.is_floating_point() and theirs.dtype != mine.dtype
