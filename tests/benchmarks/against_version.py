"""Pretraining commands of this version against those of an installed earlier one, in processor seconds.

::

    python tests/benchmarks/against_version.py --old /path/to/its/.venv/bin/python

Either version runs its own bundle with ``small.yaml`` on the same phantoms and one thread, by turns. Seconds are user
and system time of a process: other work on the machine is no part of them, though it takes its share of the caches. The
start ends where training begins; a step is the median of those after each volume has been prepared; a command is all
of it, with preparation, one look at the representation and what is written at the end.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

SPACING = 3.0  # mm, of phantoms
VOLUMES = 8  # unlabelled; two steps prepare them
FIRST = 3  # steps that are not counted
BRAINS = {"recipe": "brain_mr", "recipe_options": {"spacing": SPACING}}
MEASURES = ("start", "step", "command")
STAMPS = """
import json, time
from ignite.engine import Events

def stamp(trainer, path):
    stamps = [time.process_time()]
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: stamps.append(time.process_time()))
    trainer.add_event_handler(Events.COMPLETED, lambda: json.dump(stamps, open(path, "w")))
"""


@dataclass(frozen=True)
class Case:
    """A way to pretrain: a bundle, its overlays (of each its names, the newest first), and settings."""

    bundle: str
    overlays: tuple[tuple[str, ...], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=lambda: BRAINS)


CASES = {
    "masked reconstruction": Case("volume_contrast", (("masked_reconstruction",),)),
    "volume contrast": Case("volume_contrast"),
    "volume dense": Case("volume_contrast", (("volume_dense", "dense"),)),
    "voxel position": Case("volume_contrast", (("voxel_position",),)),
    "global": Case("global_local_contrast"),
    "local": Case("global_local_contrast", (("local",),), BRAINS | {"start": "none"}),
    "joint": Case("global_local_contrast", (("joint",),)),
    "dense": Case("global_local_contrast", (("dense",),)),
    "sequence contrast": Case("sequence_contrast", (), {"spacing": SPACING}),
}


@dataclass(frozen=True)
class Version:
    """An interpreter that imports a version of the package."""

    python: str
    folder: Path  # of its own: bundles and what runs write

    def bundle(self, name: str) -> Path:
        """Copy of a bundle that this version ships."""
        root = self.folder / name
        if not root.exists():
            code = f"from monai_cl import bundles; bundles.copy({name!r}, {str(root)!r})"
            subprocess.run([self.python, "-c", code], cwd=self.folder, check=True)
        return root

    def cost(self, case: Case, data: Path, steps: int) -> dict[str, float]:
        """Processor seconds of a pretraining by measure."""
        root = self.bundle(case.bundle)
        overlays = [next(n for n in names if (root / f"configs/{n}.yaml").is_file()) for names in case.overlays]
        with tempfile.TemporaryDirectory(dir=self.folder) as out:
            stamps = Path(out, "stamps.json")
            Path(out, "stamps.py").write_text(STAMPS)
            watched = {"_target_": "stamps.stamp", "trainer": "@train#trainer", "path": str(stamps)}
            Path(out, "watched.yaml").write_text(yaml.safe_dump({"run": [watched, "$@train#trainer.run()"]}))
            files = [f"{root}/configs/{name}.yaml" for name in ("pretrain", *overlays, "small")]
            settings = {
                "bundle_root": root, "output_dir": f"{out}/run", "pretrained": f"{out}/pretrained.pt",
                **data_of(case, data), **case.settings, "max_epochs": 1, "epoch_length": steps,
            }  # fmt: skip
            given = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
            named = ["--config_file", str([*files, f"{out}/watched.yaml"])]
            whole = processor_seconds([self.python, "-m", "monai.bundle", "run", *named, *given], Path(out))
            times = json.loads(stamps.read_text())
        steps_alone = [after - before for before, after in pairwise(times[FIRST:])]
        return {"start": times[0], "step": statistics.median(steps_alone), "command": whole}


def processor_seconds(command: list[str], folder: Path) -> float:
    """User and system time of a command and of the processes that it waited for."""
    log = folder / "log.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{log.read_text(errors='replace')[-3000:]}")
    return usage.ru_utime + usage.ru_stime


def data_of(case: Case, data: Path) -> dict[str, Any]:
    if case.bundle == "sequence_contrast":
        return {"dataset_dir": data / "maps"}
    return {"dataset_dir": data / "brains", "datalist": data / "brains/dataset.json"}


def write_phantoms(folder: Path) -> None:
    """Brains with few labels, and quantitative maps."""
    from monai_cl.phantoms import write_brain_dataset, write_brain_maps

    write_brain_dataset(folder / "brains", unlabelled=VOLUMES - 2, labelled=2, test=2, spacing=SPACING)
    write_brain_maps(folder / "maps", subjects=VOLUMES + 1, spacing=SPACING)  # one is held out


def row(title: str, rounds: list[tuple[dict[str, float], dict[str, float]]]) -> Iterator[str]:
    """Medians over rounds of the old and the new version, and of the ratios with their range."""
    yield title
    for measure in MEASURES:
        old, new = ([pair[version][measure] for pair in rounds] for version in (0, 1))
        ratios = [after / before for before, after in zip(old, new, strict=True)]
        digits = 3 if measure == "step" else 1
        yield f"{statistics.median(old):.{digits}f}"
        yield f"{statistics.median(new):.{digits}f}"
        yield f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", required=True, help="interpreter that imports the earlier version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15, help=f"of a run, more than {FIRST}")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), metavar="CASE")
    return parser.parse_args()


def main() -> None:
    given, console = arguments(), Console(width=160)
    table = Table(title="processor seconds: medians, and ratios new / old with their range over rounds")
    for head in ("", *(f"{measure}, {what}" for measure in MEASURES for what in ("old", "new", "ratio"))):
        table.add_column(head)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        versions = Version(given.old, folder / "old"), Version(sys.executable, folder / "new")
        for version in versions:
            version.folder.mkdir()
        write_phantoms(folder)
        for version in versions:  # compiles, and is not counted
            version.cost(CASES[given.only[0]], folder, FIRST + 1)
        rounds: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {title: [] for title in given.only}
        for _ in range(given.rounds):
            for title, costs in rounds.items():
                old, new = (version.cost(CASES[title], folder, given.steps) for version in versions)
                costs.append((old, new))
                console.print(title, *(f"{measure} {old[measure]:.2f} {new[measure]:.2f}" for measure in MEASURES))
    for title, costs in rounds.items():
        table.add_row(*row(title, costs))
    console.print(table)


if __name__ == "__main__":
    main()
