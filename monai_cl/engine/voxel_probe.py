"""Probe of frozen features by labels: the nearest look at fine-tuning that one can have while pretraining."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.transforms.utils_morphological_ops import dilate
from torch import Tensor, nn

from monai_cl.metrics import cross_validated_probe_accuracy, features_at, leave_one_out_knn_accuracy
from monai_cl.networks import encoder_features

NEAR = 2  # voxels
VOXELS = 24  # of each class in each volume
NEIGHBOURS = 5
FOLDS = 4


@torch.no_grad()
def label_probe(network: nn.Module, patches: Sequence[dict[str, Any]], *, seed: int = 0) -> dict[str, float]:
    r"""Accuracy of voxel classes from the frozen encoder, by nearest neighbours and by a linear probe.

    From each labelled patch the same number of voxels of each class is drawn, so a blind guess is right once in as many
    times as the number of classes. A voxel's feature is the encoder's pyramid interpolated at its centre, each level at
    unit length. A voxel is judged by voxels of other volumes only. The labels are looked at, nothing learns from them.

    Args:
        network: A network that :func:`monai_cl.networks.encoder_features` knows, in evaluation mode.
        patches: Items with ``image`` (C, \*S) and ``label`` (1, \*S), from different patients; see
            :func:`monai_cl.data.probe_patches`.
        seed: Seed of the choice of voxels, which is the same at each look.

    Returns:
        ``label_knn_accuracy``, ``label_linear_accuracy`` and ``label_chance``; nothing with fewer than two volumes or
        two classes.
    """
    patches = [patch for patch in patches if bool((torch.as_tensor(patch["label"]) >= 0).any())]
    if len(patches) < 2:
        return {}
    features, labels, volumes = [], [], []
    generator = torch.Generator().manual_seed(seed)
    for number, patch in enumerate(patches):
        places, classes = draw_voxels(patch["label"], generator)
        features.append(voxel_features(network, patch["image"], places))
        labels.append(classes)
        volumes.append(torch.full_like(classes, number))
    x, y, group = torch.cat(features).cpu(), torch.cat(labels), torch.cat(volumes)
    if len(y.unique()) < 2:
        return {}
    neighbours = min(NEIGHBOURS, len(y) - int(torch.bincount(group).max()))
    return {
        "label_knn_accuracy": float(leave_one_out_knn_accuracy(x, y, groups=group, k=neighbours)),
        "label_linear_accuracy": float(
            cross_validated_probe_accuracy(x, y, groups=group, folds=min(FOLDS, len(patches)))
        ),
        "label_chance": float(torch.bincount(y).max() / len(y)),
    }


def draw_voxels(label: Tensor, generator: torch.Generator, *, count: int = VOXELS) -> tuple[Tensor, Tensor]:
    r"""Draw up to ``count`` voxels of each class in a label (1, \*S): indices (N, nd) and classes (N,).

    Background is drawn from around the classes, within ``NEAR`` voxels: voxels far from them are too easy to classify.
    Nothing is drawn from voxels below 0, which are of no class.
    """
    classes = torch.as_tensor(label)[0].cpu().long()
    foreground = classes > 0
    near = dilate(foreground[None, None].float(), 2 * NEAR + 1)[0, 0] > 0
    around = near if foreground.any() else ~foreground
    places, result = [], []
    for value in classes[classes >= 0].unique().tolist():
        candidates = ((classes == value) & around).nonzero()
        chosen = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
        places.append(chosen)
        result.append(torch.full((len(chosen),), value))
    return torch.cat(places), torch.cat(result)


def voxel_features(network: nn.Module, image: Tensor, places: Tensor) -> Tensor:
    r"""Pyramid of the encoder of ``network`` for ``image`` (C, \*S) at voxels (N, nd): (N, sum of widths)."""
    levels = encoder_features(network, torch.as_tensor(image)[None])
    return features_at([level[0] for level in levels], places.to(image.device), image.shape[1:])
