"""Voxel position: say for each voxel of a crop where in the volume it lies. Volume contrast for the decoder."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks import eval_mode
from torch import Tensor, nn

from monai_cl.methods._dense_maps import pointwise, reached
from monai_cl.methods.base import Method
from monai_cl.networks import network_features, resized


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
    anatomy is what tells the place.

    Takes one view of each volume from :class:`monai_cl.transforms.RandViewsd` with ``unit="mm"`` and
    ``origin="centre"``. Scans of one study must show about the same region, or centres mean nothing; with
    ``relative=True`` (two views or more of each volume) only places relative to the other views of the volume count.

    Args:
        network: A MONAI encoder-decoder (see :func:`monai_cl.networks.network_features`).
        key: Key of the views (B, V, C, \*S) in a batch.
        coords_key: Key of the places (B, V, n, \*S) in mm.
        valid_key: Key of their validity (B, V, \*S).
        scale: :math:`s`, the distance in mm that counts as one; about a third of the width of a volume.
        beta: Where the loss turns from quadratic to linear, in units of ``scale``.
        hidden: Width of the perceptron.
        relative: Leave out the mean error over all views of a volume.

    Raises:
        ValueError: If the network is unknown or an option is out of range.

    References:
        Volume contrast: VoCo, arXiv 2402.17300. Regression of places, for slices: Yan et al. 2018, arXiv 1707.03814
        (body part regression); for voxels: Lei et al. 2021, arXiv 2012.07043 (one-shot localisation from relative
        position).
    """

    def __init__(
        self,
        network: nn.Module,
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
        self.network = network
        self.key = key
        self.coords_key = coords_key
        self.valid_key = valid_key
        self.scale = scale
        self.beta = beta
        self.relative = relative
        decoder = reached(network, lambda features: [features.decoder]).decoder
        dims = decoder.ndim - 2
        self.head = nn.Sequential(
            pointwise(dims, decoder.shape[1], hidden), nn.LeakyReLU(), pointwise(dims, hidden, dims)
        )

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of views.

        Returns:
            ``loss``, and ``position_error_mm``, the mean distance between found and true places (not optimised); both
            0-dim float32.
        """
        error, valid = self._errors(batch)
        weight = valid[:, :, None].expand_as(error)
        count = weight.sum().clamp(min=1)
        loss = (F.smooth_l1_loss(error, torch.zeros_like(error), beta=self.beta, reduction="none") * weight).sum()
        distance = (error.detach().norm(dim=2) * valid).sum() / valid.sum().clamp(min=1)
        return {"loss": loss / count, "position_error_mm": distance * self.scale}

    def _errors(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Found minus true places (B, V, n, *S) in units of ``scale``, and which of them count (B, V, *S)."""
        image, valid = batch[self.key], batch[self.valid_key].float()
        error = self._found(image) - batch[self.coords_key].float() / self.scale
        if self.relative:
            if image.shape[1] < 2:
                found = f"relative needs at least 2 views of each volume, got {image.shape[1]}"
                raise ValueError(f"{found}; raise num_views of RandViewsd")
            error = error - _mean(error, valid)
        return error, valid

    def _found(self, image: Tensor) -> Tensor:
        maps = self.head(network_features(self.network, image.flatten(0, 1)).decoder)
        # the decoder of some networks ends below the size of the image
        places: Tensor = resized(maps, image.shape[3:]).float().unflatten(0, image.shape[:2])
        return places

    @torch.no_grad()
    def probe(self, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
        """How far from the truth voxels of volumes that are not trained on are put.

        Returns:
            ``position_error_mm``, the mean distance, and ``chance_error_mm``, the same if every voxel were put at the
            mean place of all of them.
        """
        distances, places = [], []
        with eval_mode(self):
            for batch in batches:
                error, valid = self._errors(batch)
                distances.append(error.norm(dim=2)[valid > 0] * self.scale)
                coords = batch[self.coords_key].float()
                coords = coords - _mean(coords, valid) if self.relative else coords
                places.append(coords.movedim(2, -1)[valid > 0])
        if not distances:
            return {}
        truth = torch.cat(places)
        chance = (truth - truth.mean(0)).norm(dim=1).mean()
        return {"position_error_mm": float(torch.cat(distances).mean()), "chance_error_mm": float(chance)}


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of (B, V, n, *S) over the valid voxels of all views of a volume: (B, 1, n, 1, ...)."""
    weight = valid[:, :, None]
    over = (1, *range(3, values.ndim))
    return (values * weight).sum(over, keepdim=True) / weight.sum(over, keepdim=True).clamp(min=1)
