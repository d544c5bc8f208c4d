"""One vector a volume or a region, and the page of nearest cases."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import SegResNet

from monai_cl.engine.embedding import Embeddings, embed
from monai_cl.networks import encoder_features, pool_pyramid
from monai_cl.report.nearest_page import nearest, write_nearest_page


def network() -> SegResNet:
    torch.manual_seed(0)
    return SegResNet(2, 8, blocks_down=(1, 1), blocks_up=(1,), out_channels=2).eval()


def volumes(count: int = 4, size: tuple[int, ...] = (16, 16)) -> list[dict[str, Any]]:
    torch.manual_seed(1)
    found = []
    for number in range(count):
        label = torch.zeros(1, *size)
        label[:, : size[0] // 2] = 1
        image = torch.rand(1, *size) + number % 2
        found.append({"image": image, "label": label, "case": f"ct-{number}", "subject": f"sub-{number % 3}"})
    return found


def test_the_vector_of_one_window_is_the_mean_of_each_level() -> None:
    net, items = network(), volumes()
    found = embed(net, items, (16, 16))
    with torch.no_grad():
        wanted = pool_pyramid(encoder_features(net, items[0]["image"][None]), 1)[0]
    np.testing.assert_allclose(found.vectors[0], wanted.numpy(), rtol=1e-4, atol=1e-6)
    assert found.regions == (0,) * 4
    assert found.subjects == ("sub-0", "sub-1", "sub-2", "sub-0")


def test_several_windows_count_by_the_share_of_the_volume_in_them() -> None:
    net, items = network(), volumes(1, (24, 16))
    vector = embed(net, items, (16, 16)).vectors[0]
    image = torch.nn.functional.pad(items[0]["image"], (0, 0, 0, 8))[None]
    with torch.no_grad():
        first = encoder_features(net, image[:, :, :16])
        second = encoder_features(net, image[:, :, 16:])
    wanted = []
    for a, b in zip(first, second, strict=True):
        inside = b[:, :, : b.shape[2] // 2]
        wanted.append(torch.cat([a.flatten(2), inside.flatten(2)], dim=2).mean(2)[0])
    np.testing.assert_allclose(vector, torch.cat(wanted).numpy(), rtol=1e-4, atol=1e-5)


def test_regions_have_vectors_of_their_own() -> None:
    net, items = network(), volumes(2)
    found = embed(net, items, (16, 16), regions=True)
    assert found.regions == (0, 1, 0, 1)
    with torch.no_grad():
        maps = encoder_features(net, items[0]["image"][None])
    upper = torch.cat([one[:, :, : one.shape[2] // 2].mean((2, 3)) for one in maps], dim=1)[0]
    np.testing.assert_allclose(found.vectors[1], upper.numpy(), rtol=1e-4, atol=1e-6)
    for item in items:
        del item["label"]
    with pytest.raises(ValueError, match="regions need labels, no volume has one"):
        embed(net, items, (16, 16), regions=True)
    with pytest.raises(ValueError, match=r"edges of the window must be multiples of \(2, 2\), got \(15, 16\)"):
        embed(net, items, (15, 16))
    with pytest.raises(ValueError, match="at least one volume is needed to embed, got none"):
        embed(net, [], (16, 16))


def test_vectors_are_written_and_the_page_names_cases_alike(tmp_path: Path) -> None:
    found = embed(network(), volumes(), (16, 16))
    found.write(tmp_path)
    with np.load(tmp_path / "embeddings.npz") as stored:
        np.testing.assert_array_equal(stored["vectors"], found.vectors)
        assert list(stored["cases"]) == list(found.cases)
    with open(tmp_path / "embeddings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == list(found.cases)
    assert len(rows[0]) == 3 + found.vectors.shape[1]
    page = write_nearest_page(found, tmp_path / "nearest.html").read_text()
    assert "Nearest cases of other patients" in page
    assert all(case in page for case in found.cases)
    assert "http" not in page.replace("http-equiv", "")


def test_the_picture_of_a_region_is_the_slice_with_most_of_it() -> None:
    image, label = torch.rand(1, 8, 8, 6), torch.zeros(1, 8, 8, 6)
    label[:, 2:5, 2:5, 1], label[:, 3, 3, 2:5] = 1, 1
    torch.manual_seed(0)
    net = SegResNet(3, 8, blocks_down=(1, 1), blocks_up=(1,), out_channels=2).eval()
    found = embed(net, [{"image": image, "label": label, "case": "a"}], (8, 8, 6), regions=True)
    for picture, place in zip(found.pictures, (3, 1), strict=True):
        plane = image[0, ..., place].numpy()
        np.testing.assert_allclose(picture, (plane - plane.min()) / np.ptp(plane), rtol=1e-5, atol=1e-6)


def test_a_page_of_many_volumes_has_pictures_of_some_and_names_all(tmp_path: Path) -> None:
    cases = tuple(f"v{number:03d}" for number in range(230))
    vectors = np.random.default_rng(0).normal(size=(230, 3)).astype(np.float32)
    found = Embeddings(vectors, cases, cases, (0,) * 230, (np.zeros((4, 4), np.float32),) * 230)
    page = write_nearest_page(found, tmp_path / "nearest.html").read_text()
    assert "Pictures of 77 of them; the table has all." in page
    assert page.count("this one") == 77
    assert all(case in page for case in cases)


def test_the_nearest_are_of_other_patients_and_of_the_same_region() -> None:
    vectors = np.array([[0, 0], [0, 0.1], [0, 0.2], [1, 1], [0, 0]], dtype=np.float32)
    found = Embeddings(vectors, tuple("abcde"), ("p", "p", "q", "r", "s"), (0, 0, 0, 0, 1))
    assert nearest(found, 0, found.similarity()[0]) == [2, 3]
