"""Published weights, recognised by the names in a file or named by the user."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_cl._words import suggestion
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


def published_table() -> str:
    """Table in Markdown of every known source and its receipt, for the page of foreign weights.

    Example:
        >>> print(published_table().splitlines()[0][:43])
        | `key_map` | source | network | pretrained
    """
    heads = ("`key_map`", "source", "network", "pretrained by its makers", "licence of the weights", "cite", "images")
    rows = [_row((*heads, "recipe")), "|---" * (len(heads) + 1) + "|"]
    return "\n".join([*rows, *(_row(_cells(one)) for one in PUBLISHED.values())])


def network_definition(name: str, checkpoint: str | Path | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """MONAI configuration of the network that published weights fit, its channels by reference to a bundle's ids.

    Args:
        name: A name of :data:`PUBLISHED`.
        checkpoint: The file, from which the sizes of a plain U-Net of nnU-Net are read; others need none.

    Raises:
        ValueError: If the name is unknown, or the file is needed and of another network.

    Example:
        >>> network_definition("stu_net")["out_channels"]
        '@out_channels'
    """
    if name not in PUBLISHED:
        raise ValueError(
            f"published weights must be one of {tuple(PUBLISHED)}, got {name!r}{suggestion(name, PUBLISHED)}"
        )
    key_map = PUBLISHED[name]
    read = dynunet_arguments(checkpoint) if name == "nnunet_plain" and checkpoint is not None else {}
    return {**key_map.network, **read, **dict(zip(key_map.channels, ("@in_channels", "@out_channels"), strict=True))}


def require_source(name: str, checkpoint: str | Path | Mapping[str, Any]) -> None:
    """Refuse a file that is not of the published source of that name.

    Raises:
        FileNotFoundError: If no such file exists.
        ValueError: If its names or sizes are those of another source, or of none.
    """
    content = read_checkpoint(checkpoint)
    chosen = choose(content)
    if PUBLISHED[name].recognises(chosen.tensors, entry=chosen.key, entries=content):
        return
    other = detect(chosen.tensors, entry=chosen.key, entries=content) or nearest(chosen.tensors)
    reason = "its names are of no source that is known"
    if other is not None:
        reason = f"its names are those of {other.source}, or nearest to them (published: {other.name})"
    place = "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    raise ValueError(f"{place} must be of {PUBLISHED[name].source} (published: {name}), but {reason}")


def _cells(one: KeyMap) -> tuple[str, ...]:
    network = str(one.network["_target_"]).rsplit(".", maxsplit=1)[-1]
    prepared = "not stated" if one.preparation is None else str(one.preparation)
    options = ", ".join(f"{key}: {value}" for key, value in one.recipe_options.items())
    recipe = f"`{one.recipe}`{f' with `{{{options}}}`' if options else ''}" if one.recipe else ""
    cited = ", ".join(one.citation)
    return f"`{one.name}`", one.source, f"`{network}`", one.trained, one.licence, cited, prepared, recipe


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


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
