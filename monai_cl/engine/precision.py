"""Mixed precision: what to compute in, decided once."""

import contextlib
import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SMALL = 4  # voxels of an edge; smaller maps have given infinite or wrong gradients in bf16 on a CPU
_CONVOLUTIONS = frozenset(getattr(torch, f"conv{kind}{dims}d") for kind in ("", "_transpose") for dims in (1, 2, 3))


class _SmallMapsInFull(TorchFunctionMode):
    """Compute convolutions of small maps in float32 under autocast."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _CONVOLUTIONS or min(args[0].shape[2:]) >= SMALL:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(args[0].float(), *args[1:], **kwargs)


@dataclass(frozen=True)
class Precision:
    """Chosen number format of the forward pass; weights, optimiser and losses stay in float32.

    Attributes:
        name: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        device_type: ``"cuda"``, ``"cpu"`` and so on.
    """

    name: str
    device_type: str

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context for the forward pass; does nothing (and warns of nothing) in float32."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        if self.device_type == "cpu":
            return _autocast_on_cpu()
        return torch.autocast(self.device_type, dtype=torch.bfloat16 if self.name == "bf16" else torch.float16)

    def scaler(self) -> torch.amp.GradScaler:
        """Scaler of the loss; does nothing unless the format is fp16, whose gradients underflow without one."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "fp16")


def choose_precision(name: str, device: torch.device) -> Precision:
    """Resolve ``"auto"``: bf16 where a GPU has it, fp16 on older GPUs, fp32 on a CPU.

    On a CPU, bf16 pays where the processor computes in it (see :func:`computes_in_bf16`), is many times slower
    elsewhere (with a warning), and ``"auto"`` never chooses it. Convolutions of maps with an edge below
    :data:`SMALL` voxels stay in float32 there, since their gradients have come out infinite or wrong.

    Raises:
        ValueError: If the name is unknown, or fp16 is asked for on a CPU.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {name!r}")
    if name == "auto":
        name = "fp32" if device.type != "cuda" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if device.type == "cpu" and name == "fp16":
        raise ValueError("precision on a CPU must be 'fp32', 'bf16' or 'auto', got 'fp16'; fp16 is for a GPU")
    if device.type == "cpu" and name == "bf16" and not computes_in_bf16():
        logger.warning(
            "precision bf16 is many times slower than fp32 on this CPU, which does not compute in it (it has neither "
            "AVX512-BF16 nor AMX); leave precision at auto, or ask for fp32"
        )
    return Precision(name, device.type)


def computes_in_bf16() -> bool:
    """Return whether the processor computes in bf16 itself: AVX512-BF16 or AMX on x86, its own instructions on ARM.

    Only processors that are known to lack it count as such.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN's own word for it, asked below, holds for AVX-512 without bf16 too, where it is emulated
        known = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
        return any(ask is None or ask() for ask in known)
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return ask is None or bool(ask())


def supervised_precision(name: str, device: torch.device) -> Precision:
    """Precision for MONAI's trainers, whose mixed precision on a GPU is fp16, which ``"auto"`` selects."""
    return choose_precision("fp16" if name == "auto" and device.type == "cuda" else name, device)


@contextlib.contextmanager
def _autocast_on_cpu() -> Iterator[None]:
    with _SmallMapsInFull(), torch.autocast("cpu", dtype=torch.bfloat16):
        yield


class PrecisionInferer(Inferer):
    """Run a network in a precision, and return its maps in float32, in which losses are computed.

    Args:
        inferer: Runs the network on a batch; one pass when left out.
        precision: The precision.
    """

    def __init__(self, inferer: Inferer | None, precision: Precision) -> None:
        super().__init__()
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.precision = precision

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Maps of a batch: a tensor, a list of those of deep supervision, or what a head gives beside them."""
        with self.precision.autocast():
            return _in_full(self.inferer(inputs, network, *args, **kwargs))


def _in_full(maps: Any) -> Any:
    """Tensors in float32, within lists and named tuples too."""
    if isinstance(maps, Tensor):
        return maps.float()
    each = [_in_full(one) for one in maps]
    return type(maps)(*each) if hasattr(maps, "_fields") else each
