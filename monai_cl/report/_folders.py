"""Finding the runs that a report is asked about, and reading what each has left."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from monai_cl._files import read_json
from monai_cl.engine import read_history
from monai_cl.engine.run_record import FILE as RECORD, read_run_record
from monai_cl.evaluation.scores import FILES, RawScores, read_raw
from monai_cl.evaluation.sequence_invariance import INVARIANCE_FILE
from monai_cl.report._safety import below, inside
from monai_cl.weights import read_contract

logger = logging.getLogger(__name__)

_FIRST = {FILES["dice"]: "", FILES["surface_distance"]: "a"}  # in this order, then by name
_MARKS = {
    "curve.csv": "curve",
    INVARIANCE_FILE: "invariance",
    FILES["dice"]: "evaluate",
    "psnr_raw.csv": "evaluate",
    "pseudo_labels.csv": "train",  # a self-training has a checkpoint as well
    "checkpoint.pt": "pretrain",
    "history.csv": "train",
}


@dataclass(frozen=True)
class Run:
    """The output folder of one step.

    Attributes:
        kind: ``"pretrain"``, ``"train"``, ``"evaluate"``, ``"curve"`` or ``"invariance"``.
        name: The folder's name, or more of its path where names collide.
        folder: The folder. Its files are read as data; links that lead out of it are not followed.
    """

    kind: str
    name: str
    folder: Path

    def has(self, name: str) -> bool:
        """Return whether the folder itself holds a file, not by a link out of it."""
        return inside(self.folder, self.folder / name)

    @cached_property
    def elsewhere(self) -> list[str]:
        """Names in the folder, and in its ``cases``, of links that lead out of it."""
        entries = [*self.folder.glob("*"), *(self.folder / "cases").glob("*")]
        links = [path for path in sorted(entries) if path.is_symlink()]
        return [path.name for path in links if not below(self.folder, path)]

    @cached_property
    def unread(self) -> list[str]:
        """Files of the run that cannot be read without running what is in them."""
        return ["checkpoint.pt"] if self.has("checkpoint.pt") and not self.checkpoint else []

    @cached_property
    def record(self) -> dict[str, Any]:
        """``run.json``, or nothing."""
        return read_run_record(self.folder) if self.has(RECORD) else {}

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        """Settings, steps done and number of processes of ``checkpoint.pt``, or nothing."""
        path = self.folder / "checkpoint.pt"
        if not self.has(path.name):
            return {}
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            facts = {key: content[key] for key in ("settings", "step") if key in content}
            return {**facts, "processes": len(content.get("random", [None]))}
        except Exception as error:  # damaged, or objects that run code when they are read
            logger.warning("%s cannot be read as a checkpoint: %s", path, error)
            return {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings of the run, from its record or its checkpoint."""
        recorded: dict[str, Any] = self.record.get("settings") or self.checkpoint.get("settings") or {}
        return recorded

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """Rows of every CSV of the folder that counts steps, by step.

        Columns of other files than ``history.csv`` have the file's name before theirs.
        """
        rows: dict[float, dict[str, float]] = {}
        own = filter(lambda path: inside(self.folder, path), self.folder.glob("*.csv"))
        for path in sorted(own, key=lambda path: (path.name != "history.csv", path.name)):
            if path.read_text(encoding="utf-8").partition(",")[0].strip() == "step":
                prefix = "" if path.name == "history.csv" else f"{path.stem}: "
                for row in read_history(path):
                    named = {name if name == "step" else prefix + name: value for name, value in row.items()}
                    rows.setdefault(row["step"], {}).update(named)
        return [rows[step] for step in sorted(rows)]

    @cached_property
    def patients(self) -> dict[str, str]:
        """The patient of each case of an evaluation by number, as the run recorded it; empty where it did not."""
        known = (self.record.get("data") or {}).get("patients")
        return {str(case): str(name) for case, name in known.items()} if isinstance(known, dict) else {}

    @cached_property
    def scores(self) -> dict[str, RawScores]:
        """Scores of an evaluation by metric, Dice first, NaN where one is not defined."""
        own = filter(lambda path: inside(self.folder, path), self.folder.glob("*_raw.csv"))
        files = sorted(own, key=lambda path: _FIRST.get(path.name, path.name))
        return {path.name.removesuffix("_raw.csv"): read_raw(path) for path in files}


@dataclass(frozen=True)
class Bundle:
    """A bundle folder that runs lie in: its metadata and the contracts of its weights."""

    folder: Path

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """``configs/metadata.json``."""
        content: dict[str, Any] = read_json(self.folder / "configs/metadata.json")
        return content

    @cached_property
    def weights(self) -> list[Path]:
        """Files of weights in ``models``."""
        return sorted(path for path in (self.folder / "models").glob("*.pt") if inside(self.folder, path))

    def contract(self, name: str = "pretrained") -> dict[str, Any]:
        """Contract of a file of weights, as far as it is known."""
        file = self.folder / f"models/{name}.pt"
        return read_contract(file) if inside(self.folder, file.with_suffix(".json")) else {}


@dataclass(frozen=True)
class Found:
    """Content of the given folders.

    Attributes:
        runs: The runs.
        bundles: The bundles that they lie in.
        trusted: Code of bundles and recipes may be run, and volumes be read from anywhere.
    """

    runs: tuple[Run, ...]
    bundles: tuple[Bundle, ...] = field(default=())
    trusted: bool = False

    def of(self, *kinds: str) -> list[Run]:
        """The runs of these kinds; those of one kind in the order in which they were given."""
        return [run for run in self.runs if run.kind in kinds]


def find(paths: Sequence[str | Path], *, examples: bool = True, trusted: bool = False) -> Found:
    """Find the runs in ``paths``: output folders, bundle folders or folders of curves.

    Of a curve's many runs, the first pretraining of each arm is taken too and, as ``examples``, one fine-tuned network
    of each arm: that of the first seed with the median number of labels.

    Raises:
        FileNotFoundError: If a path is no folder.
        ValueError: If a folder holds no run.
    """
    folders: list[tuple[str, Path]] = []
    bundles: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise FileNotFoundError(f"a run must be a folder, none exists at {path}")
        every = _runs_of(path, examples)
        result = [(kind, each) for kind, each in every if trusted or each == path or below(path, each)]
        if len(result) < len(every):
            logger.warning(
                "%d runs of %s are links out of it: give their folders, or --trust", len(every) - len(result), path
            )
        if not result:
            raise ValueError(
                f"a run must hold one of {', '.join(_MARKS)}, or be a bundle with such folders in runs/, "
                f"{path} holds none of them; has its step been run? Links out of it are followed with --trust"
            )
        folders += result
        bundles += [root for root in (path, path.parent.parent) if inside(root, root / "configs/metadata.json")]
    unique = list(dict.fromkeys((kind, folder.resolve()) for kind, folder in folders))
    names = _names([folder for _, folder in unique])
    runs = [Run(kind, name, folder) for (kind, folder), name in zip(unique, names, strict=True)]
    order = ("pretrain", "train", "evaluate", "curve", "invariance")
    return Found(
        tuple(sorted(runs, key=lambda run: order.index(run.kind))),
        tuple(Bundle(root) for root in dict.fromkeys(root.resolve() for root in bundles)),
        trusted,
    )


def _runs_of(folder: Path, examples: bool) -> list[tuple[str, Path]]:
    kind = _kind(folder)
    if kind == "curve":
        inside = [*_first_pretrainings(folder), *(_examples(folder) if examples else [])]
        return [(kind, folder), *((_kind(each), each) for each in inside)]
    if kind:
        return [(kind, folder)]
    children = [child for child in sorted((folder / "runs").glob("*")) if _kind(child)]
    return [result for child in children for result in _runs_of(child, examples)]


def _first_pretrainings(curve: Path) -> list[Path]:
    arms = sorted((curve / "pretraining").glob("*"))
    runs = [next((run for run in sorted(arm.iterdir()) if _kind(run) == "pretrain"), None) for arm in arms]
    return [run for run in runs if run is not None]


def _examples(curve: Path) -> list[Path]:
    """Evaluated networks, one of each arm of the curve, with the same number of labels: first that of its reference."""
    arms: dict[str, dict[int, Path]] = {}
    for folder in sorted((curve / "cells").glob("**/labels_*/seed_*")):
        arm, labels = folder.relative_to(curve / "cells").parts[0], int(folder.parent.name.removeprefix("labels_"))
        if _kind(folder) == "evaluate":
            arms.setdefault(arm, {}).setdefault(labels, folder)
    shared = sorted(set.intersection(*(set(result) for result in arms.values()))) if arms else []
    if not shared:
        return []
    reference = _reference(curve)
    order = sorted(arms, key=lambda arm: arm != reference)  # the others are compared with the first
    return [arms[arm][shared[len(shared) // 2]] for arm in order]


def _reference(curve: Path) -> str:
    """Name of the arm that a curve compares the others with; empty where it is not known."""
    path = curve / "summary.json"
    try:
        return str(read_json(path)["record"]["reference"]) if inside(curve, path) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # reading the curve gives the reason


def _kind(folder: Path) -> str:
    return next((kind for mark, kind in _MARKS.items() if (folder / mark).is_file()), "")


def _names(folders: Iterable[Path]) -> list[str]:
    """Last parts of each path, as few as make it unique."""
    paths = [folder.parts for folder in folders]
    return ["/".join(path[-_depth(path, paths) :]) for path in paths]


def _depth(path: tuple[str, ...], paths: Sequence[tuple[str, ...]]) -> int:
    depths = range(1, len(path) + 1)
    return next((n for n in depths if sum(other[-n:] == path[-n:] for other in paths) == 1), len(path))
