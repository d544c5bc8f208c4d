"""Points found again in another sequence: the descriptor, the search, the statistics, the command."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.networks.nets import BasicUNet
from torch import Tensor
from typer.testing import CliRunner

from monai_cl.cli import app
from monai_cl.evaluation import load_sequences, measure_invariance, mind_descriptor, network_descriptor, shift_for
from monai_cl.evaluation.invariance_tables import by_sequences, table, table_by_sequences
from monai_cl.evaluation.sequence_invariance import Sequences, _resample, _summary, _tail
from monai_cl.metrics import correspondence_errors, features_at, mind_ssc
from monai_cl.networks import resized
from monai_cl.phantoms.volume import write_nifti

SHARED = Path(__file__).parents[2] / "shared" / "data"


# --- MIND-SSC


def mind_loop(image: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """The definition, voxel by voxel; what lies outside is the value at the border, of the image and of the squares."""
    nd = image.ndim
    steps = [tuple(sign * dilation * (a == axis) for a in range(nd)) for axis in range(nd) for sign in (-1, 1)]
    pairs = [
        (p, q) for p, q in itertools.combinations(steps, 2) if any(a + b for a, b in zip(p, q, strict=True))
    ]  # not opposite

    def at(array: np.ndarray, where: tuple[int, ...]) -> float:
        return array[tuple(min(max(w, 0), n - 1) for w, n in zip(where, image.shape, strict=True))]

    distance = np.zeros((len(pairs), *image.shape))
    for number, (p, q) in enumerate(pairs):
        square = np.zeros(image.shape)
        for x in np.ndindex(image.shape):
            one, other = (at(image, tuple(a + b for a, b in zip(x, s, strict=True))) for s in (p, q))
            square[x] = (one - other) ** 2
        for x in np.ndindex(image.shape):
            patch = itertools.product(range(-radius, radius + 1), repeat=nd)
            distance[(number, *x)] = np.mean(
                [at(square, tuple(a + b for a, b in zip(x, s, strict=True))) for s in patch]
            )
    variance = distance.mean(0)
    variance = np.clip(variance, 1e-3 * variance.mean(), 1e3 * variance.mean())
    return np.exp(-(distance - distance.min(0)) / variance)


@pytest.mark.parametrize(("shape", "channels"), [((5, 6, 7), 12), ((6, 7), 4)])
@pytest.mark.parametrize(("radius", "dilation"), [(1, 2), (0, 1), (2, 1)])
def test_mind_is_its_definition(shape, channels, radius, dilation):
    image = torch.rand(1, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = mind_ssc(image, radius=radius, dilation=dilation)
    assert found.shape == (1, channels, *shape)
    expected = mind_loop(image[0, 0].numpy(), radius, dilation)
    # pairs in another order
    torch.testing.assert_close(found[0].sort(0).values, torch.from_numpy(np.sort(expected, axis=0)))


def test_mind_does_not_see_unit_offset_or_inversion():
    image = torch.rand(1, 1, 9, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(mind_ssc(7 - 40 * image), mind_ssc(image))


def test_mind_of_an_empty_image_is_finite():
    assert mind_ssc(torch.zeros(1, 1, 6, 6, 6)).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 2, 6, 6, 6), {}, r"image must have shape \(B, 1, \*S\) with two or three"),
        ((1, 1, 6, 6), {"radius": -1}, "radius must be at least 0 and dilation at least 1, got -1 and 2"),
        ((1, 1, 6, 6), {"dilation": 0}, "radius must be at least 0 and dilation at least 1, got 1 and 0"),
    ],
)
def test_mind_refuses(shape, options, message):
    with pytest.raises(ValueError, match=message):
        mind_ssc(torch.zeros(shape), **options)


# --- search


def test_features_at_voxels_are_the_features_of_the_voxels():
    maps = torch.randn(4, 5, 6, 7)
    places = torch.tensor([[0, 0, 0], [4, 5, 6], [2, 3, 1]])
    expected = torch.nn.functional.normalize(torch.stack([maps[:, i, j, k] for i, j, k in places.tolist()]), dim=1)
    torch.testing.assert_close(features_at([maps], places, (5, 6, 7)), expected)


def test_features_of_coarse_maps_lie_where_their_voxels_lie():
    fine = torch.arange(8.0).reshape(1, 8, 1).repeat(2, 1, 1)  # a ramp, and its averages over two voxels
    fine[1] = 1
    coarse = fine.reshape(2, 4, 2, 1).mean(2)
    at = torch.tensor([[2.5, 0.0], [4.5, 0.0]])
    torch.testing.assert_close(features_at([fine], at, (8, 1)), features_at([coarse], at, (8, 1)))


def test_errors_are_those_of_a_loop():
    source = torch.Generator().manual_seed(0)
    shape, spacing = (5, 6, 4), (1.0, 2.0, 3.0)
    one, two = ([torch.randn(3, *shape, generator=source), torch.randn(2, 3, 3, 2, generator=source)] for _ in range(2))
    points = torch.rand(7, 3, generator=source) * 3
    candidates = torch.ones(shape).nonzero().float()
    found = correspondence_errors(one, two, points, candidates, shape=shape, spacing=spacing, chunk_size=17)
    for point, error in zip(points, found, strict=True):
        query = features_at(one, point[None], shape)[0]
        best, where = -math.inf, None
        for candidate in candidates:
            key = features_at(two, candidate[None], shape)[0]
            cosine = float(query @ key / query.norm() / key.norm())
            if cosine > best:
                best, where = cosine, candidate
        assert float(error) == pytest.approx(float(((where - point) * torch.tensor(spacing)).norm()), abs=1e-5)


def test_search_needs_points_and_equal_channels():
    maps, place = [torch.randn(2, 4, 4)], torch.zeros(1, 2)
    with pytest.raises(ValueError, match="points and candidates must not be empty, got 0 and 1"):
        correspondence_errors(maps, maps, place[:0], place, shape=(4, 4), spacing=(1, 1))
    with pytest.raises(ValueError, match=r"source and target need the same channels, got \[2\] and \[3\]"):
        correspondence_errors(maps, [torch.randn(3, 4, 4)], place, place, shape=(4, 4), spacing=(1, 1))


# --- measurement


def patient(seed: int = 0) -> Sequences:
    source = torch.Generator().manual_seed(seed)
    anatomy = torch.nn.functional.avg_pool3d(torch.rand(1, 34, 34, 34, generator=source), 3, stride=1)
    images = {"a": anatomy, "b": 1 - anatomy, "c": anatomy.square()}
    inside = torch.zeros(32, 32, 32, dtype=torch.bool)
    inside[4:-4, 4:-4, 4:-4] = True
    return Sequences(images, inside, inside, 2.0)


def noise(image: Tensor) -> list[Tensor]:
    return [torch.rand(3, *image.shape[2:], generator=torch.Generator().manual_seed(int(1e6 * image.sum()) % 997))]


def test_measure_tells_a_descriptor_from_noise():
    results = measure_invariance(
        {"p": patient(0), "q": patient(1)}, {"MIND": mind_descriptor(), "noise": noise}, points=40, stride=1, seed=1
    )
    mind, blind = results
    assert mind.median < 4 < 10 < blind.median
    assert mind.near > 0.9 > 0.1 > blind.near
    assert mind.median_interval[0] <= mind.median <= mind.median_interval[1]
    assert (mind.gain, mind.gain_interval) == (0, (0, 0))
    assert blind.gain == pytest.approx(blind.near - mind.near)
    assert blind.gain_interval[1] < 0
    assert list(mind.pairs)[:2] == ["p: a -> b", "p: a -> c"]
    assert len(mind.pairs) == 12
    assert "| noise |" in table(results)
    by_pair = table_by_sequences(results).splitlines()
    assert by_pair[0] == f"| sequences | {' | '.join(r.name for r in results)} |"
    pairs = {frozenset(name.split(": ")[1].split(" -> ")) for name in mind.pairs}
    assert len(by_pair) == 2 + len(pairs) == 5
    means = [error for error, _ in by_sequences(mind.pairs).values()]
    assert np.mean(means) == pytest.approx(np.mean([error for error, _ in mind.pairs.values()]))


def test_distance_from_the_rim_finds_nothing() -> None:
    volume = torch.rand(1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(32, 32, 32, dtype=torch.bool)
    same = {"p": Sequences({"a": volume, "b": volume}, mask, mask, 1.0)}

    def rim(image: Tensor) -> list[Tensor]:
        axes = torch.meshgrid(*[torch.linspace(0.1, 1, n) for n in image.shape[2:]], indexing="ij")
        return [torch.stack([*axes, *(1 - axis for axis in axes)])]

    def seen(image: Tensor) -> list[Tensor]:
        coarse = torch.nn.functional.avg_pool3d(image, 4)  # one of the levels, coarser than the image
        return [torch.cat([image[0].roll(n, 1) for n in range(-2, 3)]), torch.cat([coarse[0], 1 - coarse[0]])]

    content, place = measure_invariance(same, {"content": seen, "place": rim}, points=40, stride=1)
    assert content.median == 0.0
    assert content.near > 0.9
    assert place.median > 5.0
    assert place.near < 0.2


@pytest.mark.parametrize("window", [None, 16, 32, 64, 96, 128, 256])
def test_shift_is_no_multiple_of_the_step_between_windows(window: int | None) -> None:
    shift = shift_for(window)
    assert 1 <= shift <= 32
    if window is None:
        assert shift % 32 == 0
    else:
        assert shift % 2 == 0
        assert shift % (window // 2)


def test_shift_fits_the_feature_maps() -> None:
    with pytest.raises(ValueError, match="shift must be from 1 to 32 voxels, got 33"):
        measure_invariance({"p": patient()}, {"m": mind_descriptor()}, shift=33)
    with pytest.raises(ValueError, match=r"shift must be a multiple of the strides of the feature maps .*, got 3"):
        measure_invariance({"p": patient()}, {"n": network_descriptor(small_network())}, shift=3)


def test_measure_is_repeatable_and_counts_its_progress():
    calls: list[tuple[int, int]] = []
    arguments = {"points": 10, "seed": 3}
    once = measure_invariance(
        {"p": patient()}, {"m": mind_descriptor()}, **arguments, progress=lambda *c: calls.append(c)
    )
    assert measure_invariance({"p": patient()}, {"m": mind_descriptor()}, **arguments) == once
    assert calls == [(1, 3), (2, 3), (3, 3)]


def small_network() -> BasicUNet:
    torch.manual_seed(0)
    return BasicUNet(spatial_dims=3, in_channels=1, out_channels=2, features=(4, 4, 8, 8, 8, 4))


def test_a_window_as_large_as_the_image_is_the_image_at_half_resolution():
    network = small_network()
    image = torch.randn(1, 1, 32, 32, 32)
    whole = network_descriptor(network)(image)
    windowed = network_descriptor(network, window=32)(image)
    for level, found in zip(whole, windowed, strict=True):
        torch.testing.assert_close(found, resized(level[None], (16, 16, 16))[0], rtol=1e-4, atol=1e-5)


def test_windows_hide_what_lies_beyond_them():
    """A voxel is described by the windows that hold it, so that a change 32 voxels away leaves it as it was."""
    image = torch.randn(1, 1, 128, 32, 32)
    other = image.clone()
    other[:, :, 96:] += 5 * torch.randn(1, 1, 32, 32, 32)
    describe = network_descriptor(small_network(), taps="decoder", window=32)
    first, second = describe(image)[0], describe(other)[0]
    assert first.shape[1:] == (64, 16, 16)
    torch.testing.assert_close(first[:, :24], second[:, :24])
    assert not torch.allclose(first[:, 48:], second[:, 48:])


@pytest.mark.parametrize("window", [0, 15])
def test_windows_are_even(window: int):
    with pytest.raises(ValueError, match=f"window must be a positive multiple of 2, got {window}; use the size"):
        network_descriptor(small_network(), window=window)


def test_network_descriptor_has_the_taps_asked_for():
    network = small_network()
    image = torch.rand(1, 1, 32, 32, 32)
    found = {taps: network_descriptor(network, taps=taps)(image) for taps in ("encoder", "decoder", "all")}
    assert [m.shape[0] for m in found["encoder"]] == [4, 4, 8, 8, 8]
    assert [tuple(m.shape) for m in found["decoder"]] == [(4, 32, 32, 32)]
    assert len(found["all"]) == 6
    assert not network.training
    with pytest.raises(ValueError, match="taps must be 'encoder', 'decoder' or 'all', got 'head'"):
        network_descriptor(network, taps="head")


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="patients and descriptors must not be empty, got 0 and 1"):
        measure_invariance({}, {"m": mind_descriptor()})


# --- files and command


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    axes = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 20)] * 3, indexing="ij"))
    head = (axes.square().sum(0) < 0.7).float()
    texture = 1 + torch.rand(20, 20, 20, generator=torch.Generator().manual_seed(0))
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    write_nifti(folder / "t1.nii.gz", head * texture, affine)
    write_nifti(folder / "t2.nii.gz", head * (3 - texture), affine)
    return {"T1": str(folder / "t1.nii.gz"), "T2": str(folder / "t2.nii.gz")}


def test_loaded_sequences_share_a_padded_grid(files):
    loaded = load_sequences(files, spacing=3.0)
    assert {tuple(image.shape) for image in loaded.images.values()} == {(1, 32, 32, 32)}
    assert not loaded.anywhere[20:].any()
    assert 0 < loaded.everywhere.sum() <= loaded.anywhere.sum()
    with pytest.raises(ValueError, match="sequences of one patient must be at least two"):
        load_sequences({"T1": files["T1"]})


def test_command_measures_and_writes(files, tmp_path):
    net = {"_target_": "BasicUNet", "spatial_dims": 3, "out_channels": 2, "features": [4, 4, 8, 8, 8, 4]}
    torch.save(BasicUNet(spatial_dims=3, out_channels=2, features=(4, 4, 8, 8, 8, 4)).state_dict(), tmp_path / "m.pt")
    settings = {
        "patients": {"p": files}, "spacing": 3.0, "points": 20, "network": net,
        "checkpoints": {"mine": str(tmp_path / "m.pt")}, "output": str(tmp_path / "out"),
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(app, ["invariance", str(tmp_path / "c.yaml")])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "invariance.json").read_text())
    assert [r["name"] for r in written["results"]] == ["MIND-SSC", "random initialisation", "mine"]
    assert str(tmp_path) not in (tmp_path / "out" / "invariance.json").read_text()
    assert (tmp_path / "out" / "invariance.md").read_text().count("\n") == 5 + 1 + 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pateints": {}}, "did you mean 'patients'"),
        ({"patients": {}}, "must name patients with their sequences"),
        (
            {"patients": {"p": {"a": "x", "b": "y"}}, "checkpoints": {"m": "m.pt"}},
            "must therefore describe the network",
        ),
    ],
)
def test_command_refuses(settings, message, tmp_path):
    from monai_cl.evaluation import run_invariance

    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match=message):
        run_invariance(tmp_path / "c.yaml")


def test_missing_scan_is_named(tmp_path):
    from monai_cl.evaluation import run_invariance

    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"patients": {"p": {"a": "x.nii.gz", "b": "y.nii.gz"}}}))
    with pytest.raises(FileNotFoundError, match=r"no scan at x.nii.gz; paths start from the folder"):
        run_invariance(tmp_path / "c.yaml")


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "mr_misc").is_dir(), reason="needs the shared MR scans")
def test_mind_finds_places_in_real_scans():
    folder = SHARED / "mr_misc"
    files = {name: folder / f"stroke_{name}.nii.gz" for name in ("T1", "T2", "FLAIR")}
    (found,) = measure_invariance({"p": load_sequences(files, spacing=3.0)}, {"m": mind_descriptor()}, points=60)
    assert found.median < 60


def test_pairs_are_told_apart_whatever_a_patient_is_called(tmp_path: Path) -> None:
    from monai_cl.evaluation import run_invariance

    named = {"site 1: p1: T1 -> T2": (1.0, 0.5), "site 1: p1: T2 -> T1": (3.0, 0.0), "p2: T1 -> T2": (2.0, 1.0)}
    assert by_sequences(named) == {"T1, T2": (2.0, 0.5)}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"patients": {"p": {"T1: fast": "a.nii", "T2": "b.nii"}}}))
    with pytest.raises(ValueError, match="names of sequences must hold neither ': ' nor ' -> '"):
        run_invariance(tmp_path / "c.yaml")


def test_pairs_of_a_patient_are_resampled_together() -> None:
    draws = [_resample(np.random.default_rng(seed), [0, 0, 1, 1, 2, 2], [5] * 6) for seed in range(50)]
    for draw in draws:
        pairs = [pair for pair, _ in draw]
        assert len(pairs) == 4  # one patient fewer than there are
        assert [first // 2 for first in pairs[::2]] == [second // 2 for second in pairs[1::2]]
    assert _tail(1) == pytest.approx(0.025)
    assert _tail(3) < 1e-4 < _tail(1000)  # three patients carry hardly more than their own range


def test_two_patients_who_differ_make_a_wide_interval() -> None:
    near, far = np.full(200, 1.0), np.full(200, 30.0)
    errors, rng = [near, near, far, far], np.random.default_rng(0)
    draws = [_resample(rng, [0, 0, 1, 1], [200] * 4) for _ in range(200)]
    names = ["a: x -> y", "a: y -> x", "b: x -> y", "b: y -> x"]
    found = _summary("one", errors, errors, names, draws, _tail(2))
    assert (found.near, found.near_interval) == (0.5, (0.0, 1.0))


def test_patients_are_numbered_where_their_names_might_be_those_of_somebody() -> None:
    from monai_cl.evaluation._invariance_config import _shown

    assert list(_shown({"case 7": {}, "Mueller": {}, "1964-03-05": {}})) == ["case 7", "patient 2", "patient 3"]
