"""Channels of an image replaced at random by the templates of their sequences, so that none of them is relied on."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from monai_cl.transforms.prepare_study import laid_on


class RandChannelTemplateMixd(Randomizable, MapTransform):
    r"""Replace 0 to ``max_channels`` random channels of an image by templates, ``copies`` times each by itself.

    The number of channels is drawn uniformly, then which. At least one channel stays. Templates lie with their centre
    on that of the volume, as :class:`monai_cl.transforms.RandStudyViews` has it, so volumes come whole, before a crop.
    The copies follow each other along the axis of channels, (copies C, \*S), so that whatever crops and turns an image
    does so to all of them alike; :class:`monai_cl.engine.TiedCopies` takes them apart.

    Args:
        keys: Keys of images (C, \*S).
        channels: Names of their channels.
        templates: Template of a sequence by name, (\*T); zeros if none exists.
        max_channels: Most channels that are replaced.
        copies: Number of copies.
        present_key: Key of the mask (C,) of channels that were measured, where an item has it: those that were not are
            filled already, and do not count as what stays.
        whole: Let the first copy keep all of its channels, as a teacher is to see them.
        allow_missing_keys: Skip keys that an item lacks.

    Raises:
        ValueError: If an option is out of range, or an image has other channels.

    References:
        BrainMVP, arXiv 2410.10604, with up to three of four channels and two copies.

    Example:
        >>> mix = RandChannelTemplateMixd("image", ["T1w", "FLAIR"], {}).set_random_state(seed=0)
        >>> mix({"image": torch.ones(2, 4, 4, 4)})["image"].shape
        torch.Size([4, 4, 4, 4])
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self,
        keys: KeysCollection,
        channels: Sequence[str],
        templates: Mapping[str, Tensor],
        max_channels: int = 3,
        copies: int = 2,
        *,
        present_key: str = "present",
        whole: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if max_channels < 0 or copies < 1:
            raise ValueError(
                f"max_channels must be at least 0 and copies at least 1, got {max_channels!r} and {copies!r}"
            )
        self.channels = tuple(channels)
        self.templates = dict(templates)
        self.max_channels = max_channels
        self.copies = copies
        self.present_key = present_key
        self.whole = whole

    def randomize(self, data: Sequence[bool]) -> list[list[int]]:
        """Draw the channels that each copy loses, of a mask of those that were measured."""
        measured_channels = [number for number, measured in enumerate(data) if measured]
        most = min(self.max_channels, len(measured_channels) - 1)
        lost = []
        for _ in range(self.copies):
            count = int(self.R.randint(most + 1)) if most > 0 else 0
            lost.append(sorted(int(n) for n in self.R.permutation(measured_channels)[:count]))
        return [[], *lost[1:]] if self.whole else lost

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw and replace; the same channels under all keys."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        if not keys:
            return d
        lost = self.randomize([bool(one) for one in d.get(self.present_key, [True] * len(self.channels))])
        for key in keys:
            d[key] = self.apply(d[key], lost)
        return d

    def apply(self, img: Any, lost: Sequence[Sequence[int]]) -> Tensor:
        r"""Copies of an image (C, \*S), each without the channels of a list of ``lost``."""
        image: Tensor = convert_to_tensor(img, track_meta=False)
        if len(image) != len(self.channels):
            raise ValueError(
                f"an image must have the {len(self.channels)} channels {list(self.channels)}, got {len(image)}"
            )
        copies = image.repeat(len(lost), *[1] * (image.ndim - 1))
        for copy, channels in enumerate(lost):
            for channel in channels:
                copies[copy * len(image) + channel] = self._template(self.channels[channel], image)
        return MetaTensor(copies).copy_meta_from(img) if isinstance(img, MetaTensor) else copies

    def _template(self, name: str, image: Tensor) -> Tensor:
        if name not in self.templates:
            return torch.zeros_like(image[0])
        return laid_on(self.templates[name], image.shape[1:]).to(image)


RandChannelTemplateMixD = RandChannelTemplateMixDict = RandChannelTemplateMixd
