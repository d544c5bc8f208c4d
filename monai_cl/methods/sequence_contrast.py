"""Sequence contrast: the same anatomy in two simulated MR sequences, as a pretraining method."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks import eval_mode
from torch import Tensor, nn

from monai_cl.losses import DenseContrastiveLoss, NTXentLoss
from monai_cl.methods._crop_size import pooled_width
from monai_cl.methods._dense_maps import Found, dense_projector, dense_rows, hypercolumns, pointwise, reached
from monai_cl.methods._embedding_health import EmbeddingHealth
from monai_cl.methods.base import Method
from monai_cl.metrics import RetrievalMetric, retrieval_at_k
from monai_cl.networks import Features, Projector, network_features, pool_pyramid, resized

_PROBED = 512  # voxels of each crop that a probe compares
_ENOUGH = 8  # embeddings, below which their rank and spread say nothing of a collapse


class SequenceContrast(Method):
    r"""Learn anatomy instead of scanner settings, from two simulated contrasts of each crop.

    .. math::
        L = w_g\,L_{global}(p_1, p_2) + w_d\,L_{dense}(q_1, q_2) + w_r\,\frac{1}{2}\sum_v \lVert r_v - t_v \rVert_1

    with :math:`p_v` the projected, pooled features of the encoder for view :math:`v`, :math:`q_v` projected features
    of voxels and :math:`r_v` the target :math:`t_v` of view :math:`v` as restored from the features of the decoder, by
    one linear map in each voxel. A weight of 0 switches a term off, and with it what only that term needs. Takes the
    views of :class:`monai_cl.transforms.RandSequenceViewsd`: each view has its own geometry, and the source
    coordinates of its voxels say which show the same place.

    Encoder and decoder of ``network`` learn together; only its last convolution, which knows classes, is handed over
    as it was.

    Args:
        network: A MONAI encoder-decoder (see :func:`monai_cl.networks.network_features`).
        crop_size: Edge lengths of the views in voxels, or one for all axes.
        key: Key of the views in a batch.
        global_weight: Weight of the contrast of whole crops.
        dense_weight: Weight of the contrast of voxels.
        reconstruction_weight: Weight of the reconstruction.
        global_loss: Loss of two sets of embeddings, (B, D) twice; NT-Xent at temperature 0.5 when left out.
        dense_loss: Loss of two maps with coordinates and validity;
            :class:`monai_cl.losses.DenseContrastiveLoss` when left out.
        dense_on: Features that voxels are compared by: ``"decoder"``; ``"encoder"``: all its levels brought to the grid
            of the dense contrast and joined; or ``"all"``: these and the decoder, joined.
        dense_stride: Voxels of the view along an axis that are averaged to one of the dense contrast.
        target_channels: Channels of the targets of the reconstruction.
        pool_size: Cells an axis to which feature maps are averaged; see :func:`monai_cl.networks.pool_pyramid`.
        hidden: Width of the projector's hidden layers.
        embedding: Width of the embedding of a crop.
        dense_embedding: Width of the embedding of a voxel.
        norm: Normalisation in the projector: ``"batch"``, with the statistics of a process' batch, or ``"layer"``, with
            which any number of processes gives the same result, but all embeddings start out nearly alike.

    Raises:
        ValueError: If the network is unknown or cannot take ``crop_size``, or an option is out of range.

    References:
        Unified 3D MRI representations via sequence-invariant contrastive learning, arXiv 2501.12057, which has the
        global term and the reconstruction.
    """

    def __init__(
        self,
        network: nn.Module,
        crop_size: int | Sequence[int],
        *,
        key: str = "image",
        global_weight: float = 1.0,
        dense_weight: float = 1.0,
        reconstruction_weight: float = 1.0,
        global_loss: nn.Module | None = None,
        dense_loss: nn.Module | None = None,
        dense_on: str = "decoder",
        dense_stride: int = 2,
        target_channels: int = 1,
        pool_size: int = 2,
        hidden: int = 512,
        embedding: int = 128,
        dense_embedding: int = 64,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.weights = _weights(global_weight, dense_weight, reconstruction_weight)
        if dense_on not in ("decoder", "encoder", "all"):
            raise ValueError(f"dense_on must be 'decoder', 'encoder' or 'all', got {dense_on!r}")
        widths = {"hidden": hidden, "embedding": embedding, "dense_embedding": dense_embedding}
        for name, value in {**widths, "dense_stride": dense_stride, "target_channels": target_channels}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        self.key = key
        self.dense_on = dense_on
        self.dense_stride = dense_stride
        self.pool_size = pool_size
        width = pooled_width(network, crop_size, pool_size=pool_size)  # refuses a crop that cannot pass
        self.network = network
        maps = reached(network, self._features_used)
        dims = maps.decoder.ndim - 2
        self.projector = Projector(width, hidden, embedding, norm=norm) if "global" in self.weights else None
        self.global_loss = NTXentLoss(temperature=0.5) if global_loss is None else global_loss
        self.dense_loss = DenseContrastiveLoss(dims) if dense_loss is None else dense_loss
        self.dense_head: nn.Module | None = None
        if "dense" in self.weights:
            channels = sum(m.shape[1] for m in self._compared(maps))
            self.dense_head = dense_projector(dims, channels, max(channels, dense_embedding), dense_embedding)
        self.reconstruction_head: nn.Module | None = None
        if "reconstruction" in self.weights:
            self.reconstruction_head = pointwise(dims, maps.decoder.shape[1], target_channels)

    def _features_used(self, features: Features) -> list[Tensor]:
        """Those maps that the terms in use look at."""
        used = [*features.encoder] if "global" in self.weights else []
        used += [features.decoder] if "reconstruction" in self.weights else []
        return [*used, *(self._compared(features) if "dense" in self.weights else [])]

    def _compared(self, features: Features) -> list[Tensor]:
        """Maps of the dense contrast."""
        encoder = [] if self.dense_on == "decoder" else [*features.encoder]
        return [*encoder, *([] if self.dense_on == "encoder" else [features.decoder])]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of pairs of views.

        Args:
            batch: ``batch[key]`` with ``views`` (B, 2, C, *S), for the dense term ``coords`` (B, 2, nd, *S) and
                ``valid`` (B, 2, *S), for the reconstruction ``target`` (B, 2, T, *S).

        Returns:
            ``loss``; those of ``global``, ``dense`` and ``reconstruction`` that have a weight, before they are
            weighted; with ``global`` also ``retrieval``, the share of crops that are nearest to their other view among
            those of the batch, and ``embedding_std`` (near 1 when embeddings fill the sphere, 0 when they have
            collapsed).

        Raises:
            ValueError: If the global term has a single crop, which there is nothing to tell from.
        """
        views = batch[self.key]
        image: Tensor = views["views"]
        if self.projector is not None and len(image) < 2:
            raise ValueError(
                f"batch_size must be at least 2 with the global term, which tells the crops of a batch apart, got "
                f"{len(image)}; take a larger batch_size or set global_weight to 0"
            )
        features = network_features(self.network, image.flatten(0, 1))
        terms: dict[str, Tensor] = {}
        health: dict[str, Tensor] = {}
        if self.projector is not None:
            z1, z2 = self._embed(features, len(image))
            terms["global"] = self.global_loss(z1, z2)
            health = _health(z1.detach(), z2.detach())
        if self.dense_head is not None:
            (f1, f2), coords, valid = self._dense(features, views)
            terms["dense"] = self.dense_loss(f1, f2, coords[:, 0], coords[:, 1], valid)
        if self.reconstruction_head is not None:
            restored = self.reconstruction_head(features.decoder)
            terms["reconstruction"] = _l1(restored, views["target"].flatten(0, 1))
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}, **health}

    def _embed(self, features: Features, b: int) -> tuple[Tensor, Tensor]:
        if self.projector is None:
            raise ValueError("global_weight must be above 0 for embeddings of crops, it is 0")
        z = self.projector(pool_pyramid(features.encoder, self.pool_size)).unflatten(0, (b, 2))
        return z[:, 0], z[:, 1]

    def _dense(self, features: Features, views: dict[str, Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Embedded maps of the two views, coordinates (B, 2, nd, *s) and validity (B, 2, *s) of their voxels."""
        if self.dense_head is None:
            raise ValueError("dense_weight must be above 0 for embeddings of voxels, it is 0")
        coords, valid = views["coords"], views["valid"]
        size = [max(n // self.dense_stride, 1) for n in coords.shape[3:]]
        compared = self._compared(features)
        maps = hypercolumns(compared, size) if len(compared) > 1 else resized(compared[0], size)
        q = self.dense_head(maps).unflatten(0, (len(coords), 2))
        places = resized(coords.flatten(0, 1).float(), size).unflatten(0, (len(coords), 2))
        whole = resized(valid.flatten(0, 1)[:, None].float(), size)[:, 0].unflatten(0, (len(coords), 2)) > 1 - 1e-3
        return [q[:, 0], q[:, 1]], places, whole

    @torch.no_grad()
    def probe(self, batches: Iterable[dict[str, Any]]) -> dict[str, float | Tensor]:
        """How well crops and voxels are found again in another contrast, on volumes that are not trained on.

        Returns:
            With the global term ``retrieval`` (share of crops whose other view is the nearest of all crops),
            ``chance_retrieval``, ``alignment`` of the two views and, with enough of them, ``uniformity``,
            ``effective_rank`` and ``dead_dimensions`` of the embeddings. With the dense term ``voxel_error_mm`` (median
            distance between the place of a voxel and that of the most similar voxel of the other view),
            ``voxel_within_5_mm``, and ``blind_voxel_error_mm``, the error of taking the voxel of the same index: what
            a network gives that only knows where in the crop a voxel lies; without the global term the rest is of
            embeddings of voxels. With the reconstruction its L1 error.
        """
        health, retrieval, crops = EmbeddingHealth(fewest=_ENOUGH), RetrievalMetric(), 0
        found: list[Found] = []
        lost = []
        with eval_mode(self):
            for batch in batches:
                views = batch[self.key]
                features = network_features(self.network, views["views"].flatten(0, 1))
                b = len(views["views"])
                pair: tuple[Tensor, Tensor] | None = None
                if self.projector is not None:
                    pair = self._embed(features, b)
                    retrieval(*pair)
                    crops += b
                if self.dense_head is not None:
                    found.append(dense_rows(*self._dense(features, views), count=_PROBED))
                    pair = pair or (found[-1].first, found[-1].second)
                if self.reconstruction_head is not None:
                    restored = self.reconstruction_head(features.decoder)
                    lost.append(_l1(restored, views["target"].flatten(0, 1)))
                if pair is not None and len(pair[0]):
                    health(*pair, rows=torch.cat(pair))
        values: dict[str, Tensor | float] = {}
        if crops:
            values |= {"retrieval": retrieval.aggregate(), "chance_retrieval": 1 / max(crops, 1)}
        if self.projector is not None or self.dense_head is not None:
            values |= health.values()
        if found:
            error = torch.cat([f.error for f in found])
            values |= {"voxel_error_mm": error.median(), "voxel_within_5_mm": (error <= 5).float().mean()}
            values["blind_voxel_error_mm"] = torch.cat([f.blind for f in found]).median()
        if lost:
            values["reconstruction"] = torch.stack(lost).mean()
        return {name: float(value) for name, value in values.items()}

    def causes_of_collapse(self) -> list[str]:
        """Settings of this method under which embeddings become alike."""
        causes = []
        if self.projector is not None and self.pool_size == 1:
            causes.append(
                "pool_size=1: the global average of a normalised map is nearly the same for every crop; use 2"
            )
        if self.projector is None and self.dense_head is not None and self.dense_stride == 1:
            causes.append("dense_stride=1: neighbouring voxels look alike and are told apart; use 2 or more")
        return causes


def _weights(global_weight: float, dense_weight: float, reconstruction_weight: float) -> dict[str, float]:
    weights = {"global": global_weight, "dense": dense_weight, "reconstruction": reconstruction_weight}
    for name, value in weights.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}_weight must be at least 0, got {value!r}")
    used = {name: float(value) for name, value in weights.items() if value > 0}
    if not used:
        raise ValueError("one of global_weight, dense_weight and reconstruction_weight must be above 0, all are 0")
    return used


def _l1(restored: Tensor, target: Tensor) -> Tensor:
    if restored.shape[1] != target.shape[1]:
        raise ValueError(
            f"target_channels must be that of the targets, {target.shape[1]}, got {restored.shape[1]}; set it alike"
        )
    # the decoder of some networks ends below the size of the image
    return F.l1_loss(resized(restored, target.shape[2:]).float(), target.float())


@torch.no_grad()
def _health(z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
    flat = F.normalize(torch.cat([z1, z2]).float(), dim=-1)
    return {
        "retrieval": retrieval_at_k(z1.float(), z2.float()),
        "embedding_std": flat.std(dim=0).mean() * flat.shape[1] ** 0.5,
    }
