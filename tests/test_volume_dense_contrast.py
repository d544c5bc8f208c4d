"""Volume contrast with a dense term: the sum of its parts, what learns, the signals, and the bundle's overlay."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.nets import SegResNet
from monai.transforms import Compose, RandAffined
from test_bundle_runs import command, finish, fork_two, options, run

from monai_cl import bundles, weights
from monai_cl.data import write_cache
from monai_cl.engine import adamw, read_history
from monai_cl.losses import DenseContrastiveLoss
from monai_cl.methods import VolumeContrast, VolumeDenseContrast, views_of
from monai_cl.methods.map_terms import places
from monai_cl.networks import decoder_features, encoder_features
from monai_cl.transforms import RandViewsd, ShareItemsd, StoredVolume, VolumeContrastCropsd


def small() -> SegResNet:
    return SegResNet(init_filters=8, out_channels=3, blocks_down=(1, 1, 1), blocks_up=(1, 1))


def method(**options: Any) -> VolumeDenseContrast:
    torch.manual_seed(0)
    position = VolumeContrast(small(), 8, hidden=32, embedding=16)
    return VolumeDenseContrast(position, (16, 16, 8), **{"blocks": 1, "num_anchors": None, **options})


def draw(seed: int = 0) -> dict[str, Any]:
    """Crops and a pair of views of two volumes."""
    chain = RandAffined("pair", prob=1.0, rotate_range=0.2, scale_range=0.2, spatial_size=(16, 16, 8))
    views = Compose([
        ShareItemsd("image", "pair"),
        VolumeContrastCropsd("image", (2, 2, 1), (8, 8, 8), 3),
        RandViewsd("pair", chain, unit="mm"),
    ])  # fmt: skip
    items = []
    for number in range(2):
        generator = torch.Generator().manual_seed(10 * seed + number)
        volume = MetaTensor(
            torch.rand(1, 20, 20, 12, generator=generator), affine=torch.diag(torch.tensor([2.0, 2, 3, 1]))
        )
        views.set_random_state(seed=10 * seed + number)
        items.append(views({"image": volume}))
    batch = {key: torch.stack([torch.as_tensor(item[key]) for item in items]) for key in ("pair", "coords", "valid")}
    return {**batch, "image": {k: torch.stack([item["image"][k] for item in items]) for k in items[0]["image"]}}


def test_the_loss_is_the_weighted_sum_of_volume_contrast_and_of_dense_contrast_of_the_decoder() -> None:
    both, batch = method(position_weight=0.5, dense_weight=2.0, exclusion_radius=3.0).eval(), draw()
    found = both(batch)
    position, _ = both.terms["position"](both._extractors()["image"], batch)
    maps = encoder_features(both.network, batch["pair"].flatten(0, 1))
    f = both.terms["dense"].head(decoder_features(both.network, maps, blocks=1)[-1]).unflatten(0, (2, 2))
    coords, valid = places(views_of(batch, "pair"), f.shape[3:], f.device)
    dense = DenseContrastiveLoss(3, 0.1, None, 3.0)(f[:, 0], f[:, 1], coords[:, 0], coords[:, 1], valid)
    assert found["position"].item() == pytest.approx(position.item(), rel=1e-5)
    assert found["dense"].item() == pytest.approx(dense.item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx(0.5 * position.item() + 2 * dense.item(), rel=1e-5)
    assert {"positive", "negative", "position_accuracy", "dead_pairs", "teacher_gap"} <= set(found)


@pytest.mark.parametrize("position_weight", [0.0, 1.0])
def test_encoder_and_the_decoder_blocks_that_run_learn_and_all_that_may_learn_has_a_gradient(
    position_weight: float,
) -> None:
    both = method(position_weight=position_weight)
    both(draw())["loss"].backward()
    with_gradient = {name for name, p in both.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in both.named_parameters() if p.requires_grad}
    names = [name for name, _ in both.network.named_parameters()]
    learning = ("convInit", "down_layers", "up_samples.0", "up_layers.0")
    assert set(both.touched()) == {name for name in names if name.startswith(learning)}
    assert any("projector" in name for name in with_gradient) == (position_weight > 0)
    assert not any(name.startswith("teacher") for name in with_gradient)


def test_the_teacher_follows_encoder_and_decoder_once_a_step() -> None:
    both = method()
    with torch.no_grad():
        for p in both.network.parameters():
            p.add_(1.0)
    before = [p.clone() for p in both.steady_network.parameters()]
    both(draw())
    assert all(torch.equal(a, b) for a, b in zip(before, both.steady_network.parameters(), strict=True))
    both.after_step(0.0)
    moved = [b - a for a, b in zip(before, both.steady_network.parameters(), strict=True)]
    assert all(torch.allclose(m, torch.full_like(m, 0.01), atol=1e-5) for m in moved)


def test_learning_finds_voxels_again_that_were_not_trained_on() -> None:
    both = method(position_weight=0.2)
    optimizer, unseen = adamw(both, 3e-3), [draw(seed=99)]
    before = both.probe(unseen)
    for step in range(40):
        loss = both(draw(seed=step % 8))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        both.after_step(step / 40)
    after = both.probe(unseen)
    assert after["place_error"] < 0.8 * before["place_error"]
    assert both.training
    own = {"place_error", "place_accuracy", "dense_alignment", "dense_uniformity", "dense_effective_rank"}
    assert own | {"position_accuracy", "position_error_mm", "uniformity", "positive_cosine"} <= set(after)
    alone = method(position_weight=0.0).probe(unseen)
    assert {"place_error", "uniformity", "effective_rank"} <= set(alone)
    assert "position_accuracy" not in alone


def test_a_state_dict_brings_everything_back() -> None:
    first, batch = method(), draw()
    with torch.no_grad():
        for p in first.parameters():
            p.mul_(1.5)
    torch.manual_seed(1)
    second = VolumeDenseContrast(
        VolumeContrast(small(), 8, hidden=32, embedding=16), (16, 16, 8), blocks=1, num_anchors=None
    )  # fmt: skip
    second.load_state_dict(first.state_dict())
    expected, found = first.eval()(batch), second.eval()(batch)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position_weight": -1.0}, r"position_weight must be at least 0, got -1.0"),
        ({"dense_weight": 0.0}, r"dense_weight must be above 0, got 0.0; without it use VolumeContrast alone"),
        ({"blocks": 3}, r"blocks must be between 1 and 2 for this SegResNet, got 3"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**options)


def test_a_batch_without_a_pair_is_named() -> None:
    batch = draw()
    del batch["coords"]
    with pytest.raises(ValueError, match=r"a batch must hold 'coords' of two views .* make them with RandViewsd"):
        method()(batch)
    with pytest.raises(ValueError, match="'pair', 'valid'"):
        method()({"image": batch["image"], "coords": 0})


def test_items_are_shared_without_a_copy() -> None:
    volume = torch.rand(1, 4, 4, 4)
    assert ShareItemsd.takes_stored  # a volume on disk stays there
    given = {"image": volume, "case": "a"}
    found = ShareItemsd("image", "pair")(given)
    assert found["pair"] is volume
    assert found["image"] is volume
    assert set(given) == {"image", "case"}
    assert ShareItemsd(["image", "label"], ["a", "b"], allow_missing_keys=True)(given)["a"] is volume
    with pytest.raises(KeyError, match="label"):
        ShareItemsd("label", "b")(given)
    with pytest.raises(ValueError, match="names must be new to the item, 'case' is taken"):
        ShareItemsd("image", "case")(given)
    with pytest.raises(ValueError, match="names must have one entry for each key, got 2 for 1"):
        ShareItemsd("image", ["a", "b"])


SHORT: dict[str, Any] = {"max_epochs": 2, "epoch_length": 2, "patch_size": [16, 16, 16]}


def test_the_bundle_pretrains_fine_tunes_and_refuses_to_go_on_with_other_weights(study: Path, tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    run(root, "pretrain", study, ("volume_dense.yaml",), **SHORT)
    contract = weights.read_contract(root / "models/pretrained_dense.pt")
    assert contract["method"] == "volume_dense_contrast"
    assert any(name.startswith("up_layers") for name in contract["touched"])
    first = read_history(root / "runs/pretrain_dense/history.csv")[0]
    assert {"loss", "position", "dense", "position_accuracy", "step"} <= set(first)
    with pytest.raises(RuntimeError, match="Failed to evaluate") as refused:
        run(root, "pretrain", study, ("volume_dense.yaml",), **SHORT, dense_weight=3.0)
    assert "terms: [1.0, 1.0] -> [1.0, 3.0]" in bundles._reason(refused.value)
    run(root, "train", study, pretrained=str(root / "models/pretrained_dense.pt"))
    assert (root / "models/model.pt").exists()


def test_a_cache_gives_the_views_of_the_files_and_reads_parts_alone(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    cache = write_cache(study / "datalist.json", tmp_path / "cache", recipe="small_mr", processes=0).folder
    sizes: list[tuple[int, ...]] = []
    read = StoredVolume.read

    def noted(self: StoredVolume, *box: Any) -> MetaTensor:
        found = read(self, *box)
        sizes.append(tuple(found.shape[1:]))
        return found

    monkeypatch.setattr(StoredVolume, "read", noted)
    batches = []
    for datalist in (study / "datalist.json", cache):
        given = options(root, "pretrain", study, ("volume_dense.yaml",), datalist=str(datalist), patch_size=[8, 8, 8])
        parser = ConfigParser()
        parser.read_config(given.pop("config_file"))
        parser.update({**given, "view_keys": ["image", "pair", "coords", "valid"]})
        batches.append(next(iter(parser.get_parsed_content("train#dataloader"))))
    files, cached = batches
    assert files["case"] == cached["case"]
    torch.testing.assert_close(files["coords"], cached["coords"])
    assert torch.equal(files["valid"], cached["valid"])
    torch.testing.assert_close(files["pair"], cached["pair"], atol=1e-3, rtol=0)  # of what a cache rounds
    torch.testing.assert_close(files["image"]["crops"], cached["image"]["crops"], atol=1e-3, rtol=0)
    assert sizes.count((12, 12, 12)) == len(cached["case"])


def test_two_processes_pretrain_together(study: Path, tmp_path: Path) -> None:
    root = bundles.copy("volume_contrast", tmp_path / "bundle")
    arguments = command(root, "pretrain", study, ("volume_dense.yaml", "multi_gpu.yaml"), **SHORT)
    finish(fork_two(arguments, tmp_path / "log"), tmp_path / "log")
    assert (root / "models/pretrained_dense.pt").exists()
