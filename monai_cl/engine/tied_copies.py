"""Fine-tuning on several copies of each image, whose dense features are tied to each other."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.engines import default_prepare_batch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

from monai_cl.engine.distributed import unwrap
from monai_cl.engine.selftraining_contrast import WithEmbedding
from monai_cl.networks import output_module


class TiedCopies(Inferer):
    r"""Take the copies of an image apart, run the network on each, and tie their features.

    .. math:: L = \frac{1}{2} \sum_c L_{seg}(p_c, y) + w\,\mathrm{MSE}(h_1, h_2)

    with :math:`p_c` the output for copy :math:`c` and :math:`h_c` what the network turns into classes, the map of its
    decoder (:func:`monai_cl.networks.output_module`). Copies follow each other along the axis of channels
    (:class:`monai_cl.transforms.RandChannelTemplateMixd`). Inferer, ``prepare_batch`` and :meth:`loss` of one object
    belong to one trainer. With one copy nothing is changed.

    Args:
        copies: Number of copies, 1 or 2.
        weight: Weight :math:`w`.
        inferer: Runs the network; MONAI's ``SimpleInferer`` when left out.

    Raises:
        ValueError: If an option is out of range, or channels cannot be parted into copies.

    References:
        BrainMVP, arXiv 2410.10604, with weight 0.1.
    """

    def __init__(self, copies: int = 2, weight: float = 0.1, inferer: Inferer | None = None) -> None:
        super().__init__()
        if copies not in (1, 2):
            raise ValueError(f"copies must be 1 or 2, got {copies!r}")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight must be at least 0, got {weight!r}")
        self.copies = copies
        self.weight = weight
        self.inferer = SimpleInferer() if inferer is None else inferer
        self._images: int | None = None
        self._tie: Tensor | None = None

    def prepare_batch(
        self, batch: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Any, Any]:
        r"""Images (copies B, C, \*S), all first copies before all second ones, and labels repeated alike."""
        image, label, *_ = default_prepare_batch(batch, device, non_blocking, **kwargs)
        return self.apart(image), self.repeated(label)

    def apart(self, image: Tensor) -> Tensor:
        r"""Copies of images (B, copies C, \*S) one after the other, (copies B, C, \*S), all first ones first.

        Raises:
            ValueError: If the channels do not part into copies.
        """
        if image.shape[1] % self.copies:
            raise ValueError(
                f"an image must have its channels {self.copies} times, got {image.shape[1]} channels; mix them with "
                "RandChannelTemplateMixd"
            )
        self._images = len(image)
        return torch.cat(image.chunk(self.copies, dim=1)) if self.copies > 1 else image

    def first(self, image: Tensor) -> Tensor:
        r"""First copies (B, C, \*S) of images (B, copies C, \*S)."""
        return image[:, : image.shape[1] // self.copies]

    def repeated(self, label: Tensor) -> Tensor:
        r"""Labels (B, 1, \*S) once for each copy, (copies B, 1, \*S)."""
        return label.repeat(self.copies, *[1] * (label.ndim - 1))

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Output of the network for all copies; how far their features are apart is kept for the loss."""
        self._tie = None
        if self.copies == 1 or self.weight == 0 or not isinstance(network, nn.Module):
            return self.inferer(inputs, network, *args, **kwargs)
        seen: list[Tensor] = []
        whole = unwrap(network)
        last = output_module(whole.network if isinstance(whole, WithEmbedding) else whole)
        handle = last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        try:
            output = self.inferer(inputs, network, *args, **kwargs)
        finally:
            handle.remove()
        # a batch may hold several groups of images, the copies of each side by side: B first ones, B second ones, ...
        groups = seen[0].float().split(self._images or len(seen[0]) // 2)
        self._images = None
        self._tie = (torch.cat(groups[::2]) - torch.cat(groups[1::2])).square().mean()
        return output

    def loss(self, loss: nn.Module) -> nn.Module:
        """The loss of the trainer: that of the segmentation, and the tie of the features it was made from."""
        return _TiedLoss(loss, self)

    def take_tie(self) -> Tensor | None:
        """Mean squared difference of the features of the last batch, once."""
        tie, self._tie = self._tie, None
        return tie


class _TiedLoss(nn.Module):
    def __init__(self, loss: nn.Module, copies: TiedCopies) -> None:
        super().__init__()
        self.inner = loss
        self.weight = copies.weight
        self._copies = copies

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = self.inner(output, target)
        tie = self._copies.take_tie()
        return loss if tie is None else loss + self.weight * tie
