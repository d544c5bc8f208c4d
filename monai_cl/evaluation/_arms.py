"""Arms of a curve, as its file states them: what networks start from; and the kinds of values that a file holds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PrivateAttr, Tag, model_validator

from monai_cl import bundles, weights
from monai_cl._settings import means_none
from monai_cl._words import suggestion
from monai_cl.evaluation._keys import Keys, must
from monai_cl.evaluation.records import PAIRED

# what the curve sets alike for every arm
DECIDED = ("labels", "seed", "pretrained", "model", "output_dir", "evaluation_section", "bundle_root", "config_file")
SHARED = (
    "dataset_dir", "datalist", "recipe", "recipe_options",
    "finetune_epochs", "finetune_epoch_length", "finetune_batch_size",
)  # fmt: skip
TUNABLE = ("finetune_epochs", "finetune_batch_size")  # of these, what trials may set for one arm
SHIPPED = "shipped"
SCRATCH = "_scratch"  # ends the name of the twin of an arm with published weights
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _in_order(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    if not budgets:
        raise ValueError("must hold at least one number of labels, got []")
    return tuple(sorted(set(budgets), key=lambda budget: math.inf if budget == "all" else budget))


def _different(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not numbers:
        raise ValueError("must be whole numbers from 0, got []")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"must be different numbers, got {list(numbers)}")
    return numbers


def _bundle(value: Any) -> Path:
    """Folder of a bundle, by its path or its name."""
    folder = Path(str(value))
    return folder if (folder / "configs").is_dir() else bundles.path(str(value))


def _leaves(value: Any, refused: Sequence[str]) -> dict[str, Any]:
    """Values of ids of a bundle, none of which the curve sets itself."""
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"must hold ids of the bundle's configs and their values, got {value!r}")
    wrong = [str(key) for key in value or {} if key in refused]
    if wrong:
        them = "it" if len(wrong) == 1 else "them"
        raise ValueError(
            f"must leave {', '.join(wrong)} to the curve, which sets {them} alike for every arm; take {them} out"
        )
    return {str(key): item for key, item in (value or {}).items()}


def _checkpoints(value: Any) -> dict[str, Path]:
    """Files of weights by the name of their run."""
    listed = _listed(value)
    if not all(isinstance(each, str) for each in listed):
        raise ValueError(f"must be names or paths, got {value!r}")
    paths = [Path(text) for text in listed]
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"must be different paths, got {value!r}")
    stems = [path.stem for path in paths]
    unique = len(set(stems)) == len(stems) and all(NAME.fullmatch(stem) for stem in stems)
    return {stem if unique else f"run_{i}": path for i, (stem, path) in enumerate(zip(stems, paths, strict=True))}


def _grids(value: Any) -> tuple[dict[str, list[Any]], ...]:
    """Grids of values of ids, a value alone being a list of one."""
    result = []
    for grid in _listed(value):
        if not isinstance(grid, dict) or not grid:
            raise ValueError(f"must be ids with lists of values, or a list of such, got {value!r}")
        leaves = _leaves(grid, [key for key in (*DECIDED, *SHARED) if key not in TUNABLE])
        empty = [key for key, values in leaves.items() if values == []]
        if empty:
            raise ValueError(f"must have values to try for {', '.join(empty)}, got []")
        result.append({key: values if isinstance(values, list) else [values] for key, values in leaves.items()})
    return tuple(result)


def budget_of(value: Any) -> Any:
    """A number of labels, or all of them."""
    if value is None or value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"must be a number of labels from 1, or all, got {value!r}")


def _start(value: Any) -> str:
    if isinstance(value, dict | Keys):
        return "~published" if "published" in value or isinstance(value, Published) else "~runs"
    if value in ("auto", SHIPPED):
        return "~shipped"
    return "~none" if means_none(value) else "~files"


def _shipped(value: Any) -> Any:
    if value != SHIPPED:
        raise ValueError(
            f"must name what networks start from: none, {SHIPPED}, paths or how to pretrain, got {value!r}, which "
            "takes what happens to lie in the bundle"
        )
    return value


def _source(value: str) -> str:
    if value not in weights.PUBLISHED:
        valid = tuple(weights.PUBLISHED)
        raise ValueError(f"must be one of {', '.join(valid)}, got {value!r}{suggestion(value, valid)}")
    return value


Flag = Annotated[bool, Field(strict=True), must("be true or false")]
Text = Annotated[str, BeforeValidator(str)]
Names = Annotated[tuple[Annotated[str, Field(strict=True)], ...], must("be names or paths"), BeforeValidator(_listed)]
_BUDGET = must("be numbers of labels from 1, or all")
Budget = int | Literal["all"]
Budgets = Annotated[
    tuple[Annotated[Annotated[int, Field(strict=True, ge=1)] | Literal["all"], _BUDGET], ...],
    BeforeValidator(_listed),
    AfterValidator(_in_order),
]
Seeds = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0)], ...],
    must("be whole numbers from 0"),
    BeforeValidator(_listed),
    AfterValidator(_different),
]
Bundle = Annotated[Path, BeforeValidator(_bundle)]
Place = Annotated[Path | None, BeforeValidator(lambda value: str(value) if value else None)]
Settings = Annotated[dict[str, Any], BeforeValidator(lambda value: _leaves(value, DECIDED))]
Trials = Annotated[tuple[dict[str, list[Any]], ...], BeforeValidator(_grids)]
Tuning = Annotated[dict[str, Any], BeforeValidator(lambda value: _leaves(value, (*DECIDED, *SHARED)))]


class Pretraining(Keys):
    """Pretraining runs of an arm: the ``pretrain`` step of a bundle, once for each seed.

    Attributes:
        bundle: The bundle; that of the curve when left out.
        overlays: Config files laid on the step, by name or path.
        settings: Values of ids of its configs.
        seeds: One for each run.
        paired: Each seed of fine-tuning starts from one run, in turn, instead of from every one.
        after: The arm whose pretrained networks the runs begin with, run by run: a second stage.
        of: The arm whose pretrained networks are taken as they are; it then has no runs of its own.
    """

    bundle: Bundle = Path()
    overlays: Names = ()
    settings: Settings = Field(default_factory=dict)
    seeds: Seeds = (0,)
    paired: Flag = False
    after: Text = ""
    of: Text = ""

    @model_validator(mode="after")
    def _agree(self) -> Pretraining:
        given = self.model_fields_set
        if "of" in given and len(given) > 1:
            raise ValueError(f"must have no key beside `of`, whose runs are taken as they are, got {sorted(given)}")
        for key in ("seeds", "paired") if self.after else ():
            if key in given:
                got = list(self.seeds) if key == "seeds" else self.paired
                raise ValueError(f"must leave {key} to the arm that it is `after`, got {got}; take it out")
        _leaves(self.settings, ["start"] if self.after else [])
        return self


class Published(Keys):
    """Published weights, which set the network of an arm and the preparation of its images.

    Attributes:
        published: Whose they are, a name of :data:`monai_cl.weights.PUBLISHED`.
        file: The file.
        recipe: Recipe in place of the one that prepares images as the weights expect, with
        recipe_options: values given to it.
        scratch: Whether an arm trains the same network with the same recipe and settings from scratch.
    """

    published: Annotated[str, AfterValidator(_source)]
    file: Annotated[Path, BeforeValidator(str)]
    recipe: Text = ""
    recipe_options: dict[str, Any] = Field(default_factory=dict)
    scratch: Flag = True

    @model_validator(mode="before")
    @classmethod
    def _own_keys(cls, value: Any) -> Any:
        valid = cls.known()
        for key in value if isinstance(value, dict) else ():
            if key not in valid:
                raise ValueError(f"must hold the keys {', '.join(valid)}, got {key!r}{suggestion(key, valid)}")
        if isinstance(value, dict) and "file" not in value:
            raise ValueError(f"must name the file of weights, got {value!r}; add `file: PATH`")
        return value

    def implied(self) -> dict[str, Any]:
        """Settings that follow from the weights: network, names of tensors, preparation."""
        key_map = weights.PUBLISHED[self.published]
        given = {"network_def": weights.network_definition(self.published, self.file), "key_map": self.published}
        if recipe := self.recipe or key_map.recipe:
            known = {} if self.recipe else key_map.recipe_options
            given |= {"recipe": recipe, "recipe_options": {**known, **self.recipe_options}}
        return given


class Arm(Keys):
    """Start of networks, and settings of their fine-tuning.

    Attributes:
        pretrained: Nothing, the shipped weights of the network, files of weights by the name of their run, published
            weights by their name, or how to pretrain.
        overlays: Config files laid on its fine-tuning, by name or path; the evaluation is that of all arms.
        settings: Values of ids for its fine-tuning.
        trials: Trials of its own, in place of those of all arms; as many.
        title: Its name in words.
        pretraining_seconds: Time of one run behind the files, where somebody knows.
    """

    pretrained: Annotated[
        Annotated[None, BeforeValidator(lambda _: None), Tag("~none")]
        | Annotated[Literal["shipped"], BeforeValidator(_shipped), Tag("~shipped")]
        | Annotated[dict[str, Path], BeforeValidator(_checkpoints), Tag("~files")]
        | Annotated[Published, Tag("~published")]
        | Annotated[Pretraining, Tag("~runs")],
        Discriminator(_start),
    ]
    overlays: Names = ()
    settings: Tuning = Field(default_factory=dict)
    trials: Trials | None = None
    title: Text = ""
    pretraining_seconds: Annotated[float, Field(strict=True, ge=0), must("be a number from 0")] | None = None
    _name: str = PrivateAttr("")
    _twin: str = PrivateAttr("")
    _implied: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _says(cls, value: Any) -> Any:
        if not isinstance(value, dict) or ("pretrained" not in value and set(value) <= set(cls.known())):
            raise ValueError(
                "must name what it is `pretrained` with: none, shipped, paths, published weights, or settings; got "
                f"{value!r}"
            )
        return value

    @property
    def name(self) -> str:
        """Its name in tables and folders."""
        return self._name

    @property
    def pretraining(self) -> Pretraining | None:
        """Pretraining of its networks, where they are pretrained here."""
        return self.pretrained if isinstance(self.pretrained, Pretraining) else None

    @property
    def checkpoints(self) -> Mapping[str, Path]:
        """Files that it starts from, by name of the pretraining run."""
        if isinstance(self.pretrained, Published):
            return {self.pretrained.published: self.pretrained.file}
        return self.pretrained if isinstance(self.pretrained, dict) else {}

    @property
    def published(self) -> Published | None:
        """Published weights that it starts from."""
        return self.pretrained if isinstance(self.pretrained, Published) else None

    @property
    def twin(self) -> str:
        """Name of the arm with its network, recipe and settings from scratch; empty without one."""
        return self._twin

    @property
    def implied(self) -> Mapping[str, Any]:
        """Settings that follow from published weights, its own or those of the arm it is the twin of."""
        return self._implied

    def settle(self) -> Arm | None:
        """Take over what published weights imply; return the twin from scratch, if wanted."""
        if self.published is None:
            return None
        self._implied = self.published.implied()
        self.settings = {**self._implied, **self.settings}
        if not self.published.scratch:
            return None
        twin = self.model_copy(update={"pretrained": None, "title": f"{self.title}: its network from scratch"})
        twin._name, twin._twin, twin._implied = f"{self.name}{SCRATCH}", "", self._implied
        twin.pretraining_seconds, self._twin = None, twin._name
        return twin

    @property
    def is_shipped(self) -> bool:
        """Return whether it starts from the weights that come with a bundle."""
        return self.pretrained == SHIPPED

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the pretraining runs; one empty name without pretraining."""
        if self.pretraining is not None:
            return tuple(f"seed_{seed}" for seed in self.pretraining.seeds)
        if self.is_shipped:
            return (SHIPPED,)
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
        """Return whether the arm has no pretraining."""
        return self.runs == ("",)

    @property
    def takes_time(self) -> bool:
        """Return whether it takes more time than an arm from scratch, for pretraining or for longer steps."""
        return bool(self.overlays) or not self.from_scratch

    @property
    def is_shared(self) -> bool:
        """Return whether its networks are those of another arm, fine-tuned by the same steps of the same length."""
        return self.pretraining is not None and bool(self.pretraining.of) and not self.overlays
