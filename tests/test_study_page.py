"""The page about a scan: complete, offline, the same each time."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import EXECUTABLE, Page
from dicom_series import write_series

from monai_cl.data import scan
from monai_cl.report.study_page import write_study_page


@pytest.fixture
def result(tmp_path: Path):
    write_series(tmp_path / "data/good", SeriesDescription="t2_flair", BodyPartExamined="HEAD")
    write_series(tmp_path / "data/odd <b>", Modality="CT")
    write_series(tmp_path / "data/gap", [0, 1, 4])
    return scan(tmp_path / "data", tmp_path / "out/study.json", pictures=True, hide_names=False)


def test_every_volume_has_its_picture_and_every_reason_a_row(result, tmp_path):
    page = write_study_page(result, tmp_path / "out/study.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 2
    assert all(base64.b64decode(one).startswith(b"\x89PNG") for one in pictures)
    assert "missing or unevenly spaced slices" in page
    assert "MR FLAIR BRAIN" in page
    assert "Modality is CT, but no voxel" in page
    assert "odd &lt;b&gt;" in page
    assert page == write_study_page(result, tmp_path / "again/study.html").read_text()


def test_without_pictures_the_tiles_say_so(result, tmp_path):
    bare = scan(result.folder, tmp_path / "bare/study.json")
    assert write_study_page(bare, tmp_path / "bare/study.html").read_text().count("no picture") == 2


def test_only_subjects_with_several_volumes_have_headings_of_their_own(result, tmp_path):
    (section, items), *_ = [(name, items) for name, items in result.sections.items() if items]
    few = write_study_page(result, tmp_path / "few.html").read_text()
    assert f"<h3>{section}</h3>" in few
    assert all(f"subject {item['subject']}<br>" in few for item in items)
    many = write_study_page(replace(result, sections={section: items * 4}), tmp_path / "many.html").read_text()
    assert all(f"<h3>{section}: {item['subject']}</h3>" in many for item in items)
    assert f"<h3>{section}</h3>" not in many


@pytest.mark.skipif(EXECUTABLE is None, reason="needs Chromium")
def test_page_asks_for_nothing_and_fits_a_phone(result, tmp_path):
    page = write_study_page(result, tmp_path / "out/study.html")
    with Page(page, tmp_path / "profile", width=400) as shown:
        assert shown.complaints() == []
        assert shown.requests() == []
        assert shown.evaluate("document.documentElement.scrollWidth") <= 400
        decoded = "Promise.all([...document.images].map(image => image.decode()))"  # fails for a picture that is none
        assert shown.evaluate(f"{decoded}.then(() => [...document.images].every(image => image.naturalWidth > 0))")
