"""Global contrast of slices or slabs by the partition of the volume they come from."""

import torch
from torch import Tensor

from monai_cl.losses._anchored import AnchoredLoss, require_choice
from monai_cl.losses._checks import require_finite, require_shape, require_whole
from monai_cl.losses._directed import Pairs, contrast
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._rows import fixed_precision, require_rows, unit_rows

SCALES = {"mean": {"gd": 1.0, "gd-": 1.0}, "tf1": {"gd": 4.0, "gd-": 2.0}, "paper": {"gd": 2.0, "gd-": 2.0}}


class PartitionContrastiveLoss(AnchoredLoss):
    r"""Contrast of images by partition: others repel; the same partition of other volumes is neutral or attracts.

    .. math::
        L = \operatorname{mean}_{(a, p)} \left[-\log \frac{e^{s_{ap}}}
            {e^{s_{ap}} + \sum_{k:\, q_k \ne q_a} e^{s_{ak}}}\right]

    over ordered pairs, with :math:`s` the cosines over the temperature and :math:`q` the partition. Positives of
    :math:`a` are the other views of its image and, in the mode ``"gd"``, the same view of the same partition in other
    volumes. Rows may come in any order and number, and partitions may be any integers.

    Args:
        mode: ``"gd"`` or ``"gd-"``.
        temperature: Divisor of the cosine similarities.
        gather: Take positives and negatives from all processes, with gradients; ids must then be unique over all
            processes.
        pairs: Of ``"gd"``: ``"all"`` pairs of volumes, or ``"ring"``, each volume with the next one by its id, where
            the other view of an image counts twice, as published.
        scale: ``"mean"``; ``"paper"``, twice that, a sum of both directions over unordered pairs; or ``"tf1"``, the
            published code's, the sum over its number of images: twice the mean for ``"gd-"`` with three views, four
            times for ``"gd"`` with a ring of two views.
        reduction: ``"mean"``; ``"sum"`` over ordered pairs; or ``"none"``, the mean of each row, 0 for a skipped one.

    Shapes:
        ``z`` (N, D); ``partition``, ``image_id``, ``volume_id``, ``view_id`` (N,) integers.

    Raises:
        ValueError: If shapes disagree or an option is unknown.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        Contrastive learning of global and local features, arXiv 2006.10511.

    Example:
        >>> z, zero = torch.eye(2)[[0, 1, 0, 1]], torch.zeros(4, dtype=torch.long)
        >>> partition, view = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
        >>> bool(PartitionContrastiveLoss("gd-")(z, partition, partition, zero, view) < 1e-3)
        True
    """

    def __init__(
        self,
        mode: str = "gd",
        temperature: float = 0.1,
        gather: bool = False,
        *,
        pairs: str = "all",
        scale: str = "mean",
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature, gather=gather, reduction=reduction)
        require_choice("mode", mode, ("gd", "gd-"))
        require_choice("pairs", pairs, ("all", "ring"))
        require_choice("scale", scale, tuple(SCALES))
        self.mode = mode
        self.pairs = pairs
        self.scale = scale

    def extra_repr(self) -> str:
        """The form."""
        return f"{self.mode!r}, pairs={self.pairs!r}, scale={self.scale!r}, {super().extra_repr()}"

    def forward(self, z: Tensor, partition: Tensor, image_id: Tensor, volume_id: Tensor, view_id: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            z: Embeddings, (N, D).
            partition: Partition of each row, (N,).
            image_id: The image that a row is a view of, (N,).
            volume_id: The volume that the image is from, (N,).
            view_id: Kind of view, (N,): 0 for the image as it is, 1 for the first change, ...
        """
        require_rows(z=z)
        ids = {"partition": partition, "image_id": image_id, "volume_id": volume_id, "view_id": view_id}
        for name, tensor in ids.items():
            require_shape(name, tensor, (len(z),))
        require_whole(**ids)
        require_finite(z=z)
        with fixed_precision(z):
            ranks, z = find_ranks(z, gather=self.gather), unit_rows(z)
            keys, mark = gather_rows(z, ranks), torch.stack([tensor.long().to(z.device) for tensor in ids.values()], 1)
            marks = gather_rows(mark, ranks)
            if self.mode == "gd" and self.pairs == "ring":  # from ids to places in the ring
                volumes, marks[:, 2] = marks[:, 2].unique(return_inverse=True)
                number_of_volumes = len(volumes)
            else:
                number_of_volumes = 0
            own, number = marks[ranks.start : ranks.start + len(z)], torch.arange(len(keys), device=z.device)

            def pairs(rows: Tensor) -> Pairs:
                other = number != (ranks.start + rows)[:, None]
                return self._pairs(own[rows, None], marks, other, number_of_volumes)

            costs = contrast(z, keys, pairs, temperature=self.temperature, softplus=True)
            return self.reduce(costs, ranks) * SCALES[self.scale][self.mode]

    def _pairs(self, mine: Tensor, theirs: Tensor, other: Tensor, number_of_volumes: int) -> Pairs:
        part, image, volume, view = (mine[..., i] == theirs[:, i] for i in range(4))
        views = image & other
        if self.mode == "gd-":
            return Pairs(views, ~part)
        across = part & ~volume & view
        if self.pairs == "all":
            return Pairs(views | across, ~part)
        step = (theirs[:, 2] - mine[..., 2]) % max(number_of_volumes, 1)
        links = (step == 1).long() + (step == number_of_volumes - 1).long()  # next one, and next one to it
        return Pairs(2 * views.long() + links * across, ~part)
