"""Settings of the controls of a curve: its reference with the time of another arm, or with twice the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from monai_cl._words import suggestion
from monai_cl.evaluation._arms import Budgets, Names
from monai_cl.evaluation._keys import Keys, must

LONGER = "_2x"  # ends the name of the arm with twice the steps
COMPUTE = "_plus_"  # joins the reference and the arm whose pretraining time it gets


class EqualCompute(Keys):
    """The reference once more, given the time that an arm takes beyond it in steps: at which budgets, of which arms.

    That is the time of its pretraining and, where it has overlays, what its fine-tuning takes longer.
    """

    budgets: Budgets = ()
    arms: Names | None = None


class Longer(Keys):
    """The reference once more with twice the steps: at which budgets, and which gain is too small to matter."""

    budgets: Budgets = ()
    tolerance: Annotated[float, Field(strict=True, ge=0, le=1), must("be a number from 0 to 1")] = 0.005


def switch(section: type[Keys]) -> BeforeValidator:
    """Let a section be switched off by ``false``."""

    def read(value: Any) -> Any:
        if value is False:
            return None
        if value is not None and value is not True and not isinstance(value, dict | Keys):
            raise ValueError(f"must be false or hold the keys {', '.join(section.known())}, got {value!r}")
        return value if isinstance(value, dict | Keys) else {}

    return BeforeValidator(read)


def costly(names: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Arms whose time the reference is given: those that are named, else all that are known to take time."""
    for name in names or ():
        if name not in known:
            valid = f"{suggestion(name, known)} (valid: {', '.join(known)})"
            raise ValueError(f"equal_compute.arms must be pretrained arms, or have overlays, got {name!r}{valid}")
    return tuple(known if names is None else names)
