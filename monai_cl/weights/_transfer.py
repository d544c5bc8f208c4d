"""From a checkpoint into a network, with a receipt of what arrived."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from monai_cl.weights._channels import inflatable, inflate
from monai_cl.weights._choice import choose
from monai_cl.weights._files import read_contract
from monai_cl.weights._finite import require_finite
from monai_cl.weights._key_maps import KEY_MAPS, KeyMap, detect, fits
from monai_cl.weights._names import by_one_name, tensors_of
from monai_cl.weights._reading import read_checkpoint
from monai_cl.weights._receipt import Receipt, WeightsMismatchError

logger = logging.getLogger(__name__)
_receipts: WeakKeyDictionary[nn.Module, Receipt] = WeakKeyDictionary()

PLAIN_FLOOR = 0.9  # of the network's parameters
ENCODER_FLOOR = 1.0  # of the encoder's tensors: a published checkpoint has them all, or is another one

# prefixes that wrappers put before the keys of a state dict
_PREFIXES = ("module.", "_orig_mod.", "student.network.", "student.", "network.", "backbone.", "model.", "net.")


def transfer(
    network: nn.Module,
    checkpoint: str | Path | Mapping[str, Any],
    *,
    min_matched: float | None = None,
    key_map: str | None = "auto",
    inflate_channels: bool = False,
    weights_key: str | None = None,
) -> Receipt:
    r"""Load what fits of a checkpoint into ``network`` and say what did.

    Containers (``{"state_dict": ...}``) are opened and prefixes such as ``module.`` removed. Of several networks in one
    file (``state_dict`` and ``ema_state_dict``, student and teacher) the one that was trained is taken, not its
    average, unless ``weights_key`` says so; the receipt names both. Names of published checkpoints are translated into
    those of MONAI's ``SwinUNETR``; no other name is guessed. The network is changed only if enough matched.

    Args:
        network: The network to fill, in place.
        checkpoint: A file written by ``torch.save`` (read with ``weights_only=True``) or by safetensors, or a state
            dict. Numbers of half precision become those of the network.
        min_matched: Least share that must match, in [0, 1]: of the network's parameters (0.9 when left out), or, of a
            published checkpoint, of the tensors of the encoder, the network's and the checkpoint's (all when left
            out).
        key_map: ``"auto"`` tells a published checkpoint by its names; ``"voco_v2"``, ``"voco_10k"`` (the teacher),
            ``"voco_10k_student"``, ``"voco_cvpr"`` (for ``use_v2=False``) and ``"monai_swin_vit"`` say which it is;
            ``None`` takes names as they are.
        inflate_channels: Make a network of other input channels from the checkpoint's first convolutions:
            each of the :math:`C` new channels has the mean over the :math:`C'` old ones times :math:`C'/C`, so that
            the sum over channels is kept.
        weights_key: The entry of the checkpoint to take, or the beginning of its tensors' names: ``"ema_state_dict"``.

    Returns:
        The receipt; print it.

    Raises:
        WeightsMismatchError: If less than ``min_matched`` matched, or, unless ``min_matched`` was given and is
            reached, if all that keeps the checkpoint from matching is the number of input channels; the receipt is in
            its ``receipt``.
        FileNotFoundError: If there is no such file.
        NonFiniteWeightsError: If a tensor holds NaN or infinities, or a ``running_var`` is negative.
        ValueError: If the file cannot be read or holds no tensors, ``weights_key`` is not in it, or ``key_map`` is
            unknown or leads to another network.

    References:
        VoCo, arXiv 2402.17300; arXiv 2410.09890; Swin UNETR, arXiv 2201.01266.

    Example:
        >>> import torch
        >>> receipt = transfer(nn.Linear(2, 1), {"module.weight": torch.ones(1, 2), "module.bias": torch.ones(1)})
        >>> receipt.share
        1.0
    """
    if min_matched is not None and not 0 <= min_matched <= 1:
        raise ValueError(f"min_matched must be between 0 and 1, got {min_matched!r}")
    if key_map not in (None, "auto", *KEY_MAPS):
        raise ValueError(f"key_map must be 'auto', None or one of {tuple(KEY_MAPS)}, got {key_map!r}")
    own, others = tensors_of(network)
    chosen = choose(read_checkpoint(checkpoint), weights_key)
    found = chosen.tensors
    require_finite(found, "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint))
    translation = _choose(key_map, network, own, found)
    state, dropped = (_strip(found, set(own)), ()) if translation is None else translation.apply(found)
    state = by_one_name(state, others)
    _refuse_integers(own, state)
    other_channels = inflatable(network, own, state)
    if inflate_channels:
        state.update({name: inflate(state[name], own[name].shape[1]) for name in other_channels})
    receipt = _compare(
        network,
        own,
        state,
        touched=_touched(checkpoint),
        translation=translation,
        dropped=dropped,
        inflated=tuple(other_channels) if inflate_channels else (),
    )
    if translation is None:  # a key map says which of two networks it takes
        receipt = replace(receipt, weights_key=chosen.key, beside=chosen.beside)
    _require_enough(network, receipt, min_matched, found, {} if inflate_channels else other_channels)
    network.load_state_dict({name: state[name] for name in receipt.matched}, strict=False)
    if receipt.beside:
        taken = receipt.weights_key or "what lies in no entry"
        logger.warning("took %s, not %s; weights_key takes another", taken, ", ".join(receipt.beside))
    return receipt


def start_from(
    network: nn.Module,
    pretrained: str | Path | None,
    *,
    min_matched: float | None = None,
    key_map: str | None = "auto",
    inflate_channels: bool = False,
    weights_key: str | None = None,
) -> Receipt | None:
    """Begin fine-tuning from a file of weights and log the receipt; ``None`` or ``"none"`` begins from scratch.

    Options are those of :func:`transfer`.

    Raises:
        WeightsMismatchError: As :func:`transfer`.
    """
    if pretrained is None or str(pretrained).lower() in ("none", "null", ""):
        logger.info("from scratch: no pretrained weights were asked for")
        return None
    receipt = transfer(
        network,
        pretrained,
        min_matched=min_matched,
        key_map=key_map,
        inflate_channels=inflate_channels,
        weights_key=weights_key,
    )
    _receipts[network] = receipt
    logger.info("weights from %s\n%s", pretrained, receipt)
    return receipt


def receipt_of(network: nn.Module) -> Receipt | None:
    """The receipt of :func:`start_from` for this network; ``None`` if it begins from scratch."""
    return _receipts.get(network)


def load_network(network: nn.Module, path: str | Path) -> nn.Module:
    """Fill ``network`` completely from a file of :func:`save_network` and return it.

    Raises:
        WeightsMismatchError: If any tensor is missing or has another shape; names the settings that the file's
            contract records.
        FileNotFoundError: If there is no such file.
    """
    contract = read_contract(path)
    try:
        receipt = transfer(network, path, min_matched=1.0, key_map=None)
    except WeightsMismatchError as error:
        settings = ", ".join(f"{k}={v}" for k, v in contract.items() if k not in ("touched", "steps"))
        hint = f"\nThe file was written with {settings}; pass the same settings and overlays" if settings else ""
        raise WeightsMismatchError(
            f"{path} does not fill the network:\n{error.receipt}{hint}", error.receipt
        ) from error
    if receipt.missing or receipt.wrong_shape:
        raise WeightsMismatchError(f"{path} does not fill the network:\n{receipt}", receipt)
    return network


def _touched(checkpoint: str | Path | Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(checkpoint, Mapping):
        return ()
    return tuple(read_contract(checkpoint).get("touched", ()))


def _choose(
    key_map: str | None, network: nn.Module, own: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> KeyMap | None:
    if key_map is None:
        return None
    if key_map == "auto":
        return detect(found) if fits(own) else None
    if not fits(own):
        raise ValueError(f"key_map {key_map!r} leads to MONAI's SwinUNETR, got {type(network).__name__}")
    return KEY_MAPS[key_map]


def _require_enough(
    network: nn.Module,
    receipt: Receipt,
    min_matched: float | None,
    found: Mapping[str, Tensor],
    other_channels: Mapping[str, int],
) -> None:
    """Raise unless the floor is reached, and not only by leaving out convolutions of other input channels."""
    name = type(network).__name__
    if receipt.key_map is None:
        floor, share = PLAIN_FLOOR if min_matched is None else min_matched, receipt.share
        gain = sum(other_channels.values()) / max(receipt.total_parameters, 1)
        what = f"the parameters of {name}"
        known = None if fits(tensors_of(network)[0]) else detect(found)
        hint = f" (its names are those of {known.source}, which fits SwinUNETR)" if known else ""
    else:
        floor, share = ENCODER_FLOOR if min_matched is None else min_matched, receipt.encoder_share
        gain = len(other_channels) / max(receipt.encoder_total, 1)
        what = f"the {receipt.encoder_total} encoder tensors of {name}"
        hint = f" (read as {receipt.key_map}: see `use_v2` and `feature_size` of the network, or name another key_map)"
    enough = share >= floor
    if other_channels and share + gain >= floor and not (enough and min_matched is not None):
        raise WeightsMismatchError(
            f"the input channels of {name} must be the checkpoint's, got other ones in {', '.join(other_channels)}; "
            f"use inflate_channels=True to make the network's from them, or a network of as many channels\n{receipt}",
            receipt,
        )
    if not enough:
        raise WeightsMismatchError(
            f"at least {100 * floor:.0f} % of {what} must match, got {100 * share:.1f} %; is this the checkpoint of "
            f"another network or configuration?{hint}\n{receipt}",
            receipt,
        )


def _strip(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    # wrappers nest (a compiled module in a parallel one), so up to three prefixes in any order; ties keep the fewest
    best, candidates = state, [state]
    for _ in range(3):
        stripped = [(old, _without(old, prefix)) for old in candidates for prefix in _PREFIXES]
        candidates = [new for old, new in stripped if new.keys() != old.keys()]
        best = max([best, *candidates], key=lambda option: len(wanted & option.keys()))
    return best


def _without(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _compare(
    network: nn.Module,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    touched: tuple[str, ...],
    translation: KeyMap | None,
    dropped: tuple[str, ...],
    inflated: tuple[str, ...],
) -> Receipt:
    shared = [name for name in own if name in state]
    matched = [name for name in shared if own[name].shape == state[name].shape]
    parameters = {name: p.numel() for name, p in network.named_parameters()}
    encoder = [] if translation is None else [*translation.covered(own, state), *translation.homeless(own, state)]
    return Receipt(
        matched=tuple(matched),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        wrong_shape=tuple(
            (name, tuple(own[name].shape), tuple(state[name].shape)) for name in shared if name not in set(matched)
        ),
        matched_parameters=sum(parameters.get(name, 0) for name in matched),
        total_parameters=sum(parameters.values()),
        touched=touched,
        key_map=None if translation is None else translation.name,
        encoder_matched=len(set(encoder) & set(matched)),
        encoder_total=len(encoder),
        dropped=dropped,
        inflated=inflated,
        converted=tuple(sorted({_kind(state[name]) for name in matched if _is_other_float(own[name], state[name])})),
    )


def _refuse_integers(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Quantised weights mean nothing without their scales."""
    floats = [name for name, tensor in own.items() if tensor.is_floating_point()]
    wrong = [name for name in floats if name in state and not state[name].is_floating_point()]
    if wrong:
        raise ValueError(
            f"weights must be floating-point numbers, got {_kind(state[wrong[0]])} for {wrong[0]} and {len(wrong) - 1} "
            "more: quantised weights are not read; take the file before it was quantised"
        )


def _is_other_float(mine: Tensor, theirs: Tensor) -> bool:
    return theirs.is_floating_point() and theirs.dtype != mine.dtype


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
