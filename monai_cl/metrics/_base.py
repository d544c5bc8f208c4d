"""Base of the metrics: working precision, input checks, and a buffer that each process fills at its own pace."""

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from monai_cl.losses._checks import require_finite

P = ParamSpec("P")
R = TypeVar("R")

TIE = 1e-6  # cosines closer than this are equal


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` outside autocast, on the device type of its first tensor argument."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        device = next((tensor.device.type for tensor in tensors), "cpu")
        with torch.autocast(device_type=device, enabled=False):
            return function(*args, **kwargs)

    return wrapped


def as_float(name: str, x: Tensor) -> Tensor:
    """``x`` as a plain tensor in float32 (float64 stays), finite or refused by name."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}; convert it with torch.as_tensor")
    plain = x.as_subclass(Tensor)
    plain = plain if plain.dtype == torch.float64 else plain.float()
    require_finite(**{name: plain})
    return plain


def as_rows(name: str, x: Tensor, *, at_least: int = 1) -> Tensor:
    """``x`` (N, D) in working precision.

    Raises:
        ValueError: If it has another number of axes, no dimension, or fewer than ``at_least`` rows.
        NonFiniteError: If it holds NaN or infinity.
    """
    rows = as_float(name, x)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{name} must be embeddings of shape (N, D), got {tuple(rows.shape)}")
    if len(rows) < at_least:
        raise ValueError(f"{name} must hold at least {at_least} samples, got {len(rows)}; add batches")
    return rows


def as_maps(name: str, z: Tensor) -> Tensor:
    """``z`` (B, C, *S) in working precision with its spatial axes flattened, (B, C, V).

    Raises:
        ValueError: If it has no spatial axis, or an axis of no length.
        NonFiniteError: If it holds NaN or infinity.
    """
    maps = as_float(name, z)
    if maps.ndim < 3 or maps.numel() == 0:
        raise ValueError(f"{name} must be feature maps of shape (B, C, *S), got {tuple(maps.shape)}")
    return maps.flatten(2)


def as_numbers(name: str, x: Tensor | None, count: int) -> Tensor:
    """``x`` (N,) as whole numbers: labels, or groups of samples.

    Raises:
        ValueError: If it is missing, has another shape, or is not made of whole numbers.
    """
    if x is None:
        raise ValueError(f"{name} must be given, one whole number a sample, got None")
    if tuple(x.shape) != (count,):
        raise ValueError(f"{name} must have shape ({count},), one number a sample, got {tuple(x.shape)}")
    if x.is_floating_point() or x.is_complex():
        raise ValueError(f"{name} must be whole numbers, got {x.dtype}; convert it with .long()")
    return x.as_subclass(Tensor).long()


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """``x`` scaled to unit length along ``dim``; a vector of zeros stays one."""
    return F.normalize(x, dim=dim, eps=1e-12)


class BufferedMetric(CumulativeIterationMetric):
    """A metric over all samples since the last ``reset``, those of the other processes included.

    Processes may hold different numbers of samples, or none. ``aggregate``, ``get_buffer`` and ``len`` gather over
    all processes at their first call after a batch: call them, and ``reset``, in every process alike. An error
    in the gathered samples is raised in every process.
    """

    _synced: bool
    _synced_tensors: list[Tensor | None] | None

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor | list[Tensor]:
        """Convert batch-first tensors to buffers for one batch; by default the embeddings (B, D)."""
        return as_rows("embeddings", y_pred)

    @abstractmethod
    def aggregate(self) -> Any:
        """Value over all samples of all processes."""

    def extend(self, *data: Any) -> None:
        """Buffer a batch.

        Raises:
            ValueError: If earlier batches came with labels or groups and this one does not, or the reverse.
        """
        if self._buffers is not None and len(data) != len(self._buffers):
            raise ValueError(
                f"{type(self).__name__} must get the same inputs with every batch, got {len(data)} after "
                f"{len(self._buffers)}; give labels and groups with every batch or with none"
            )
        super().extend(*data)

    def gathered(self) -> list[Tensor]:
        """Buffers over all processes, in order of rank.

        Raises:
            ValueError: If no process holds a sample.
        """
        self._sync()
        if not self._synced_tensors:
            raise ValueError(f"{type(self).__name__} holds no samples; call it with at least one batch before this")
        return [tensor for tensor in self._synced_tensors if tensor is not None]

    def _sync(self) -> None:
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            super()._sync()
            return
        if self._synced:
            return
        # MONAI's own gathering returns early in a process without samples, and the others wait for it forever
        mine = None if self._buffers is None else [torch.stack(values) for values in self._buffers]
        everyone: list[list[Tensor] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, None if mine is None else [tensor.cpu() for tensor in mine])
        parts = [buffers for buffers in everyone if buffers is not None]
        device = "cpu" if mine is None else mine[0].device
        if parts:
            self._synced_tensors = [torch.cat(same).to(device) for same in zip(*parts, strict=True)]
        self._synced = True


class LabelledMetric(BufferedMetric):
    """Buffers embeddings (B, D), labels (B,) and, where given by name, ``groups`` (B,)."""

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        rows = as_rows("embeddings", y_pred)
        groups = kwargs.get("groups")
        extra = [] if groups is None else [as_numbers("groups", groups, len(rows))]
        return [rows, as_numbers("labels", y, len(rows)), *extra]

    def _all(self) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, labels, *groups = self.gathered()
        return rows, labels, groups[0] if groups else None


def check_k(k: int, most: int) -> None:
    """Refuse more neighbours than samples."""
    if not 1 <= k <= most:
        raise ValueError(f"k must be between 1 and the number of candidates ({most}), got {k}; lower k or add samples")
