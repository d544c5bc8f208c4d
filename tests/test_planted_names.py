"""Planted names, numbers, dates and headers come out of scan, curate and cache nowhere."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from planted import MADE_UP, found_in, needles, plant, plant_dicom, planted_names, search
from typer.testing import CliRunner

from monai_cl.cli import app
from monai_cl.report.pictures import new_figure


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MONAI_CL_KEY", str(tmp_path / "key/pseudonym.key"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def say(*words: object) -> bytes:
    """Give a command; what it says."""
    said = CliRunner().invoke(app, [*map(str, words)])
    assert said.exit_code == 0, said.output[-3000:] + repr(said.exception)
    return said.output.encode("utf-8", "surrogateescape")


def test_a_scan_names_nobody(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = planted_names()
    root = out.parent / "data"
    plant(root, names)
    plant_dicom(root / "dicom", names[:8])
    wanted = needles(names)
    assert len(search(root, wanted)) > len(names)
    said = say("scan", root, "--out", out / "study.json")
    assert found_in(said + caplog.text.encode(), wanted) == set()
    assert search(out, wanted) == {}
    assert {path.name for path in out.iterdir()} == {"study.json", "study.html", "study.left_out.csv"}


def test_curate_and_cache_name_nobody(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = planted_names()[::6]
    root = out.parent / "data"
    plant(root, names)
    plant_dicom(root / "dicom", names[:4])
    wanted = needles(names)
    said = say("scan", root, "--out", out / "study.json", "--no-pictures")
    said += say("curate", out / "study.json", "--dataset-dir", root, "--on-leak", "report")
    said += say("cache", out / "study.json", "--dataset-dir", root, "--recipe", "small_mr", "--processes", 0)
    assert found_in(said + caplog.text.encode(), wanted) == set()
    assert search(out, wanted) == {}
    assert {"study.curated.json", "study.curated.curation.csv", "study_cache"} <= {path.name for path in out.iterdir()}


def test_a_list_made_by_hand_is_curated_and_cached_without_names(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = planted_names()[1::6]
    listing = plant(out.parent / "data", names)
    wanted = needles(names, tags=False)
    said = say("curate", listing, "--out", out / "curated.json", "--on-leak", "report")
    said += say("cache", listing, "--out", out / "cache", "--recipe", "small_mr", "--processes", 0)
    assert found_in(said + caplog.text.encode(), wanted) == set()
    assert search(out, wanted) == {}


def test_the_search_opens_what_it_searches(tmp_path: Path) -> None:
    name = MADE_UP[0]
    figure = new_figure(1, 1)
    png = io.BytesIO()
    figure.savefig(png, metadata={"Title": name})
    (tmp_path / "a.png").write_bytes(png.getvalue())
    (tmp_path / "b.gz").write_bytes(gzip.compress(gzip.compress(name.encode("utf-16-le"))))
    with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data", name.upper())
    (tmp_path / "d.json").write_text(f'"{"".join(f"{chr(92)}u{ord(one):04x}" for one in name)}"')
    (tmp_path / name).mkdir()
    assert set(search(tmp_path, [name])) == {"a.png", "b.gz", "c.pt", "d.json", name}
    assert found_in(b"0.650406 and 12650406ab", ["650406"]) == set()
    assert found_in(b"/650406_x", ["650406"]) == {"650406"}
