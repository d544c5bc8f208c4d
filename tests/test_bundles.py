"""Bundles: found, copied whole, and the checks that MONAI leaves out."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from forks import SECONDS, Fork

from monai_cl import bundles
from monai_cl._overrides import read_overrides

PROGRAM = str(Path("site-packages", "monai", "bundle", "__main__.py"))
CONFIG = """
imports: ["$import math"]
max_epochs: 3
learning_rate: 0.001
network_def: {_target_: UNet, spatial_dims: 3, channels: [8, 16]}
train:
  trainer: {_target_: SupervisedTrainer, max_epochs: "@max_epochs"}
  handlers: []
run: ["$None"]
"""


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder with one bundle, one folder that is none, and files that are not to be copied."""
    root = tmp_path / "shelf"
    bundle = root / "one"
    for file in ("configs/metadata.json", "configs/train.yaml", "docs/README.md", "LICENSE", "models/model.pt"):
        (bundle / file).parent.mkdir(parents=True, exist_ok=True)
        (bundle / file).write_text("{}")
    (bundle / "configs" / ".hidden").write_text("")
    (root / "empty").mkdir()
    monkeypatch.setattr(bundles, "_SEARCH", (tmp_path / "absent", root))
    return root


@pytest.fixture
def configs(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "train.yaml").write_text(CONFIG)
    (folder / "overlay.yaml").write_text("{amp: true, '+train::handlers': [1], 'train::trainer::amp': '@amp'}")
    (folder / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    return folder


def check(configs, *arguments, files="train.yaml"):
    bundles.check_command_line([PROGRAM, "run", "--config_file", str(configs / files), *arguments])


# --- finding and copying


def test_names_are_the_folders_with_metadata(shelf):
    assert bundles.names() == ["one"]


def test_path_is_the_folder(shelf):
    assert bundles.path("one") == shelf / "one"


def test_an_unknown_bundle_gets_the_closest_and_all(shelf):
    with pytest.raises(ValueError, match=r"unknown bundle 'ones', did you mean 'one'\? \(valid: one\)"):
        bundles.path("ones")


def test_missing_folders_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(bundles, "_SEARCH", (tmp_path / "a", tmp_path / "b"))
    with pytest.raises(FileNotFoundError, match="neither exists; reinstall monai_cl"):
        bundles.names()


def test_the_source_of_data_names_weights_that_are_shipped():
    for name in bundles.names():
        source = json.loads((bundles.path(name) / "configs/metadata.json").read_text())["data_source"]
        shipped = any((bundles.path(name) / "models/shipped").glob("*.safetensors"))
        assert ("ships no weights" in source) != shipped, name


def test_every_shipped_bundle_has_configs_and_a_licence():
    for name in bundles.names():
        assert (bundles.path(name) / "LICENSE").is_file()
        assert list((bundles.path(name) / "configs").glob("*.yaml"))


@pytest.mark.parametrize("exists", [False, True])
def test_copy_takes_configs_docs_and_licence_alone(shelf, tmp_path, exists):
    target = tmp_path / "mine" / "bundle"
    if exists:
        target.mkdir(parents=True)
    assert bundles.copy("one", target) == target
    files = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert files == ["LICENSE", "configs/metadata.json", "configs/train.yaml", "docs/README.md"]
    assert [p.name for p in target.parent.iterdir()] == ["bundle"]


def test_copy_refuses_a_folder_in_use(shelf, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=r"absent or empty folder, .*mine is not; choose another"):
        bundles.copy("one", tmp_path / "mine")
    assert (tmp_path / "mine" / "note.txt").read_text() == "keep"


def test_copy_refuses_a_file(shelf, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(FileExistsError, match="absent or empty folder"):
        bundles.copy("one", tmp_path / "mine")


def test_a_failed_copy_leaves_nothing(shelf, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(bundles.Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        bundles.copy("one", tmp_path / "out" / "mine")
    assert list((tmp_path / "out").iterdir()) == []


# --- version


@pytest.mark.parametrize(("installed", "minimum"), [("0.10.0", "0.9"), ("0.1.0", "0.1"), ("1.0.0rc1", "0.9")])
def test_a_new_enough_version_passes(monkeypatch, installed, minimum):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed)
    bundles.require_version(minimum)
    with pytest.raises(RuntimeError, match=r"needs monai_cl 99 or newer"):
        bundles.require_version("99")


@pytest.mark.parametrize(("installed", "minimum"), [("0.9.0", "0.10"), ("1.0.0rc1", "1.0")])
def test_an_older_version_is_refused_with_the_remedy(monkeypatch, installed, minimum):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed)
    text = (
        f"this bundle needs monai_cl {minimum} or newer, {installed} is installed: "
        f"pip install --upgrade 'monai_cl>={minimum}'"
    )
    with pytest.raises(RuntimeError, match=re.escape(text)):
        bundles.require_version(minimum)


def test_a_minimum_must_be_a_version():
    with pytest.raises(ValueError, match=r"minimum must be a version such as '0\.1\.0', got 'newest'"):
        bundles.require_version("newest")


# --- command line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--max_epochs", "1"],
        ["--max-epochs=1"],
        ["--network_def#spatial_dims", "2"],
        ["--network_def::channels::1", "2"],
        ["--network_def::norm", "batch"],  # a new argument of a component: the component refuses what it does not know
        ["--train::trainer::amp", "True"],
        ["--+imports", "['$import os']"],
        ["--run_id", "train", "--init-id", "x", "--final_id", "y", "--workflow_type", "infer", "--logging_file", "a"],
        ["run", "--learning_rate", "-1"],
        ["--tracking", "mlflow", "--experiment_name", "x", "--tracking_uri", "y"],
        ["--_meta_::version", "2"],
        ["--max_epochs", "1", "--", "--verbose"],
    ],
)
def test_overrides_of_what_exists_pass(configs, arguments):
    check(configs, *arguments)
    with pytest.raises(ValueError, match="unknown: --zzz"):
        check(configs, "--zzz", "1", *arguments)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--max_epoch", "1"], "--max_epoch, did you mean 'max_epochs'"),
        (["--max-epoch=1"], "--max_epoch, did you mean 'max_epochs'"),
        (
            ["--network_deff::spatial_dims", "2"],
            "--network_deff::spatial_dims, did you mean 'network_def::spatial_dims'",
        ),
        (["--network_def#channels#7", "2"], "--network_def#channels#7, did you mean 'network_def::channels"),
        (["--train#handlerz", "2"], "--train#handlerz, did you mean 'train::handlers'"),
        (["--spatial_dims", "2"], "--spatial_dims, did you mean 'network_def::spatial_dims'"),
        (["--run_idd", "x"], "--run_idd, did you mean 'run_id'"),
        (["--experiment_name", "x"], "unknown: --experiment_name"),
        (["--zzz"], r"unknown: --zzz$"),
        (["--+handlers", "[1]"], "--handlers, did you mean 'train::handlers'"),
    ],
)
def test_overrides_of_nothing_are_refused_with_the_closest_id(configs, arguments, match):
    with pytest.raises(ValueError, match=match):
        check(configs, *arguments)


def test_every_unknown_override_is_listed(configs):
    with pytest.raises(ValueError, match=r"--max_epoch, .*; --learning_rat, "):
        check(configs, "--max_epoch", "1", "--learning_rat", "1")


def test_a_lone_flag_that_starts_with_no_is_what_fire_makes_of_it(configs):
    with pytest.raises(ValueError, match="unknown: --rmalise"):
        check(configs, "--normalise")


@pytest.mark.parametrize("form", ["['{0}/train.yaml','{0}/overlay.yaml']", "{0}/train.yaml,{0}/overlay.yaml"])
def test_ids_of_every_config_file_count(configs, form):
    arguments = [PROGRAM, "run", "--config_file", form.format(configs), "--amp", "False"]
    bundles.check_command_line(arguments)
    with pytest.raises(ValueError, match="--am, did you mean 'amp'"):
        bundles.check_command_line([*arguments, "--am", "False"])


def test_the_config_file_may_come_from_the_arguments_file(configs, tmp_path):
    (tmp_path / "args.json").write_text(json.dumps({"config_file": str(configs / "train.yaml"), "max_epoch": 1}))
    with pytest.raises(ValueError, match="--max_epoch, did you mean 'max_epochs'"):
        bundles.check_command_line([PROGRAM, "run", "--args_file", str(tmp_path / "args.json")])


@pytest.mark.parametrize(
    "argv",
    [["pytest", "--max_epoch"], [], [PROGRAM], [PROGRAM, "verify_metadata", "--x", "1"], ["run", "--max_epoch", "1"]],
)
def test_other_processes_are_left_alone(argv):
    bundles.check_command_line(argv)
    assert read_overrides(argv) == {}


def test_without_arguments_it_reads_the_command_line_of_the_process(configs, monkeypatch):
    monkeypatch.setattr(sys, "argv", [PROGRAM, "run", "--config_file", str(configs / "train.yaml"), "--max_epoch", "1"])
    with pytest.raises(ValueError, match="--max_epoch, did you mean 'max_epochs'"):
        bundles.check_command_line()


@pytest.mark.parametrize(("override", "code"), [("--value", 0), ("--valu", 1)])
def test_a_bundle_run_stops_on_a_misspelt_override(tmp_path, override, code):
    (tmp_path / "metadata.json").write_text("{}")
    (tmp_path / "run.yaml").write_text(
        "imports: ['$import monai_cl.bundles as bundles']\n"
        "value: 1\n"
        "initialize: ['$bundles.check_command_line()']\n"
        "run: ['$print(\"value is\", @value)']\n"
    )
    command = ["-m", "monai.bundle", "run", "--config_file", str(tmp_path / "run.yaml"), override, "2"]
    process = Fork(command, tmp_path / "log.txt", tmp_path, os.environ)
    assert (process.wait(SECONDS) != 0) == bool(code)
    said = (tmp_path / "log.txt").read_text()
    assert ("did you mean 'value'" in said) == bool(code)
    assert ("value is 2" in said) == (not code)


# --- plain errors


@pytest.fixture
def hook(monkeypatch):
    """Installed in what looks like a bundle process, over a hook that prints one word."""
    monkeypatch.setattr(sys, "argv", [PROGRAM, "run"])
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: sys.stderr.write("traceback\n"))
    bundles.plain_errors()
    return lambda error: sys.excepthook(type(error), error, None)


def wrapped(error, *texts):
    for text in texts:
        outer = RuntimeError(text)
        outer.__cause__ = error
        error = outer
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("batch_size must be positive"), "batch_size must be positive"),
        (KeyError("image"), "KeyError: 'image'"),
        (NotImplementedError(), "NotImplementedError"),
        (OSError(2, "No such file", "a.json"), "[Errno 2] No such file: 'a.json'"),
        (wrapped(ValueError("too few scans"), "someone else's words"), "someone else's words"),
    ],
)
@pytest.mark.parametrize(
    "wrappers",
    [
        (),
        ("Failed to evaluate x",),
        ("applying transform <y>", "Failed to instantiate component 'z'", "Failed to evaluate x"),
    ],
)
def test_the_last_line_is_what_monai_wrapped(hook, capsys, error, said, wrappers):
    hook(wrapped(error, *wrappers))
    assert capsys.readouterr().err == f"traceback\n\nerror: {said}\n"


def raised(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_run_that_stopped_before_its_end_ends_its_process_with_a_code(monkeypatch):
    bundles.stopped()  # elsewhere than in a bundle's process
    bundles.release()
    monkeypatch.setattr(sys, "argv", [PROGRAM, "run"])
    bundles.stopped()
    with pytest.raises(SystemExit, match=r"^143$"):
        bundles.release()
    bundles.release()


def test_a_run_that_stopped_ends_a_process_that_heeds_stops():
    with bundles.heeding_stops():
        bundles.stopped()
        with pytest.raises(SystemExit, match=r"^143$"):
            bundles.release()
    bundles.stopped()
    bundles.release()


def test_what_the_package_says_to_its_user_comes_without_a_traceback(hook, capsys, monkeypatch):
    answer = raised(lambda: bundles.path("volume_contrst"))
    hook(wrapped(answer, "Failed to evaluate x"))
    said = capsys.readouterr().err
    assert said.startswith("\nerror: unknown bundle 'volume_contrst', did you mean 'volume_contrast'")
    monkeypatch.setenv("MONAI_CL_TRACEBACK", "1")
    hook(answer)
    assert capsys.readouterr().err == f"traceback\n{said}"


@pytest.mark.parametrize(
    "call",
    [
        lambda: int("a"),  # raised by Python
        lambda: bundles.split_command(None),  # a mistake in a call, no answer to a user
        lambda: bundles.claim("\0"),  # raised by Python in a file of the package
    ],
)
def test_all_else_comes_with_its_traceback(hook, capsys, call):
    hook(raised(call))
    assert capsys.readouterr().err.startswith("traceback\n\nerror: ")


def test_a_wrapper_around_nothing_is_the_reason(hook, capsys):
    hook(RuntimeError("Failed to evaluate x"))
    assert capsys.readouterr().err.endswith("error: Failed to evaluate x\n")


def test_a_keyboard_interrupt_is_left_as_it_is(hook, capsys):
    hook(KeyboardInterrupt())
    assert capsys.readouterr().err == "traceback\n"


def test_asked_twice_the_reason_comes_once(hook, capsys):
    bundles.plain_errors()
    hook(ValueError("a b"))
    assert capsys.readouterr().err.count("error:") == 1


@pytest.mark.parametrize("argv", [["pytest"], [], ["monai-cl", "demo"]])
def test_elsewhere_the_hook_stays(monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", argv)
    before = sys.excepthook
    bundles.plain_errors()
    assert sys.excepthook is before


def test_finding_bundles_imports_no_monai():
    code = (
        "import sys; from monai_cl import bundles; bundles.names();"
        "assert not {'monai', 'torch', 'fire'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
