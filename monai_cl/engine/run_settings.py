"""Parts of a run, stated once for its checkpoint, its record and those who take its network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_cl import recipes
from monai_cl.data import digest, digest_items


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run that are not to be read off the objects that train.

    Attributes:
        recipe: Name of the recipe that prepares the volumes, ``None`` if none exist to prepare, with
        recipe_options: the values given to it.
        seed: Seed of the run.
        datalist: The datalist, and
        dataset_dir: the folder its paths start from.
        sections: Which lists of it are read.
        items: Items found in a folder instead, without a datalist; their digest stands for it.
        contract: Facts that users of the network need beside the recipe: channels, widths, spacing.
        own: All other settings of the user that make the run what it is.
        method: Name of the method of a pretraining.
    """

    recipe: str | Path | None
    recipe_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    datalist: str | Path | None = None
    dataset_dir: str | Path | None = None
    sections: str | Sequence[str] | None = None
    items: Sequence[dict[str, Any]] | None = None
    contract: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    method: str | None = None

    def to_compare(self) -> dict[str, Any]:
        """Return what must be the same for a pretraining to go on, data and recipe by their digests."""
        if self.items is not None:
            data = {"data": digest_items(self.items)}
        else:
            data = {} if self.datalist is None else {"datalist": digest(self.datalist)}
        recipe = None if self.recipe is None else recipes.digest(self.recipe, **self.recipe_options)
        return {
            "method": self.method, **data, "sections": self.sections, "recipe": recipe, "seed": self.seed,
            **self.to_tell(),
        }  # fmt: skip

    def to_tell(self) -> dict[str, Any]:
        """Return the settings that have no place of their own in a record."""
        return {**self.own, **self.contract}

    def to_hand_over(self) -> dict[str, Any]:
        """Return what is stored beside the network."""
        method = {} if self.method is None else {"method": self.method}
        recipe = {} if self.recipe is None else {"recipe": self.recipe, "recipe_options": dict(self.recipe_options)}
        return {**method, **recipe, **self.contract}
