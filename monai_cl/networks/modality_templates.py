"""A learnt image of each sequence: what a head looks like in it on average, to stand in for one that is missing."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_MIB = 2**20


class ModalityTemplates(nn.Module):
    r"""One learnable volume for each sequence, cut at the place of a crop.

    They start at exactly 0. A template has a gradient where it stood in for voxels of its sequence and nowhere else,
    so that of a sequence that never came stays 0. They are kept as :math:`t / g` with a gain :math:`g`, by which
    steps of Adam, which have the size of the learning rate whatever the gradient, become :math:`g` times as large.

    Memory is that of the parameter, ``4 n prod(size)`` bytes, and three times as much again in training, for its
    gradient and the two moments of Adam; more than ``max_mib`` for the parameter is refused.

    Args:
        sequences: Names of the sequences, each once.
        size: Edge lengths in voxels, of the spacing of the prepared images.
        gain: Factor :math:`g` of the step size.
        normalise: Scale each template to [0, 1] by its smallest and largest value, with gradients through both, as
            published, for images that are scaled alike. Without it a template has the intensities of the images, and
            of noisy copies of one image it learns their mean.
        max_mib: Most memory for the parameter in MiB.

    Raises:
        ValueError: If a name comes twice, or templates would take more than ``max_mib``.

    References:
        BrainMVP, arXiv 2410.10604.

    Example:
        >>> templates = ModalityTemplates(["T1w", "FLAIR"], (16, 16, 16))
        >>> templates(torch.tensor([1]), torch.tensor([[12, 0, -3]]), (8, 8, 8)).shape, templates.mib
        (torch.Size([1, 1, 8, 8, 8]), 0.03125)
    """

    def __init__(
        self,
        sequences: Sequence[str],
        size: Sequence[int],
        *,
        gain: float = 10.0,
        normalise: bool = False,
        max_mib: float = 1024.0,
    ) -> None:
        super().__init__()
        self.sequences = tuple(map(str, sequences))
        self.size = tuple(size)
        self.normalise = normalise
        self.gain = gain
        if not self.sequences or len(set(self.sequences)) != len(self.sequences):
            raise ValueError(f"sequences must be one name or several, each once, got {list(self.sequences)}")
        if min(self.size, default=0) < 1:
            raise ValueError(f"size must be at least 1 voxel along each axis, got {self.size}")
        if not 0 < gain < float("inf"):
            raise ValueError(f"gain must be above 0, got {gain!r}")
        if self.mib > max_mib:
            raise ValueError(
                f"templates may take at most {max_mib:g} MiB, {len(self.sequences)} of {self.size} voxels take "
                f"{self.mib:.0f}, and four times that in training; give a smaller template_size, name rare sequences "
                "alike (sequence_names), or allow more (max_mib)"
            )
        self.values = nn.Parameter(torch.zeros(len(self.sequences), *self.size))

    @property
    def mib(self) -> float:
        """Memory of the parameter in MiB."""
        return 4 * len(self.sequences) * math.prod(self.size) / _MIB

    def forward(self, sequence: Tensor, place: Tensor, crop_size: Sequence[int]) -> Tensor:
        r"""Templates at the places of crops, (B, 1, \*crop_size); 0 where a crop reaches beyond its template.

        Args:
            sequence: Numbers of the sequences (B,).
            place: First voxel of each crop in the template (B, nd); may be negative or beyond the last.
            crop_size: Edge lengths of the crops.
        """
        index = sequence.reshape(-1, *[1] * len(self.size))  # b = crop, then the axes of the crop
        inside = torch.ones_like(index, dtype=torch.bool)
        for axis, (side, crop) in enumerate(zip(self.size, crop_size, strict=True)):
            along = place[:, axis, None] + torch.arange(crop, device=place.device)  # b, voxel of the crop
            shape = [len(place), *[1] * axis, crop, *[1] * (len(self.size) - axis - 1)]
            inside = inside & ((along >= 0) & (along < side)).reshape(shape)
            index = index * side + along.clamp(0, side - 1).reshape(shape)
        found = self.gain * self.values.flatten().index_select(0, index.flatten()).reshape(index.shape)
        if self.normalise:
            low, span = self._range(sequence)
            found = (found - low) / span
        return torch.where(inside, found, 0.0)[:, None]

    def _range(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest value and span of the templates of sequences; a template that is flat stays as it is."""
        flat = self.gain * self.values.flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        even = (high == low).detach()
        low, span = torch.where(even, 0.0, low), torch.where(even, 1.0, high - low)
        shape = [-1, *[1] * len(self.size)]
        return low[sequence].reshape(shape), span[sequence].reshape(shape)

    @torch.no_grad()
    def images(self) -> dict[str, Tensor]:
        """Each template as it stands in for its sequence, (*size), by name."""
        low, span = self._range(torch.arange(len(self.sequences), device=self.values.device))
        shown = (self.gain * self.values - low) / span if self.normalise else self.gain * self.values
        return dict(zip(self.sequences, shown.detach().cpu(), strict=True))

    def extra_repr(self) -> str:
        """Names, size and memory."""
        return f"{list(self.sequences)}, {self.size}, normalise={self.normalise}, {self.mib:.1f} MiB"
