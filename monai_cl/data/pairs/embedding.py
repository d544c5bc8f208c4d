"""Correspondence by the nearest neighbour in the dense embedding of an encoder."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from monai_cl.data.pairs.anatomy import Anatomy
from monai_cl.data.pairs.correspondence import BodyBoxes, Matches, body, inside
from monai_cl.networks import encoder_features, encoder_stride, resized


def match_points(queries: Tensor, keys: Tensor, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Most similar of all cells of a volume, for many points in one product.

    .. math:: \hat y_i = \arg\max_y\, q_i \cdot k_y

    Args:
        queries: Embeddings of points (P, D), at unit length.
        keys: Embeddings of the cells (V, D), at unit length.
        allowed: True for cells that a point may be matched with (P, V); all when left out.

    Returns:
        Index of the cell (P,) and the cosine (P,), minus infinity where no cell is allowed.

    Example:
        >>> index, likeness = match_points(torch.eye(3)[[2, 0]], torch.eye(3))
        >>> index.tolist(), likeness.tolist()
        ([2, 0], [1.0, 1.0])
    """
    every = queries @ keys.T
    likeness, index = (every if allowed is None else every.masked_fill(~allowed, -torch.inf)).max(1)
    return index, likeness


class EmbeddingMatches:
    r"""Places whose embedding is the nearest one in the second volume, where it is near enough.

    An encoder embeds each volume once, on a grid of cells of ``step`` voxels. Of each level, features are standardised
    over the bodies of all volumes, since those of an encoder are alike everywhere, and brought to unit length; likeness
    is the mean of the cosines of a fine and a coarse level,

    .. math:: s(p, q) = \tfrac{1}{2}\left(\cos(f_p, f_q) + \cos(g_p, g_q)\right)

    and the place is :math:`\arg\max_q s(p, q)` over the whole volume. Below the threshold nothing matches. With
    ``back`` the place must lead back: its own nearest neighbour in the first volume lies within so many mm. With
    ``within`` only cells so many mm around the place that body boxes guess (:class:`BodyBoxes`) are looked at.

    Takes ``4 D / step^3`` bytes a voxel for :math:`D` features of both levels.

    Args:
        volumes: Prepared volumes, by index.
        anatomies: Their bodies.
        network: A pretrained network that :func:`monai_cl.networks.encoder_features` knows; it is copied.
        key: Key of the image.
        levels: Fine and coarse level of the encoder, counted from the finest or, below 0, from the coarsest.
        step: Voxels of a cell along each axis.
        window: Voxels along an axis that the network sees at once; larger volumes go through in parts.
        threshold: Least likeness, in [-1, 1].
        back: Distance in mm within which a match must lead back, or ``None``.
        within: Distance in mm from the guess of body boxes within which is searched, or ``None`` for all of it.
        device: Where the network runs; embeddings stay on the CPU.

    Raises:
        ValueError: If an option is out of range or the encoder is not known.

    References:
        Alice, Jiang et al. 2023 (likeness and its threshold of 0.7, with an external embedding); standardising, the
        way back and the guess are ours.
    """

    def __init__(
        self,
        volumes: Any,
        anatomies: Sequence[Anatomy | None],
        network: nn.Module,
        *,
        key: str = "image",
        levels: tuple[int, int] = (1, -1),
        step: int = 4,
        window: int = 128,
        threshold: float = 0.7,
        back: float | None = None,
        within: float | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if step < 1 or window < 1:
            raise ValueError(f"step and window must be at least 1 voxel, got {step!r} and {window!r}")
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold must be a cosine between -1 and 1, got {threshold!r}")
        for name, distance in (("back", back), ("within", within)):
            if distance is not None and not distance > 0:
                raise ValueError(f"{name} must be a distance above 0 mm, or null, got {distance!r}")
        self.levels = tuple(levels)
        self.step = step
        self.window = window
        self.threshold = threshold
        self.back = back
        self.within = within
        self._anatomies = anatomies
        self._boxes = BodyBoxes(anatomies)
        embedder = copy.deepcopy(network).to(device).eval()
        maps = {
            index: self._embedded(embedder, volumes[index][key], torch.device(device))
            for index, anatomy in enumerate(anatomies)
            if anatomy is not None
        }
        self._grids = {index: tuple(levels[0].shape[1:]) for index, levels in maps.items()}
        self._keys = self._standardised(maps)

    def __call__(self, source: int, target: int, points: Tensor) -> Matches:
        """Match points of one volume with another, see :class:`Correspondence`."""
        b = body(self._anatomies, target)
        cells = self._cells(source, points)
        nearest, likeness = match_points(
            self._keys[source][cells], self._keys[target], self._allowed(source, target, points)
        )
        # the place within the cell is kept
        places = self._centres(target, nearest) + points - self._centres(source, cells)
        accepted = inside(places, b.shape) & (likeness >= self.threshold)
        if self.back is not None:
            returned, _ = match_points(self._keys[target][nearest], self._keys[source])
            away = (self._centres(source, returned) - self._centres(source, cells)) * body(
                self._anatomies, source
            ).spacing
            accepted &= away.norm(dim=1) <= self.back
        return Matches(places, likeness, accepted)

    def _allowed(self, source: int, target: int, points: Tensor) -> Tensor | None:
        """Cells (P, V) that are near enough to where body boxes guess points to be; ``None`` is all."""
        if self.within is None:
            return None
        spacing = body(self._anatomies, target).spacing
        guess = self._boxes(source, target, points).places * spacing
        cells = self._centres(target, torch.arange(len(self._keys[target]))) * spacing
        return torch.cdist(guess, cells) <= self.within

    def _cells(self, index: int, points: Tensor) -> Tensor:
        """Flat cells (P,) in which points (P, n) lie."""
        grid = torch.tensor(self._grids[index])
        cell = torch.minimum((points + 0.5).div(self.step, rounding_mode="floor").long().clamp(min=0), grid - 1)
        flat = torch.zeros(len(points), dtype=torch.long)
        for axis, edge in enumerate(self._grids[index]):
            flat = flat * edge + cell[:, axis]
        return flat

    def _centres(self, index: int, flat: Tensor) -> Tensor:
        """Voxels (P, n) at the centres of flat cells (P,)."""
        cell = torch.stack(torch.unravel_index(flat, self._grids[index]), dim=1)
        return (cell + 0.5) * self.step - 0.5

    @torch.no_grad()
    def _embedded(self, network: nn.Module, image: Any, device: torch.device) -> list[Tensor]:
        r"""Maps (C_l, \*cells) of both levels of a volume."""
        plain: Tensor = convert_to_tensor(image, track_meta=False)
        size = plain.shape[1:]
        stride = encoder_stride(network, len(size))
        unit = [int(torch.lcm(torch.tensor(s), torch.tensor(self.step))) for s in stride]
        edges = [max(-(-n // u), 2) * u for n, u in zip(size, unit, strict=True)]
        pads = [pad for n, edge in zip(reversed(size), reversed(edges), strict=True) for pad in (0, edge - n)]
        padded = F.pad(plain[None].float(), pads, value=float(plain.min()))
        split: list[int] = []

        def predictor(part: Tensor) -> Tensor:
            maps = encoder_features(network, part)
            grid = [n // self.step for n in part.shape[2:]]
            both = [resized(maps[level], grid) for level in self.levels]
            split[:] = [each.shape[1] for each in both]
            return torch.cat(both, dim=1)

        window = [min(max(self.window // u, 2) * u, edge) for u, edge in zip(unit, edges, strict=True)]
        if window == edges:
            output = predictor(padded.to(device)).cpu()
        else:
            output = sliding_window_inference(
                padded, window, 1, predictor, overlap=0.25, mode="gaussian", sw_device=device, device="cpu"
            )
        cells = (slice(None), *(slice(0, -(-n // self.step)) for n in size))
        maps = convert_to_tensor(output, track_meta=False)[0].split(split)
        return [each[cells] for each in maps]

    def _standardised(self, maps: dict[int, list[Tensor]]) -> dict[int, Tensor]:
        """Embeddings (cells, D) of each volume, standardised over the bodies of all and at unit length."""
        keys: dict[int, list[Tensor]] = {index: [] for index in maps}
        for level in range(len(self.levels)):
            rows = {index: each[level].flatten(1).T for index, each in maps.items()}
            inner = [rows[index][self._cells(index, body(self._anatomies, index).points)] for index in rows]
            mean = torch.stack([each.mean(0) for each in inner]).mean(0)
            spread = torch.stack([(each - mean).square().mean(0) for each in inner]).mean(0).sqrt().clamp(min=1e-6)
            for index, each in rows.items():
                keys[index].append(F.normalize((each - mean) / spread, dim=1) / len(self.levels) ** 0.5)
        return {index: torch.cat(each, dim=1) for index, each in keys.items()}
