"""Voxel position: say for each voxel of a crop where in the volume it lies. Volume contrast for the decoder."""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from monai_cl.methods.base import Method
from monai_cl.methods.voxel_position_term import VoxelPositionTerm


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

    tells_terms = False
    renamed: ClassVar[Mapping[str, tuple[str, ...]]] = {"head.": ("terms.place.head.",)}

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
        term = VoxelPositionTerm(
            key=key, coords_key=coords_key, valid_key=valid_key, scale=scale, beta=beta, hidden=hidden,
            relative=relative,
        )  # fmt: skip
        super().__init__(network, {"place": term})
