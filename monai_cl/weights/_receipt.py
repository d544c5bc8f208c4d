"""Receipt of the weights that a checkpoint gave to a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn

from monai_cl.weights._origin import Origin


class WeightsMismatchError(ValueError):
    """Too little of a network would be filled by a checkpoint.

    Attributes:
        receipt: Tensors that would have been loaded.
    """

    def __init__(self, message: str, receipt: "Receipt") -> None:
        super().__init__(message)
        self.receipt = receipt


class ContractMismatchError(WeightsMismatchError):
    """Images are prepared otherwise than those that the weights were trained with, and strictness was asked for."""


@dataclass(frozen=True)
class Receipt:
    """Receipt of the weights that a checkpoint gave to a network.

    Attributes:
        matched: Names of the network's tensors that were loaded.
        missing: Names of the network's tensors that the checkpoint lacks; they keep their values.
        unexpected: Names in the checkpoint that the network lacks.
        wrong_shape: Name, the network's shape, the checkpoint's shape; these keep their values too.
        matched_parameters: Number of values loaded.
        total_parameters: Number of values in the network.
        touched: Names of the tensors that pretraining changed, where the checkpoint lists them or its source is known.
        key_map: The key map that was applied to a published checkpoint, if one was.
        encoder_matched: Number of the encoder's tensors that were loaded, where a key map was applied.
        encoder_total: Number of the encoder's tensors, those that the key map is to fill and those of the checkpoint
            that have no place in the network.
        dropped: Names in the checkpoint that the key map leaves out (projectors, the other of two networks).
        inflated: Names of the tensors whose input channels were multiplied or reduced to the network's.
        weights_key: The entry of the checkpoint that was taken; empty where the tensors lie in no entry.
        beside: Entries with averages of the network (EMA, a teacher) that were not taken.
        converted: Kinds of floating-point numbers in the checkpoint that are not the network's: ``"float16"``.
        origins: Origin of published weights, or those that the checkpoint was trained on from.
        prepared: Preparation of the images that the weights were trained with, in words.
        differences: Where the recipe in use prepares images otherwise; ``None`` where it was not compared.
        start: Start in words, where no file was named: shipped weights, or the pretraining of the bundle.
        data: Data that our own pretraining learnt from, where its contract names them.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    matched_parameters: int
    total_parameters: int
    touched: tuple[str, ...] = ()
    key_map: str | None = None
    encoder_matched: int = 0
    encoder_total: int = 0
    dropped: tuple[str, ...] = ()
    inflated: tuple[str, ...] = ()
    weights_key: str = ""
    beside: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()
    prepared: str = ""
    differences: tuple[str, ...] | None = None
    start: str = ""
    data: str = ""

    @property
    def encoder_share(self) -> float:
        """Share of the encoder's tensors that a key map filled."""
        return self.encoder_matched / self.encoder_total if self.encoder_total else 0.0

    @property
    def share(self) -> float:
        """Share of the network's values that were loaded."""
        return self.matched_parameters / self.total_parameters if self.total_parameters else 0.0

    def __str__(self) -> str:
        rows = [*self._opening(), *self._comparison(), *self._closing()]
        return "\n".join(f"{name:<12} {text}" for name, text in rows)

    def _opening(self) -> list[tuple[str, str]]:
        rows = [(name, text) for name, text in (("start", self.start), ("data", self.data)) if text]
        if self.key_map:
            rows.append(("key map", f"{self.key_map}: {self.encoder_matched} of {self.encoder_total} encoder tensors"))
        if self.beside:
            taken = self.weights_key or "tensors in no entry"
            rows.append(("taken", f"{taken}, not {', '.join(self.beside)}: weights_key takes another"))
        rows += [("source" if self.key_map else "begun from", str(one)) for one in self.origins]
        return rows

    def _comparison(self) -> list[tuple[str, str]]:
        total = len(self.matched) + len(self.missing) + len(self.wrong_shape)
        rows = [
            ("matched", f"{len(self.matched)} of {total} tensors, {100 * self.share:.1f} % of parameters"),
            ("missing", _some(self.missing)),
            ("unexpected", _some(self.unexpected)),
            ("wrong shape", _some([f"{n} {list(own)} <- {list(got)}" for n, own, got in self.wrong_shape])),
        ]
        if self.key_map:
            rows.append(("left out", _some(self.dropped)))
        if self.inflated:
            rows.append(("inflated", _some(self.inflated)))
        if self.converted:
            rows.append(("precision", f"{', '.join(self.converted)} in the file, of which the network's was made"))
        return rows

    def _closing(self) -> list[tuple[str, str]]:
        rows = []
        if self.touched:
            carried = sum(name in set(self.touched) for name in self.matched)
            share = f"{carried} of the {len(self.matched)} matched tensors; "
            by_makers = self.key_map is not None and bool(self.origins)
            rows.append(
                ("pretrained", share + (self.origins[0].trained if by_makers else "the rest is as initialised"))
            )
        if self.prepared:
            rows.append(("prepared", self.prepared))
        if self.differences is not None:
            rows.append(("contract", "; ".join(self.differences) or "kept by the recipe in use"))
        return rows


_receipts: WeakKeyDictionary[nn.Module, Receipt] = WeakKeyDictionary()


def remember(network: nn.Module, receipt: Receipt) -> None:
    """Keep the receipt of a network, for records of the run and for what is saved of it."""
    _receipts[network] = receipt


def receipt_of(network: nn.Module) -> Receipt | None:
    """The receipt of :func:`start_from` for this network; ``None`` if it begins from scratch."""
    return _receipts.get(network)


def _some(names: Sequence[str], most: int = 4) -> str:
    if not names:
        return "none"
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: " + ", ".join(names[:most]) + more
