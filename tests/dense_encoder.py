"""A small training of an encoder that finds voxels of one view again in another one, for tests of matches."""

from typing import Any

from torch import nn

from monai_cl.data import ViewDataset, view_loader
from monai_cl.engine import adamw
from monai_cl.methods import DenseTerm, Method


def learn_places(network: nn.Module, volumes: Any, views: Any, *, exclusion_radius: float, steps: int) -> None:
    """Train a network by dense contrast of its encoder, on two volumes a step; radius in mm."""
    term = DenseTerm(on="encoder", stride=4, embedding=32, exclusion_radius=exclusion_radius, num_anchors=128)
    method = Method(network, {"dense": term})
    optimizer = adamw(method, 2e-3)
    dataset = ViewDataset(volumes, views, keys=("image", "coords", "valid"))
    for batch in view_loader(dataset, len(volumes), batch_size=2, steps=steps):
        optimizer.zero_grad()
        method(batch)["loss"].backward()
        optimizer.step()
