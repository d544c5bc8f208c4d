"""Curriculum of masks: patches that a score points at are hidden, more of them as training goes on."""

import math

import torch
from torch import Tensor


class CurriculumMask:
    r"""Choose patches to hide: the highest scores, and others at random until enough are hidden.

    With attention :math:`A` and error :math:`E` of the patches of an image, each brought from 0 to 1 within the image,

    .. math:: s = a A + (1 - a) E

    where :math:`a` rises along a half cosine with the progress of training. Of :math:`N` patches those with the
    :math:`\lfloor N m \rfloor` highest scores are hidden, :math:`m` rising linearly, and others at random until
    :math:`\lceil r N \rceil` are. Where one of the two is left out, the score is the other.

    Works on scores of patches or of tokens alike: a mask of a ViT, or of blocks of voxels.

    Args:
        mask_ratio: :math:`r`, share of the patches that is hidden, rounded up.
        guided: First and last value of :math:`m`; above ``mask_ratio``, more than that is hidden.
        attention_weight: First and last value of :math:`a`.

    Raises:
        ValueError: If an option is out of range; in use, if scores are missing or their shapes differ.

    References:
        OpenUS, from the formulas of its paper; the linear rise of :math:`m` is ours.

    Example:
        >>> mask = CurriculumMask(mask_ratio=0.5, guided=(0.5, 0.5))
        >>> mask(0.0, error=torch.tensor([[0.1, 0.9, 0.4, 0.8]])).tolist()
        [[False, True, False, True]]
    """

    def __init__(
        self,
        mask_ratio: float = 0.6,
        *,
        guided: tuple[float, float] = (0.1, 0.9),
        attention_weight: tuple[float, float] = (0.1, 0.9),
    ) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be between 0 and 1, got {mask_ratio!r}")
        for name, pair in (("guided", guided), ("attention_weight", attention_weight)):
            if len(pair) != 2 or not all(0 <= value <= 1 for value in pair):
                raise ValueError(f"{name} must be two numbers between 0 and 1, first and last, got {pair!r}")
        self.mask_ratio = mask_ratio
        self.guided = (float(guided[0]), float(guided[1]))
        self.attention_weight = (float(attention_weight[0]), float(attention_weight[1]))

    def __call__(
        self,
        progress: float,
        *,
        attention: Tensor | None = None,
        error: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Patches to hide, True (B, N).

        Args:
            progress: Share of training that is done, in [0, 1].
            attention: Attention to each patch (B, N), of any scale.
            error: Error of each patch (B, N), of any scale.
            generator: Source of the draws on the CPU; the global one of the device when left out.
        """
        score = self.score(progress, attention=attention, error=error)
        patches = score.shape[1]
        led = int(patches * self._at(self.guided, progress))
        number = max(math.ceil(self.mask_ratio * patches), led)
        if generator is None:
            drawn = torch.rand(score.shape, device=score.device)
        else:
            drawn = torch.rand(score.shape, generator=generator).to(score.device)
        first = torch.zeros_like(score, dtype=torch.bool).scatter_(1, score.topk(led).indices, True)
        chosen = torch.where(first, 2.0, drawn).topk(number).indices  # draws are below 1
        return torch.zeros_like(first).scatter_(1, chosen, True)

    def score(self, progress: float, *, attention: Tensor | None = None, error: Tensor | None = None) -> Tensor:
        """Scores (B, N) of the patches, see the class."""
        given = [each for each in (attention, error) if each is not None]
        if not given or given[0].ndim != 2 or any(each.shape != given[0].shape for each in given):
            shapes = [tuple(each.shape) for each in given]
            raise ValueError(f"attention, error or both must be given, (B, N) of one shape, got {shapes}")
        if attention is None or error is None:
            return _from_0_to_1(given[0])
        first, last = self.attention_weight
        share = last - (last - first) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
        return share * _from_0_to_1(attention) + (1 - share) * _from_0_to_1(error)

    @staticmethod
    def _at(ends: tuple[float, float], progress: float) -> float:
        return ends[0] + (ends[1] - ends[0]) * min(max(progress, 0.0), 1.0)


def _from_0_to_1(values: Tensor) -> Tensor:
    """Values (B, N) from 0 to 1 in each row; zeros where all are alike."""
    precise = values.detach().float()
    low, high = precise.amin(1, keepdim=True), precise.amax(1, keepdim=True)
    return (precise - low) / (high - low).clamp(min=1e-12)
