"""Bounds of a variational autoencoder whose code has a part that patients alone have."""

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_cl.losses._checks import require_finite, require_shape
from monai_cl.losses._gather import Ranks, find_ranks, sum_over
from monai_cl.losses._plain import PlainLoss
from monai_cl.losses._rows import fixed_precision, require_rows
from monai_cl.losses.sep_clr import require_weak_labels


class SepVAELoss(PlainLoss):
    r"""Restoration and prior of a code that is common to all, and of a salient one that patients alone have.

    For images :math:`x`, restored as :math:`\hat x`, with normal codes :math:`q(c|x)` and :math:`q(s|x)` of means
    :math:`\mu` and variances :math:`\sigma^2`,

    - ``reconstruction``: the mean over images and voxels of :math:`(x - \hat x)^2`;
    - ``common_divergence``: the mean over images of :math:`D_{KL}(q(c|x) \,\|\, N(0, 1))`;
    - ``salient_divergence``: the same of :math:`q(s|x)` over patients;
    - ``healthy_salient``: the mean over the healthy of :math:`\lVert \mu_s \rVert^2 / 2`, which pulls them to 0;
    - ``classifier``: the cross-entropy of a logit of the salient code with healthy (0) and patient (1).

    A divergence is a sum over dimensions, and the restoration a mean over voxels: weights of the former are small
    numbers, :math:`\beta` of the paper over the number of voxels. A mean over no images is 0.

    Args:
        common_weight: :math:`\beta_c`.
        salient_weight: :math:`\beta_s`.
        healthy_weight: Weight of ``healthy_salient``.
        classifier_weight: Weight of ``classifier``.
        gather: Means are over the images of all processes.

    Shapes:
        ``restored``, ``image`` (N, C, \*S); ``common_mean``, ``common_log_variance`` (N, D); ``salient_mean``,
        ``salient_log_variance`` (N, S); ``logit`` (N,); ``labels`` (N,), 0 or 1.

    Returns:
        ``loss`` and its parts before they are weighted, 0-dim.

    Raises:
        ValueError: If shapes disagree, a label is neither 0 nor 1, or a weight is negative.
        NonFiniteError: If a tensor is NaN or infinite.

    References:
        SepVAE: a contrastive VAE to separate pathological patterns from healthy ones, arXiv 2307.06206.

    Example:
        >>> image, code, label = torch.zeros(2, 1, 4, 4), torch.zeros(2, 3), torch.tensor([0, 1])
        >>> SepVAELoss(classifier_weight=0.0)(image, image, code, code, code, code, torch.zeros(2), label)["loss"]
        tensor(0.)
    """

    def __init__(
        self,
        common_weight: float = 1e-4,
        salient_weight: float = 1e-4,
        *,
        healthy_weight: float = 0.1,
        classifier_weight: float = 0.1,
        gather: bool = False,
    ) -> None:
        super().__init__()
        weights = {
            "common_divergence": common_weight,
            "salient_divergence": salient_weight,
            "healthy_salient": healthy_weight,
            "classifier": classifier_weight,
        }
        for name, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"the weight of {name} must be at least 0, got {weight!r}")
        self.weights = {"reconstruction": 1.0, **weights}
        self.gather = gather

    def forward(
        self,
        restored: Tensor,
        image: Tensor,
        common_mean: Tensor,
        common_log_variance: Tensor,
        salient_mean: Tensor,
        salient_log_variance: Tensor,
        logit: Tensor,
        labels: Tensor,
    ) -> dict[str, Tensor]:
        """Compute the terms of N images."""
        require_shape("restored", restored, tuple(image.shape))
        means = {"common_mean": common_mean, "salient_mean": salient_mean}
        variances = {"common_log_variance": common_log_variance, "salient_log_variance": salient_log_variance}
        require_rows(**means, **variances)
        for mean, (name, variance) in zip(means.values(), variances.items(), strict=True):
            require_shape(name, variance, (len(image), mean.shape[1]))
        require_shape("logit", logit, (len(image),))
        require_weak_labels(labels, len(image))
        require_finite(restored=restored, image=image, **means, **variances)
        with fixed_precision(image):
            ranks = find_ranks(image, gather=self.gather)
            patients = labels.to(image.device) == 1
            every = torch.ones_like(patients)
            restored, image, logit = (_full(x) for x in (restored, image, logit))
            error = (restored - image).square().flatten(1).mean(1)
            length = _full(salient_mean).square().sum(1) / 2
            cross_entropy = F.binary_cross_entropy_with_logits(logit, patients.to(logit.dtype), reduction="none")
            terms = {
                "reconstruction": _mean(error, every, ranks),
                "common_divergence": _mean(divergence(common_mean, common_log_variance), every, ranks),
                "salient_divergence": _mean(divergence(salient_mean, salient_log_variance), patients, ranks),
                "healthy_salient": _mean(length, ~patients, ranks),
                "classifier": _mean(cross_entropy, every, ranks),
            }
            return {"loss": torch.stack([self.weights[n] * term for n, term in terms.items()]).sum(), **terms}


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Divergence of a normal code from the standard one, (N,): half the sum of mu^2 + sigma^2 - 1 - log sigma^2."""
    mean, log_variance = _full(mean), _full(log_variance)
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


def _mean(values: Tensor, which: Tensor, ranks: Ranks) -> Tensor:
    """Mean over the marked images of all processes, 0 without any; the gradient is that of this process."""
    local = (values * which).sum()
    total, number = sum_over(torch.stack([local, which.sum().to(local.dtype)]), ranks).unbind()
    number = number.clamp_min(1)
    mine = local * (ranks.world / number)
    return mine if ranks.world == 1 else mine + (total / number - mine).detach()


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
