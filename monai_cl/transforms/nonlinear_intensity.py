"""Intensities mapped by a random shallow network: another scanner, another sequence, the same anatomy."""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor
from torch import Tensor
from torch.nn import functional


class _Layer(NamedTuple):
    weight: Tensor  # (out, in, *kernel)
    bias: Tensor  # (out,)


class RandNonlinearIntensity(RandomizableTransform):
    r"""Map the intensities of an image by a random shallow network of convolutions, blended with the image.

    .. math:: h_0 = x, \quad h_l = \phi(w_l * h_{l-1} + b_l), \quad y = \alpha\, \mathrm{match}(h_L) + (1 - \alpha)\, x

    with weights and offsets from :math:`N(0, 1)`, kernels of a size drawn for each layer, LeakyReLU as :math:`\phi`
    (none after the last layer), :math:`\alpha \sim U(0, 1)`, and :math:`\mathrm{match}` giving a channel of the
    network's output the mean and the standard deviation of its channel of the image. Tissues may trade their order of
    brightness while borders stay where they are, so a network fine-tuned on one volume sees more than its contrast.
    The same network maps each channel by itself.

    The paper scales the blend to the Frobenius norm of the image instead, which keeps the range of images that are
    centred at zero alone.

    Args:
        prob: Probability of a change.
        layers: Number of layers :math:`L`.
        width: Channels between the layers.
        kernel_sizes: Edge lengths that kernels are drawn from: odd numbers of voxels.

    Raises:
        ValueError: If an option is out of range.

    References:
        Global intensity non-linear augmentation (GIN), arXiv 2111.12525.

    Example:
        >>> image = torch.linspace(0, 1, 64).reshape(1, 8, 8)
        >>> changed = RandNonlinearIntensity(prob=1.0).set_random_state(seed=0)(image)
        >>> changed.shape, bool((changed != image).any())
        (torch.Size([1, 8, 8]), True)
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self, prob: float = 0.1, *, layers: int = 4, width: int = 2, kernel_sizes: Sequence[int] = (1, 3)
    ) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must be between 0 and 1, got {prob!r}")
        if layers < 1 or width < 1:
            raise ValueError(f"layers and width must be at least 1, got {layers!r} and {width!r}")
        if not kernel_sizes or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd numbers of voxels, got {tuple(kernel_sizes)}")
        RandomizableTransform.__init__(self, prob)
        self.layers = layers
        self.width = width
        self.kernel_sizes = tuple(kernel_sizes)
        self.alpha = 0.0
        self.network: list[_Layer] = []

    def randomize(self, data: int) -> None:
        """Draw whether to change an image of so many spatial axes, and the network and its share."""
        super().randomize(None)
        if not self._do_transform:
            return
        self.alpha = float(self.R.uniform())
        channels = [1, *[self.width] * (self.layers - 1), 1]
        self.network = [self._layer(inside, out, data) for inside, out in itertools.pairwise(channels)]

    def _layer(self, inside: int, out: int, spatial_dims: int) -> _Layer:
        size = int(self.R.choice(self.kernel_sizes))
        weight = self.R.standard_normal((out, inside, *[size] * spatial_dims))
        bias = self.R.standard_normal(out)
        return _Layer(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        r"""Change an image (C, \*S), with one to three spatial axes."""
        image = convert_to_tensor(img, track_meta=get_track_meta())
        if randomize:
            self.randomize(image.ndim - 1)
        if not self._do_transform:
            return image
        plain: Tensor = convert_to_tensor(image, track_meta=False).float()
        changed = self.alpha * _match(self._mapped(plain), plain) + (1 - self.alpha) * plain
        return convert_to_dst_type(changed, dst=image, dtype=image.dtype)[0]

    def _mapped(self, image: Tensor) -> Tensor:
        convolution = (functional.conv1d, functional.conv2d, functional.conv3d)[image.ndim - 2]
        hidden = image[:, None]  # axes: channel of the image, channel of the network, space
        for number, (weight, bias) in enumerate(self.network, start=1):
            border = [side // 2 for side in weight.shape[2:] for _ in range(2)]
            hidden = functional.pad(hidden, border, mode="replicate")
            hidden = convolution(hidden, weight.to(hidden), bias.to(hidden))
            if number < self.layers:
                hidden = functional.leaky_relu(hidden)
        return hidden[:, 0]


def _match(image: Tensor, like: Tensor) -> Tensor:
    """Give each channel the mean and the standard deviation of its channel of another image; a flat one its mean."""
    axes = tuple(range(1, image.ndim))
    centred = image - image.mean(axes, keepdim=True)
    spread = centred.square().mean(axes, keepdim=True).sqrt()
    wanted = like.std(axes, keepdim=True, correction=0)
    scale = torch.where(spread > 1e-6 * (1 + wanted), wanted / spread.clamp_min(1e-12), 0.0)
    return like.mean(axes, keepdim=True) + centred * scale


class RandNonlinearIntensityd(RandomizableTransform, MapTransform):
    """Dictionary version of :class:`RandNonlinearIntensity`: the same network for all keys.

    Args:
        keys: Keys of the images.
        prob: As for :class:`RandNonlinearIntensity`.
        layers: As for :class:`RandNonlinearIntensity`.
        width: As for :class:`RandNonlinearIntensity`.
        kernel_sizes: As for :class:`RandNonlinearIntensity`.
        allow_missing_keys: Skip keys that an item lacks.

    Example:
        >>> item = {"image": torch.rand(1, 8, 8), "label": torch.ones(1, 8, 8)}
        >>> changed = RandNonlinearIntensityd("image", prob=1.0).set_random_state(seed=0)(item)
        >>> bool((changed["image"] != item["image"]).any()), bool((changed["label"] == item["label"]).all())
        (True, True)
    """

    backend = RandNonlinearIntensity.backend

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        *,
        layers: int = 4,
        width: int = 2,
        kernel_sizes: Sequence[int] = (1, 3),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.change = RandNonlinearIntensity(prob, layers=layers, width=width, kernel_sizes=kernel_sizes)
        RandomizableTransform.__init__(self, prob)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandNonlinearIntensityd":
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.change.set_random_state(state=self.R)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change the images under all keys."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        if keys:
            self.change.randomize(d[keys[0]].ndim - 1)
        for key in keys:
            d[key] = self.change(d[key], randomize=False)
        return d


RandNonlinearIntensityD = RandNonlinearIntensityDict = RandNonlinearIntensityd
