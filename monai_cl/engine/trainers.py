"""Trainers made of the few things that differ from run to run."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from monai.engines import SupervisedTrainer, default_prepare_batch
from monai.inferers import Inferer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from monai_cl.engine import distributed
from monai_cl.engine.machine import keep_freed_memory
from monai_cl.engine.optimisation import adamw, warmup_cosine
from monai_cl.engine.precision import PrecisionInferer, supervised_precision
from monai_cl.engine.tied_copies import TiedCopies
from monai_cl.engine.trainer import PretrainTrainer
from monai_cl.engine.voxel_loss import VoxelLoss
from monai_cl.methods import Method
from monai_cl.networks import lay_channels_last


def pretraining(
    method: Method,
    train_data_loader: Iterable[Any],
    *,
    max_epochs: int,
    epoch_length: int,
    device: str | torch.device = "cpu",
    learning_rate: float = 1e-3,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    inferer: Inferer | None = None,
    precision: str = "auto",
    channels_last: bool = False,
    max_grad_norm: float | None = 1.0,
    train_handlers: Sequence[Any] = (),
) -> PretrainTrainer:
    """Make the trainer of a pretraining; the method goes to the device, and is wrapped where several processes train.

    Args:
        method: Any :class:`monai_cl.methods.Method`, of this package or of another.
        train_data_loader: Batches of what the method takes, as from :func:`monai_cl.data.view_batches`.
        max_epochs: Number of epochs, of
        epoch_length: steps.
        device: Where to train.
        learning_rate: Highest learning rate of the usual optimiser, where none is given.
        optimizer: Optimiser of the method's parameters; :func:`monai_cl.engine.adamw` when left out.
        scheduler: Its schedule; :func:`monai_cl.engine.warmup_cosine` over the run when left out.
        inferer: Runs the method on a batch.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        channels_last: Whether channels are the innermost axis of kernels in memory, see
            :func:`monai_cl.networks.lay_channels_last`.
        max_grad_norm: Gradients are scaled down to this norm; ``None`` leaves them.
        train_handlers: Handlers, as :class:`monai_cl.engine.PretrainHandlers` and others after it.
    """
    device = torch.device(device)
    if device.type == "cpu":
        keep_freed_memory()
    method = method.to(device)
    if channels_last:
        lay_channels_last(method)
    optimizer = adamw(method, learning_rate) if optimizer is None else optimizer  # the wrapper has the same parameters
    return PretrainTrainer(
        device,
        max_epochs,
        train_data_loader,
        distributed.parallel(method, device),
        optimizer,
        epoch_length=epoch_length,
        inferer=inferer,
        scheduler=warmup_cosine(optimizer, max_epochs * epoch_length) if scheduler is None else scheduler,
        precision=precision,
        max_grad_norm=max_grad_norm,
        train_handlers=train_handlers,
    )


def fine_tuning(
    network: nn.Module,
    train_data_loader: Iterable[Any],
    *,
    max_epochs: int,
    epoch_length: int,
    loss: nn.Module,
    ignore_index: int | None = None,
    device: str | torch.device = "cpu",
    learning_rate: float = 1e-3,
    optimizer: Optimizer | None = None,
    inferer: Inferer | None = None,
    precision: str = "auto",
    prepare_batch: Callable[..., Any] = default_prepare_batch,
    train_handlers: Sequence[Any] = (),
) -> SupervisedTrainer:
    """Make MONAI's trainer of a segmentation network: wrapped for several processes, in mixed precision on a GPU.

    Args:
        network: The network.
        train_data_loader: Batches with ``image`` and ``label``.
        max_epochs: Number of epochs, of
        epoch_length: steps.
        loss: Loss of logits and labels, see :class:`monai_cl.engine.VoxelLoss`.
        ignore_index: Label of voxels that do not count.
        device: Where to train.
        learning_rate: Learning rate of the usual optimiser, where none is given.
        optimizer: Optimiser of the network's parameters; :func:`monai_cl.engine.adamw` when left out.
        inferer: Runs the network on a batch; :class:`monai_cl.engine.TiedCopies` takes copies of images apart and adds
            its part to the loss.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``; ``"auto"``: MONAI's mixed precision on a GPU, fp32 on a CPU.
        prepare_batch: Takes images and labels out of a batch.
        train_handlers: Handlers, as :class:`monai_cl.engine.FinetuneHandlers` and others after it.
    """
    device = torch.device(device)
    if device.type == "cpu":
        keep_freed_memory()
    chosen = supervised_precision(precision, device)
    network = network.to(device)
    loss_function: nn.Module = VoxelLoss(loss, ignore_index=ignore_index)
    if isinstance(inferer, TiedCopies):
        loss_function, prepare_batch = inferer.loss(loss_function), inferer.prepare_batch
    return SupervisedTrainer(
        device=device,
        max_epochs=max_epochs,
        train_data_loader=train_data_loader,
        network=distributed.parallel(network, device),
        optimizer=adamw(network, learning_rate) if optimizer is None else optimizer,
        loss_function=loss_function,
        epoch_length=epoch_length,
        inferer=PrecisionInferer(inferer, chosen) if chosen.name == "bf16" else inferer,
        prepare_batch=prepare_batch,
        amp=chosen.name == "fp16",
        train_handlers=train_handlers,
    )
