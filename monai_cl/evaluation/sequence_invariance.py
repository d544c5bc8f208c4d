"""Does an encoder see anatomy or the MR sequence: points of one sequence looked for in another of the same patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from monai.transforms import (
    ClipIntensityPercentilesd,
    Compose,
    DivisiblePadd,
    NormalizeIntensityd,
    Orientationd,
    ResampleToMatchd,
    Spacingd,
)
from scipy import stats
from torch import Tensor, nn

from monai_cl._files import write_json, write_text
from monai_cl.evaluation.invariance_tables import NEAR_MM, table, table_by_sequences
from monai_cl.metrics import correspondence_errors, mind_ssc
from monai_cl.networks import network_features, resized
from monai_cl.recipes import bright_region
from monai_cl.transforms import LoadVolumed

Descriptor = Callable[[Tensor], list[Tensor]]  # image (1, 1, *S) -> feature maps (C_l, *S_l)
INVARIANCE_FILE = "invariance.json"
_RESAMPLES, _CONFIDENCE = 2000, 0.95
_AT_ONCE = 4  # windows that the network is shown together
_PAD = 32  # the grid is a multiple of it, for any encoder


@dataclass(frozen=True)
class Sequences:
    """Co-registered images of one patient on one grid.

    Attributes:
        images: Standardised images (1, *S) by name of the sequence.
        everywhere: Where all of them show the body, (*S); points are drawn there.
        anywhere: Where at least one does, (*S); points are looked for there.
        spacing: Voxel size in mm.
    """

    images: dict[str, Tensor]
    everywhere: Tensor
    anywhere: Tensor
    spacing: float


@dataclass(frozen=True)
class Invariance:
    """Errors with which one descriptor finds points again in other sequences, with bootstrap intervals.

    Attributes:
        name: Name of the descriptor.
        median: Median error in mm.
        median_interval: Its 95 % interval over patients, and points within them.
        near: Share of points found within 5 mm.
        near_interval: Its interval.
        gain: Share within 5 mm less that of the first descriptor, on the same points.
        gain_interval: Its interval; where it does not hold 0, the two differ.
        pairs: Median error and share within 5 mm of each pair, named ``patient: from -> to``.
    """

    name: str
    median: float
    median_interval: tuple[float, float]
    near: float
    near_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    pairs: dict[str, tuple[float, float]]


def load_sequences(files: Mapping[str, str | Path], *, spacing: float = 2.0) -> Sequences:
    """Read co-registered scans of one patient onto the grid of the first one, isotropic and standardised.

    Args:
        files: NIfTI file or folder of a DICOM series by name of the sequence, at least two.
        spacing: Voxel size in mm.

    Returns:
        The images, padded at the end to a multiple of 32 voxels.

    Raises:
        ValueError: If fewer than two are given, or no voxel lies in the body in all of them.
    """
    if len(files) < 2:
        raise ValueError(f"sequences of one patient must be at least two, got {tuple(files)}")
    first, *others = files
    keys = list(files)
    read = Compose([
        LoadVolumed(keys),
        Orientationd(first, axcodes="RAS", labels=None),
        Spacingd(first, pixdim=[spacing] * 3, mode="bilinear"),
        ResampleToMatchd(others, first, mode="bilinear", padding_mode="zeros"),
        ClipIntensityPercentilesd(keys, 0.5, 99.5),
    ])  # fmt: skip
    data = read({name: str(path) for name, path in files.items()})
    body = torch.stack([torch.as_tensor(bright_region(data[k])).reshape(data[k].shape)[0] > 0 for k in keys])
    standardise = Compose([NormalizeIntensityd(keys, nonzero=True), DivisiblePadd(keys, k=_PAD, method="end")])
    images = {k: torch.as_tensor(v).as_subclass(Tensor).float() for k, v in standardise(data).items() if k in keys}
    shape = images[first].shape[1:]
    masks = [torch.zeros(shape, dtype=torch.bool) for _ in range(2)]
    inner = tuple(slice(0, n) for n in body.shape[1:])
    masks[0][inner], masks[1][inner] = body.all(0), body.any(0)
    if not masks[0].any():
        raise ValueError(f"the sequences {tuple(files)} show the body nowhere together; are they co-registered?")
    return Sequences(images, masks[0], masks[1], float(spacing))


def mind_descriptor(*, radius: int = 1, dilation: int = 2) -> Descriptor:
    """MIND-SSC as a descriptor; see :func:`monai_cl.metrics.mind_ssc` for the arguments."""
    return lambda image: [mind_ssc(image, radius=radius, dilation=dilation)[0]]


def network_descriptor(network: nn.Module, *, taps: str = "all", window: int | None = None) -> Descriptor:
    """Feature maps of a network as a descriptor.

    A network that normalises each image or channel sees other statistics in a whole head on a dark canvas than in the
    crops it was trained on. With ``window`` it is shown crops of that size, as in sliding-window inference: all maps
    are brought to half of the image's resolution, and blended where windows overlap.

    Args:
        network: One that :func:`monai_cl.networks.network_features` knows; it is set to evaluation.
        taps: ``encoder``, all its levels; ``decoder``, what the network turns into classes; ``all``, both.
        window: Edge length of the windows in voxels, a multiple of 2; ``None`` shows the whole image at once.

    Raises:
        ValueError: If ``taps`` is something else, or ``window`` no positive multiple of 2.
    """
    if window is not None and (window < 2 or window % 2):
        raise ValueError(f"window must be a positive multiple of 2, got {window!r}; use the size of the training crops")
    if taps not in ("encoder", "decoder", "all"):
        raise ValueError(f"taps must be 'encoder', 'decoder' or 'all', got {taps!r}")

    def maps(image: Tensor) -> tuple[Tensor, ...]:
        result = network_features(network, image)
        chosen = {"encoder": result.encoder, "decoder": [result.decoder], "all": [*result.encoder, result.decoder]}
        return tuple(chosen[taps])

    def halved(image: Tensor) -> tuple[Tensor, ...]:
        return tuple(resized(level, [n // 2 for n in image.shape[2:]]) for level in maps(image))

    def describe(image: Tensor) -> list[Tensor]:
        network.eval()
        image = image.to(next(network.parameters()).device)
        with torch.no_grad():
            if window is None:
                return [level[0] for level in maps(image)]
            blended = sliding_window_inference(
                image, [window] * (image.ndim - 2), _AT_ONCE, halved, overlap=0.5, mode="gaussian"
            )
        return [level[0] for level in (blended if isinstance(blended, tuple) else (blended,))]

    return describe


def shift_for(window: int | None) -> int:
    """The ``shift`` of :func:`measure_invariance` for networks that are shown windows of this size.

    Windows lie half a window apart. Shifted by as much, or a multiple of it, the borders of windows would lie at the
    same anatomy in both images and give its place away; a quarter puts them as far from there as can be.
    """
    return _PAD if window is None else min(_PAD, max(2, 2 * (window // 8)))


def measure_invariance(
    patients: Mapping[str, Sequences],
    descriptors: Mapping[str, Descriptor],
    *,
    points: int = 256,
    stride: int = 2,
    seed: int = 0,
    shift: int = _PAD,
    progress: Callable[[int, int], None] | None = None,
) -> list[Invariance]:
    """Find random points of one sequence in each other sequence of the patient by the nearest feature.

    Intervals resample patients, each with all its pairs of sequences, and points within the pairs; with few patients
    they are widened as Student's t asks for (expanded percentiles). Results of one patient hold for that patient alone.

    Points are drawn in the body, the same for all descriptors and all pairs of a patient's sequences; every voxel of
    the body on a grid of ``stride`` voxels is searched, so a part of the error, about half of ``stride``, is the grid.

    A network that pads with zeros can locate a point by its distance from the border, whatever the image shows. The
    searched image is therefore described ``shift`` voxels further along each axis of a wider canvas than the one of the
    points. Borders of windows are borders too: see :func:`shift_for` for networks that are shown windows.

    Args:
        patients: Images by patient; see :func:`load_sequences`.
        descriptors: Descriptors by name, the first one being what the others are compared with.
        points: Points a patient.
        stride: Distance of the voxels searched.
        seed: Seed of the points and of the bootstrap.
        shift: Voxels, from 1 to 32, a multiple of the stride of every feature map.
        progress: Called with (images described, images in all) after each.

    Returns:
        One entry a descriptor, in their order.

    Raises:
        ValueError: If no patient or no descriptor is given, or ``shift`` does not fit.
    """
    if not 1 <= shift <= _PAD:
        raise ValueError(f"shift must be from 1 to {_PAD} voxels, got {shift!r}")
    if not patients or not descriptors:
        raise ValueError(f"patients and descriptors must not be empty, got {len(patients)} and {len(descriptors)}")
    rng = np.random.default_rng(seed)
    errors: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in descriptors}
    names: list[str] = []
    owners: list[int] = []  # the patient of each pair
    total = sum(len(p.images) for p in patients.values()) * len(descriptors)
    done = 0
    for number, (patient, sequences) in enumerate(patients.items()):
        places, candidates = _draw(rng, sequences, points, stride)
        names += [f"{patient}: {a} -> {b}" for a, b in permutations(sequences.images, 2)]
        owners += [number] * (len(names) - len(owners))
        for name, describe in descriptors.items():
            maps, searched = {}, {}
            for sequence, image in sequences.images.items():
                maps[sequence] = _described(describe, image, before=0)
                searched[sequence] = _described(describe, image, before=shift)
                done += 1
                if progress is not None:
                    progress(done, total)
            shape, spacing = sequences.everywhere.shape, [sequences.spacing] * sequences.everywhere.ndim
            for a, b in permutations(maps, 2):
                result = correspondence_errors(maps[a], searched[b], places, candidates, shape=shape, spacing=spacing)
                errors[name].append(result.cpu().numpy())
    reference = errors[next(iter(errors))]
    draws = [_resample(rng, owners, [len(e) for e in reference]) for _ in range(_RESAMPLES)]
    return [_summary(name, errors[name], reference, names, draws, _tail(len(patients))) for name in descriptors]


def write_invariance(results: Sequence[Invariance], folder: str | Path, *, settings: Mapping[str, Any]) -> Path:
    """Write ``invariance.json`` and the tables ``invariance.md``.

    Args:
        results: From :func:`measure_invariance`.
        folder: Where to write; made if absent.
        settings: Settings of the measurement, for the record.

    Returns:
        Path of the tables.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    content = {"settings": dict(settings), "resampled": "patients", "results": [asdict(r) for r in results]}
    tables = f"{table(results)}\n\n{table_by_sequences(results)}"
    write_json(root / INVARIANCE_FILE, content, indent=2)
    write_text(root / "invariance.md", tables + "\n")
    return root / "invariance.md"


def _described(describe: Descriptor, image: Tensor, *, before: int) -> list[Tensor]:
    """Maps of an image that begins ``before`` (0 to 32) voxels from the rim of a canvas 32 voxels wider than it is."""
    dims = image.ndim - 1
    wide = describe(F.pad(image[None], [before, _PAD - before] * dims))
    maps = []
    for m in wide:
        strides = [(n + _PAD) // k for n, k in zip(image.shape[1:], m.shape[1:], strict=True)]
        if any(before % s for s in strides):
            raise ValueError(f"shift must be a multiple of the strides of the feature maps {strides}, got {before}")
        starts = [before // s for s in strides]
        sizes = [n // s for n, s in zip(image.shape[1:], strides, strict=True)]
        window = tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))
        maps.append(m[(slice(None),) + window])  # noqa: RUF005 - Python 3.10
    return maps


def _draw(rng: np.random.Generator, sequences: Sequences, points: int, stride: int) -> tuple[Tensor, Tensor]:
    inside = sequences.everywhere.nonzero()
    places = inside[torch.from_numpy(rng.choice(len(inside), min(points, len(inside)), replace=False))]
    searched = torch.zeros_like(sequences.anywhere)
    searched[tuple(slice(None, None, stride) for _ in searched.shape)] = True
    return places.float(), (searched & sequences.anywhere).nonzero().float()


def _resample(
    rng: np.random.Generator, owners: Sequence[int], counts: Sequence[int]
) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """Resample patients with replacement, one fewer than given, each with all pairs; then points within each pair."""
    patients = max(owners) + 1
    drawn = rng.integers(patients, size=max(patients - 1, 1))
    chosen = [pair for patient in drawn for pair, owner in enumerate(owners) if owner == patient]
    return [(p, rng.integers(counts[p], size=counts[p])) for p in chosen]


def _tail(patients: int) -> float:
    """Share of the resamples beyond each end: less with few patients (the expanded percentile interval)."""
    upper = (1 + _CONFIDENCE) / 2
    return 1 - upper if patients == 1 else float(stats.norm.cdf(-stats.t.ppf(upper, patients - 1)))


def _summary(
    name: str,
    errors: Sequence[np.ndarray[Any, Any]],
    reference: Sequence[np.ndarray[Any, Any]],
    names: Sequence[str],
    draws: Sequence[Sequence[tuple[int, np.ndarray[Any, Any]]]],
    tail: float,
) -> Invariance:
    def statistics(own: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> tuple[float, float, float]:
        near = float((own <= NEAR_MM).mean())
        return float(np.median(own)), near, near - float((other <= NEAR_MM).mean())

    median, near, gain = statistics(np.concatenate(errors), np.concatenate(reference))
    resampled = np.array([
        statistics(
            np.concatenate([errors[p][i] for p, i in draw]), np.concatenate([reference[p][i] for p, i in draw])
        )
        for draw in draws
    ])  # fmt: skip
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    pairs = {n: (float(np.median(e)), float((e <= NEAR_MM).mean())) for n, e in zip(names, errors, strict=True)}
    return Invariance(name, median, intervals[0], near, intervals[1], gain, intervals[2], pairs)
