"""Voxel position: predict the place in the volume of every voxel of a crop. Volume contrast for the decoder."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_cl.methods._dense_maps import pointwise
from monai_cl.methods.base import Method
from monai_cl.methods.extraction import FeatureExtractor, Maps
from monai_cl.methods.term import Term
from monai_cl.networks import resized


class VoxelPositionTerm(Term):
    r"""Regression of the place of each voxel, see :class:`VoxelPosition`.

    Args:
        key: Key of the views (B, V, C, \*S) in a batch.
        coords_key: Key of the places (B, V, n, \*S) in mm.
        valid_key: Key of their validity (B, V, \*S).
        scale: Distance in mm that counts as one; about a third of the width of a volume.
        beta: Where the loss turns from quadratic to linear, in units of ``scale``.
        hidden: Width of the perceptron.
        relative: Leave out the mean error over all views of a volume.

    Raises:
        ValueError: If an option is out of range.
    """

    needs = frozenset({"decoder"})

    def __init__(
        self,
        *,
        key: str = "image",
        coords_key: str = "coords",
        valid_key: str = "valid",
        scale: float = 20.0,
        beta: float = 0.1,
        hidden: int = 32,
        relative: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"scale": scale, "beta": beta, "hidden": hidden}.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0, got {value!r}")
        self.key = key
        self.coords_key = coords_key
        self.valid_key = valid_key
        self.scale = scale
        self.beta = beta
        self.hidden = hidden
        self.relative = relative
        self.head: nn.Module

    def build(self, network: nn.Module, maps: Maps) -> None:
        """Make the perceptron."""
        channels, dims = maps.decoder.shape[1], maps.decoder.ndim - 2
        self.head = nn.Sequential(
            pointwise(dims, channels, self.hidden), nn.LeakyReLU(), pointwise(dims, self.hidden, dims)
        )

    def forward(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of views, and ``position_error_mm``, the mean distance from the true places."""
        error, valid = self._errors(extract, batch)
        weight = valid[:, :, None].expand_as(error)
        count = weight.sum().clamp(min=1)
        loss = (F.smooth_l1_loss(error, torch.zeros_like(error), beta=self.beta, reduction="none") * weight).sum()
        distance = (error.detach().norm(dim=2) * valid).sum() / valid.sum().clamp(min=1)
        return loss / count, {"position_error_mm": distance * self.scale}

    def _errors(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Predicted minus true places (B, V, n, *S) in units of ``scale``, and which of them count (B, V, *S)."""
        image, valid = batch[self.key], batch[self.valid_key].float()
        error = self.predicted(extract, image) - batch[self.coords_key].float() / self.scale
        if self.relative:
            if image.shape[1] < 2:
                message = f"relative needs at least 2 views of each volume, got {image.shape[1]}"
                raise ValueError(f"{message}; raise num_views of RandViewsd")
            error = error - _mean(error, valid)
        return error, valid

    def predicted(self, extract: FeatureExtractor, image: Tensor) -> Tensor:
        r"""Places (B, V, n, \*S) of the voxels of views, in units of ``scale``."""
        maps = self.head(extract(image).decoder)
        # the decoder of some networks ends below the size of the image
        places: Tensor = resized(maps, image.shape[3:]).float().unflatten(0, image.shape[:2])
        return places

    def probe(self, extract: FeatureExtractor, batch: Mapping[str, Any]) -> Any:
        """Distances from the true places in mm (N,), and these places (N, n)."""
        error, valid = self._errors(extract, batch)
        coords = batch[self.coords_key].float()
        coords = coords - _mean(coords, valid) if self.relative else coords
        return error.norm(dim=2)[valid > 0] * self.scale, coords.movedim(2, -1)[valid > 0]

    def summary(self, records: Sequence[Any]) -> Mapping[str, float | Tensor]:
        """Distance from the truth at which voxels are put.

        Returns:
            ``position_error_mm``, the mean distance, and ``chance_error_mm``, the same if every voxel were put at the
            mean place of all of them.
        """
        distances, places = (torch.cat(each) for each in zip(*records, strict=True))
        chance = (places - places.mean(0)).norm(dim=1).mean()
        return {"position_error_mm": float(distances.mean()), "chance_error_mm": float(chance)}


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of (B, V, n, *S) over the valid voxels of all views of a volume: (B, 1, n, 1, ...)."""
    weight = valid[:, :, None]
    over = (1, *range(3, values.ndim))
    return (values * weight).sum(over, keepdim=True) / weight.sum(over, keepdim=True).clamp(min=1)


class VoxelPosition(Method):
    r"""Let encoder and decoder find the place of every voxel of a crop in its volume.

    .. math::
        L = \frac{1}{|V|\,n} \sum_{v \in V} \sum_{a=1}^{n}
            h\!\left(\frac{p_a(f(x))_v - (r_a(v) - c_a)}{s}\right), \qquad
        h(e) = \begin{cases} e^2 / 2\beta & |e| < \beta \\ |e| - \beta / 2 & \text{otherwise} \end{cases}

    with :math:`f` the features that the network turns into classes, :math:`p` a small perceptron in each voxel,
    :math:`r(v)` the place that voxel :math:`v` was taken from in mm, :math:`c` the centre of the volume and :math:`V`
    the voxels that are not padding. Volume contrast asks where a crop lies and teaches the encoder; this asks where
    each voxel lies and teaches the decoder as well. Views are turned and scaled, and changed in intensity, so that
    only anatomy identifies the place.

    Takes one view of each volume from :class:`monai_cl.transforms.RandViewsd` with ``unit="mm"`` and
    ``origin="centre"``. Scans of one study must show about the same region, or centres mean nothing; with
    ``relative=True`` (two views or more of each volume) only places relative to the other views of the volume count.

    Args:
        network: A MONAI encoder-decoder (see :func:`monai_cl.networks.network_features`).
        **options: Options of :class:`VoxelPositionTerm`.

    Raises:
        ValueError: If the network is unknown or an option is out of range.

    References:
        Volume contrast: VoCo, arXiv 2402.17300. Regression of places, for slices: Yan et al. 2018, arXiv 1707.03814
        (body part regression); for voxels: Lei et al. 2021, arXiv 2012.07043 (one-shot localisation from relative
        position).
    """

    tells_terms = False
    renamed: ClassVar[Mapping[str, tuple[str, ...]]] = {"head.": ("terms.place.head.",)}

    def __init__(self, network: nn.Module, **options: Any) -> None:
        super().__init__(network, {"place": VoxelPositionTerm(**options)})
