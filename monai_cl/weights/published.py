"""Published weights, recognised by the names in a file or named by the user."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_cl.weights._choice import choose
from monai_cl.weights._reading import read_checkpoint
from monai_cl.weights.families import nnunet, own_networks, segresnet, swin
from monai_cl.weights.families.key_map import KeyMap

_NEAR = 0.5  # share of names from which a source is worth a word
# the first whose names a file has to the last one is its source
PUBLISHED: dict[str, KeyMap] = {
    one.name: one
    for one in (
        swin.VOCO_V2,
        swin.VOCO_10K,
        swin.VOCO_10K_STUDENT,
        swin.VOCO_CVPR,
        swin.MONAI_SWIN_VIT,
        swin.MONAI_SWIN_SSL,
        swin.SUPREM_SWIN,
        segresnet.SUPREM_SEGRESNET,
        segresnet.CT_FM,
        segresnet.VISTA3D,
        segresnet.VISTA3D_AUTO,
        nnunet.NNSSL_RESENC,
        nnunet.NNUNET_RESENC,
        nnunet.NNUNET_PLAIN,
        own_networks.ANATOMIX,
        own_networks.STU_NET,
    )
}


def detect(state: Mapping[str, Tensor], *, entry: str | None = None, entries: Collection[str] = ()) -> KeyMap | None:
    """The source whose names all names of a checkpoint are; ``None`` if they are no published ones.

    Args:
        state: The tensors.
        entry: Where they lie in the file.
        entries: All entries of the file.
    """
    return next((one for one in PUBLISHED.values() if one.recognises(state, entry=entry, entries=entries)), None)


def nearest(state: Iterable[str]) -> KeyMap | None:
    """The source whose names most names of a checkpoint are, if at least half of them are."""
    names = list(state)
    best = max(PUBLISHED.values(), key=lambda one: one.nearness(names))
    return best if names and best.nearness(names) >= _NEAR else None


def dynunet_arguments(checkpoint: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the ``DynUNet`` that a plain U-Net of nnU-Net fills: ``DynUNet(**dynunet_arguments(file))``.

    Where kernels differ from level to level, as for thick slices, ``DynUNet`` has one of them a level lower in its
    decoder; tensors of that level are then of another shape, and the receipt names them.

    Args:
        checkpoint: A ``checkpoint_final.pth`` or its content.

    Raises:
        ValueError: If it is of another network.
    """
    return nnunet.dynunet_shape(choose(read_checkpoint(checkpoint)).tensors)
