"""Series of a study brought to one grid, by any recipe, and the sequences that are missing stood in for."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, ResampleToMatch
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_cl.io.maps.kinds import suffix_of
from monai_cl.qmri import from_weighted_rates, to_weighted_rates
from monai_cl.recipes import Intensities
from monai_cl.transforms.load import LoadVolume
from monai_cl.transforms.map_values import load_maps
from monai_cl.transforms.sample_series import MAPS, SEQUENCES

logger = logging.getLogger(__name__)

_SAME = 1e-3  # mm, up to which two affines are one


class PrepareStudy(Compose):
    r"""Prepare all series of a study by a recipe: the first by all of it, the others on the grid that this gives.

    Each further series is interpolated once, from its own grid onto the prepared one of the first (linear, zero
    outside), and then goes through the steps of the recipe that change intensities, by itself. So labels lie on the
    first series, and a prediction goes back onto it (:class:`monai.transforms.Invertd`). The log reports which series
    of a study lay on other grids; one that does not overlap the first is left out of the study, and named.

    Args:
        recipe: Chain from :func:`monai_cl.recipes.load`, over ``image`` and perhaps ``label``.
        channels: Names of the sequences that a network takes, in this order: ``image`` has one channel for each, and of
            several series of a name the first counts. A channel that a study lacks is filled with its template, or with
            zeros. All series in their own order when left out.
        templates: Template of each sequence by name, (\*T), whose centre is laid on that of the prepared volume.
        without: Channels that are filled as if they had not been measured, to see what their absence costs.
        maps: Quantitative maps that sequences are simulated from, of ``pd``, ``t1``, ``t2``, ``t2_star``, ``mtsat``;
            they are brought onto the grid as rates weighted by density (:func:`monai_cl.qmri.to_weighted_rates`).
        units: Units of maps by suffix, where sidecars have none (:func:`monai_cl.data.load_maps`).

    Returns:
        Items with ``image`` (N, \*S), ``sequences`` (the names of its channels); with ``channels``, ``present`` (N,),
        true where a channel was measured; and ``maps`` (M, \*S) of a study that has some on its series, if asked for.

    Raises:
        ValueError: If a series cannot be read, or a study has none of the channels.
    """

    def __init__(
        self,
        recipe: Compose,
        *,
        channels: Sequence[str] | None = None,
        templates: Mapping[str, Tensor] | None = None,
        without: Sequence[str] = (),
        maps: Sequence[str] = (),
        units: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(recipe.transforms)
        self.recipe = getattr(recipe, "recipe", None)
        self.channels = None if channels is None else tuple(channels)
        self.templates = dict(templates or {})
        if unknown := [name for name in without if name not in (self.channels or ())]:
            raise ValueError(f"without must name some of the channels {list(self.channels or ())}, got {unknown}")
        self.without = tuple(without)
        self.maps, self.units = tuple(maps), None if units is None else dict(units)
        self._load, self._intensities = LoadVolume(), Intensities(recipe)
        self._onto = ResampleToMatch(mode="bilinear", padding_mode="zeros")

    def __call__(self, input_: Any, *args: Any, **kwargs: Any) -> Any:
        """Prepare an item: ``image`` a list of files or DICOM series, with their names under ``sequences``.

        An item without names is one image, of the first channel.
        """
        if SEQUENCES not in input_:  # an image of its own, as other programs give it: of the first channel
            input_ = {**input_, "image": [input_["image"]], SEQUENCES: list(self.channels or ("unnamed",))[:1]}
        files, names = list(input_["image"]), list(input_[SEQUENCES])
        if self.channels is not None:
            files, names = self._wanted(files, names)
        item = super().__call__({**input_, "image": files[0]}, *args, **kwargs)
        first: Tensor = item["image"]
        series, kept, resampled, apart = [first], [names[0]], [], []
        for file, name in zip(files[1:], names[1:], strict=True):
            raw = self._load(file)
            image = self._onto(raw, first)
            if not bool((image != 0).any()):
                apart.append(name)
                continue
            if _on_another_grid(raw, first):
                resampled.append(name)
            series.append(self._intensities(image))
            kept.append(name)
        _say(str(input_.get("case", "a study")), names[0], resampled, apart)
        prepared = {**item, **self._stacked(series, kept)}
        if MAPS not in input_ or not self.maps:
            return prepared
        maps = self._maps(input_[MAPS], first)
        if bool((maps != 0).any()):
            return {**prepared, MAPS: maps}
        logger.warning(
            "%s: left out the maps, which have no voxel in common with the first series, %s",
            input_.get("case", "a study"), names[0],
        )  # fmt: skip
        return {key: value for key, value in prepared.items() if key != MAPS}

    def _maps(self, files: Mapping[str, Any], first: Tensor) -> MetaTensor:
        """Maps (M, *S) of a study on the grid of its first series."""
        chosen = {suffix: unit for suffix, unit in (self.units or {}).items() if suffix_of(suffix) in files}
        maps: MetaTensor = convert_to_tensor(load_maps(files, maps=self.maps, units=chosen), track_meta=True)
        rates = MetaTensor(to_weighted_rates(maps.as_tensor(), self.maps)).copy_meta_from(maps)
        there: MetaTensor = self._onto(rates, first)
        return MetaTensor(from_weighted_rates(there.as_tensor(), self.maps), affine=there.affine)

    def _wanted(self, files: Sequence[Any], names: Sequence[str]) -> tuple[list[Any], list[str]]:
        """First series of each wanted name; the order stays, since the first one has the label."""
        places = [names.index(name) for name in dict.fromkeys(names) if name in (self.channels or ())]
        if not places:
            raise ValueError(
                f"a study must have one of the sequences {list(self.channels or ())}, got {list(names)}; add its name "
                "to `sequences`, or a line to `sequence_names`"
            )
        return [files[place] for place in places], [names[place] for place in places]

    def _stacked(self, series: Sequence[Tensor], names: Sequence[str]) -> dict[str, Any]:
        first = series[0]
        plain = [torch.as_tensor(one).as_subclass(Tensor).float() for one in series]
        if self.channels is None:
            stack = torch.cat(plain)
            return {"image": MetaTensor(stack).copy_meta_from(first), SEQUENCES: list(names)}
        by_name = {name: one for name, one in zip(names, plain, strict=True) if name not in self.without}
        filled = [by_name[n] if n in by_name else self._missing(n, first) for n in self.channels]
        present = torch.tensor([name in by_name for name in self.channels])
        image = MetaTensor(torch.cat(filled)).copy_meta_from(first)
        return {"image": image, SEQUENCES: list(self.channels), "present": present}

    def _missing(self, name: str, like: Tensor) -> Tensor:
        if name not in self.templates:
            return torch.zeros(like.shape, dtype=torch.float32)
        return laid_on(self.templates[name], like.shape[1:])[None]


def laid_on(template: Tensor, size: Sequence[int]) -> Tensor:
    r"""A template (\*T), cut or padded with zeros about its centre to a size, as views of the pretraining see it.

    Example:
        >>> laid_on(torch.tensor([1.0, 2.0, 3.0, 4.0]), [2]), laid_on(torch.tensor([1.0]), [3])
        (tensor([2., 3.]), tensor([0., 1., 0.]))
    """
    result = torch.zeros(tuple(size), dtype=torch.float32)
    inside, source = [], []
    for side, whole in zip(size, template.shape, strict=True):
        first = (whole - side) // 2
        low, high = max(first, 0), min(first + side, whole)
        source.append(slice(low, high))
        inside.append(slice(low - first, high - first))
    result[tuple(inside)] = torch.as_tensor(template).as_subclass(Tensor).float()[tuple(source)]
    return result


def _on_another_grid(raw: Tensor, first: Tensor) -> bool:
    if not (isinstance(raw, MetaTensor) and isinstance(first, MetaTensor)):
        return False
    affine = torch.as_tensor(first.meta["original_affine"], dtype=torch.float64)
    shape = tuple(int(side) for side in first.meta["spatial_shape"])
    return tuple(raw.shape[1:]) != shape or not torch.allclose(raw.affine.double(), affine, rtol=0, atol=_SAME)


def _say(case: str, first: str, resampled: Sequence[str], apart: Sequence[str]) -> None:
    if resampled:
        logger.info("%s: %s resampled onto the grid of the first series, %s", case, ", ".join(resampled), first)
    if apart:
        logger.warning(
            "%s: left out %s, which %s no voxel in common with the first series, %s",
            case, ", ".join(apart), "has" if len(apart) == 1 else "have", first,
        )  # fmt: skip
