"""MR images of a drawn sequence, simulated from quantitative maps: maps in, one contrast out."""

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from monai_cl._words import suggestion
from monai_cl.qmri import FAMILIES, Family, Protocol, draw_protocol, protocol_from_dict, tissue
from monai_cl.qmri.fields import HIGHEST, LOWEST
from monai_cl.qmri.sampling import family
from monai_cl.qmri.tissues import NAMES
from monai_cl.transforms._mr_image import FIELDS, simulated
from monai_cl.transforms.mr_artefacts import MRArtefacts
from monai_cl.transforms.mr_record import MRRecord

MAPS = ("pd", "t1", "t2", "t2_star", "mtsat")
_SEEDS = 2**32


class RandMRContrast(Randomizable, Transform):
    r"""Simulate one MR image from quantitative maps, with a sequence and a protocol drawn anew at each call.

    A family is drawn from ``sequences``, a protocol that can be played out from the family, and the signal equation of
    :mod:`monai_cl.qmri` gives the image in every voxel. Draws (:meth:`randomize`) are plain numbers apart from
    arithmetic (:meth:`apply`): a record replays exactly, also after a detour by JSON.

    **T2 missing.** Sequences with spin echoes need T2. Without a T2 map one is drawn from a prior of the tissue under
    $R_2 \le R_2^*$, and the record notes it under ``t2``; T2* never takes its place.

    **Partial volume.** With ``fractions`` $f_t$ the signals of tissues are mixed in voxels in which no tissue reaches
    ``purity``, $S = |\sum_t f_t S_t + S_r|$. $S_t$ comes from the medians of the maps over the purest voxels of the
    tissue. $S_r$ is the signal of what the fractions leave of the voxel, such as a lesion or another tissue that is not
    listed: by its density $\rho_r = \rho - \sum_t f_t \rho_t$, limited to that of $1 - \sum_t f_t$ of a voxel, and the
    times with which it and the listed tissues give the voxel's own maps, see
    :func:`monai_cl.qmri.remainder.remaining_maps`. So voxels without any listed tissue keep the signal of their own
    maps, as purer ones than ``purity`` do, and nothing is added where the fractions add up to 1 or the rest is air.
    Without maps (``maps=()``) the properties of each tissue are drawn from the table at the field strength, one subject
    a call, and what fractions leave gives no signal.

    Args:
        sequences: Names of families (keys of ``monai_cl.qmri.FAMILIES``), families of your own, or fixed protocols,
            each as likely as another. All families that the maps allow when left out, with a warning where that is a
            single one.
        maps: Names of the channels: ``pd`` (any unit), ``t1``, ``t2``, ``t2_star`` (seconds), ``mtsat`` (fraction);
            also ``b1`` (measured transmit field, 1 is nominal) and ``b0`` (field offset in Hz).
        fractions: Names of tissues (``white_matter``, ``grey_matter``, ``csf``, ...) whose fractions, 0 to 1, follow
            the maps as further channels.
        purity: Fraction from which a voxel counts as one tissue.
        field_strength: Field in tesla, 1.5 to 7, at which the maps were measured. Tissues without maps are drawn at
            1.5, 3 or 7.
        **artefacts: Probabilities and sizes of transmit, offset and receive fields, thick slices, coarse resolution,
            Gibbs rings, motion, ghosts and noise: the attributes of :class:`MRArtefacts`, all off by default.

    Returns:
        Image (1, *S), float32 or float64 as the maps, a MetaTensor where metadata are tracked. Its ``meta`` is that
        of the maps and ``mr_protocol``, which :func:`monai_cl.qmri.simulate` takes, and ``mr_simulation``, the whole
        record, which :meth:`apply` takes.

    Raises:
        ValueError: If a name is unknown, a sequence needs a map that is missing, the field is outside the tables of
            tissues, the channels do not fit, fractions are outside 0 to 1, relaxation times are not in seconds or
            saturation is not a fraction.

    Note:
        Maps are taken as they are; voxels with a relaxation time that is not positive and finite give 0.
        :func:`monai_cl.data.load_maps` reads maps in these units and limits them to what physics allows. The field
        offset acts on balanced SSFP alone: susceptibility weighting sees local fields, after background removal.

    Source:
        Partial volume in the signal: ``monai_cl.qmri.mixing``; idea of simulated contrasts as views:
        Chalcroft et al., arXiv 2501.12057.

    Example:
        >>> brain = [tissue(name).typical() for name in ("white_matter", "grey_matter", "csf")]
        >>> maps = torch.tensor([[getattr(t, name) for t in brain] for name in MAPS]).reshape(5, 3, 1, 1)
        >>> transform = RandMRContrast(["t1w_mprage"]).set_random_state(seed=0)
        >>> image = transform(maps)
        >>> image.meta["mr_protocol"]["family"], bool((image[0, :, 0, 0].diff() < 0).all())
        ('t1w_mprage', True)
        >>> bool((transform.apply(maps, image.meta["mr_simulation"]) == image).all())
        True
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's contract

    def __init__(
        self,
        sequences: Sequence[str | Family | Protocol] | None = None,
        maps: Sequence[str] = MAPS,
        *,
        fractions: Sequence[str] = (),
        purity: float = 0.95,
        field_strength: float = 3.0,
        **artefacts: Any,
    ) -> None:
        self.artefacts = MRArtefacts(**artefacts)
        self.maps = _known("maps", maps, (*MAPS, *FIELDS))
        self.fractions = _known("fractions", fractions, NAMES)
        self.purity = purity
        self.field_strength = float(field_strength)
        if not LOWEST <= self.field_strength <= HIGHEST:
            raise ValueError(
                f"field_strength must be {LOWEST:g} to {HIGHEST:g} tesla, where the tables of tissues hold, got "
                f"{field_strength!r}"
            )
        for name in self.fractions if self._tissues_drawn else ():
            tissue(name, self.field_strength)  # raises between the fields of the table
        if not 0.5 < purity <= 1:
            raise ValueError(f"purity must be above 0.5 and at most 1, got {purity!r}")
        if not set(self.maps) - set(FIELDS) and not self.fractions:
            raise ValueError("maps may be empty only where fractions name tissues to draw; got neither")
        self.sequences = self._playable(sequences)

    def _playable(self, sequences: Sequence[str | Family | Protocol] | None) -> tuple[Family | Protocol, ...]:
        if isinstance(sequences, str):
            raise ValueError(f"sequences must be a list of names, got the text {sequences!r}; write [{sequences!r}]")
        wanted = FAMILIES.values() if sequences is None else sequences
        chosen = [family(one) if isinstance(one, str) else one for one in wanted]
        lacking = {one: self._lacking(one) for one in chosen}
        short = {one: names for one, names in lacking.items() if names}
        if sequences is None:
            chosen = [one for one in chosen if not lacking[one]]
        elif short:
            which = {_called(one): names for one, names in short.items()}
            raise ValueError(
                f"sequences must be playable with the maps {self.maps}, but maps are missing: {which}; "
                "leave the sequences out or give the maps (T2 is drawn where t1 and t2_star are given)"
            )
        if not chosen:
            remedy = f"; {_further_maps(short)}" if short else "; leave them out for all that the maps allow"
            raise ValueError(f"sequences must hold at least one that the maps {self.maps} allow, got none{remedy}")
        if sequences is None and len(chosen) == 1:
            raise ValueError(
                f"maps must allow more than one sequence to draw from, {self.maps} allow {_called(chosen[0])} alone; "
                f"{_further_maps(short)}, or name it in sequences"
            )
        return tuple(chosen)

    def _lacking(self, one: Family | Protocol) -> list[str]:
        if self._tissues_drawn:
            return []
        example = one if isinstance(one, Protocol) else one.draw(np.random.RandomState(0))
        drawable = {"t2"} if {"t1", "t2_star"} <= set(self.maps) else set()
        return sorted(set(example.maps) - set(self.maps) - drawable)

    @property
    def _tissues_drawn(self) -> bool:
        return not set(self.maps) & set(MAPS)

    def randomize(self, data: Sequence[int]) -> MRRecord:
        """Draw everything for maps with spatial shape ``data``.

        Args:
            data: Spatial shape.

        Returns:
            The record: ``protocol``, and what else was drawn.
        """
        one = self.sequences[self.R.randint(len(self.sequences))]
        if not isinstance(one, Protocol):
            one = draw_protocol(one, self.R, field_strength=self.field_strength)
        record = MRRecord(protocol=one.to_dict(), field_strength=self.field_strength)
        if self._tissues_drawn:
            values = {name: tissue(name, self.field_strength).draw(self.R) for name in self.fractions}
            record["tissues"] = {t: {m: float(getattr(v, m)) for m in MAPS} for t, v in values.items()}
        elif "t2" in one.maps and "t2" not in self.maps:
            record["t2"] = {"seed": int(self.R.randint(_SEEDS, dtype=np.uint32))}
        record["artefacts"] = self.artefacts.draw(self.R, len(data), self.field_strength)
        return record

    def __call__(self, img: Tensor | np.ndarray) -> Tensor:
        """Draw a record for ``img`` (M, *S) and apply it."""
        return self.apply(img, self.randomize(tuple(img.shape[1:])))

    def apply(self, img: Tensor | np.ndarray, record: Mapping[str, Any]) -> Tensor:
        """Image of ``img`` (M, *S) that ``record`` describes.

        Args:
            img: Maps, and fractions after them, channel-first.
            record: From :meth:`randomize` or ``meta["mr_simulation"]``; a protocol alone, ``meta["mr_protocol"]``,
                gives the image without anything else that was drawn.

        Returns:
            Image (1, *S); see :class:`RandMRContrast`.

        Raises:
            ValueError: If the channels or the record do not fit.
        """
        full: dict[str, Any] = copy.deepcopy({"protocol": dict(record)} if "sequence" in record else dict(record))
        protocol = protocol_from_dict(full["protocol"])
        data = convert_to_tensor(img, track_meta=False)
        data = data if data.dtype == torch.float64 else data.float()
        spacing = img.pixdim.tolist() if isinstance(img, MetaTensor) else [1.0] * (data.ndim - 1)
        maps, shares = self._channels(data)
        image = simulated(
            protocol, full, maps, shares, purity=self.purity, field_strength=self.field_strength,
            spacing=[*spacing, 1.0, 1.0],
        )[None]  # fmt: skip
        if not get_track_meta():
            return image
        result = MetaTensor(image)
        if isinstance(img, MetaTensor):
            result.copy_meta_from(img)
        result.meta["mr_protocol"] = MRRecord(full["protocol"])
        result.meta["mr_simulation"] = MRRecord(full)
        done: Tensor = result
        return done

    def apply_batch(self, batch: Tensor, records: Sequence[Mapping[str, Any]]) -> Tensor:
        """Images of a batch of maps on their device, each by its own record: equal to :meth:`apply` one by one.

        A method that pretrains draws the records (``[transform.randomize(shape) for _ in batch]``) and simulates on the
        GPU what the loader has cropped. No metadata are kept, and the images are differentiable in the maps.

        Args:
            batch: Maps (B, M, *S), fractions after them.
            records: B records or protocols, as :meth:`apply` takes them.

        Returns:
            Images (B, 1, *S).

        Raises:
            ValueError: If the number of records differs from that of items, or as :meth:`apply`.
        """
        if batch.ndim < 3 or len(batch) != len(records):
            raise ValueError(
                f"batch must be of shape (B, M, *S) with one record for each of the B items, got shape "
                f"{tuple(batch.shape)} and {len(records)} records"
            )
        images = [self.apply(maps, record) for maps, record in zip(batch, records, strict=True)]
        return torch.stack([image.as_subclass(Tensor) for image in images])

    def _channels(self, data: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Maps and fractions by name."""
        names = (*self.maps, *self.fractions)
        if data.ndim < 2 or len(data) != len(names):
            raise ValueError(
                f"img must be channel-first with the {len(names)} channels {names}, got shape {tuple(data.shape)}"
            )
        maps = dict(zip(self.maps, data, strict=False))
        if not self.fractions:
            return maps, {}
        fractions = data[len(self.maps) :]
        low, high = (float(v) for v in fractions.aminmax())
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ValueError(f"fractions must be between 0 and 1, got {low:.4g} to {high:.4g}")
        return maps, dict(zip(self.fractions, fractions.clamp(0, 1), strict=True))


def _called(one: Family | Protocol) -> str:
    return getattr(one, "name", "") or type(one).__name__


def _further_maps(lacking: Mapping[Family | Protocol, Sequence[str]]) -> str:
    """Maps that would allow further sequences, the fewest maps first."""
    allowed: dict[tuple[str, ...], list[str]] = {}
    for one, names in lacking.items():
        allowed.setdefault(tuple(names), []).append(_called(one))
    remedies = (f"{' and '.join(names)} for {', '.join(allowed[names])}" for names in sorted(allowed, key=len))
    return f"add maps: {'; '.join(remedies)} (T2 is drawn where t1 and t2_star are given)"


def _known(argument: str, names: Sequence[str], allowed: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names without repetition, each of those allowed."""
    if isinstance(names, str):
        raise ValueError(f"{argument} must be a list of names, got the text {names!r}; write [{names!r}]")
    for name in names:
        if allowed is not None and name not in allowed:
            hint = suggestion(name, allowed, form="; did you mean {!r}?")
            raise ValueError(f"{argument} must be of {tuple(allowed)}, got {name!r}{hint}")
    if len(set(names)) < len(names):
        raise ValueError(f"{argument} must not repeat a name, got {tuple(names)}")
    return tuple(names)


class RandMRContrastd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandMRContrast`: the maps under each key are replaced by a simulated image.

    All keys share one record, so maps of one subject on several grids give the same contrast. For two contrasts of one
    subject copy the maps and use the transform once a key.

    Args:
        keys: Keys of maps (M, *S).
        sequences: As in :class:`RandMRContrast`, which takes all further arguments.
        maps: Names of the channels.
        fractions_key: Key of tissue fractions (T, *S), where they are apart from the maps; the names of the tissues
            are given by ``fractions``.
        allow_missing_keys: Skip keys that an item lacks.
        **kwargs: Further arguments of :class:`RandMRContrast`.

    Raises:
        ValueError: As :class:`RandMRContrast`, and if ``fractions_key`` comes without ``fractions``.
        KeyError: If an item lacks a key.

    Example:
        >>> transform = RandMRContrastd("maps", ["t1w_se"]).set_random_state(seed=0)
        >>> transform({"maps": torch.ones(5, 4, 4, 4)})["maps"].shape
        torch.Size([1, 4, 4, 4])
    """

    backend = RandMRContrast.backend

    def __init__(
        self,
        keys: KeysCollection,
        sequences: Sequence[str | Family | Protocol] | None = None,
        maps: Sequence[str] = MAPS,
        *,
        fractions_key: str | None = None,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.contrast = RandMRContrast(sequences, maps, **kwargs)
        self.fractions_key = fractions_key
        if fractions_key is not None and not self.contrast.fractions:
            raise ValueError(f"fractions must name the tissues under fractions_key {fractions_key!r}, got none")

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandMRContrastd":
        """Seed this transform and the array transform it owns."""
        super().set_random_state(seed, state)
        self.contrast.set_random_state(seed, state)
        return self

    def randomize(self, data: Sequence[int]) -> MRRecord:
        """Draw one record for all keys."""
        return self.contrast.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the maps under each key by an image."""
        d = dict(data)
        present = list(self.key_iterator(d))
        if not present:
            return d
        record = self.randomize(tuple(d[present[0]].shape[1:]))
        for key in present:
            d[key] = self.contrast.apply(self._joined(d, key), record)
        return d

    def _joined(self, d: Mapping[Hashable, Any], key: Hashable) -> Any:
        if self.fractions_key is None:
            return d[key]
        maps, fractions = (convert_to_tensor(d[k], track_meta=False) for k in (key, self.fractions_key))
        if maps.shape[1:] != fractions.shape[1:]:
            raise ValueError(
                f"{key!r} and {self.fractions_key!r} must have one spatial shape, got {tuple(maps.shape[1:])} and "
                f"{tuple(fractions.shape[1:])}; resample them to one grid first"
            )
        joined = torch.cat([maps, fractions.to(maps)])
        return MetaTensor(joined).copy_meta_from(d[key]) if isinstance(d[key], MetaTensor) else joined


RandMRContrastD = RandMRContrastDict = RandMRContrastd
