"""What a file asks for that says which label-efficiency curve to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cl.evaluation._records import PAIRED

LONGER = "_2x"  # ends the name of the arm with twice the steps
COMPUTE = "_plus_"  # joins the reference and the arm whose pretraining time it gets
# what the curve sets alike for every arm
DECIDED = ("labels", "seed", "pretrained", "model", "output_dir", "evaluation_section", "bundle_root", "config_file")


@dataclass(frozen=True)
class Pretraining:
    """Pretraining runs of an arm: the ``pretrain`` step of a bundle, once for each seed.

    Attributes:
        after: The arm whose pretrained networks the runs begin with, run by run: a second stage; empty without.
        of: The arm whose pretrained networks are taken as they are; there are then no runs of its own.
    """

    bundle: Path
    overlays: tuple[str, ...]
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    paired: bool = False  # each seed of fine-tuning starts from one run, in turn, instead of from every one
    after: str = ""
    of: str = ""


@dataclass(frozen=True)
class Arm:
    """What networks start from, and how they are fine-tuned."""

    name: str
    title: str
    settings: dict[str, Any]
    checkpoints: dict[str, Path]  # by name of the pretraining run
    pretraining: Pretraining | None
    pretraining_seconds: float | None  # of one run behind the checkpoints, where somebody knows

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the pretraining runs; one empty name without pretraining."""
        if self.pretraining is not None:
            return tuple(f"seed_{seed}" for seed in self.pretraining.seeds)
        return tuple(self.checkpoints) or ("",)

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the series of fine-tunings: one for each pretraining run, or one that takes the runs in turn."""
        paired = self.pretraining is not None and self.pretraining.paired and len(self.runs) > 1
        return (PAIRED,) if paired else self.runs

    def run_of(self, series: str, place: int) -> str:
        """The pretraining run that a fine-tuning starts from, given its series and the place of its seed."""
        return self.runs[place % len(self.runs)] if series == PAIRED else series

    @property
    def from_scratch(self) -> bool:
        """Whether there is no pretraining."""
        return self.runs == ("",)


@dataclass(frozen=True)
class Evaluation:
    """Which cases count, and how intervals are made.

    Attributes:
        hold_out: Number of patients of ``training`` that are moved to ``section``.
        datalist: Another datalist that has the section; that of the settings where it is ``None``.
        dataset_dir: Folder its paths start from; that of the settings where it is ``None``.
    """

    section: str = "validation"
    confidence: float = 0.95
    resamples: int = 10_000
    hold_out: int = 0
    datalist: Path | None = None
    dataset_dir: Path | None = None


@dataclass(frozen=True)
class CurveConfig:
    """A label-efficiency curve that is to be measured; see :func:`monai_cl.evaluation.run_curve`."""

    source: Path
    bundle: Path
    overlays: tuple[str, ...]
    settings: dict[str, Any]
    budgets: tuple[int | str, ...]
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    reference: str
    evaluation: Evaluation
    equal_compute: tuple[int | str, ...]  # budgets of the comparison; empty without
    compute_of: tuple[str, ...]  # arms that it is made with
    converged_at: tuple[int | str, ...]  # budgets where twice the steps are tried; empty without
    tolerance: float
    keep_models: bool
    output: Path

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def stages(self, name: str) -> tuple[str, ...]:
        """The arms whose pretraining runs are behind the networks of an arm, in order; the last are fine-tuned."""
        pretraining = self.arm(name).pretraining
        if pretraining is None:
            return ()
        if pretraining.of:
            return self.stages(pretraining.of)
        return (*(self.stages(pretraining.after) if pretraining.after else ()), name)
