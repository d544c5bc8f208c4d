"""A learnt image of each sequence: what a head looks like in it on average, to stand in for one that is missing."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

RULES = ("mean", "gradient")
_MIB = 2**20


class ModalityTemplates(nn.Module):
    r"""One volume for each sequence, learnt from its crops, cut at the place of a crop.

    They start at exactly 0, and the template of a sequence that never came stays 0. Two rules to learn by:

    ``"mean"``: :meth:`observe` keeps the mean of all crops at their places. Where a template itself stands in for
    voxels that a mask :math:`m` hides, without a network behind it, the error and its minimum are

    .. math::
        \sum_i (1 - m_i(v))\,(t(v) - x_i(v))^2, \qquad
        t^*(v) = \frac{\sum_i (1 - m_i(v))\,x_i(v)}{\sum_i (1 - m_i(v))}

    which tends to the mean of the :math:`x_i(v)`, as masks are drawn without a look at the image; the mean over all
    voxels of the crops is the same with less noise. No learning rate, gain or decay moves it.

    ``"gradient"``, as published: a parameter, with a gradient where it stood in and nowhere else. Through a network its
    optimum is not the picture of a sequence: with any bijection :math:`h` of intensities a network that undoes
    :math:`h` restores as well from :math:`h(t)`. What is learnt is a code, which looks like the sequence only if the
    network copies. It is kept as :math:`t / g` with a gain :math:`g`, by which steps of Adam, which have the size of
    the learning rate whatever the gradient, become :math:`g` times as large.

    Memory is ``4 n prod(size)`` bytes for the templates; by the mean as much again, for the crops that each voxel has
    seen; by gradients three times as much, for these and the two moments of Adam. More than ``max_mib`` for the
    templates is refused.

    Args:
        sequences: Names of the sequences, each once.
        size: Edge lengths in voxels, of the spacing of the prepared images.
        rule: ``"mean"`` or ``"gradient"``.
        gain: Factor :math:`g` of the step size, by gradients.
        normalise: Scale each template to [0, 1] by its smallest and largest value, with gradients through both, as
            published, for images that are scaled alike. Without it a template has the intensities of the images.
        max_mib: Most memory for the parameter in MiB.

    Raises:
        ValueError: If a name comes twice, an option is out of range, or templates would take more than ``max_mib``.

    References:
        BrainMVP, arXiv 2410.10604.

    Example:
        >>> templates = ModalityTemplates(["T1w", "FLAIR"], (16, 16, 16))
        >>> templates(torch.tensor([1]), torch.tensor([[12, 0, -3]]), (8, 8, 8)).shape, templates.mib
        (torch.Size([1, 1, 8, 8, 8]), 0.03125)
    """

    seen: nn.Parameter | None

    def __init__(
        self,
        sequences: Sequence[str],
        size: Sequence[int],
        *,
        rule: str = "mean",
        gain: float = 10.0,
        normalise: bool = False,
        max_mib: float = 1024.0,
    ) -> None:
        super().__init__()
        self.sequences = tuple(map(str, sequences))
        self.size = tuple(size)
        self.normalise = normalise
        self.rule = rule
        self.gain = gain if rule == "gradient" else 1.0
        if not self.sequences or len(set(self.sequences)) != len(self.sequences):
            raise ValueError(f"sequences must be one name or several, each once, got {list(self.sequences)}")
        if min(self.size, default=0) < 1:
            raise ValueError(f"size must be at least 1 voxel along each axis, got {self.size}")
        if rule not in RULES:
            raise ValueError(f"rule must be one of {RULES}, got {rule!r}")
        if not 0 < gain < float("inf"):
            raise ValueError(f"gain must be above 0, got {gain!r}")
        if self.mib > max_mib:
            raise ValueError(
                f"templates may take at most {max_mib:g} MiB, {len(self.sequences)} of {self.size} voxels take "
                f"{self.mib:.0f}, and {self.times_in_training} times that in training; give a smaller template_size, "
                "name rare sequences alike (sequence_names), or allow more (max_mib)"
            )
        by_gradient = rule == "gradient"
        self.values = nn.Parameter(torch.zeros(len(self.sequences), *self.size), requires_grad=by_gradient)
        # no buffer: processes would send those to each other before every step
        seen = None if by_gradient else nn.Parameter(torch.zeros_like(self.values), requires_grad=False)
        self.register_parameter("seen", seen)

    @property
    def mib(self) -> float:
        """Memory of the templates in MiB."""
        return 4 * len(self.sequences) * math.prod(self.size) / _MIB

    @property
    def times_in_training(self) -> int:
        """Memory in training as a multiple of that."""
        return 4 if self.rule == "gradient" else 2

    def forward(self, sequence: Tensor, place: Tensor, crop_size: Sequence[int]) -> Tensor:
        r"""Templates at the places of crops, (B, 1, \*crop_size); 0 where a crop reaches beyond its template.

        Args:
            sequence: Numbers of the sequences (B,).
            place: First voxel of each crop in the template (B, nd); may be negative or beyond the last.
            crop_size: Edge lengths of the crops.
        """
        index, inside = self._voxels(sequence, place, crop_size)
        result = self.gain * self.values.flatten().index_select(0, index.flatten()).reshape(index.shape)
        if self.normalise:
            low, span = self._range(sequence)
            result = (result - low) / span
        return torch.where(inside, result, 0.0)[:, None]

    @torch.no_grad()
    def observe(self, crops: Tensor, sequence: Tensor, place: Tensor) -> None:
        r"""Take crops into the means at their places; nothing where templates learn by gradients.

        With several crops :math:`x_j` of a voxel at once, and :math:`n` the number after them,
        :math:`t \leftarrow t + \sum_j (x_j - t) / n`, the mean of all that came. What reaches beyond is left out.

        Args:
            crops: (B, 1, \*crop_size), of all processes.
            sequence: Numbers of their sequences (B,).
            place: First voxel of each crop in the template (B, nd).
        """
        if self.seen is None:
            return
        index, inside = self._voxels(sequence, place, crops.shape[2:])
        index, values = index[inside], crops[:, 0][inside].to(self.values)
        mean, seen = self.values.view(-1), self.seen.view(-1)
        seen.index_add_(0, index, torch.ones_like(values))
        mean.index_add_(0, index, (values - mean[index]) / seen[index])

    def _voxels(self, sequence: Tensor, place: Tensor, crop_size: Sequence[int]) -> tuple[Tensor, Tensor]:
        r"""Number of the template's voxel for each of crops, and whether it lies within, (B, \*crop_size) both."""
        index = sequence.reshape(-1, *[1] * len(self.size))  # b = crop, then the axes of the crop
        inside = torch.ones_like(index, dtype=torch.bool)
        for axis, (side, crop) in enumerate(zip(self.size, crop_size, strict=True)):
            along = place[:, axis, None] + torch.arange(crop, device=place.device)  # b, voxel of the crop
            shape = [len(place), *[1] * axis, crop, *[1] * (len(self.size) - axis - 1)]
            inside = inside & ((along >= 0) & (along < side)).reshape(shape)
            index = index * side + along.clamp(0, side - 1).reshape(shape)
        return index, inside.expand(index.shape)

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
        return (
            f"{list(self.sequences)}, {self.size}, rule={self.rule!r}, normalise={self.normalise}, {self.mib:.1f} MiB"
        )
