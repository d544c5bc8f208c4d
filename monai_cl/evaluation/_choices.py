"""The choice among the trials of each arm: made once, when all of them have ended, and kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from monai_cl.evaluation._cells import TRIAL, Cell
from monai_cl.evaluation._plan import Plan
from monai_cl.evaluation._running import CellError
from monai_cl.evaluation._store import Store, read_json, write_json
from monai_cl.evaluation._tuning import mean_dice
from monai_cl.evaluation.records import Trial
from monai_cl.evaluation.scores import read_scores


@dataclass(frozen=True)
class Choices:
    """Settings chosen for the arms of a plan, by their mean Dice on the tuning list.

    Attributes:
        plan: The plan.
        store: Where the results of its trials are.
    """

    plan: Plan
    store: Store
    _known: dict[str, list[Trial]] = field(default_factory=dict)

    def of(self, arm: str) -> Mapping[str, Any]:
        """The settings that were chosen for an arm.

        Raises:
            CellError: If no trial of it was finished.
        """
        return next(trial.values for trial in self.trials(arm) if trial.chosen)

    def are_made(self, arm: str) -> bool:
        """Return whether the settings of an arm are known: chosen before, all trials finished, or none asked for."""
        if not self.plan.trials or arm in self._known or self._kept(arm) is not None:
            return True
        return all(self.store.record(cell) is not None for cell in self._cells(arm))

    def trials(self, arm: str) -> list[Trial]:
        """Every trial of an arm, one of them chosen.

        Raises:
            CellError: If none was finished.
        """
        if arm not in self._known:
            kept = self._kept(arm)
            result = self._measure(arm) if kept is None else [_read(each, arm) for each in kept["trials"]]
            self._known[arm] = result
        return self._known[arm]

    def keep(self, arm: str) -> None:
        """Write down what was chosen for an arm: a trial that failed and is made good later changes it no more."""
        if self.plan.trials and self._kept(arm) is None:
            result = [vars(each) for each in self.trials(arm)]
            content = [{**each, "dice": None if math.isnan(each["dice"]) else each["dice"]} for each in result]
            write_json(self._file(arm), {"rests_on": self._rests_on(arm), "trials": content})

    def _measure(self, arm: str) -> list[Trial]:
        result = [self._trial(arm, key, values) for key, values in self.plan.trials[arm].items()]
        whole = [trial for trial in result if not trial.failed]
        if not whole:
            raise CellError(f"no settings of {arm} can be chosen, as every trial of it failed")
        best = max(whole, key=lambda trial: trial.dice)
        return [replace(trial, chosen=trial is best) for trial in result]

    def _trial(self, arm: str, key: str, values: Mapping[str, Any]) -> Trial:
        cells = [cell for cell in self._cells(arm) if cell.trial == key]
        steps = int(values.get("finetune_epochs", self.plan.epochs)) * self.plan.epoch_length
        ended = [cell for cell in cells if self.store.record(cell) is not None]
        dice = [mean_dice(list(self._scores(cell))) for cell in ended]
        mean = fmean(dice) if dice else math.nan
        lacking = "" if len(ended) == len(cells) else f"{len(cells) - len(ended)} of {len(cells)} runs failed"
        why = lacking or ("no class was present to be scored" if math.isnan(mean) else "")
        return Trial(arm, dict(values), math.nan if why else mean, len(ended), steps, failed=why)

    def _scores(self, cell: Cell) -> Any:
        who = (cell.arm, cell.run, cell.budget, cell.seed)
        return read_scores(self.store.folder(cell), who, self.plan.classes, self.plan.seen(cell).patients)

    def _cells(self, arm: str) -> list[Cell]:
        return [cell for cell in self.plan.cells if cell.role == TRIAL and cell.base == arm]

    def _kept(self, arm: str) -> dict[str, Any] | None:
        """The earlier choice, if it was made among the same trials."""
        kept = read_json(self._file(arm))
        return kept if kept is not None and kept["rests_on"] == self._rests_on(arm) else None

    def _rests_on(self, arm: str) -> dict[str, Any]:
        digest = "" if self.plan.tuned is None else self.plan.tuned.digest
        return {"runs": sorted(cell.folder for cell in self._cells(arm)), "datalist": digest}

    def _file(self, arm: str) -> Path:
        return self.store.root / "trials" / f"{arm}.json"


def _read(content: Mapping[str, Any], arm: str) -> Trial:
    return Trial(**{**content, "arm": arm, "dice": math.nan if content["dice"] is None else content["dice"]})


__all__ = ["Choices"]
