"""The whole road on made-up brains: pretrain, fine-tune with two labels, compare with training from scratch.

Every step runs the ``volume_contrast`` bundle as a user would; the demo only makes the subjects and draws the picture.
"""

import contextlib
import csv
import logging
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from monai_cl import bundles
from monai_cl._locks import alone_in, is_empty
from monai_cl._words import quoted

SPACING = 3.0  # mm; coarse, so that minutes on a CPU suffice
ARMS = {"pretrained": "@pretrained", "from scratch": "none"}
BUDGET = {"max_epochs": 5, "finetune_epochs": 9, "finetune_learning_rate": 0.006}  # minutes on two cores


@dataclass(frozen=True)
class DemoResult:
    """Result of the demo.

    Attributes:
        dice: Mean Dice over test subjects and classes of each arm.
        picture: The PNG.
        seconds: Time each step took.
    """

    dice: dict[str, float]
    picture: Path
    seconds: dict[str, float] = field(default_factory=dict)


def run_demo(
    folder: str | Path,
    *,
    seed: int = 0,
    unlabelled: int = 40,
    labelled: int = 2,
    test: int = 8,
    overrides: dict[str, Any] | None = None,
    console: Console | None = None,
) -> DemoResult:
    """Make subjects, run every step of the bundle on them, print a table and draw one picture.

    Args:
        folder: Folder to make: ``scans``, ``bundle``, ``masks`` and ``demo.png`` go there.
        seed: Seed of the subjects and of the training.
        unlabelled: Subjects for pretraining.
        labelled: Labelled subjects for fine-tuning.
        test: Labelled subjects that no training sees.
        overrides: Further settings for every step, such as ``{"max_epochs": 1}``.
        console: Where to print.

    Raises:
        FileExistsError: If ``folder`` holds something already.
        ModuleNotFoundError: If nilearn, which carries the tissue maps, is not installed.
    """
    root, console = Path(folder), console or Console()
    with alone_in(root):
        if not is_empty(root):
            raise FileExistsError(
                f"the demo needs an empty folder, {root} holds files; remove it or give `--out OTHER`"
            )
        _make_subjects(root / "scans", console, seed=seed, unlabelled=unlabelled, labelled=labelled, test=test)
        bundles.copy("volume_contrast", root / "bundle")
        return _run_steps(root, _Steps(root, console, {"seed": seed, **BUDGET, **(overrides or {})}), console, test)


def _run_steps(root: Path, steps: "_Steps", console: Console, test: int) -> DemoResult:
    steps.run("pretrain", ["pretrain"], sections="unlabelled")
    for arm, start in ARMS.items():
        name = arm.replace(" ", "_")
        model = {"model": f"{root}/bundle/models/model_{name}.pt"}
        more: dict[str, Any] = {} if start == "@pretrained" else {"pretrained": start}
        steps.run(f"fine-tune, {arm}", ["train"], output_dir=f"{root}/bundle/runs/train_{name}", **model, **more)
        out = {"output_dir": f"{root}/bundle/runs/evaluate_{name}"}
        steps.run(f"evaluate, {arm}", ["train", "evaluate"], **out, **model)
        _masks(root, steps, arm, name, model)
    dice = {arm: _mean_dice(root / f"bundle/runs/evaluate_{arm.replace(' ', '_')}") for arm in ARMS}
    _print(console, dice, steps.seconds, test)
    from monai_cl.report.demo_picture import draw_demo

    picture = draw_demo(root, list(ARMS), dice)
    console.print(f"picture: {picture}", markup=False)
    return DemoResult(dice, picture, steps.seconds)


class _Steps:
    """Runs steps of the bundle, printing the command a user would give."""

    def __init__(self, root: Path, console: Console, settings: dict[str, Any]) -> None:
        self.root = root
        self.console = console
        self.settings = settings
        self.seconds: dict[str, float] = {}

    def run(self, title: str, configs: list[str], **settings: Any) -> None:
        from monai.bundle import run

        bundle = self.root / "bundle"
        files = [str(bundle / "configs" / f"{name}.yaml") for name in (*configs, "small")]
        arguments = {"bundle_root": str(bundle), "config_file": files, **self._study(configs), **settings}
        arguments.update(self.settings if "inference" not in configs else {})
        self.console.rule(title)
        self.console.print(command_line(arguments), soft_wrap=True, markup=False, highlight=False)
        started = time.perf_counter()
        with _quiet():
            run(**arguments)
        self.seconds[title] = time.perf_counter() - started

    def _study(self, configs: list[str]) -> dict[str, Any]:
        recipe = {"recipe": "brain_mr", "recipe_options": {"spacing": SPACING}, "out_channels": 4}
        if "inference" in configs:
            return {"dataset_dir": str(self.root / "new_scans"), **recipe}
        scans = self.root / "scans"
        return {"dataset_dir": str(scans), "datalist": str(scans / "dataset.json"), **recipe}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MONAI from repeating the command and the notice that configs are code."""
    loggers = [logging.getLogger(name) for name in ("monai.bundle.scripts", "monai.bundle.workflows")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "parsing config_file", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def command_line(arguments: dict[str, Any]) -> str:
    r"""The ``python -m monai.bundle run`` command with these arguments.

    Example:
        >>> command_line({"bundle_root": "b", "config_file": ["train.yaml"]})
        'python -m monai.bundle run --bundle_root b --config_file "[\'train.yaml\']"'
    """
    given = (f"--{key} {quoted(str(value))}" for key, value in arguments.items())
    return " ".join(["python -m monai.bundle run", *given])


def _make_subjects(folder: Path, console: Console, **counts: int) -> None:
    from monai_cl.phantoms import write_brain_dataset

    with Progress(console=console) as progress:
        task = progress.add_task("making brains", total=None)
        write_brain_dataset(
            folder,
            spacing=SPACING,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            **counts,
        )


def _masks(root: Path, steps: _Steps, arm: str, name: str, model: dict[str, str]) -> None:
    # one test subject is handed over as a new scan, without its label
    new = root / "new_scans"
    if not new.exists():
        from monai_cl.datalist import load_datalist

        new.mkdir()
        shutil.copy(load_datalist(root / "scans/dataset.json", "validation")[0]["image"], new)
    steps.run(f"masks for new scans, {arm}", ["inference"], output_dir=f"{root}/masks/{name}", **model)


def _mean_dice(folder: Path) -> float:
    with open(folder / "val_mean_dice_raw.csv", newline="", encoding="utf-8") as file:
        return float(np.mean([float(row["mean"]) for row in csv.DictReader(file)]))


def _print(console: Console, dice: dict[str, float], seconds: dict[str, float], test: int) -> None:
    table = Table("start", "fine-tuning", "Dice", title=f"grey matter, white matter, CSF on {test} unseen subjects")
    for arm, value in dice.items():
        table.add_row(arm, f"{seconds[f'fine-tune, {arm}']:.0f} s", f"{value:.3f}")
    console.print(table)
    console.print(
        f"Pretraining took {seconds['pretrain']:.0f} s. One seed on made-up brains shows that everything works, "
        "not how much it helps on your scans.",
        soft_wrap=True,
        markup=False,
    )
