"""Volumes of a report in three planes and in 3-D: what is in the page, how large, and that it opens offline."""

import base64
import gzip
import hashlib
import re
import time
from pathlib import Path

import chromium
import nibabel as nib
import numpy as np
import pytest

from monai_cl.engine.save_cases import SavedCase
from monai_cl.report._volumes import MOST_BYTES, SCRIPT, VolumeSet, case_volumes, fitting, niivue, view_volumes
from monai_cl.report.html import Section, _render

NIIVUE = "f027bee8033e6381bdc8a29591a15df67da6b14fb4277c0c8187a6ce8340c3a7"
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
needs_chromium = pytest.mark.skipif(
    chromium.EXECUTABLE is None, reason="no Chromium on this machine: apt install chromium"
)


def kept(folder: Path, shape: tuple[int, ...] = (24, 20, 16)) -> SavedCase:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 80, shape).astype(np.uint8)
    truth, prediction = np.zeros((2, *shape), np.uint8)
    truth[4:12, 4:12, 4:12], prediction[6:14, 4:12, 4:12] = 1, 1
    truth[12:18, 8:12, 6:12] = prediction[12:18, 8:12, 6:12] = 2
    image[truth > 0] += 100
    np.savez_compressed(folder / "case_0001.npz", image=image, truth=truth, prediction=prediction)
    return SavedCase("case_0001.npz", "case", 0.8, (1.0, 2.0, 3.0))


def decoded(data: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data)))


def render(*sets: VolumeSet) -> str:
    return _render("Title", [Section("evaluation", "Evaluation", ["Said."], volumes=list(sets))], "2026-01-01")


def test_niivue_is_as_published_with_its_licence() -> None:
    assert hashlib.sha256(niivue().encode()).hexdigest() == NIIVUE
    assert "</script" not in niivue().casefold()
    assert "Copyright (c) 2021, Niivue" in SCRIPT.with_name("LICENSE-niivue.txt").read_text()


def test_a_case_is_in_the_page_voxel_by_voxel(tmp_path: Path) -> None:
    found = case_volumes(tmp_path, kept(tmp_path), "best case")
    with np.load(tmp_path / "case_0001.npz") as file:
        for panel, name in zip(found.panels, ("truth", "prediction"), strict=True):
            image, classes = (decoded(layer.data) for layer in panel.layers)
            np.testing.assert_array_equal(np.asarray(image.dataobj), file["image"])
            np.testing.assert_array_equal(np.asarray(classes.dataobj), file[name])
            np.testing.assert_array_equal(image.affine, np.diag([1.0, 2.0, 3.0, 1.0]))
    assert found.note == ""


def test_a_large_case_is_thinned_and_it_is_said(tmp_path: Path) -> None:
    found = case_volumes(tmp_path, kept(tmp_path, (200, 30, 20)), "large")
    assert found.note == "every 2. voxel along each axis"
    image = decoded(found.panels[0].layers[0].data)
    assert image.shape == (100, 15, 10)
    np.testing.assert_array_equal(np.diag(image.affine)[:3], [2.0, 4.0, 6.0])


def test_views_lie_where_they_were_cut(tmp_path: Path) -> None:
    volume = np.arange(10 * 9 * 8, dtype=np.float32).reshape(10, 9, 8)
    found = view_volumes(volume, [("crop A", (2, 1, 0), (4, 4, 4)), ("base 0", (-1, 0, 0), (5, 4, 4))], "views")
    crop, base = (decoded(panel.layers[0].data) for panel in found.panels)
    assert crop.shape == (4, 4, 4)
    np.testing.assert_array_equal(crop.affine[:3, 3], [2, 1, 0])
    assert base.shape == (4, 4, 4)  # a voxel of it lies in the padding
    np.testing.assert_array_equal(base.affine[:3, 3], [0, 0, 0])
    same = np.asarray(crop.dataobj)[0, 0, 0], np.asarray(base.dataobj)[2, 1, 0]
    assert same[0] == same[1]


def test_the_page_is_bounded(tmp_path: Path) -> None:
    one = case_volumes(tmp_path, kept(tmp_path), "case")
    assert fitting([one] * 3, most=2 * one.size) == ([one, one], 1)
    assert fitting([], most=1) == ([], 0)
    assert len(render(one)) < MOST_BYTES + 3_000_000


def test_without_volumes_there_is_no_niivue_in_the_page(tmp_path: Path) -> None:
    assert len(render()) < 50_000
    page = render(case_volumes(tmp_path, kept(tmp_path), "best case"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    allowed = set(re.findall(r"'sha256-([^']*)'", policy[1]))
    programs = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert {base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in programs} == allowed
    assert "default-src 'none'" in policy[1]
    assert "http" not in policy[1]


def test_a_slice_or_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    case = kept(tmp_path, (24, 20, 1))
    with pytest.raises(ValueError, match="a slice, not a volume"):
        case_volumes(tmp_path, case, "flat")
    with pytest.raises(ValueError, match="must lie in"):
        case_volumes(tmp_path / "other", SavedCase("../case_0001.npz", "case", None, (1.0,)), "elsewhere")


@needs_chromium
def test_the_page_shows_volumes_offline(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(render(case_volumes(tmp_path, kept(tmp_path), "best case")), encoding="utf-8")
    with chromium.Page(file, tmp_path / "profile", options=WEBGL) as page:
        if not page.evaluate("!!document.createElement('canvas').getContext('webgl2')"):
            pytest.skip("this Chromium has no WebGL 2")
        page.evaluate("document.querySelector('[data-volumes] button').click()")
        for _ in range(200):
            if page.evaluate("document.querySelector('[data-volumes]').dataset.open || ''"):
                break
            time.sleep(0.3)
        assert page.evaluate("document.querySelector('[data-volumes]').dataset.open") == "yes"
        assert page.requests() == []
        assert [text for text in page.complaints() if "Content Security Policy" in text] == []
