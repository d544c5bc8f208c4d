"""Volume contrast: predict where in a volume a crop lies from its similarity to a grid of base crops."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_cl.losses._checks import require_finite, require_shape

EPS = 1e-6  # inside logarithms and in the denominators of the ratios
ZERO_OVERLAP = 1e-6  # a base overlapping less than this share of the crop counts as a negative
VARIANTS = ("monai_cl",)


class VolumeContrastLoss(nn.Module):
    r"""Similarity of a crop to each base crop should follow how much of it the base contains.

    With :math:`s_k = \cos(x, z_k)` the (signed) similarity of a crop :math:`x` to base :math:`z_k`, the overlap
    :math:`y_k` and the target :math:`t = y / \lVert y \rVert_2` that similarities to orthogonal bases can reach,

    .. math::
        L_{pos} &= \frac{\sum_{s,k} -y_k \log\left(1 - \frac{|t_k - s_k|}{1 + t_k} + \epsilon\right)}{\sum y}, \qquad
        L_{neg} = \operatorname{mean}_{y_k = 0} -\log(1 - \max(s_k, 0) + \epsilon) \\
        L_{reg} &= \frac{2}{K(K-1)} \sum_{i<j} \max(\cos(z_i, z_j), 0)^2

    and the consistency of a crop with the bases of a *partner* volume, whose targets are the teacher's clipped
    similarities :math:`q_k`: the same two terms with ``q`` for both ``y`` and ``t``. The total is
    :math:`w_{intra}(L_{pos} + L_{neg}) + w_{inter} L_{inter} + w_{reg} L_{reg}`, each a mean over volumes.

    Against the published forms: the cosine is not clipped before the positive term (a clipped one has no gradient
    below zero), the target is one that cosines can reach, and the regulariser sends gradient to every base.
    All arithmetic is in float32 whatever comes in.

    Args:
        variant: ``"monai_cl"``, the corrected form described above.
        intra_weight: Weight of the positive and negative terms.
        inter_weight: Weight of the consistency across volumes; 0 switches it off and allows a batch of one volume.
        regularizer_weight: Weight of the term that spreads the bases of a volume apart.

    Shapes:
        ``crops`` (B, S, D), ``bases`` (B, K, D), ``overlap`` (B, S, K); teacher tensors like their students.

    References:
        VoCo, arXiv 2402.17300; Large-scale 3-D pretraining with geometric context priors, arXiv 2410.09890.

    Example:
        >>> eye = torch.eye(4)[None]                       # four orthonormal bases
        >>> mixed = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]])   # a crop that lies half in each of two bases
        >>> parts = VolumeContrastLoss(inter_weight=0.0)(mixed, eye, mixed)
        >>> bool(parts["loss"].abs() < 1e-4)
        True
    """

    def __init__(
        self,
        variant: str = "monai_cl",
        *,
        intra_weight: float = 1.0,
        inter_weight: float = 1.0,
        regularizer_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
        for name, weight in (("intra", intra_weight), ("inter", inter_weight), ("regularizer", regularizer_weight)):
            if weight < 0:
                raise ValueError(f"{name}_weight must be at least 0, got {weight!r}")
        self.variant = variant
        self.intra_weight = intra_weight
        self.inter_weight = inter_weight
        self.regularizer_weight = regularizer_weight

    def forward(
        self,
        crops: Tensor,
        bases: Tensor,
        overlap: Tensor,
        teacher_crops: Tensor | None = None,
        teacher_bases: Tensor | None = None,
        partner: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss and its parts.

        Args:
            crops: Student embeddings of the random crops, (B, S, D).
            bases: Student embeddings of the base crops, (B, K, D).
            overlap: Share of each crop's volume inside each base, (B, S, K), rows summing to one.
            teacher_crops: Teacher embeddings of the crops; the student's own, detached, when left out.
            teacher_bases: Teacher embeddings of the bases; the student's own, detached, when left out.
            partner: For each volume the index of the volume it is compared with, (B,); a random derangement when
                left out.

        Returns:
            ``loss`` and its unweighted parts ``positive``, ``negative``, ``inter``, ``regularizer``, all 0-dim float32.

        Raises:
            ValueError: If shapes disagree, or a batch of one volume meets ``inter_weight > 0``.
            NonFiniteError: If an embedding or an overlap is NaN or infinite.
        """
        self._check(crops, bases, overlap, teacher_crops, teacher_bases)
        with torch.autocast(device_type=crops.device.type, enabled=False):
            x, z = _unit(crops), _unit(bases)
            x_t = x.detach() if teacher_crops is None else _unit(teacher_crops).detach()
            z_t = z.detach() if teacher_bases is None else _unit(teacher_bases).detach()
            y = overlap.float()
            positive, negative = intra_terms(x @ z_t.mT, y)
            parts = {"positive": positive, "negative": negative, "inter": x.new_zeros(())}
            if self.inter_weight > 0:
                j = random_derangement(len(x), device=x.device) if partner is None else partner
                parts["inter"] = inter_term(x @ z[j].mT, x_t @ z_t[j].mT)
            parts["regularizer"] = spread_term(z)
            loss = (
                self.intra_weight * (positive + negative)
                + self.inter_weight * parts["inter"]
                + self.regularizer_weight * parts["regularizer"]
            )
        return {"loss": loss, **parts}

    def _check(self, crops: Tensor, bases: Tensor, overlap: Tensor, tc: Tensor | None, tb: Tensor | None) -> None:
        if crops.ndim != 3 or bases.ndim != 3:
            raise ValueError(
                f"crops must be (B, S, D) and bases (B, K, D), got shapes {tuple(crops.shape)} and {tuple(bases.shape)}"
            )
        b, s, d = crops.shape
        require_shape("bases", bases, (b, bases.shape[1], d))
        require_shape("overlap", overlap, (b, s, bases.shape[1]))
        for name, teacher, student in (("teacher_crops", tc, crops), ("teacher_bases", tb, bases)):
            if teacher is not None:
                require_shape(name, teacher, tuple(student.shape))
        if self.inter_weight > 0 and b < 2:
            raise ValueError(
                f"the term across volumes needs at least two volumes in a batch, got {b}; "
                "use a larger batch or inter_weight=0"
            )
        require_finite(crops=crops, bases=bases, overlap=overlap, teacher_crops=tc, teacher_bases=tb)


def intra_terms(s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Positive and negative term of similarities ``s`` (B, S, K) against overlaps ``y``, each a mean over volumes."""
    t = F.normalize(y, dim=-1)  # unit length: the best that cosines to orthogonal bases can do
    return _weighted_distance(s, target=t, weight=y), _repulsion(s, y <= ZERO_OVERLAP)


def inter_term(p: Tensor, teacher_similarity: Tensor) -> Tensor:
    """Consistency of student similarities ``p`` (B, S, K) with the teacher's, clipped at zero."""
    q = teacher_similarity.relu().detach()
    return _weighted_distance(p, target=q, weight=q) + _repulsion(p, q == 0)


def spread_term(z: Tensor) -> Tensor:
    """Mean squared positive cosine between different bases of a volume; ``z`` (B, K, D) of unit length."""
    k = z.shape[1]
    if k < 2:
        return z.new_zeros(())
    gram = (z @ z.mT).relu().square()
    off_diagonal = gram.sum(dim=(1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(-1)
    return (off_diagonal / (k * (k - 1))).mean()


def random_derangement(n: int, device: torch.device | str = "cpu") -> Tensor:
    """A random permutation of ``range(n)`` that leaves no element in place (one random cycle), ``n >= 2``."""
    order = torch.randperm(n).to(device)
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=-1, eps=1e-8)


def _weighted_distance(s: Tensor, *, target: Tensor, weight: Tensor) -> Tensor:
    # 1 + target is the largest distance a cosine can have to the target, so the logarithm's argument stays in [0, 1]
    cost = -torch.log(1 - (target - s).abs() / (1 + target) + EPS)
    return ((weight * cost).sum(dim=(1, 2)) / (weight.sum(dim=(1, 2)) + EPS)).mean()


def _repulsion(s: Tensor, negative: Tensor) -> Tensor:
    cost = -torch.log(1 - s.relu() + EPS) * negative
    return (cost.sum(dim=(1, 2)) / (negative.sum(dim=(1, 2)) + EPS)).mean()
