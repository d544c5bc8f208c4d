"""Attraction between views of an image and repulsion between images, both weighted by how hard a pair is."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_cl.losses._anchored import require_choice
from monai_cl.losses._checks import require_finite, require_positive, require_shape
from monai_cl.losses._gather import find_ranks, gather_rows
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision, unit_rows


class CACRLoss(PlainLoss):
    r"""Contrastive attraction and contrastive repulsion (CACR) of several views of each image.

    With unit rows :math:`z_{vi}` of view :math:`v` of image :math:`i`, far positives and near negatives weigh more:

    .. math::
        L_+ &= \alpha \operatorname{mean}_{v,i} \sum_{u \ne v}
            \operatorname{softmax}_u\!\left(\tau_+ d^2_{vi,ui}\right) d^2_{vi,ui}, \qquad
            d^2_{vi,uj} = \lVert z_{vi} - z_{uj} \rVert^2 \\
        L_- &= -\beta \operatorname{mean}_{v \ne u,\,i} \sum_{j \ne i}
            \operatorname{softmax}_j\!\left(-\tau_- d^2_{vi,uj}\right) d^2_{vi,uj}, \qquad L = L_+ + L_-

    ``repulsion="rbf"`` has :math:`L_- = \beta \operatorname{mean}_{v \ne u} \log \operatorname{mean}_i \sum_j w_{ij}
    e^{-t d^2}` with the same weights :math:`w`. Both run over ordered pairs of views, so that their order has no
    effect. The debiased form of the published code is left out: subtracting the share of positives from the cost
    :math:`-\beta d^2` gives the opposite of its sign.

    ``form="momentum"`` contrasts queries :math:`q_v` with keys :math:`k` of a teacher, by default the last view
    without gradient, over the keys of the batch:

    .. math::
        L = 2T \operatorname{mean}_i \sum_v p_{vi} \operatorname{CE}(q_{vi} k^\top / T,\, i), \qquad
            p_{vi} = \operatorname{sg} \operatorname{softmax}_v\!\left(\lVert q_{vi} - k_i \rVert^2 / T\right)

    It is a mean over the batch; the Euclidean variant of the published code is a sum.

    Args:
        form: ``"inbatch"`` or ``"momentum"``.
        alpha: Weight of attraction :math:`\alpha`.
        beta: Weight of repulsion :math:`\beta`.
        tau_pos: :math:`\tau_+`; 0 weighs all views alike.
        tau_neg: :math:`\tau_-`, published as 0.9 (CIFAR-10) or 2 (CIFAR-100, STL-10); 0 weighs all images alike.
        repulsion: ``"distance"`` or ``"rbf"``.
        rbf_scale: :math:`t` of the RBF form.
        weighted: False has equal weights: plain alignment, and plain repulsion.
        detach_weights: Send no gradient through the weights; the published form does.
        temperature: :math:`T` of the momentum form, as in MoCo v2; not a value of the paper.
        gather: Take the images of all processes, with gradients; the value is then that of all processes.

    Shapes:
        ``views`` (V, N, D), at least two views of at least two images over all processes; ``keys`` (N, D), of the
        momentum form alone: with them all views are queries, and one is enough.

    Raises:
        ValueError: If shapes disagree, views or images are too few, or an option is unknown or out of range.
        NonFiniteError: If an embedding is NaN or infinite.

    References:
        Contrastive attraction and contrastive repulsion for representation learning, arXiv 2105.03746.

    Example:
        >>> views = torch.eye(4).repeat(3, 1, 1)  # three equal views of four images at right angles: d^2 is 0 or 2
        >>> CACRLoss()(views)
        tensor(-2.)
    """

    def __init__(
        self,
        form: str = "inbatch",
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        tau_pos: float = 1.0,
        tau_neg: float = 0.9,
        repulsion: str = "distance",
        rbf_scale: float = 2.0,
        weighted: bool = True,
        detach_weights: bool = False,
        temperature: float = 0.2,
        gather: bool = False,
    ) -> None:
        super().__init__()
        require_choice("form", form, ("inbatch", "momentum"))
        require_choice("repulsion", repulsion, ("distance", "rbf"))
        require_positive(rbf_scale=rbf_scale, temperature=temperature)
        for name, value in {"alpha": alpha, "beta": beta, "tau_pos": tau_pos, "tau_neg": tau_neg}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")
        self.form = form
        self.alpha, self.beta = alpha, beta
        self.tau_pos, self.tau_neg = tau_pos, tau_neg
        self.repulsion, self.rbf_scale = repulsion, rbf_scale
        self.weighted, self.detach_weights = weighted, detach_weights
        self.temperature = temperature
        self.gather = gather

    def forward(self, views: Tensor, keys: Tensor | None = None) -> Tensor:
        """Compute the loss of views (V, N, D), and of keys (N, D) in the momentum form."""
        self._check(views, keys)
        with fixed_precision(views):
            ranks = find_ranks(views[0], gather=self.gather)
            if sum(ranks.counts) < 2:
                raise ValueError(f"repulsion needs at least two images, got {sum(ranks.counts)}; use a larger batch")
            z = gather_rows(unit_rows(views).transpose(0, 1), ranks).transpose(0, 1)
            if self.form == "inbatch":
                return self.alpha * self._attraction(z) + self.beta * self._repulsion(z)
            if keys is None:
                return self._momentum(z[:-1], z[-1].detach())
            return self._momentum(z, gather_rows(unit_rows(keys.detach()), ranks))

    def _check(self, views: Tensor, keys: Tensor | None) -> None:
        if views.ndim != 3 or not views.is_floating_point() or len(views) < (1 if keys is not None else 2):
            raise ValueError(
                f"views must be floating point (V, N, D) of at least two views, got {views.dtype} {tuple(views.shape)}"
            )
        if keys is not None:
            if self.form != "momentum":
                raise ValueError("keys belong to form='momentum'; leave them out, or add them to views")
            require_shape("keys", keys, tuple(views.shape[1:]))
        require_finite(views=views, keys=keys)

    def _attraction(self, z: Tensor) -> Tensor:
        d = _squared(torch.einsum("vnd,und->nvu", z, z))  # n = image, v = query view, u = other view
        return self._weighed(d, self.tau_pos, d).mean()

    def _repulsion(self, z: Tensor) -> Tensor:
        d = _squared(torch.einsum("vnd,umd->vunm", z, z))  # n = image, m = other image
        apart = ~torch.eye(len(z), dtype=torch.bool, device=z.device)  # a view does not repel itself
        if self.repulsion == "distance":
            return -self._weighed(d, -self.tau_neg, d)[apart].mean()
        return self._weighed(d, -self.tau_neg, (-self.rbf_scale * d).exp()).mean(-1).log()[apart].mean()

    def _weighed(self, d: Tensor, scale: float, cost: Tensor) -> Tensor:
        """Mean of a cost over the last dimension but for the diagonal, by softmax(scale d)."""
        itself = torch.eye(d.shape[-1], dtype=torch.bool, device=d.device)
        weights = (d * scale if self.weighted else torch.zeros_like(d)).masked_fill(itself, -math.inf).softmax(-1)
        return ((weights.detach() if self.detach_weights else weights) * cost).sum(-1)

    def _momentum(self, queries: Tensor, keys: Tensor) -> Tensor:
        similarity = torch.einsum("vnd,md->vnm", queries, keys)  # n = image of the query, m = image of the key
        own = similarity.diagonal(dim1=1, dim2=2)
        # softmax over views
        p = (_squared(own) / self.temperature if self.weighted else torch.zeros_like(own)).softmax(0).detach()
        target = torch.arange(len(keys), device=keys.device).expand(len(queries), -1)
        cost = F.cross_entropy((similarity / self.temperature).flatten(0, 1), target.flatten(), reduction="none")
        return 2 * self.temperature * (p * cost.view_as(p)).sum(0).mean()


def _squared(cosine: Tensor) -> Tensor:
    """Squared distance of unit rows."""
    return (2 - 2 * cosine).clamp_min(0.0)
