"""Terms of a method: each one contrast or reconstruction, with its head, its loss and its health."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_cl.methods.extraction import FeatureExtractor, Maps


class Term(nn.Module, ABC):
    """One contrast or reconstruction of a :class:`monai_cl.methods.Method`: head, loss and health.

    A term of your own sets ``needs``, makes its head in :meth:`build` and its loss in :meth:`forward`; the rest may
    stay as it is. Freezing, sizes, the teacher and checkpoints are the method's.

    Attributes:
        key: Key of a batch under which its images lie. Terms of one key share one pass through the network.
        needs: Maps that it looks at, some of ``"encoder"`` (all levels), ``"deepest"`` (the coarsest level),
            ``"blocks"`` (blocks of the decoder), ``"decoder"`` (the map that becomes classes) and ``"output"``.
        blocks: Decoder blocks that run, counted from the bottom, where ``needs`` holds ``"blocks"``; ``None`` is all.
        follows: True if the method's teacher keeps a copy of this term.
        probed: False leaves the term out of probes.
    """

    key: str = "image"
    needs: frozenset[str] = frozenset({"encoder"})
    blocks: int | None = None
    follows: bool = False
    probed: bool = True
    _built: bool = False

    def setup(self, network: nn.Module, maps: Maps, *, sized: bool) -> None:
        """Make the head, once; later calls change nothing.

        Args:
            network: The network.
            maps: Maps of two images of the term's key, without values: their shapes count.
            sized: Their size is that of the images to come, not just one that fits.
        """
        if not self._built:
            self.build(network, maps)
            if sized:
                self.check_maps(maps)
            self._built = True

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make what depends on the network: the head, mostly. Nothing where a term has none."""

    def check_maps(self, maps: Maps) -> None:
        """Raise ``ValueError`` if maps of the images to come do not do for the loss."""

    @abstractmethod
    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss before it is weighted, and signals to log, all 0-dim.

        Args:
            extract: Gives the maps of images.
            batch: The batch on the device.
        """

    def after_step(self, progress: float) -> None:
        """Take note of the share of training that is done, once after each optimiser step.

        State that the next step depends on belongs into a buffer, so that a checkpoint holds it.
        """

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Return what :meth:`summary` needs of a batch that is not trained on; in evaluation, without gradient."""
        return None

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Return numbers, or samples of numbers (N,), of what :meth:`probe` gave for each batch.

        Called in every process, with the records of its own batches.
        """
        return {}

    def causes_of_collapse(self) -> list[str]:
        """Settings of this term under which embeddings become alike, likeliest first."""
        return []


class Views(NamedTuple):
    r"""Views of a batch.

    Attributes:
        images: (B, V, C, \*S).
        coords: Places of their voxels (B, V, n, \*S), or ``None``.
        valid: Voxels that lie within the volume (B, V, \*S), or ``None``.
        target: Images to restore (B, V, T, \*S), or ``None``.
    """

    images: Tensor
    coords: Tensor | None
    valid: Tensor | None
    target: Tensor | None


def views_of(batch: Mapping[str, Any], key: str) -> Views:
    """Views under a key: a dictionary with ``views``, or the images, with the rest beside them in the batch."""
    if key not in batch:
        raise ValueError(f"a batch must hold {key!r}, got {sorted(map(str, batch))}; add it to the keys of the views")
    given = batch[key]
    images, beside = (given["views"], given) if isinstance(given, Mapping) else (given, batch)
    return Views(images, *(beside.get(name) for name in ("coords", "valid", "target")))


def of_batch(batch: Mapping[str, Any], key: str, device: torch.device) -> Tensor:
    """One number for each image of a batch, as a tensor.

    Raises:
        ValueError: If the batch has none.
    """
    if key not in batch:
        raise ValueError(
            f"a batch must hold {key!r} of each image for this contrast, got {sorted(map(str, batch))}; draw slices "
            "with PartitionBatchSampler"
        )
    return torch.as_tensor(batch[key], device=device)


def require_positive(**values: float) -> None:
    """Raise ``ValueError`` for a number below 1, by its name."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
