import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chromium
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.networks.nets import SegResNet
from typer.testing import CliRunner

from monai_cl import bundles, cli, weights
from monai_cl.data import write_cache
from monai_cl.engine.run_record import read_run_record
from monai_cl.engine.save_cases import SavedCase, read_cases
from monai_cl.evaluation.results import Curve, CurveArm, Estimate, save_curve
from monai_cl.report import RunRecord, SaveCases, _slices
from monai_cl.report._curves import draw_histories
from monai_cl.report._folders import Run, find
from monai_cl.report._privacy import without_paths
from monai_cl.report._results import result_tables
from monai_cl.report._sources import NotAvailableError, Sources
from monai_cl.report.html import write_report

CASES = ("mueller_anna", "smith_john", "doe_jane", "roe_jim")
SHAPE = (14, 18, 9)
needs_chromium = pytest.mark.skipif(
    chromium.EXECUTABLE is None, reason="no Chromium on this machine: apt install chromium"
)


def one_hot(classes: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(classes).long(), 3).movedim(-1, 0).float()


def evaluate(folder: Path, *handlers: object, errors: int = 3) -> None:
    """Run an evaluator over made-up cases: truth in blocks, prediction with ever more errors."""

    def step(engine: Engine, number: int) -> list[dict[str, torch.Tensor]]:
        rng = np.random.default_rng(number)
        truth = np.zeros(SHAPE, int)
        truth[3:9, 4:12, 2:7] = 1
        truth[6:9, 4:12, 2:7] = 2
        prediction = truth.copy()
        prediction[rng.random(SHAPE) < errors * number / 100] = 0
        image = MetaTensor(truth[None] + rng.random((1, *SHAPE)), affine=torch.diag(torch.tensor([1.0, 1.0, 2.5, 1.0])))
        engine.state.batch = [{"image": image, "case": CASES[number]}]
        return [{"pred": one_hot(prediction), "label": one_hot(truth)}]

    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)  # type: ignore[attr-defined]
    engine.run(range(len(CASES)))


def write_scores(folder: Path, name: str, offset: float) -> None:
    rows = [f"{case},{0.9 - 0.1 * i - offset},{0.8 - 0.1 * i},{0.85 - 0.1 * i}" for i, case in enumerate(CASES)]
    rows[-1] = f"{CASES[-1]},0.5,nan,0.5"
    (folder / f"{name}_raw.csv").write_text("\n".join(["filename,class0,class1,mean", *rows]))


@pytest.fixture(scope="module")
def bundle(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a run of each step, as the steps leave them."""
    root = bundles.copy("volume_contrast", tmp_path_factory.mktemp("bundle") / "mine")
    network = SegResNet(
        spatial_dims=3, in_channels=1, out_channels=3, init_filters=8, blocks_down=[1, 2, 2, 4], blocks_up=[1, 1, 1]
    )
    contract = {
        "method": "volume_contrast",
        "recipe": "small_mr",
        "recipe_options": {},
        "init_filters": 8,
        "in_channels": 1,
        "out_channels": 3,
    }
    touched = [name for name, _ in network.named_parameters() if "down" in name]
    weights.save_network(network, root / "models/pretrained.pt", contract={**contract, "steps": 20, "touched": touched})
    settings = {"grid": [2, 2, 1], "crop_size": [8, 8, 8], "num_crops": 3, "seed": 0, "sections": "training+unlabelled"}
    data = {"datalist": study / "datalist.json", "dataset_dir": study, "recipe": "small_mr"}
    for name, step in (("pretrain", "pretrain"), ("train", "train"), ("train_scratch", "train")):
        folder = root / "runs" / name
        if name == "train":
            weights.start_from(network, root / "models/pretrained.pt")
        given = network if name == "train" else None
        record = RunRecord(folder, step, settings=settings, seed=0, network=given, volumes=[1, 2], **data)
        evaluate(folder, record)
        (folder / "history.csv").write_text("step,loss,learning_rate\n10,1.0,0.1\n20,0.5,0.05\n")
    pretrain = root / "runs/pretrain"
    torch.save({"step": 20, "settings": settings, "random": [{}], "method": {}}, pretrain / "checkpoint.pt")
    (pretrain / "health.csv").write_text("step,effective_rank\n20,5.5\n")
    for name, offset in (("evaluate", 0.0), ("evaluate_scratch", 0.1)):
        folder = root / "runs" / name
        evaluate(folder, SaveCases(folder / "cases", 3, names={1: "left", 2: "right"}))
        write_scores(folder, "val_mean_dice", offset)
    write_scores(root / "runs/evaluate", "val_hausdorff_95", 0.0)
    return root


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curve") / "curve_of_two"

    def estimate(kind: str, arm: str, budget: int, low: float) -> Estimate:
        comparison, reference = ("equal steps", "scratch") if kind == "difference" else ("", "")
        who = {"kind": kind, "comparison": comparison, "metric": "dice", "label": "mean", "arm": arm}
        found = {"estimate": 0.7, "low": low, "high": 0.8, "confidence": 0.95, "runs": 1, "seeds": 2}
        return Estimate(**who, **found, reference=reference, budget=budget, cases=4, used=8, excluded=0)

    arms = (
        CurveArm("scratch", "from scratch", "reference", ("",), 100),
        CurveArm("vc", "pretrained", "pretrained", ("a",), 100),
    )
    found = [estimate("mean", arm.name, budget, 0.6) for arm in arms for budget in (1, 4)]
    found += [estimate("difference", "vc", 4, float("nan"))]
    record = {"date": "2026-01-02", "hardware": "a loom", "versions": {"torch": "2.0"}}
    save_curve(Curve((), arms, tuple(found), failed={"vc/4/1": "boom in doe_jane"}, record=record), folder)
    return folder


@pytest.fixture(scope="module")
def page(bundle: Path, curve: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([bundle, curve], tmp_path_factory.mktemp("page") / "report.html", date="2026-01-03")


class Walk(HTMLParser):
    """Collects elements and text, and checks that every element is closed in turn."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.said: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.said.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.said))


@pytest.fixture(scope="module")
def walk(page: Path) -> Walk:
    return Walk(page.read_text(encoding="utf-8"))


def test_every_picture_has_a_text_and_nothing_lies_elsewhere(walk: Walk) -> None:
    pictures = [attrs for tag, attrs in walk.elements if tag in ("img", "svg") and "aria-hidden" not in attrs]
    assert len(pictures) > 20
    assert all(attrs.get("alt") or (attrs.get("role") == "img" and attrs.get("aria-label")) for attrs in pictures)
    targets = [a[k] for _, a in walk.elements for k in ("src", "href", "xlink:href") if k in a]
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)


def test_names_are_unique_and_links_arrive(walk: Walk) -> None:
    ids = [attrs["id"] for _, attrs in walk.elements if "id" in attrs]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    inside = [a[k] for _, a in walk.elements for k in ("href", "xlink:href") if a.get(k, "").startswith("#")]
    assert {link[1:] for link in inside} <= set(ids)


def test_no_path_of_the_machine_and_no_case_name_is_told(page: Path, bundle: Path, study: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert str(bundle) not in text
    assert str(study) not in text
    assert not [name for name in (*CASES, "case_0.nii") if name in text]
    assert "case 1" in text


def test_names_are_shown_when_asked_for(bundle: Path, tmp_path: Path) -> None:
    page = write_report([bundle / "runs/evaluate"], tmp_path / "r.html", names=True)
    assert "mueller_anna" in page.read_text(encoding="utf-8")


def test_what_was_run_is_told(walk: Walk, study: Path) -> None:
    for fact in (
        "pretraining",
        "volumes in training",
        "small_mr",
        "2 x 2 x 1",
        "effective_rank",
        "from scratch",
        "finished",
    ):
        assert fact in walk.text, fact
    assert torch.__version__ in walk.text
    assert json.loads((study / "datalist.json").read_text())["name"] in walk.text


def test_results_come_with_intervals(walk: Walk) -> None:
    assert re.search(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", walk.text)
    assert "Dice: difference to evaluate, same cases" in walk.text
    assert "2 scores are not defined" in walk.text
    assert "0.700 [interval not defined]" in walk.text  # of the curve's difference
    assert "These runs failed and are left out: vc/4/1." in walk.text


def test_views_neighbours_and_limits_are_there(walk: Walk) -> None:
    for title in ("Views and their correspondences", "How far from its own place", "Only the encoder is pretrained"):
        assert title in walk.text
    assert "Not in this report" not in walk.text


def test_what_cannot_be_shown_is_named(bundle: Path, tmp_path: Path) -> None:
    page = write_report([bundle / "runs/evaluate_scratch"], tmp_path / "r.html", neighbours=False)
    said = Walk(page.read_text(encoding="utf-8")).text
    for reason in ("Switched off.", "no run given here recorded a grid", "were not recorded by: evaluate_scratch"):
        assert reason in said


def test_volumes_that_have_moved_are_not_named_in_the_page(
    bundle: Path, study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = write_report([bundle], tmp_path / "r.html", dataset_dir=tmp_path / "elsewhere")
    text = page.read_text(encoding="utf-8")
    assert "the volumes of the datalist are unavailable, the log has the reason" in text
    assert "case_0" not in text
    assert "case_0.nii.gz" in caplog.text


def test_views_are_drawn_of_the_volumes_of_a_cache(bundle: Path, study: Path, tmp_path: Path) -> None:
    cached = write_cache(study / "datalist.json", tmp_path / "cache", recipe="small_mr", processes=0)
    listed = Sources(find([bundle]), datalist=study / "datalist.json").volumes(2)
    for one, other in zip(Sources(find([bundle]), datalist=cached.folder).volumes(2), listed, strict=True):
        assert one.case == other.case
        torch.testing.assert_close(one.image, torch.as_tensor(other.image), atol=1e-3, rtol=0)


def test_a_volume_that_cannot_be_read_is_passed_over_with_the_reason(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"")
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": "a.nii.gz"}]}))
    assert list(Sources(find([bundle]), datalist=tmp_path / "list.json").volumes(1)) == []
    assert "the file is empty" in caplog.text
    assert "object at 0x" not in caplog.text


def test_a_series_listed_file_by_file_is_shown_where_all_its_files_came_with_the_runs(
    bundle: Path, tmp_path: Path
) -> None:
    (bundle / "s").mkdir()
    inner, outer = [bundle / f"s/{number}.dcm" for number in range(2)], tmp_path / "2.dcm"
    for file in (*inner, outer):
        file.touch()
    sources, datalist = Sources(find([bundle])), bundle / "configs/metadata.json"
    items = [{"image": [str(file) for file in inner]}]
    assert sources._own(items, datalist) == items
    with pytest.raises(NotAvailableError, match="the datalist lies with the runs and its volumes do not"):
        sources._own([{"image": [str(inner[0]), str(outer)]}], datalist)


def test_the_same_runs_give_the_same_page(bundle: Path, tmp_path: Path) -> None:
    pages = [write_report([bundle], tmp_path / f"{i}.html", date="2026-01-01", neighbours=False) for i in (1, 2)]
    assert pages[0].read_bytes() == pages[1].read_bytes()


@pytest.fixture
def browser(page: Path, tmp_path: Path) -> Iterator[chromium.Page]:
    with chromium.Page(page, tmp_path / "profile") as opened:
        yield opened


@needs_chromium
def test_the_page_opens_without_complaint_or_request(browser: chromium.Page) -> None:
    assert browser.evaluate("document.querySelectorAll('figure svg').length") > 20
    assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert browser.complaints() == []
    assert browser.requests() == []


@needs_chromium
def test_a_request_would_be_noticed_and_refused(page: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(
        page.read_text(encoding="utf-8").replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>')
    )
    with chromium.Page(spoilt, tmp_path / "profile") as opened:
        assert any("Content Security Policy" in text for text in opened.complaints())


@needs_chromium
def test_arrow_keys_go_through_the_slices(browser: chromium.Page) -> None:
    seen = "document.querySelector('.viewer').querySelectorAll('[data-slice]:not([hidden])')"
    shown = f"[...{seen}].map(slice => slice.dataset.slice)"
    (start,) = browser.evaluate(shown)
    browser.evaluate("document.querySelector('.viewer input').focus()")
    browser.press("ArrowRight", 39)
    assert browser.evaluate(shown) == [str(int(start) + 1)]
    assert browser.evaluate("document.querySelector('.viewer output').value") == f"{int(start) + 1} of {SHAPE[2]}"
    browser.press("Home", 36)
    assert browser.evaluate(shown) == ["1"]
    assert browser.evaluate(f"{seen}[0].querySelector('svg').getBoundingClientRect().width > 200")


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_light_and_dark_and_fits_at_double_zoom(page: Path, tmp_path: Path, dark: bool) -> None:
    with chromium.Page(page, tmp_path / "profile", width=550, dark=dark) as opened:  # 1100 pixels at 200 %
        colours = opened.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.documentElement))")
        text, ground = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
        assert (text > ground) == dark
        assert abs(text - ground) > 500
        assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_slices_show_the_voxels_as_they_are() -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 2] = 1
    # one voxel: a diamond through the middles of its edges, in half voxels
    assert re.search(r'd="M[\d -]+l[\d -]+z"', _slices._outlines(mask, [1.0, 2.0]))
    assert "scale(0.5 1)" in _slices._outlines(mask, [1.0, 2.0])
    assert _slices._outlines(np.zeros((4, 5), np.uint8), [1.0, 1.0]) == ""


def test_outlines_enclose_as_much_as_the_mask() -> None:
    mask = np.zeros((9, 8), np.uint8)
    mask[2:7, 1:6] = 1
    path = re.search(r'd="M(\d+) (\d+)l([^z]+)z"', _slices._outlines(mask, [1.0, 1.0]))
    assert path
    moves = np.array(re.findall(r"-?\d+", path[3]), int).reshape(-1, 2)
    corners = np.cumsum([[int(path[1]), int(path[2])], *moves], axis=0) / 2
    x, y = corners.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert area == pytest.approx(25 - 4 / 8)  # the four corners are cut, an eighth of a voxel each
    assert corners.min(0).tolist() == [1, 2]  # x is the second axis of the mask
    assert corners.max(0).tolist() == [6, 7]


def test_long_volumes_are_thinned_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_slices, "MOST_SLICES", 4)
    evaluate(tmp_path, SaveCases(tmp_path, 3))
    case = read_cases(tmp_path)["cases"][0]
    viewer = _slices.viewer(tmp_path, case, "a case")
    assert len(viewer.slices) <= 4
    assert viewer.note == "shown: every 3. slice"


def test_a_flat_image_has_one_slice_and_no_slider(tmp_path: Path) -> None:
    mask = np.zeros((12, 10), np.uint8)
    mask[3:6, 3:6] = 1
    np.savez_compressed(tmp_path / "case_0001.npz", image=mask, truth=mask, prediction=mask)
    viewer = _slices.viewer(tmp_path, SavedCase("case_0001.npz", "a", 1.0, (1.0, 2.0)), "a case")
    assert (len(viewer.slices), viewer.start, viewer.note) == (1, 0, "")
    assert 'viewBox="0 0 44 20"' in viewer.slices[0]  # three panels of 12 by 20 mm and two gaps


def test_best_median_and_worst_are_kept(tmp_path: Path) -> None:
    evaluate(tmp_path, SaveCases(tmp_path, 3))
    kept = read_cases(tmp_path)
    assert kept["evaluated"] == 4
    assert sorted(role for case in kept["cases"] for role in case.roles) == ["best", "median", "worst"]
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == sorted(case.file for case in kept["cases"])
    best = next(case for case in kept["cases"] if "best" in case.roles)
    assert (best.case, best.spacing) == (CASES[0], (1.0, 1.0, 2.5))
    with np.load(tmp_path / best.file) as content:
        assert {content[name].dtype for name in content} == {np.dtype(np.uint8)}
        assert content["image"].max() == 255


def test_all_cases_are_kept_when_asked_for_and_earlier_ones_go(tmp_path: Path) -> None:
    (tmp_path / "case_0099.npz").write_bytes(b"old")
    evaluate(tmp_path, SaveCases(tmp_path, 3, keep="all"))
    assert len(list(tmp_path.glob("*.npz"))) == len(CASES) == len(read_cases(tmp_path)["cases"])


@pytest.mark.parametrize(
    ("options", "message"), [({"keep": "some"}, "extremes, all"), ({"num_classes": 300}, "between 2 and 256")]
)
def test_wrong_options_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        SaveCases(tmp_path, **{"num_classes": 3, **options})  # type: ignore[arg-type]


def test_a_resumed_run_records_both_parts(study: Path, tmp_path: Path) -> None:
    def run(start: int) -> None:
        record = RunRecord(tmp_path, "pretrain", datalist=study / "datalist.json", recipe="small_mr")
        engine = SimpleNamespace(state=SimpleNamespace(iteration=start))
        record._start(engine)  # type: ignore[arg-type]
        engine.state.iteration = start + 5
        record._finish(engine)  # type: ignore[arg-type]

    run(0)
    run(5)
    parts = read_run_record(tmp_path)["parts"]
    assert [(part["from_step"], part["to_step"]) for part in parts] == [(0, 5), (5, 10)]
    assert parts[0]["versions"]["torch"] == torch.__version__
    run(0)
    assert len(read_run_record(tmp_path)["parts"]) == 1


def test_a_record_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 7}')
    with pytest.raises(ValueError, match="must be a run record of format 1, got 7"):
        read_run_record(tmp_path)


def test_folders_without_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds none of them; has its step been run"):
        find([tmp_path])
    with pytest.raises(FileNotFoundError, match="none exists at"):
        find([tmp_path / "absent"])
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "r.html")


def test_runs_of_one_name_are_told_apart(bundle: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train/history.csv").write_text("step,loss\n1,1\n")
    assert [run.name for run in find([tmp_path / "a/train", tmp_path / "b/train"]).runs] == ["a/train", "b/train"]


def test_of_a_curve_its_first_pretrainings_and_an_example_of_each_arm_are_shown(tmp_path: Path) -> None:
    curve = tmp_path / "runs/curve"
    for arm, seed in [("contrast", 0), ("contrast", 1), ("masked", 3)]:
        folder = curve / f"pretraining/{arm}/seed_{seed}"
        folder.mkdir(parents=True)
        (folder / "checkpoint.pt").touch()
    for arm in ("scratch", "contrast/paired"):
        for labels, seed in product((2, 4, 16), (0, 1)):
            folder = curve / f"cells/{arm}/labels_{labels}/seed_{seed}"
            folder.mkdir(parents=True)
            if arm == "scratch" or labels < 16:  # one arm is not finished yet
                (folder / "val_mean_dice_raw.csv").touch()
    (curve / "curve.csv").touch()

    def names(kind: str, **options: Any) -> set[str]:
        return {str(run.folder.relative_to(curve)) for run in find([tmp_path], **options).of(kind)}

    assert names("curve") == {"."}
    assert {run.name for run in find([tmp_path]).runs} == {
        "curve", "contrast/seed_0", "seed_3", "paired/labels_4/seed_0", "scratch/labels_4/seed_0",
    }  # fmt: skip
    assert names("pretrain") == {"pretraining/contrast/seed_0", "pretraining/masked/seed_3"}
    assert names("evaluate") == {"cells/contrast/paired/labels_4/seed_0", "cells/scratch/labels_4/seed_0"}
    assert names("evaluate", examples=False) == set()


def test_examples_of_a_curve_are_compared_with_its_reference(tmp_path: Path) -> None:
    for arm, score in (("contrast", 0.8), ("scratch", 0.7)):
        folder = tmp_path / f"cells/{arm}/labels_2/seed_0"
        folder.mkdir(parents=True)
        rows = "".join(f"{case},{score + number / 100},{score + number / 100}\n" for number, case in enumerate("abc"))
        (folder / "val_mean_dice_raw.csv").write_text(f"filename,class0,mean\n{rows}")
    (tmp_path / "curve.csv").touch()
    for summary, reference in (
        (None, "contrast"),
        ('{"record": {"reference": "scratch"}}', "scratch"),
        ("{", "contra"),
    ):
        if summary is not None:
            (tmp_path / "summary.json").write_text(summary)
        *_, difference = result_tables(find([tmp_path]).of("evaluate"))
        assert difference.caption.startswith(f"Dice: difference to {reference}")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/work/main/a.yaml", "a.yaml"),
        ("see '/home/me/x y'", "see 'x y'"),
        ("~/data/list.json", "list.json"),
        ("1/2 and mm/s, bundles/own/x", "1/2 and mm/s, bundles/own/x"),
    ],
)
def test_absolute_paths_are_cut(text: str, left: str) -> None:
    assert without_paths(text) == left


def test_the_command_line_writes_the_page(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r.html"
    result = CliRunner().invoke(cli.app, ["report", str(bundle / "runs/train"), "--out", str(out), "--no-neighbours"])
    assert result.exit_code == 0, result.output
    assert out.read_text().startswith("<!doctype html>")
    monkeypatch.setattr(sys, "argv", ["monai-cl", "report", str(tmp_path)])
    with pytest.raises(SystemExit, match="1"):
        cli.main()


def test_percentiles_of_a_sample_are_one_chart_with_a_band(tmp_path: Path) -> None:
    rows = ["step,cosine_p10,cosine_p50,cosine_p90,effective_rank", "10,-0.1,0.2,0.4,3", "20,0,0.3,0.5,4"]
    (tmp_path / "health.csv").write_text("\n".join(rows))
    pictures = draw_histories([Run("pretrain", "mine", tmp_path)])
    assert len(pictures) == 2
    assert "health: cosine against the step. mine: 0.2 at step 10, 0.3 at step 20." in pictures[0].svg
    assert pictures[0].caption == "median, and 10th to 90th percentile"
    assert "percentile" not in pictures[1].caption
