"""The few things a pretraining run must know about its sibling processes."""

import os
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_LAST_MOMENT = 1.0  # seconds; what the threads have left to do takes microseconds once they get a core


def rank() -> int:
    """Rank of this process, 0 for a single process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def start(timeout_minutes: float = 30.0) -> torch.device:
    """Join the process group that ``torchrun`` describes: nccl on GPUs, gloo on CPUs. Returns this process's device.

    Raises:
        RuntimeError: If the process was not started by ``torchrun``.
    """
    if "LOCAL_RANK" not in os.environ:
        raise RuntimeError(
            "multi_gpu.yaml needs the environment of torchrun, which is not set; start with "
            "`torchrun --standalone --nproc_per_node=2 -m monai.bundle run ...` or leave the overlay out"
        )
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    return device


def stop() -> None:
    """Leave the process group, if one exists, after all processes have finished.

    A process that ended at once after a collective was aborted now and then ("terminate called without an active
    exception"): a thread of gloo was still letting go of the tensors while Python went away. ``torchrun`` then
    stops the others, which may be writing. The group's threads cannot be joined from Python, so that they
    are given a moment.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
        time.sleep(_LAST_MOMENT)


def parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """Wrap ``module`` for training across processes; batch norms are synchronised on GPUs (gloo cannot)."""
    if world_size() == 1:
        return module
    if device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside a :func:`parallel` wrapper."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is raised in any process, so that all act at the same step."""
    if world_size() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def gather_objects(value: Any) -> list[Any]:
    """``value`` of every process, in order of rank."""
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values
