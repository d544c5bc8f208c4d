"""Trials of fine-tuning settings: the part of a curve's file that asks for them, and the choice among them."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from monai_cl.evaluation._arms import Budget, Place, Seeds, Text, Trials, budget_of
from monai_cl.evaluation._keys import Keys, must
from monai_cl.evaluation.records import Score, Trial


class Tune(Keys):
    """Trials of settings for every arm, as many for each, judged on volumes that are in no other list.

    Attributes:
        trials: Values of ids of the fine-tuning: a grid ``{id: [values]}``, or a list of grids; ``trials`` of an arm
            take its place there.
        number: Number of trials drawn from the grid; all when left out.
        budget: Number of labels of a trial; the smallest budget of the curve when left out.
        seeds: Seeds of a trial.
        section: Section of the datalist on which trials are judged.
        hold_out: Number of patients of ``training`` that are moved to the section.
        datalist: Another datalist that has the section.
        dataset_dir: Folder its paths start from.
    """

    trials: Trials = ()
    number: Annotated[int | None, Field(strict=True, ge=1), must("be a number of trials from 1")] = None
    budget: Annotated[Budget | None, BeforeValidator(budget_of)] = None
    seeds: Seeds = (0,)
    section: Text = "tuning"
    hold_out: Annotated[int, Field(strict=True, ge=0), must("be a number of patients from 0")] = 0
    datalist: Place = None
    dataset_dir: Place = None

    @model_validator(mode="after")
    def _one_source(self) -> Tune:
        if self.hold_out and self.datalist:
            raise ValueError(
                "must keep patients of training apart (hold_out) or name another datalist, not both, got hold_out "
                f"{self.hold_out} and {self.datalist}; take one of them out"
            )
        return self

    def of(self, own: Trials | None, name: str) -> dict[str, dict[str, Any]]:
        """The trials of an arm by their keys.

        Raises:
            ValueError: If fewer than asked for are given.
        """
        listed = [dict(trial) for grid in (self.trials if own is None else own) for trial in _trials(grid)]
        result = {_key(trial): trial for trial in listed}
        if not result:
            raise ValueError(f"tune must hold trials, for all arms or those of {name!r}, got none")
        if self.number is None or self.number == len(result):
            return result
        if self.number > len(result):
            raise ValueError(f"tune.number must be at most the {len(result)} trials of arm {name!r}, got {self.number}")
        drawn = random.Random("trials").sample(list(result), self.number)
        return {key: trial for key, trial in result.items() if key in drawn}


def _trials(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _key(values: Mapping[str, Any]) -> str:
    """Name of a trial's folder, which other trials leave as it is."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:10]


def mean_dice(scores: Sequence[Score]) -> float:
    """Mean over cases of the mean over the classes that a case has; NaN where none has any."""
    cases: dict[str, list[float]] = {}
    for score in scores:
        cases.setdefault(score.case, []).extend([] if math.isnan(score.dice) else [score.dice])
    known = [fmean(values) for values in cases.values() if values]
    return fmean(known) if known else math.nan


def at_an_end(trials: Sequence[Trial]) -> Iterator[str]:
    """Remarks on chosen numbers that are the smallest or largest of several tried: a better one may lie beyond."""
    chosen = next((trial for trial in trials if trial.chosen), None)
    for name, value in chosen.values.items() if chosen is not None else ():
        tried = {trial.values.get(name) for trial in trials}
        numbers = [each for each in tried if isinstance(each, int | float) and not isinstance(each, bool)]
        if len(numbers) < 2 or len(numbers) < len(tried) or value not in (min(numbers), max(numbers)):
            continue
        end = "smallest" if value == min(numbers) else "largest"
        yield f"{name} {value!r} is the {end} tried, a better one may lie beyond"


__all__ = ["Tune", "at_an_end", "mean_dice"]
