"""Settings of the evaluation of a curve: cases that count, and the making of intervals."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from monai_cl.evaluation._arms import NAME, Names, Place, Settings, Text
from monai_cl.evaluation._keys import Keys, must


class LeaveOut(Keys):
    """A group of volumes that is evaluated on and left out of training, such as a site.

    Attributes:
        by: Field of the datalist's entries.
        value: The group; a curve for each leaves out one after the other.
    """

    by: Text
    value: Annotated[str | int, must("be a text or a whole number")]


class Evaluation(Keys):
    """Cases that count, and the making of intervals.

    Attributes:
        section: Section of the datalist.
        confidence: Confidence level of intervals.
        resamples: Bootstrap resamples.
        hold_out: Number of patients of ``training`` that are moved to the section.
        leave_out: A group of volumes, such as a site, that makes the section instead and that nothing is trained on.
        datalist: Another datalist that has the section; that of the settings when left out.
        dataset_dir: Folder its paths start from; that of the settings when left out.
        exclude: Cases or patients whose scores do not count, such as a duplicate; runs are the same with and without.
        variants: Further evaluations of every network, such as with flips: values of ids of evaluate.yaml, by name.
    """

    section: Text = "validation"
    confidence: Annotated[float, Field(strict=True, ge=0.5, le=0.999), must("be a number from 0.5 to 0.999")] = 0.95
    resamples: Annotated[int, Field(strict=True, ge=100), must("be an integer of at least 100")] = 10_000
    hold_out: Annotated[int, Field(strict=True, ge=0), must("be a number of patients from 0")] = 0
    leave_out: LeaveOut | None = None
    datalist: Place = None
    dataset_dir: Place = None
    exclude: Names = ()
    variants: dict[str, Settings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _named(self) -> Evaluation:
        wrong = [name for name, settings in self.variants.items() if not NAME.fullmatch(name) or not settings]
        if wrong:
            raise ValueError(
                "evaluation.variants must have names of letters, digits, '_', '-' and '.', each with settings, got "
                f"{wrong[0]!r}"
            )
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Evaluation:
        if self.hold_out and self.datalist:
            raise ValueError(
                "must keep patients of training apart (hold_out) or name another datalist, not both, got hold_out "
                f"{self.hold_out} and {self.datalist}; take one of them out"
            )
        if self.leave_out and (self.hold_out or self.datalist):
            raise ValueError(
                "must leave out a group (leave_out), keep patients of training apart (hold_out) or name another "
                "datalist, not several of them; take the others out"
            )
        return self
