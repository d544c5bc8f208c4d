"""Transfer of a checkpoint into a network, with a receipt of the tensors that arrived."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from monai_cl._settings import means_none
from monai_cl._words import suggestion
from monai_cl.weights._channels import inflatable, inflate
from monai_cl.weights._choice import Chosen, choose
from monai_cl.weights._compare import compare, refuse_integers, require_enough, target
from monai_cl.weights._contract import read_contract
from monai_cl.weights._finite import require_finite
from monai_cl.weights._names import by_one_name, tensors_of
from monai_cl.weights._origin import origins_in, origins_of
from monai_cl.weights._preparation import Preparation, differences, preparation_of
from monai_cl.weights._reading import read_checkpoint
from monai_cl.weights._receipt import ContractMismatchError, Receipt, WeightsMismatchError
from monai_cl.weights.families import nnunet
from monai_cl.weights.families.key_map import KeyMap
from monai_cl.weights.published import PUBLISHED

logger = logging.getLogger(__name__)

_CONTRACTS = ("warn", "strict", "ignore")
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
    recipe: str | Path | None = None,
    recipe_options: Mapping[str, Any] | None = None,
    contract: str = "warn",
) -> Receipt:
    r"""Load the matching tensors of a checkpoint into ``network`` and return a receipt.

    Containers (``{"state_dict": ...}``) are opened and prefixes such as ``module.`` removed. Of several networks in one
    file (``state_dict`` and ``ema_state_dict``, student and teacher) the one that was trained is taken, not its
    average, unless ``weights_key`` names it; the receipt lists both. A published checkpoint is identified by
    the full set of its names, which are translated into the network's; no other name is guessed. The network is
    changed only if enough matched.

    Args:
        network: The network to fill, in place.
        checkpoint: A file written by ``torch.save`` (read with ``weights_only=True``) or by safetensors, or a state
            dict. Numbers of half precision become those of the network.
        min_matched: Least share that must match, in [0, 1]: of the network's parameters (0.9 when left out), or, of a
            published checkpoint, of the tensors of the encoder, the network's and the checkpoint's (all when left
            out).
        key_map: ``"auto"`` identifies a published checkpoint by its names and, where others share them, its sizes; a
            name of :data:`monai_cl.weights.PUBLISHED` chooses it, such as ``"voco_10k"`` (the teacher),
            ``"voco_10k_student"``, ``"vista3d_auto"``; ``None`` takes names as they are, and the file for one's own.
        inflate_channels: Make a network of other input channels from the checkpoint's first convolutions:
            each of the :math:`C` new channels has the mean over the :math:`C'` old ones times :math:`C'/C`, so that
            the sum over channels is kept.
        weights_key: The entry of the checkpoint to take, or the beginning of its tensors' names: ``"ema_state_dict"``.
        recipe: The recipe that prepares the images, with
        recipe_options: the values given to it; its orientation, voxels and intensities are compared with those that
            the weights were trained with.
        contract: ``"warn"`` reports where they differ, ``"strict"`` refuses, ``"ignore"`` compares nothing.

    Returns:
        The receipt; print it.

    Raises:
        WeightsMismatchError: If less than ``min_matched`` matched, or, unless ``min_matched`` was given and is
            reached, if all that keeps the checkpoint from matching is the number of input channels; the receipt is in
            its ``receipt``.
        ContractMismatchError: If the recipe prepares images otherwise and ``contract`` is strict.
        FileNotFoundError: If no such file exists.
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
    _check_options(min_matched, key_map, contract)
    own, others = tensors_of(network)
    source = _read(checkpoint, network, own, key_map=key_map, weights_key=weights_key)
    match = _match(network, own, others, source, inflate_channels=inflate_channels)
    receipt = source.described(match.receipt)
    require_enough(
        network,
        receipt,
        key_map=source.translation,
        min_matched=min_matched,
        found=source.chosen.tensors,
        other_channels={} if inflate_channels else match.other_channels,
    )
    if contract != "ignore":
        used = None if recipe is None else (recipe, recipe_options)
        receipt = _checked(receipt, source.expected(), used, strict=contract == "strict")
    network.load_state_dict({name: match.state[name] for name in receipt.matched}, strict=False)
    if receipt.beside:
        taken = receipt.weights_key or "what lies in no entry"
        logger.warning("took %s, not %s; weights_key takes another", taken, ", ".join(receipt.beside))
    return receipt


def load_network(network: nn.Module, path: str | Path) -> nn.Module:
    """Fill ``network`` completely from a file of :func:`save_network` and return it.

    Raises:
        WeightsMismatchError: If any tensor is missing or has another shape; names the settings that the file's
            contract records.
        FileNotFoundError: If no such file exists.
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


@dataclass(frozen=True)
class _Source:
    """A checkpoint as it was read.

    Attributes:
        content: All that the file holds.
        written: Its contract, of a file that was written here.
        chosen: The network in it that is taken.
        translation: Key map of a published checkpoint; ``None`` where names are taken as they are.
    """

    content: Mapping[str, Any]
    written: Mapping[str, Any]
    chosen: Chosen
    translation: KeyMap | None

    def described(self, receipt: Receipt) -> Receipt:
        """Add to a receipt which part was pretrained, and by whom."""
        if self.translation is not None:  # a key map names the one of two networks that it takes
            touched = self.translation.carried(receipt.matched)
            return replace(receipt, touched=touched, origins=origins_of(self.translation, self.content))
        return replace(
            receipt,
            weights_key=self.chosen.key,
            beside=self.chosen.beside,
            touched=tuple(self.written.get("touched", ())),
            origins=origins_in(self.written),
            data=str(self.written.get("data", "")),
        )

    def expected(self) -> Preparation | None:
        """Preparation that the checkpoint expects, by its contract, its own plan or its makers."""
        if self.translation is not None:
            return nnunet.planned(self.content) or self.translation.preparation
        if "recipe" not in self.written:
            stated = self.written.get("intensities")  # of views that were made, not prepared
            return None if stated is None else Preparation(range=(float(stated[0]), float(stated[1])))
        try:
            return preparation_of(self.written["recipe"], self.written.get("recipe_options"))
        except (ValueError, OSError, AttributeError):  # a recipe that is not on this machine, or has changed since
            return None


@dataclass(frozen=True)
class _Match:
    """Tensors of a checkpoint under the network's names.

    Attributes:
        state: The tensors.
        other_channels: Convolutions that differ in their input channels alone, with their numbers of values.
        receipt: Receipt of the tensors that fit.
    """

    state: dict[str, Tensor]
    other_channels: dict[str, int]
    receipt: Receipt


def _check_options(min_matched: float | None, key_map: str | None, contract: str) -> None:
    if min_matched is not None and not 0 <= min_matched <= 1:
        raise ValueError(f"min_matched must be between 0 and 1, got {min_matched!r}")
    if not means_none(key_map) and key_map not in ("auto", *PUBLISHED):
        close = suggestion(key_map, PUBLISHED)
        raise ValueError(f"key_map must be 'auto', None or one of {tuple(PUBLISHED)}, got {key_map!r}{close}")
    if contract not in _CONTRACTS:
        raise ValueError(f"contract must be one of {_CONTRACTS}, got {contract!r}")


def _read(
    checkpoint: str | Path | Mapping[str, Any],
    network: nn.Module,
    own: Mapping[str, Tensor],
    *,
    key_map: str | None,
    weights_key: str | None,
) -> _Source:
    """Read a checkpoint, choose a network in it and the key map of its names."""
    content, written = read_checkpoint(checkpoint), _contract(checkpoint)
    chosen = choose(content, weights_key)
    require_finite(chosen.tensors, "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint))
    translation = _choose(key_map, network, own, chosen, content, ours=bool(written))
    return _Source(content, written, chosen, translation)


def _match(
    network: nn.Module,
    own: Mapping[str, Tensor],
    others: dict[str, str],
    source: _Source,
    *,
    inflate_channels: bool,
) -> _Match:
    """Name the tensors as the network does, inflate convolutions where asked for, and compare."""
    result, translation = source.chosen.tensors, source.translation
    state, dropped = (_strip(result, set(own)), ()) if translation is None else translation.apply(result)
    state = by_one_name(state, others)
    refuse_integers(own, state)
    other_channels = inflatable(network, own, state)
    if inflate_channels:
        state.update({name: inflate(state[name], own[name].shape[1]) for name in other_channels})
    inflated = tuple(other_channels) if inflate_channels else ()
    receipt = replace(compare(network, own, state, translation), dropped=dropped, inflated=inflated)
    return _Match(state, other_channels, receipt)


def _contract(checkpoint: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Contract of a file that was written here; empty for files of others, whatever lies beside them."""
    contract = {} if isinstance(checkpoint, Mapping) else read_contract(checkpoint)
    return contract if {"touched", "recipe", "origins"} & contract.keys() else {}


def _checked(
    receipt: Receipt,
    expected: Preparation | None,
    used: tuple[str | Path, Mapping[str, Any] | None] | None,
    *,
    strict: bool,
) -> Receipt:
    """Add to a receipt where the images in use differ from those that the weights were trained with."""
    if expected is None or used is None:
        return replace(receipt, prepared="" if expected is None else str(expected))
    result = differences(expected, preparation_of(*used))
    receipt = replace(receipt, prepared=str(expected), differences=result)
    if result and strict:
        raise ContractMismatchError(
            f"images must be prepared as the weights were trained, got {'; '.join(result)}; choose another recipe or "
            f"its options, or `contract: warn` to begin all the same\n{receipt}",
            receipt,
        )
    return receipt


def _choose(
    key_map: str | None,
    network: nn.Module,
    own: Mapping[str, Tensor],
    chosen: Chosen,
    content: Mapping[str, Any],
    *,
    ours: bool,
) -> KeyMap | None:
    if key_map is None or means_none(key_map) or (key_map == "auto" and ours):
        return None
    if key_map == "auto":
        fitting = [one for one in PUBLISHED.values() if one.fits(own)]
        known = (o for o in fitting if o.recognises(chosen.tensors, entry=chosen.key, entries=content))
        return next(known, None)
    named = PUBLISHED[key_map]
    if not named.fits(own):
        raise ValueError(f"key_map {key_map!r} leads to {target(named)}, got {type(network).__name__}")
    return named


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
