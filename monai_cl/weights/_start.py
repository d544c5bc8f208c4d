"""Start of a network: from a file, the pretraining of its bundle, weights that are shipped, or from scratch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from monai_cl._settings import means_none
from monai_cl.weights._reading import require_file
from monai_cl.weights._receipt import Receipt, remember
from monai_cl.weights._transfer import transfer
from monai_cl.weights.shipped import Shipped, shipped_for, shipped_weights

logger = logging.getLogger(__name__)

AUTO, SHIPPED, NONE = "auto", "shipped", "none"
OWN = Path("models") / "pretrained.pt"  # what a bundle's pretraining writes
_OVERLAYS = "pretrained_*.pt"  # beside it, what its overlays write
_OF_FILES = ("key_map", "weights_key")  # options of transfer that read foreign files


@dataclass(frozen=True)
class Start:
    """Start of a network.

    Attributes:
        asked: Requested start: ``"auto"``, ``"shipped"``, ``"none"``, or ``"file"``.
        taken: Chosen start: ``"scratch"``, ``"own pretraining"``, ``"shipped"`` or ``"file"``.
        name: Name of the file, or of the shipped weights; empty from scratch.
        sha256: SHA-256 of the file; empty from scratch.
        path: The file; ``None`` from scratch.
    """

    asked: str
    taken: str
    name: str = ""
    sha256: str = ""
    path: Path | None = field(default=None, repr=False)

    def to_record(self) -> dict[str, str]:
        """Entries of a record, without paths."""
        return {"asked": self.asked, "taken": self.taken, "name": self.name, "sha256": self.sha256}

    def __str__(self) -> str:
        what = self.taken if not self.name or self.taken == "file" else f"{self.taken} ({self.name})"
        return f"{what}, chosen by auto" if self.asked == AUTO else what


def choose_start(
    network: nn.Module,
    pretrained: str | Path | Mapping[str, Any] | None,
    *,
    bundle_root: str | Path | None = None,
    auto: bool = True,
    inflate_channels: bool = False,
) -> Start:
    """Find what a network begins with.

    Args:
        network: The network, to whose shapes shipped weights must belong.
        pretrained: ``"none"`` or ``None`` for scratch; a file, or a state dict; ``"shipped"`` for the weights of random
            anatomies that belong to the network; ``"auto"`` for ``models/pretrained.pt`` of the bundle if it exists,
            else the only ``models/pretrained_*.pt``, which an overlay wrote, else shipped weights, else scratch.
        bundle_root: The bundle.
        auto: Whether ``"auto"`` may be asked for.
        inflate_channels: Whether shipped weights may be of other input channels.

    Raises:
        FileNotFoundError: If no such file exists.
        ValueError: If no shipped weights belong to the network; names the networks that have some. Or if ``"auto"``
            has several files of overlays to choose from, or the text is empty.
    """
    if isinstance(pretrained, Mapping):  # of no file
        return Start("file", "file")
    asked = NONE if pretrained is None else str(pretrained)
    if not asked.strip():  # such as an empty variable of a shell
        raise ValueError("weights to begin with must be none, shipped or a file, got an empty text; name one")
    if means_none(asked):
        return Start(NONE, "scratch")
    if asked == AUTO and not auto:
        raise ValueError("a pretraining begins with none, shipped or a file of weights, got 'auto'; name one of them")
    if asked not in (AUTO, SHIPPED):
        return _of_file("file", "file", Path(asked))
    if asked == AUTO and bundle_root is not None and (own := _own(Path(bundle_root))):
        return _of_file(AUTO, "own pretraining", own)
    if result := shipped_for(network, bundle_root, inflate_channels=inflate_channels):
        return replace(_of_file(asked, SHIPPED, result.path), name=result.name)
    if asked == SHIPPED:
        raise ValueError(_none_fit(network, shipped_weights(bundle_root)))
    return Start(AUTO, "scratch")


def start_from(
    network: nn.Module,
    pretrained: str | Path | Mapping[str, Any] | None,
    *,
    bundle_root: str | Path | None = None,
    auto: bool = True,
    inflate_channels: bool = False,
    **options: Any,
) -> Receipt | None:
    """Begin from weights and log the receipt; from scratch no receipt exists.

    ``pretrained``, ``bundle_root`` and ``auto`` are those of :func:`choose_start`, ``inflate_channels`` and the other
    options (``min_matched``, ``key_map``, ``weights_key``, ``recipe``, ``recipe_options``, ``contract``) those of
    :func:`transfer`; shipped weights need neither ``key_map`` nor ``weights_key``. Which start it was is in the receipt
    and, by :func:`start_of`, in the record of a run.

    Raises:
        FileNotFoundError: If no such file exists.
        TypeError: If :func:`transfer` has no such option.
        ValueError: If no shipped weights belong to the network.
        WeightsMismatchError: As :func:`transfer`.
    """
    signature(transfer).bind(network, pretrained, **options)  # from scratch, too, no option is passed over
    start = choose_start(network, pretrained, bundle_root=bundle_root, auto=auto, inflate_channels=inflate_channels)
    _starts[network] = start
    if start.taken == "scratch" or pretrained is None:
        _say_scratch(network, start, bundle_root)
        return None
    if start.taken == SHIPPED:
        options = {name: value for name, value in options.items() if name not in _OF_FILES}
    receipt = transfer(network, start.path or pretrained, inflate_channels=inflate_channels, **options)
    receipt = receipt if start.taken == "file" else replace(receipt, start=str(start))
    remember(network, receipt)
    logger.info("weights from %s\n%s", start.path or "a state dict" if start.taken == "file" else start, receipt)
    for one in receipt.origins:
        if not one.free:
            logger.warning("the licence of %s restricts their use: %s; see to it before you share", *one.named())
    if receipt.differences:
        logger.warning("images are prepared otherwise than the weights expect: %s", "; ".join(receipt.differences))
    return receipt


def start_of(network: nn.Module) -> Start | None:
    """The start of a network by :func:`start_from`; ``None`` if it was not called."""
    return _starts.get(network)


def start_digest(network: nn.Module, pretrained: str | Path | None, **options: Any) -> str | None:
    """SHA-256 of the file that a network begins with, ``None`` from scratch: what a run rests on.

    Of a network that :func:`start_from` has begun, it is that of the file it took, which is not read again. Options
    are those of :func:`choose_start`.
    """
    start = start_of(network) or choose_start(network, pretrained, **options)
    return start.sha256 or None


_starts: WeakKeyDictionary[nn.Module, Start] = WeakKeyDictionary()


def _of_file(asked: str, taken: str, path: Path) -> Start:
    require_file(path)
    return Start(asked, taken, path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path)


def _own(bundle_root: Path) -> Path | None:
    """Network of the bundle's own pretraining."""
    if (usual := bundle_root / OWN).is_file():
        return usual
    others = sorted(usual.parent.glob(_OVERLAYS))
    if len(others) > 1:
        raise ValueError(
            f"pretrained must name one of {', '.join(path.name for path in others)} in {usual.parent}, or none for "
            "scratch, got auto, which takes pretrained.pt or the only other one"
        )
    return others[0] if others else None


def _say_scratch(network: nn.Module, start: Start, bundle_root: str | Path | None) -> None:
    if start.asked == NONE:
        logger.info("from scratch: no pretrained weights were asked for")
        return
    why = _none_fit(network, shipped_weights(bundle_root))
    logger.warning("from scratch, chosen by auto: the bundle has no %s, and %s", OWN, why)


def _none_fit(network: nn.Module, every: tuple[Shipped, ...]) -> str:
    known = ", ".join(map(str, every)) or "none come with this version"
    spread = next((one.name for one in every if one.fits(network, inflate_channels=True)), None)
    but = "" if spread is None else f"; {spread} fits but for its input channels: inflate_channels: true takes it"
    return (
        f"shipped weights must be of the network in use, none fit this {type(network).__name__}; known are: {known}. "
        f"Take one of these networks, a file of weights, or none for scratch{but}"
    )
