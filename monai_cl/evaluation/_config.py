"""Settings of a label-efficiency curve: the keys of its file, their values, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from monai_cl._words import suggestion
from monai_cl.evaluation._arms import (
    NAME,
    Arm,
    Budget,
    Budgets,
    Bundle,
    Flag,
    Names,
    Pretraining,
    Published,
    Seeds,
    Settings,
    Text,
)
from monai_cl.evaluation._controls import COMPUTE, LONGER, EqualCompute, Longer, costly, switch
from monai_cl.evaluation._evaluation_keys import Evaluation
from monai_cl.evaluation._keys import Keys, Where, load, read_keys
from monai_cl.evaluation._tuning import Tune

_WHAT, _HINT = "the file of a curve", "; the tutorials hold one to start from, curve_hippocampus.yaml"


class CurveConfig(Keys):
    """A label-efficiency curve that is to be measured; see :func:`monai_cl.evaluation.run_curve`.

    Attributes:
        bundle: A bundle by name, or its folder.
        overlays: Config files laid on every step, by name or path.
        settings: Values of ids, for every step that knows them.
        budgets: Numbers of labelled volumes, or ``all``.
        seeds: Each draws the labelled volumes and the initial weights.
        arms: Starting points of networks, by name.
        reference: The arm that the others are compared with; when left out the only one without pretraining, or the
            only one of those without overlays.
        evaluation: Which cases count.
        tune: Trials of settings, the same number for every arm; ``None`` without.
        equal_compute: The reference given the time that another arm takes; ``None`` without.
        convergence: The reference with twice the steps; ``None`` without.
        keep_models: Whether fine-tuned networks are kept.
        output: Folder of the results.
    """

    bundle: Bundle
    overlays: Names = ()
    settings: Settings = Field(default_factory=dict)
    budgets: Budgets
    seeds: Seeds
    arms: dict[str, Arm]
    reference: Text = ""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    tune: Tune | None = None
    equal_compute: Annotated[EqualCompute | None, switch(EqualCompute)] = Field(default_factory=EqualCompute)
    convergence: Annotated[Longer | None, switch(Longer)] = Field(default_factory=Longer)
    keep_models: Flag = True
    output: Annotated[Path, BeforeValidator(str)]
    _source: Path = PrivateAttr(Path())

    @field_validator("arms", mode="before")
    @classmethod
    def _some_arms(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not value:
            raise ValueError(f"must hold at least one name with its settings, got {value!r}")
        return {str(name): content for name, content in value.items()}

    @field_validator("evaluation", mode="before")
    @classmethod
    def _on(cls, value: Any) -> Any:
        if value is False:
            raise ValueError(f"must hold the keys {', '.join(Evaluation.known())}, got False")
        return {} if value is None else value

    @model_validator(mode="after")
    def _follow(self) -> CurveConfig:
        """Work out what one key leaves to others."""
        settled: set[str] = set()
        for name, arm in self.arms.items():
            if not NAME.fullmatch(name) or name.endswith(LONGER) or COMPUTE in name:
                raise ValueError(
                    f"the name of an arm must be of letters, digits, '_', '-' and '.', and leave {LONGER!r} at the "
                    f"end and {COMPUTE!r} to the arms that are added, got {name!r}"
                )
            arm._name, arm.title = name, arm.title or name.replace("_", " ")
        twins = self._add_twins()
        for name in self.arms:
            self._settle_start(name, (), settled)
        scratch = [name for name, arm in self.arms.items() if arm.from_scratch]
        own = [name for name in scratch if name not in twins]
        plain = [name for name in own if not self.arms[name].overlays]
        named = self.reference if "reference" in self.model_fields_set else None
        only = next((names[0] for names in (scratch, own, plain) if len(names) == 1), None)
        self.reference = _reference(only if named is None else named, scratch)
        if self.equal_compute is not None:
            self.equal_compute.budgets = self._among("equal_compute", self.equal_compute.budgets or self.budgets)
            known = [name for name, arm in self.arms.items() if name != self.reference and arm.takes_time]
            self.equal_compute.arms = costly(self.equal_compute.arms, known)
        if self.convergence is not None:
            ends = (self.budgets[0], self.budgets[-1])
            self.convergence.budgets = self._among("convergence", self.convergence.budgets or ends)
        self._check_trials()
        return self

    def _add_twins(self) -> set[str]:
        """Let published weights settle their arms, each followed by its network from scratch; names of the latter."""
        result: dict[str, Arm] = {}
        twins = set()
        for name, arm in self.arms.items():
            result[name] = arm
            if (twin := arm.settle()) is not None:
                if twin.name in self.arms:
                    raise ValueError(
                        f"arm {name!r} adds {twin.name!r}, the same network from scratch, which is an arm already; "
                        "rename that one, or set `scratch: false` beside `published`"
                    )
                result[twin.name] = twin
                twins.add(twin.name)
        self.arms = result
        return twins

    def _check_trials(self) -> None:
        """Refuse trials of unequal number, or on volumes that are evaluated on."""
        own = [name for name, arm in self.arms.items() if arm.trials is not None]
        if self.tune is None:
            if own:
                raise ValueError(f"trials of arm {own[0]!r} need `tune`, on whose data they are judged; add it")
            return
        if self.tune.budget is None:
            self.tune.budget = self.budgets[0]
        if self.tune.section == self.evaluation.section and self.tune.datalist == self.evaluation.datalist:
            raise ValueError(
                "tune.section must be another than that of the evaluation, or nothing is left to judge what was "
                f"chosen, got {self.tune.section!r} for both"
            )
        counts = {name: len(trials) for name, trials in self.trials().items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"every arm must have the same number of trials, got {listed}; set tune.number")

    def trials(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The trials of each arm by their keys; empty without tuning."""
        if self.tune is None:
            return {}
        return {name: self.tune.of(arm.trials, name) for name, arm in self.arms.items()}

    def _settle_start(self, name: str, asking: tuple[str, ...], settled: set[str]) -> None:
        """Work out the pretraining of an arm after that of the arm whose networks it takes."""
        start = self.arms[name].pretrained
        if not isinstance(start, Pretraining) or name in settled:
            return
        if name in asking:
            way = " -> ".join((*asking, name))
            raise ValueError(f"`after` and `of` must not lead back to where they began, got {way}")
        key, other = ("of", start.of) if start.of else ("after", start.after)
        if not other:
            start.bundle = start.bundle if "bundle" in start.model_fields_set else self.bundle
            settled.add(name)
            return
        known = [each for each, arm in self.arms.items() if arm.pretraining is not None and each != name]
        if other not in known and other != name:
            raise ValueError(
                f"pretrained of arm {name!r}: {key} must name another arm that is pretrained, got {other!r}"
                f"{suggestion(other, known)} (valid: {', '.join(known)})"
            )
        self._settle_start(other, (*asking, name), settled)
        first = self.arms[other].pretrained
        if start.of and isinstance(first, Pretraining):
            self.arms[name].pretrained = first.model_copy(update={"after": "", "of": other})
        elif isinstance(first, Pretraining):
            start.bundle = start.bundle if "bundle" in start.model_fields_set else self.bundle
            start.seeds, start.paired = first.seeds, first.paired
        settled.add(name)

    def _among(self, where: str, chosen: Sequence[Budget]) -> tuple[Budget, ...]:
        unknown = [str(budget) for budget in chosen if budget not in self.budgets]
        if unknown:
            among = ", ".join(map(str, self.budgets))
            raise ValueError(f"{where}.budgets must be among the budgets {among}, got {', '.join(unknown)}")
        return tuple(dict.fromkeys(chosen))

    @property
    def source(self) -> Path:
        """The file."""
        return self._source

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return self.arms[name]

    def stages(self, name: str) -> tuple[str, ...]:
        """The arms whose pretraining runs are behind the networks of an arm, in order; the last are fine-tuned."""
        pretraining = self.arm(name).pretraining
        if pretraining is None:
            return ()
        if pretraining.of:
            return self.stages(pretraining.of)
        return (*(self.stages(pretraining.after) if pretraining.after else ()), name)


def _reference(value: str | None, scratch: Sequence[str]) -> str:
    if value not in scratch or value is None:
        raise ValueError(
            "the others are compared with one arm without pretraining (pretrained: none); name it as reference, "
            f"got {value!r}, arms without pretraining: {', '.join(scratch) or 'none'}"
        )
    return value


def _named(place: Where) -> str:
    """Words for a place in the file, without numbers of entries."""
    parts = [part for part in place if isinstance(part, str)]
    if parts[:1] != ["arms"] or len(parts) < 2:
        return ".".join(parts)
    words = f"arm {parts[1]!r}"
    for part in parts[2:]:
        words = f"{part} of {words}"
    return words


def read_config(path: str | Path) -> CurveConfig:
    """Read and check a file.

    Raises:
        FileNotFoundError: If no such file exists.
        ValueError: If it is no YAML, holds an unknown key or value (the message names the closest and all), or arms
            that cannot be compared.
    """
    source = Path(path)
    config = read_keys(CurveConfig, source, _WHAT, _named, hint=_HINT)
    config._source = source
    return config


def is_curve(path: str | Path) -> bool:
    """Return whether a file has the settings of a curve, rather than of a step."""
    try:
        content = load(Path(path), _WHAT)
    except (OSError, ValueError):
        return False
    return "arms" in content and "budgets" in content


def keys_in_words() -> str:
    """Every key of the file, for the help of the command line."""

    def of(model: type[Keys]) -> str:
        return ", ".join(model.known())

    sections = CurveConfig.sections()
    parts = "; of ".join(f"{name}: {of(model)}" for name, model in sections.items() if name != "arms")
    return (
        f"Keys of the file of a curve, which tutorials/curve_hippocampus.yaml explains: {of(CurveConfig)}.\n\nOf an "
        f"arm: {of(Arm)}; of its pretrained, where it is neither none, shipped nor paths: {of(Pretraining)}; or, for "
        f"published weights: {of(Published)}.\n\nOf {parts}."
    )


__all__ = [
    "Arm",
    "CurveConfig",
    "Pretraining",
    "is_curve",
    "keys_in_words",
    "read_config",
]
