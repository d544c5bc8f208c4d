"""Commands that are attacked: what each needs, how it is given, and what it leaves."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import yaml
from test_bundle_runs import command, tiny_network

from monai_cl import bundles, weights

ATTACKS = int(os.environ.get("MONAI_CL_ATTACKS", "2"))
SEED = int(os.environ.get("MONAI_CL_ATTACK_SEED", "0"))
TIMEOUT = 600.0
_MOMENT = Path(__file__).with_name("moment.py")
_HIDDEN = re.compile(r"^\.(?!.*lock$)|\.tmp$")
# when and how fast something was done is no result
_CLOCK = re.compile(
    r'"(started|finished|date|time|(cell_|elapsed_)?seconds|seconds_a_step|pid|host|token|renewed)": '
    r'("[^"]*"|[0-9.e+-]+|null)'
)


@dataclass(frozen=True)
class Attacked:
    """A command that writes below ``out`` of its folder.

    Args:
        name: Name for pytest.
        prepare: Makes the inputs in a folder and returns the words of the command.
        volatile: Pattern of files that tell of the time, the starts or the machine, which are not compared. When the
            representation was looked at (health.csv) depends on the pace.
    """

    name: str
    prepare: Callable[[Path, Path], list[str]] = field(repr=False)
    volatile: str = r"(^|/)(\.lock|events\.out\.tfevents[^/]*|log\.txt|timing\.json|run\.json|health\.csv)$"


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    said: str
    moments: int


def run(
    words: Sequence[str], folder: Path, *, number: int = 0, kind: int = signal.SIGKILL, delay: float = 0.0
) -> Ended:
    """Run a command in a folder, and send it a signal at its ``number``-th moment."""
    notes = folder.with_name(f"{folder.name}.moments")
    key = folder / "key/pseudonym.key"
    if not key.exists():
        key.parent.mkdir(parents=True)
        key.touch(0o600)
        key.write_text(64 * "7")
    before = [sys.executable, str(_MOMENT), str(notes), str(number), str(int(kind)), str(delay), str(folder / "out")]
    ended = subprocess.run(
        [*before, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MONAI_CL_KEY": str(key)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
    )
    return Ended(ended.returncode, ended.stdout, len(notes.read_text().splitlines()))


def finish(words: Sequence[str], folder: Path) -> Ended:
    """Run a command to its end."""
    ended = run(words, folder)
    assert ended.code == 0, f"exit code {ended.code}; the end of what was said:\n{ended.said[-6000:]}"
    return ended


def draws(name: str, moments: int, number: int = ATTACKS) -> list[tuple[int, float]]:
    """Moments and delays after them, the same for the same seed and name."""
    generator = random.Random(f"{SEED} {name}")
    return [(generator.randint(1, moments), generator.choice((0.0, 0.0, 0.002, 0.02, 0.2))) for _ in range(number)]


def outputs(folder: Path, volatile: str) -> dict[str, bytes]:
    """Content of each file below ``out``, without times."""
    out = folder / "out"
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: _content(path) for name, path in files.items() if not re.search(volatile, name)}


def hidden(folder: Path) -> list[str]:
    """What somebody who was writing has left."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if _HIDDEN.search(path.name)]


def differences(one: dict[str, bytes], two: dict[str, bytes]) -> list[str]:
    """Names of files that are not in both, or differ."""
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def _content(path: Path) -> bytes:
    if path.suffix == ".json":
        return _CLOCK.sub("", path.read_text()).encode()
    if path.name == "checkpoint.pt":  # equal content may have other bytes
        return "\n".join(_told(torch.load(path, weights_only=True))).encode()
    return path.read_bytes()


def _told(content: Any, name: str = "") -> Iterator[str]:
    """Every value of a checkpoint with its place."""
    if isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _told(value, f"{name}/{key}")
    elif isinstance(content, torch.Tensor):
        yield f"{name} {sha256(content.numpy().tobytes()).hexdigest()}"
    else:
        yield f"{name} {content!r}"


# --- the commands


def _scan(folder: Path, study: Path) -> list[str]:
    shutil.copytree(study / "images", folder / "scans")
    return ["monai-cl", "scan", "scans", "--out", "out/study.json"]


def _curate(folder: Path, study: Path) -> list[str]:
    shutil.copytree(study, folder / "study")
    shutil.copy(study / "images/case_0.nii.gz", folder / "study/images/case_7.nii.gz")  # something to find
    return ["monai-cl", "curate", "study/datalist.json", "--out", "out/curated.json"]


def _cache(processes: int) -> Callable[[Path, Path], list[str]]:
    def prepare(folder: Path, study: Path) -> list[str]:
        shutil.copytree(study, folder / "study")
        given = ["monai-cl", "cache", "study/datalist.json", "--recipe", "small_mr", "--out", "out/cache"]
        return [*given, "--processes", str(processes)]

    return prepare


def _step(name: str, step: str, **overrides: Any) -> Callable[[Path, Path], list[str]]:
    """A step of a bundle, with a network where it needs one."""

    def prepare(folder: Path, study: Path) -> list[str]:
        root = bundles.copy(name, folder / "out/bundle")
        if step in ("evaluate", "inference"):
            torch.manual_seed(0)
            weights.save_network(tiny_network(root, study), root / "models/model.pt")
        given = {"pretrained": "none"} if step == "train" else {}
        return command(root, step, study, **{**given, **overrides})[1:]

    return prepare


def _curve(folder: Path, study: Path) -> list[str]:
    tiny = {"finetune_epochs": 1, "finetune_epoch_length": 1, "max_epochs": 1, "epoch_length": 1, "num_workers": 0}
    small = {"init_filters": 8, "roi_size": [16, 16, 16], "batch_size": 2, "crop_size": [8, 8, 8], "grid": [2, 2, 2]}
    content = {
        "bundle": "volume_contrast",
        "output": "out/curve",
        "settings": {"dataset_dir": str(study), "recipe": "small_mr", "out_channels": 3, **tiny, **small},
        "budgets": [1],
        "seeds": [0],
        "arms": {"scratch": {"pretrained": "none"}, "contrast": {"pretrained": {"seeds": [0]}}},
        "equal_compute": False,
        "evaluation": {"resamples": 100},
    }
    (folder / "curve.yaml").write_text(yaml.safe_dump(content))
    return ["monai-cl", "curve", "curve.yaml"]


def _report(folder: Path, study: Path) -> list[str]:
    trained = study.with_name(f"{study.name}-trained")  # once: the page tells when and how fast
    if not trained.exists():
        trained.mkdir()
        finish(_step("volume_contrast", "train")(trained, study), trained)
    shutil.copytree(trained / "out/bundle", folder / "bundle")
    (folder / "out").mkdir()
    return ["monai-cl", "report", "bundle", "--out", "out/report.html", "--no-neighbours"]


def _phantom(folder: Path, study: Path) -> list[str]:
    return ["monai-cl", "phantom", "out/brains", "--subjects", "2", "--spacing", "8"]


def _copy(folder: Path, study: Path) -> list[str]:
    return ["monai-cl", "bundles", "copy", "volume_contrast", "out/bundle"]


_SHORT = {"max_epochs": 4, "epoch_length": 3}
ATTACKED = (
    Attacked("scan", _scan),
    Attacked("curate", _curate),
    Attacked("cache", _cache(0)),
    Attacked("cache-workers", _cache(2)),
    *(Attacked(f"pretrain-{name}", _step(name, "pretrain", **_SHORT)) for name in bundles.names()),
    Attacked("train", _step("volume_contrast", "train", finetune_epochs=3)),
    Attacked("evaluate", _step("volume_contrast", "evaluate")),
    Attacked("inference", _step("volume_contrast", "inference")),
    Attacked("curve", _curve),
    Attacked("report", _report),
)
# they want an empty folder, so that a second call does not go on
AFRESH = (Attacked("phantom", _phantom), Attacked("copy", _copy))
