"""The site builds offline without a warning, so every link, anchor and picture is there; words are spelt right."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from monai_cl import bundles
from monai_cl.cli import app
from monai_cl.report import card
from monai_cl.report.tables import to_markdown

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"
PAGES = sorted(TUTORIALS.glob("pages/**/*.md"))
WITH_COMMANDS = [ROOT / "README.md", *PAGES]
# correct words that the list of misspellings takes for something else: units, symbols, names, other languages
RIGHT = "te,nd,reson,ist,lits,fo,ot,nin,sie,ser,mis,ans,serie,vas,ue,extrem"


# | data | labels | scratch | `arm` Dice | difference [low, high] (remark) | [name](record) |
RESULT = re.compile(
    r"^\| [^|]+ \| (\d+) \| (\S+) \| `(\w+)` (\S+) \| (\S+) \[(\S+), (\S+)\](?: \((.+?)\))? \| \[\w+\]\((.+?)\) \|$",
    re.M,
)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors and without a network."""
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(TUTORIALS / "mkdocs.yml"), "-d", folder]
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, "\n".join(line for line in result.stderr.splitlines() if "INFO" not in line)
    return folder


@pytest.mark.timeout(900)
def test_every_page_card_and_lesson_is_on_the_site(site: Path) -> None:
    expected = {path.relative_to(TUTORIALS / "pages").with_suffix(".html").as_posix() for path in PAGES}
    expected |= {f"bundles/{name}.html" for name in bundles.names()} | {"recipes.html"}
    expected |= {f"lessons/{path.stem}.html" for path in TUTORIALS.glob("*.ipynb")}
    assert expected <= {path.relative_to(site).as_posix() for path in site.rglob("*.html")}


def test_the_reference_shows_classes_with_their_equations(site: Path) -> None:
    text = (site / "reference/losses.html").read_text(encoding="utf-8")
    assert 'id="monai_cl.losses.nt_xent.NTXentLoss"' in text
    assert "<math" in text
    assert ":class:" not in text


def test_a_reader_needs_no_network(site: Path) -> None:
    fetched = re.compile(
        r'<(?:script|img|iframe|source)[^>]*src="https?:|<link[^>]*rel="(?:stylesheet|preconnect)[^>]*https?:'
    )
    assert [path for path in site.rglob("*.html") if fetched.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.timeout(900)
def test_the_search_works_in_pages_opened_from_a_folder(site: Path, tmp_path: Path) -> None:
    """Without a server, where browsers refuse workers."""
    assert (site / "search/search_index.js").is_file()
    if not (browser := shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium to open the pages with")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    address = f"{(site / 'index.html').as_uri()}?q=pseudonym"
    result = subprocess.run(
        [browser, *options, "--virtual-time-budget=15000", address],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert re.search(r"\d+ matching documents", result.stdout)


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=named)
def test_documented_commands_and_configs_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    used = re.findall(r"(?:^\s*|`)monai-cl ([a-z]\w*)", text, re.MULTILINE)
    assert {verb for verb in used if verb not in verbs} == set()
    own = {file.name for name in bundles.names() for file in (bundles.path(name) / "configs").glob("*")}
    configs = set(re.findall(r"(?:configs|\$C)/(\w+\.(?:yaml|json))", text))
    assert configs <= own


def test_the_page_of_commands_names_every_verb() -> None:
    text = (TUTORIALS / "pages/tools.md").read_text(encoding="utf-8")
    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert {verb for verb in verbs if f"`monai-cl {verb}" not in text} == set()


def test_every_verb_has_a_picture_on_the_page_of_commands() -> None:
    text = (TUTORIALS / "pages/tools.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^`([a-z]+)(?: [a-z]+)*` [^!]+?\n\n!\[[^\]]+\]\((\S+)\)$", text, re.M))
    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert verbs - set(shown) == set()
    assert [path for path in shown.values() if not (TUTORIALS / "pages" / path).is_file()] == []


def test_pictures_of_commands_are_small_shown_and_free_of_addresses_and_fonts_from_the_network() -> None:
    text = (TUTORIALS / "pages/tools.md").read_text(encoding="utf-8")
    pictures = sorted((TUTORIALS / "images").glob("verb_*.[sp][vn]g"))
    assert len(pictures) >= 17
    for picture in pictures:
        assert f"(../images/{picture.name})" in text
        assert picture.stat().st_size < 60_000
        if picture.suffix == ".svg":
            svg = picture.read_text(encoding="utf-8")
            assert re.findall(r"@font-face|/work/|/home/|/tmp/|/root/|127\.0\.0\.1|localhost", svg) == []


def test_every_bundle_is_in_the_chooser_and_on_the_page_of_bundles() -> None:
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "tutorials/pages/tools.md")]
    assert [
        name for name in bundles.names() if not all(f"bundles/{name}/docs/README.md" in page for page in pages)
    ] == []


def test_links_of_the_readme_lead_to_files() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def differences(record: Path, labels: str) -> dict[str, tuple[str, str, str, str]]:
    """Difference to scratch in Dice points, its interval and its remark, as written, of every arm of a record."""
    means, paired = json.loads(record.read_text(encoding="utf-8"))["tables"][:2]
    assert means["caption"] == "Dice by number of labels"
    row = next(row for row in paired["rows"] if row[0] == labels)
    arms = [column.removesuffix(" less scratch") for column in paired["columns"]]
    return {
        arm: (*(f"{100 * cell[key]:+.1f}" for key in ("value", "low", "high")), cell.get("remark", ""))
        for arm, cell in zip(arms[1:], row[1:], strict=True)
    }


def test_the_results_of_the_readme_are_those_of_records() -> None:
    rows = RESULT.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(rows) >= 8
    for labels, scratch, arm, dice, *difference, link in rows:
        means = json.loads((ROOT / link).read_text(encoding="utf-8"))["tables"][0]
        cells = dict(zip(means["columns"], next(row for row in means["rows"] if row[0] == labels), strict=True))
        assert [f"{cells[name]['value']:.3f}" for name in ("scratch", arm)] == [scratch, dice]
        assert differences(ROOT / link, labels)[arm] == tuple(difference)


def test_the_controls_of_the_readme_are_those_of_records() -> None:
    """Twice the steps on the hearts, and the time of pretraining added on the hippocampus."""
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    record = json.loads((ROOT / "bundles/global_local_contrast/docs/records/acdc_planes5.json").read_text())
    means = record["tables"][0]
    cells = dict(zip(means["columns"], next(row for row in means["rows"] if row[0] == "8"), strict=True))
    assert f"{cells['scratch_2x']['value']:.3f} with 8 on the hearts" in text
    record = json.loads((ROOT / "bundles/volume_contrast/docs/records/hippocampus.json").read_text())
    labels, less, _ = record["tables"][2]["rows"][0]
    value, low, high = (f"{100 * less[key]:+.1f}" for key in ("value", "low", "high"))
    assert f"{labels} labels: {value} [{low}, {high}], {less['remark']}" in text


def test_the_badges_of_the_readme_are_true() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    licence, python, monai = re.findall(r"img\.shields\.io/badge/\w+-(\S+?)-\w+\)", text)
    assert f'license = "{licence.replace("--", "-")}"' in project
    assert f'requires-python = "{python.replace("%3E%3D", ">=")}"' in project
    assert f'"monai{monai.replace("%3E%3D", ">=")}"' in project


def test_the_readme_can_be_scanned() -> None:
    """About 120 lines; the rest is on the site, which it names."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    assert "tutorials/pages/changes.md" in text


def test_the_results_page_shows_the_results_of_record() -> None:
    """Its table of the hippocampus curve is the record's, as are date and versions."""
    text = (TUTORIALS / "pages/results.md").read_text(encoding="utf-8")
    record = next(r for r in card.read_records(ROOT / "bundles/volume_contrast") if r.title.startswith("Hippocampus"))
    dice = next(table for table in record.tables if table.caption.startswith("Dice by number of labels"))
    assert to_markdown(dice).partition("\n\n")[2].partition("\n\n")[0] in text
    assert record.date in text
    for name in ("monai_cl", "torch", "monai"):
        assert record.versions[name].partition("+")[0] in text


def test_words_are_spelt_right() -> None:
    if not (program := shutil.which("codespell", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")):
        pytest.skip("codespell is not installed: pip install 'monai_cl[docs]'")
    where = ["README.md", "monai_cl", "tutorials", "transforms", "bundles"]
    result = subprocess.run(
        [program, *where, "--skip", "*.json,*.png,*.ipynb,*.pt", "-L", RIGHT],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert result.stdout == ""
