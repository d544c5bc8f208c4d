"""The whole road on made-up hearts: pretrain, self-train with one label, compare with training from scratch.

Every step runs the ``global_local_contrast`` bundle as a user would; the demo only makes the subjects and draws the
picture.
"""

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from monai_cl import bundles
from monai_cl._cores import cores
from monai_cl._locks import alone_in, is_empty
from monai_cl._words import quoted
from monai_cl.evaluation._launch import Processes, quickest
from monai_cl.evaluation._running import Job
from monai_cl.evaluation._steps import Step, in_words

RECIPE = {"recipe": "cardiac_mr", "recipe_options": {"spacing": [2.5, 2.5, 0], "size": [64, 64]}, "out_channels": 4}
# of slices, for which a step takes a fraction of one for volumes: labels are short here, not steps
NETWORK = {"image_size": [48, 48], "roi_size": [64, 64], "filters": [8, 16, 32, 32]}
BUDGET = {"max_epochs": 3, "batch_size": 2, "finetune_epochs": 20, "finetune_batch_size": 4}
ANCHORS = 256  # of the dense term: its maps have the size of the image here, and 1024 take five times as long
# times the steps of the others: a self-training takes up to twice as long as a fine-tuning, and of the pretraining,
# which serves three draws, each has a share of 0.6 of one
LONGER = 3
PROCESSES = 4  # at the same time at most, half a GB each
POOL = 12  # labelled subjects for one that is used; the labels of the others stay unread


@dataclass(frozen=True)
class Arm:
    """Way to train with few labels.

    Attributes:
        name: Of its files.
        title: In tables and pictures.
        overlays: Overlays on ``train.yaml``.
        settings: Further settings.
        longer: Times the steps of the others.
    """

    name: str
    title: str
    overlays: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    longer: int = 1


ARMS = (
    Arm("selftrained", "pretrained and self-trained", ("selftrain",)),
    Arm("scratch", "scratch with the same steps", settings={"pretrained": "none"}),
    Arm("scratch_longer", "scratch with all the time", settings={"pretrained": "none"}, longer=LONGER),
)


@dataclass(frozen=True)
class DemoResult:
    """Result of the demo.

    Attributes:
        dice: Mean Dice over test subjects and classes of each arm, by its title; one a draw of the labels.
        finding: Sentence on which arm helped, and by how much.
        picture: The PNG.
        seconds: Time each step took.
    """

    dice: dict[str, tuple[float, ...]]
    finding: str
    picture: Path
    seconds: dict[str, float] = field(default_factory=dict)


def run_demo(
    folder: str | Path,
    *,
    seed: int = 0,
    unlabelled: int = 32,
    labelled: int = 1,
    draws: int = 3,
    test: int = 12,
    overrides: dict[str, Any] | None = None,
    processes: int | None = None,
    console: Console | None = None,
) -> DemoResult:
    """Make subjects, run every step of the bundle on them, print a table and draw one picture.

    Steps that do not rest on each other run at the same time, one thread each, and write their output to ``logs``.

    Args:
        folder: Folder to make: ``scans``, ``bundle``, ``masks`` and ``demo.png`` go there.
        seed: Seed of the subjects and of the training.
        unlabelled: Subjects without a label.
        labelled: Labelled subjects for fine-tuning.
        draws: Times that these are drawn, from :data:`POOL` times as many, and everything after pretraining is done.
        test: Labelled subjects that no training sees.
        overrides: Further settings for every step, such as ``{"max_epochs": 1}``.
        processes: Steps at the same time; one for each core when left out, at most four.
        console: Where to print.

    Raises:
        FileExistsError: If ``folder`` holds something already.
        CellError: If a step fails; nothing that rests on it is run.
        ValueError: If ``processes`` is below 1.
    """
    root, console = Path(folder), console or Console()
    workers = min(cores(), PROCESSES) if processes is None else processes
    if workers < 1:
        raise ValueError(f"processes must be at least 1, got {workers}")
    with alone_in(root):
        if not is_empty(root):
            raise FileExistsError(
                f"the demo needs an empty folder, {root} holds files; remove it or give `--out OTHER`"
            )
        _make_subjects(root / "scans", console, seed=seed, unlabelled=unlabelled, labelled=POOL * labelled, test=test)
        bundles.copy("global_local_contrast", root / "bundle")
        (root / "logs").mkdir()
        steps = _Steps(root, console, {**BUDGET, **(overrides or {})}, quickest(), workers)
        return _run_steps(root, steps, console, labels=labelled, seeds=range(seed, seed + draws))


def _run_steps(root: Path, steps: "_Steps", console: Console, *, labels: int, seeds: range) -> DemoResult:
    from monai_cl.report.demo_finding import finding, gains_of
    from monai_cl.report.demo_picture import DemoArm, draw_demo

    _new_scan(root)
    _run_all(steps, console, labels=labels, seeds=seeds)
    dice = {arm.title: tuple(_mean_dice(steps.output("evaluate", arm, draw)) for draw in _draws(seeds)) for arm in ARMS}
    sentence = finding("Pretraining with self-training", gains_of(dice, ARMS[0].title))
    _print(console, dice, sentence, steps, seeds)
    drawn = [DemoArm(arm.title, steps.output("train", arm, 1), root / "masks" / arm.name) for arm in ARMS]
    picture = draw_demo(root, drawn, dice, sentence, settings={**steps.study([]), **NETWORK})
    console.print(f"picture: {picture}", markup=False)
    return DemoResult(dice, sentence, picture, steps.seconds)


def _run_all(steps: "_Steps", console: Console, *, labels: int, seeds: range) -> None:
    """Pretrain, and do what follows for each arm and draw: first what needs no pretraining, the longest before."""
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("steps", markup=False))
    total = 1 + len(ARMS) * (2 * len(seeds) + 1)
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(steps.processes) as pool:
        bar = progress.add_task("steps", total=total)
        steps.ended = lambda: progress.advance(bar)
        pretrained = pool.submit(steps.run, "pretrain", ["pretrain", "dense"], seed=seeds[0], dense_anchors=ANCHORS)
        work = [pretrained]
        for arm in sorted(ARMS, key=lambda arm: (bool(arm.overlays), -arm.longer)):
            for draw, seed in enumerate(seeds, start=1):
                before = pretrained if arm.overlays else None
                work.append(pool.submit(_run_draw, steps, arm, draw, before, labels=labels, seed=seed))
        try:
            for each in work:
                each.result()
        except BaseException:
            steps.launch.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _draws(seeds: range) -> range:
    return range(1, len(seeds) + 1)


def _run_draw(
    steps: "_Steps", arm: Arm, draw: int, pretraining: "Future[None] | None", *, labels: int, seed: int
) -> None:
    """Fine-tune an arm on a draw of the labels, evaluate it and, of the first draw, write masks."""
    if pretraining is not None:  # what follows rests on it
        pretraining.result()
    pretrained = str(steps.root / "bundle/models/pretrained_dense.pt")
    settings = {"labels": labels, "seed": seed, "pretrained": pretrained, **arm.settings}
    if arm.longer > 1:
        settings["finetune_epochs"] = arm.longer * steps.settings["finetune_epochs"]
    name, model = f"{arm.title}, draw {draw}", steps.model(arm, draw)
    out = str(steps.output("train", arm, draw))
    steps.run(f"fine-tune, {name}", ["train", *arm.overlays], model=model, output_dir=out, **settings)
    out = str(steps.output("evaluate", arm, draw))
    steps.run(f"evaluate, {name}", ["train", "evaluate"], model=model, output_dir=out)
    if draw == 1:
        out = f"{steps.root}/masks/{arm.name}"
        steps.run(f"masks for new scans, {arm.title}", ["inference"], output_dir=out, model=model)


class _Steps:
    """Runs steps of the bundle as processes, printing the command a user would give once each has ended.

    Args:
        root: Folder of the demo.
        console: Where to print.
        settings: Settings of all steps.
        launch: Starts a process.
        processes: Number of steps at the same time.
    """

    def __init__(
        self, root: Path, console: Console, settings: Mapping[str, Any], launch: Processes, processes: int
    ) -> None:
        self.root, self.console, self.settings = root, console, settings
        self.launch, self.processes = launch, processes
        self.seconds: dict[str, float] = {}
        self.ended: Callable[[], object] = lambda: None

    def run(self, title: str, configs: Sequence[str], **settings: Any) -> None:
        """Run a step and wait for it.

        Raises:
            CellError: If it fails.
        """
        bundle = self.root / "bundle"
        step = Step.of(bundle, configs, ["small"])
        common = step.pick({**NETWORK, **self.settings})
        arguments = step.arguments({"bundle_root": str(bundle), **self.study(configs), **common, **settings})
        log = self.root / "logs" / f"{title.replace(', ', '_').replace(' ', '_')}.txt"
        done = Job(((title, tuple(arguments)),), log, self.launch, {}, self.processes, threads=1)()
        self.seconds[title] = done.seconds
        heading = Rule(Text(f"{title}, {done.seconds:.0f} s"))
        # in one call, so that what another thread prints does not come between
        self.console.print(Group(heading, Text(in_words(arguments))), soft_wrap=True)
        self.ended()

    def output(self, step: str, arm: Arm, draw: int) -> Path:
        """Folder of a step of an arm."""
        return self.root / f"bundle/runs/{step}_{arm.name}_{draw}"

    def model(self, arm: Arm, draw: int) -> str:
        """File of the network of an arm."""
        return str(self.root / f"bundle/models/{arm.name}_{draw}.pt")

    def study(self, configs: Sequence[str]) -> dict[str, Any]:
        """Settings that name the scans."""
        if "inference" in configs:
            return {"dataset_dir": str(self.root / "new_scans"), **RECIPE}
        scans = self.root / "scans"
        return {"dataset_dir": str(scans), "datalist": str(scans / "dataset.json"), **RECIPE}


def command_line(arguments: dict[str, Any]) -> str:
    r"""The ``python -m monai.bundle run`` command with these arguments.

    Example:
        >>> command_line({"bundle_root": "b", "config_file": ["train.yaml"]})
        'python -m monai.bundle run --bundle_root b --config_file "[\'train.yaml\']"'
    """
    given = (f"--{key} {quoted(str(value))}" for key, value in arguments.items())
    return " ".join(["python -m monai.bundle run", *given])


def _make_subjects(folder: Path, console: Console, **counts: int) -> None:
    from monai_cl.phantoms import write_heart_dataset

    with Progress(console=console) as progress:
        task = progress.add_task("making hearts", total=None)
        write_heart_dataset(
            folder,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            **counts,
        )


def _new_scan(root: Path) -> None:
    """Copy one test subject, without its label, to where new scans are."""
    from monai_cl.datalist import load_datalist

    new = root / "new_scans"
    new.mkdir()
    shutil.copy(load_datalist(root / "scans/dataset.json", "validation")[0]["image"], new)


def _mean_dice(folder: Path) -> float:
    with open(folder / "val_mean_dice_raw.csv", newline="", encoding="utf-8") as file:
        return float(np.mean([float(row["mean"]) for row in csv.DictReader(file)]))


def _print(console: Console, dice: dict[str, tuple[float, ...]], sentence: str, steps: _Steps, seeds: range) -> None:
    table = Table(
        "",
        "fine-tuning",
        "Dice",
        "of each draw",
        title="right ventricle, myocardium, left ventricle on unseen subjects",
    )
    taken = {
        title: float(np.mean([steps.seconds[f"fine-tune, {title}, draw {draw}"] for draw in _draws(seeds)]))
        for title in dice
    }
    for title, values in dice.items():
        table.add_row(
            title, f"{taken[title]:.0f} s", f"{np.mean(values):.3f}", " ".join(f"{value:.3f}" for value in values)
        )
    console.print(table)
    pretraining = steps.seconds["pretrain"]
    console.print(
        f"Pretraining took {pretraining:.0f} s, once for {len(seeds)} draws. With its share of that the first row had "
        f"{pretraining / len(seeds) + taken[ARMS[0].title]:.0f} s a draw, scratch with all the time "
        f"{taken[ARMS[-1].title]:.0f} s.",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    console.print(
        "These are made-up hearts: whether it helps on your scans, `monai-cl curve` measures.",
        soft_wrap=True,
        markup=False,
    )
