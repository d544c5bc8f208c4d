"""Batches of studies whose sequences vary, for the method that learns from them."""

from typing import Any

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from monai_cl.methods import MissingSequences

SIZE = 8
NAMES = ("T1w", "T2w", "FLAIR")


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def small_network(channels: int = 1) -> nn.Module:
    return UNet(3, channels, 2, channels=(2, 4, 4), strides=(2, 2), num_res_units=1)


def missing_sequences(**options: Any) -> MissingSequences:
    """With both stages from the first step on, unless options say otherwise."""
    small = {"template_size": (10, 9, 8), "block": 4, "contrast_start": 0.0, "donor_start": 0.0}
    return MissingSequences(small_network(), NAMES, SIZE, **{**small, **options})


def studies(b: int = 4, *, size: int = SIZE) -> dict[str, Any]:
    """Crops of which every second study has another sequence; none is of FLAIR."""
    return {
        "image": {
            "target": rand(b, 1, size, size, size, seed=0),
            "donor": rand(b, 1, size, size, size, seed=1),
            "has_donor": torch.arange(b) % 2 == 0,
            "sequence": torch.arange(b) % 2,
            "place": torch.tensor([[1, 0, -2], [0, 1, 3]]).repeat(b // 2, 1),
        }
    }
