"""Views of the same anatomy in two patients."""

import copy
import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from monai_cl import weights as weight_files
from monai_cl.data.loading.faults import unreadable
from monai_cl.data.loading.prepared import PreparedDataset
from monai_cl.data.loading.sampling import Draw, Fault, ViewDataset, collate_views
from monai_cl.data.pairs.anatomy import Anatomy, anatomy_of, crop_around
from monai_cl.data.pairs.correspondence import BodyBoxes, Correspondence
from monai_cl.data.pairs.embedding import EmbeddingMatches
from monai_cl.data.pairs.registration import AffineRegistration

logger = logging.getLogger(__name__)

KINDS = ("box", "registration", "embedding")
_NAMED = 20  # pairs of volumes whose rejected matches the log names; all are counted
_PAIRS = 0x9A125  # sets the draws of pairs apart from those of the views


class NoMatchError(ValueError):
    """Error of a volume without a match in another patient."""


class AnatomicalPairs(ViewDataset):
    r"""Pairs of crops of two patients around the same anatomy, as two views of one item.

    An index is ``(item, seed)``: points of the body of the volume are drawn, another patient's volume, and the places
    that show the same there; the first match that is accepted gives the two crops. Rejected matches are counted in
    ``rejected`` and never used: after them come other points, then other patients, and if none exists another
    volume takes the place of the item, as for one that cannot be read. The log names the pairs of volumes.

    Args:
        volumes: Prepared items of at least two patients (``subject``, else ``case``).
        transform: Random dictionary transform of each crop by itself, of intensities alone: it must not move voxels.
        size: Edge lengths of a crop in voxels. Volumes should have one spacing.
        correspondence: ``"box"`` (:class:`BodyBoxes`), ``"registration"`` (:class:`AffineRegistration`),
            ``"embedding"`` (:class:`EmbeddingMatches`), or an object that matches as these do.
        keys: Parts of the result that go into a batch, beside ``case``.
        key: Key of the image.
        group_key: Field of the datalist: partners come from the same group.
        points: Points that are tried in each patient.
        attempts: Patients that are tried.
        network: Pretrained network, for ``"embedding"``.
        weights: File of its weights; as it is when left out.
        options: Options of the correspondence, such as ``threshold``; those that are ``None`` are left as they are.

    Returns:
        ``image`` (2, C, \*S), both patients; ``coords`` (2, n, \*S), places in mm relative to the two points that
        match; ``valid`` (2, \*S), False beyond a volume; ``likeness`` of the match; ``rejected``, the number of
        matches before it; ``partner``, the name of the second volume.

    Raises:
        ValueError: If fewer than two patients are given, or an option is out of range.
        NoMatchError: While drawing, if no volume has a match in another one.

    References:
        Alice, Jiang et al. 2023 (ICCV).
    """

    def __init__(
        self,
        volumes: Any,
        transform: Randomizable,
        *,
        size: Sequence[int],
        correspondence: str | Correspondence = "box",
        keys: Sequence[str] = ("image", "coords", "valid", "likeness", "rejected"),
        key: str = "image",
        group_key: str | None = None,
        points: int = 16,
        attempts: int = 4,
        network: nn.Module | None = None,
        weights: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(volumes, transform, keys=keys, group_key=group_key)
        if points < 1 or attempts < 1:
            raise ValueError(f"points and attempts must be at least 1, got {points!r} and {attempts!r}")
        self.size = tuple(size)
        self.correspondence = correspondence if isinstance(correspondence, str) else type(correspondence).__name__
        self.key = key
        self.points = points
        self.attempts = attempts
        self.rejected: Counter[tuple[str, str]] = Counter()
        self._met: list[Fault] = []
        self._anatomies: list[Anatomy | None] = []
        self._anatomies += [self._anatomy(index) for index in range(len(volumes))]
        self._partners = [self._others(index) for index in range(len(volumes))]
        if not any(self._partners):
            raise ValueError(
                f"pairs need volumes of at least two patients{' of one group' if group_key else ''}, got "
                f"{len(volumes)} volumes; add further patients, or `subject` to the entries of the datalist"
            )
        given = {name: value for name, value in (options or {}).items() if value is not None}
        self._correspond: Correspondence = (
            self._made(correspondence, network, weights, given) if isinstance(correspondence, str) else correspondence
        )

    def __getitem__(self, index: Draw) -> dict[str, Any]:
        item, seed = index
        rng = np.random.default_rng([_PAIRS, seed])
        first = (
            self._stored(item) if self._anatomies[item] is not None else self.data[item]
        )  # whose error gives the reason
        place, partner, second, match, likeness, rejected = self._pair(item, rng)
        made: dict[str, Any] = {"likeness": torch.tensor(likeness), "rejected": torch.tensor(rejected)}
        views = [self._view(first, item, place, rng)]
        try:
            views.append(self._view(second, partner, match, rng))
        except Exception as error:
            if not self._note(partner, error):
                raise
            raise NoMatchError(f"{self._name(partner)} could not be read") from None
        made |= {name: torch.stack([view[name] for view in views]) for name in ("image", "coords", "valid")}
        made |= {"partner": self._name(partner)}
        result = {**{k: v for k, v in first.items() if k not in made and k != self.key}, **made}
        return {**{name: result[name] for name in self.keys}, "case": self._name(item)}

    def __getitems__(self, indices: Sequence[Draw]) -> list[dict[str, Any]]:
        """Pairs of a batch; each of its items carries the faults met on the way, those of partners included."""
        self._met = []
        return [{**views, "faults": [*views["faults"], *self._met]} for views in super().__getitems__(indices)]

    def _views(self, item: int, seed: int, taken: set[int], faults: list[Fault]) -> dict[str, Any]:
        unmatched: dict[int, str] = {}
        for candidate in self._candidates(item, seed):
            if candidate in unmatched or (candidate != item and candidate in taken):
                continue
            try:
                return super()._views(candidate, seed, taken, faults)
            except NoMatchError as error:
                unmatched[candidate] = str(error)
        listed = "\n".join(f"  {reason}" for reason in list(unmatched.values())[:10])
        raise NoMatchError(
            f"a batch needs {len(taken)} volumes with a match in another patient, no further one has any; lower the "
            f"threshold, take another correspondence, or leave volumes out that show another part:\n{listed}"
        )

    def _pair(self, item: int, rng: np.random.Generator) -> tuple[Tensor, int, dict[str, Any], Tensor, float, int]:
        """Point of a volume, a partner, its volume, the place in it, their likeness, and how many were rejected."""
        own, rejected, best = self._anatomies[item], 0, -1.0
        tried = rng.permutation(self._partners[item])[: self.attempts].tolist() if own is not None else []
        for partner in tried:
            volume = self._readable(partner)
            if own is None or volume is None:
                continue
            points = own.points[rng.integers(len(own.points), size=self.points)]
            matches = self._correspond(item, partner, points)
            accepted = matches.accepted.nonzero()[:, 0]
            number = int(accepted[0]) if len(accepted) else len(points)
            self._reject(item, partner, number)
            rejected += number
            best = max(best, float(matches.likeness.max()))
            if len(accepted):
                return (
                    points[number],
                    partner,
                    volume,
                    matches.places[number],
                    float(matches.likeness[number]),
                    rejected,
                )
        raise NoMatchError(
            f"{self._name(item)}: {rejected} matches in {len(tried)} other volumes were rejected, the best had a "
            f"likeness of {best:.2f}"
        )

    def _view(self, item: Mapping[str, Any], index: int, place: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        anatomy = self._anatomies[index]
        if anatomy is None:
            raise NoMatchError(f"{self._name(index)} could not be read")
        centre = place.round().long()
        crop, valid = crop_around(item[self.key], centre, self.size, fill=anatomy.minimum)
        self.transform.set_random_state(seed=int(rng.integers(2**32)))
        changed: Any = self.transform({self.key: crop})
        image: Tensor = convert_to_tensor(changed[self.key], track_meta=False)
        if image.shape[1:] != self.size:
            raise ValueError(
                f"the transform of pairs must leave voxels where they are, it made {tuple(image.shape[1:])} of "
                f"{self.size}; leave crops, flips and turns out of it"
            )
        axes = [torch.arange(n) + int(c) - n // 2 for n, c in zip(self.size, centre, strict=True)]
        voxels = torch.stack(torch.meshgrid(*axes, indexing="ij")).float()
        column = (-1, *(1,) * len(self.size))  # n numbers beside (n, *S)
        coords = (voxels - place.float().reshape(column)) * anatomy.spacing.reshape(column)
        return {"image": image.float(), "coords": coords, "valid": valid}

    def _name(self, item: int) -> str:
        known = self._anatomies[item] if item < len(self._anatomies) else None
        return super()._name(item) if known is None else known.case

    def _reject(self, item: int, partner: int, number: int) -> None:
        if not number:
            return
        pair = (self._name(item), self._name(partner))
        if pair not in self.rejected and len(self.rejected) < _NAMED:
            logger.warning("left out %d matches of %s in %s; `rejected` counts all of them", number, *pair)
        self.rejected[pair] += number

    def _anatomy(self, index: int) -> Anatomy | None:
        try:
            return anatomy_of(self.data[index], key=self.key, case=self._name(index))
        except Exception as error:
            if unreadable(error) is None:
                raise
            return None  # it is counted when its turn comes

    def _others(self, index: int) -> list[int]:
        own = self._anatomies[index]
        groups: Sequence[Hashable] = self.groups or [None] * len(self._anatomies)
        return [
            other
            for other, anatomy in enumerate(self._anatomies)
            if own is not None and anatomy is not None and anatomy.subject != own.subject
            and groups[other] == groups[index]
        ]  # fmt: skip

    def _readable(self, partner: int) -> dict[str, Any] | None:
        """A partner's volume, or ``None`` once its fault is noted."""
        if partner not in self._unreadable:
            try:
                return self._stored(partner)
            except Exception as error:
                if not self._note(partner, error):
                    raise
        self._met.append(self._unreadable[partner])
        return None

    def _note(self, partner: int, error: Exception) -> bool:
        """Note that a partner cannot be read; False if the error is another."""
        reason = unreadable(error)
        if reason is not None:
            self._unreadable[partner] = (self._name(partner), reason)
            self._met.append(self._unreadable[partner])
        return reason is not None

    def _stored(self, index: int) -> dict[str, Any]:
        """An item; of a volume that is on disk only the crop is read."""
        read = getattr(self.data, "stored", self.data.__getitem__)
        return dict(read(index))

    def _made(
        self, kind: str, network: nn.Module | None, weights: str | None, options: dict[str, Any]
    ) -> Correspondence:
        if kind not in KINDS:
            raise ValueError(f"correspondence must be one of {KINDS}, got {kind!r}")
        if kind == "box":
            if options:
                raise ValueError(f"body boxes have no options, got {sorted(options)}; take another correspondence")
            return BodyBoxes(self._anatomies)
        if kind == "registration":
            return AffineRegistration(self.data, self._anatomies, key=self.key, **options)
        if network is None or (weights is None and weight_files.receipt_of(network) is None):
            raise ValueError(
                "correspondence by embedding needs a pretrained encoder: give a network and the file of its weights "
                "(`--match_weights models/pretrained_dense.pt`), or start from one"
            )
        embedder = copy.deepcopy(network)
        if weights is not None:
            weight_files.transfer(embedder, weights)
        return EmbeddingMatches(self.data, self._anatomies, embedder, key=self.key, **options)


def pair_batches(
    items: Sequence[dict[str, Any]],
    preparation: Any,
    views: Randomizable,
    *,
    batch_size: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    **options: Any,
) -> list[dict[str, Any]]:
    """Batches of pairs of ``items``, drawn once, to look at a representation with.

    Volumes without a match are named and left out; with fewer than two patients left, no batch is drawn.

    Args:
        items: Items to probe with.
        preparation: Deterministic transform of an item.
        views: Random transform of each crop; its draws are fixed by ``seed``.
        batch_size: Volumes a batch.
        seed: Seed of the draws.
        rank: This process's number among ``world_size`` ones, which share the items.
        world_size: Number of processes.
        **options: Options of :class:`AnatomicalPairs`.
    """
    patients: dict[Any, set[Any]] = {}  # by group
    for item in items[rank::world_size]:
        group = None if options.get("group_key") is None else item.get(options["group_key"])
        patients.setdefault(group, set()).add(item.get("subject", item.get("case")))
    if not any(len(of_group) > 1 for of_group in patients.values()):
        return []
    volumes = PreparedDataset(items, preparation, max_faults=0.5, rank=rank, world_size=world_size)
    pairs = AnatomicalPairs(volumes, views, **options)
    samples = []
    for index in range(len(volumes)):
        try:
            samples.append(pairs[index, seed + index])
        except NoMatchError as error:
            logger.warning("left out of the probe: %s", error)
    return [collate_views(samples[start : start + batch_size]) for start in range(0, len(samples), batch_size)]
