"""Crops of a study whose sequences vary: one series to restore, another of the same patient, and the place."""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from monai_cl._words import suggestion
from monai_cl.qmri import Family, Protocol
from monai_cl.transforms._mr_image import coarse, scanner_axes
from monai_cl.transforms.intensity_change import IntensityChange
from monai_cl.transforms.mr_contrast import RandMRContrast
from monai_cl.transforms.sample_series import MAPS, SEQUENCES, SampleSeriesd


class RandStudyViews(Randomizable, Transform):
    r"""A crop of one series of a study, the same crop of another, differently named one, and where it lies.

    Of the study ``k`` series are drawn (:class:`SampleSeriesd`), of these the one to restore, each as likely; of those
    of another name the donor. A series of the same name is never a donor: two T1-weighted images of a patient teach
    nothing about another sequence. A study with one sequence alone has no donor, and records it.

    Args:
        sequences: Names that have a template, whose numbers go into a batch.
        crop_size: Edge lengths of the crop in voxels; smaller volumes are padded with zeros.
        template_size: Size of the templates in voxels. The centre of a prepared volume lies on their centre: ``place``
            is the first voxel of the crop in the template, which may lie beyond it.
        k: Series that are drawn of a study.
        simulate: Simulates a sequence from quantitative maps, which is then a donor in the place of a measured one. Of
            its families those of the target's own weighting (``t1w_mprage`` for ``T1w``) are left out.
        simulated: Probability of that, for studies that have maps.
        intensities: Array transform that brings a simulated image to the intensities of the others. Those are of whole
            volumes: it is applied to a coarse image of the whole study, and the crop is changed as that was.

    Returns:
        A dictionary: ``target`` and ``donor`` (1, \*crop_size), ``has_donor``, ``sequence`` (the number of the target's
        name) and ``place`` (nd,).

    Raises:
        ValueError: If an option is out of range, or a study has a sequence without a template.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self,
        sequences: Sequence[str],
        crop_size: Sequence[int],
        template_size: Sequence[int],
        *,
        k: int = 4,
        simulate: RandMRContrast | None = None,
        simulated: float = 0.5,
        intensities: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if len(set(sequences)) != len(sequences) or not sequences:
            raise ValueError(f"sequences must be one name or several, each once, got {list(sequences)}")
        if len(crop_size) != len(template_size) or min(*crop_size, *template_size) < 1:
            raise ValueError(
                "crop_size and template_size must have the same axes, each of at least 1 voxel, got "
                f"{tuple(crop_size)} and {tuple(template_size)}"
            )
        if not 0 <= simulated <= 1:
            raise ValueError(f"simulated must be a probability between 0 and 1, got {simulated!r}")
        self.sequences = tuple(sequences)
        self.crop_size = tuple(crop_size)
        self.template_size = tuple(template_size)
        self.series = SampleSeriesd("series", k)
        self.simulate = simulate
        self.simulated = simulated
        self.intensities = intensities

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "RandStudyViews":
        """Seed this transform and what it draws with."""
        super().set_random_state(seed, state)
        self.series.set_random_state(state=self.R)
        if self.simulate is not None:
            self.simulate.set_random_state(state=self.R)
        return self

    def randomize(self, data: tuple[Sequence[str], Sequence[int], bool]) -> dict[str, Any]:
        """Draw series and place for the names of a study's series, its size, and whether it has maps."""
        names, size, has_maps = data
        drawn = self.series.randomize(len(names))
        target = drawn[int(self.R.randint(len(drawn)))]
        others = [number for number in drawn if names[number] != names[target]]
        donor = others[int(self.R.randint(len(others)))] if others else None
        start = [
            int(self.R.randint(side - crop + 1)) if side > crop else -((crop - side) // 2)
            for side, crop in zip(size, self.crop_size, strict=True)
        ]
        contrast, simulate = None, self._simulator(names[target]) if has_maps else None
        if simulate is not None and self.R.random_sample() < self.simulated:
            contrast = dict(simulate.randomize(self.crop_size))
        return {"target": target, "donor": donor, "start": start, "contrast": contrast}

    def __call__(self, img: Tensor | np.ndarray, names: Sequence[str], maps: Tensor | None = None) -> dict[str, Tensor]:
        r"""Draw views of the series (N, \*S) of a study with their names, and its maps (M, \*S) where it has some."""
        return self.apply(img, names, self.draw(img, names, maps), maps)

    def draw(self, img: Tensor | np.ndarray, names: Sequence[str], maps: Tensor | None = None) -> dict[str, Any]:
        """Check a study, and draw a record of its views."""
        if len(names) != len(img):
            raise ValueError(f"each series must have a name, got {len(img)} series and {len(names)} names")
        if len(img.shape) - 1 != len(self.crop_size):
            raise ValueError(
                f"crop_size must have the {len(img.shape) - 1} axes of the volumes, got {self.crop_size}; "
                "give one number for each axis"
            )
        return self.randomize((names, img.shape[1:], maps is not None))

    def apply(
        self, img: Tensor | np.ndarray, names: Sequence[str], record: Mapping[str, Any], maps: Tensor | None = None
    ) -> dict[str, Tensor]:
        r"""The views that ``record`` describes."""
        images: Tensor = convert_to_tensor(img, track_meta=False)
        target = self._cut(images[record["target"], None], record["start"])
        donor = torch.zeros_like(target)
        if record["contrast"] is not None and maps is not None:
            donor = self._simulated(maps, record)
        elif record["donor"] is not None:
            donor = self._cut(images[record["donor"], None], record["start"])
        pairs = zip(record["start"], images.shape[1:], self.template_size, strict=True)
        return {
            "target": target,
            "donor": donor,
            "has_donor": torch.tensor(record["donor"] is not None or record["contrast"] is not None),
            "sequence": torch.tensor(self._number(names[record["target"]])),
            "place": torch.tensor([start + (whole - side) // 2 for start, side, whole in pairs]),
        }

    def _simulator(self, target: str) -> RandMRContrast | None:
        """Simulator of sequences of another weighting than that of a target, with the same source of randomness."""
        if self.simulate is None:
            return None
        result = copy.copy(self.simulate)
        result.sequences = tuple(one for one in result.sequences if _weighting(one) != _spelt(target))
        return result if result.sequences else None

    def _number(self, name: str) -> int:
        if name not in self.sequences:
            hint = suggestion(name, list(self.sequences), form="did you mean {!r}? ")
            raise ValueError(f"sequence {name!r} has no template; {hint}those that have are {list(self.sequences)}")
        return self.sequences.index(name)

    def _cut(self, image: Tensor, start: Sequence[int]) -> Tensor:
        """The crop of an image (C, *S), zero where it reaches beyond."""
        cut = image.new_zeros(image.shape[0], *self.crop_size)
        inside, source = [slice(None)], [slice(None)]
        for first, crop, side in zip(start, self.crop_size, image.shape[1:], strict=True):
            low, high = max(first, 0), min(first + crop, side)
            source.append(slice(low, high))
            inside.append(slice(low - first, high - first))
        cut[tuple(inside)] = image[tuple(source)]
        return cut

    def _simulated(self, maps: Tensor, record: Mapping[str, Any]) -> Tensor:
        if self.simulate is None:
            raise ValueError("simulate must be given for a record with a simulated donor, it is None")
        whole = convert_to_tensor(maps, track_meta=True)
        crop = MetaTensor(self._cut(whole.as_tensor(), record["start"]), affine=scanner_axes(whole))
        image: Tensor = convert_to_tensor(self.simulate.apply(crop, record["contrast"]), track_meta=False)
        if self.intensities is not None:
            change = IntensityChange.of_subject(
                self.simulate.apply, coarse(whole), record["contrast"], self.intensities
            )
            image = change(image)
        return image.float()


def _weighting(sequence: Family | Protocol) -> str:
    name = sequence.family if isinstance(sequence, Protocol) else sequence.name
    return _spelt(name.partition("_")[0])


def _spelt(name: str) -> str:
    """One spelling of a weighting: ``t1w`` and ``T1w`` and ``T1``, or ``t2sw`` and ``T2starw``."""
    return name.casefold().replace("star", "s").removesuffix("w")


class RandStudyViewsd(Randomizable, MapTransform):
    r"""Dictionary version of :class:`RandStudyViews`: series (N, \*S) under each key become its dictionary of views.

    Args:
        keys: Keys of the series of a study.
        sequences: As for :class:`RandStudyViews`.
        crop_size: As for :class:`RandStudyViews`.
        template_size: As for :class:`RandStudyViews`.
        names_key: Key of the names of the series.
        maps_key: Key of quantitative maps (M, \*S) on the grid of the series, where a study has some.
        allow_missing_keys: Skip keys that an item lacks.
        options: Further ones of :class:`RandStudyViews`.
    """

    backend = RandStudyViews.backend

    def __init__(
        self,
        keys: KeysCollection,
        sequences: Sequence[str],
        crop_size: Sequence[int],
        template_size: Sequence[int],
        *,
        names_key: str = SEQUENCES,
        maps_key: str = MAPS,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names_key = names_key
        self.maps_key = maps_key
        self.views = RandStudyViews(sequences, crop_size, template_size, **options)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandStudyViewsd":
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.views.set_random_state(state=self.R)
        return self

    def randomize(self, data: Any = None) -> None:
        """Nothing by itself: :class:`RandStudyViews` draws."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with views in the place of its series, the same ones for all keys."""
        d = dict(data)
        record: Mapping[str, Any] | None = None
        for key in self.key_iterator(d):
            if self.names_key not in d:
                raise ValueError(
                    f"an item must hold the names of its series as {self.names_key!r}, got {sorted(map(str, d))}"
                )
            names, maps = d[self.names_key], d.get(self.maps_key)
            if record is None:
                record = self.views.draw(d[key], names, maps)
            d[key] = self.views.apply(d[key], names, record, maps)
        return d


RandStudyViewsD = RandStudyViewsDict = RandStudyViewsd
