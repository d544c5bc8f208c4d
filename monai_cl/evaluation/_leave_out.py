"""One site left out of training, and evaluated on: a group of volumes by a field of the datalist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from monai_cl._words import suggestion
from monai_cl.datalist import subject_of

Content = dict[str, Any]


def group_left_out(
    content: Content, own: Content, section: str, *, by: str, value: str | int
) -> tuple[Content, Content, str]:
    """The datalist with one group as the section that is evaluated on, and in no other.

    Labelled volumes of the group, from the training list and from the section, become the section; its other volumes
    and all volumes of its patients elsewhere are in no list. Volumes of other groups in the section are left out too.

    Args:
        content: The datalist.
        own: The same with its names as they are, but for those of sections.
        section: The section.
        by: Field of the entries, such as ``site``.
        value: The group.

    Returns:
        Both lists, and what was done in words.

    Raises:
        ValueError: If an entry lacks the field, the group is unknown or has no labelled volume, or no labelled volume
            is left to train on.
    """
    named = [name for name, listed in own.items() if isinstance(listed, list) and any(map(_is_item, listed))]
    items, shown = ([item for name in named for item in each[name] if _is_item(item)] for each in (own, content))
    _check(items, shown, by, str(value))
    patients = {subject_of(item) for item in items if str(item[by]) == str(value)}

    def chosen(name: str, item: Any) -> bool:
        return name in ("training", section) and bool(item.get("label")) and str(item[by]) == str(value)

    def kept(name: str, item: Any) -> bool:
        return name != section and (not _is_item(item) or subject_of(item) not in patients)

    moved = [[chosen(name, item) if _is_item(item) else False for item in own[name]] for name in named]
    stays = [[kept(name, item) for item in own[name]] for name in named]

    def after(listed: Content) -> Content:
        left = {name: _picked(listed[name], marks) for name, marks in zip(named, stays, strict=True)}
        group = [item for name, marks in zip(named, moved, strict=True) for item in _picked(listed[name], marks)]
        return {**listed, **left, section: group}

    result, found_own = after(content), after(own)
    if not result[section]:
        raise ValueError(f"evaluation.leave_out needs labelled volumes to evaluate on, {by} {value} has none")
    if not any(item.get("label") for item in result.get("training", [])):
        raise ValueError(f"evaluation.leave_out must leave labelled volumes to train on, {by} {value} has all of them")
    gone = sum(len(own[name]) for name in named) - sum(len(found_own[name]) for name in {*named, section})
    words = (
        f"{len(patients)} patients of one {by} were left out of training; {len(result[section])} labelled volumes of "
        f"it are the section {section}, {gone} volumes are in no list"
    )
    return result, found_own, words


def _check(items: list[Mapping[str, Any]], shown: list[Mapping[str, Any]], by: str, value: str) -> None:
    """Check that each item has the field, and one of them the value; groups are listed as the hidden list has them."""
    without = [item for item in items if item.get(by) is None]
    if without:
        raise ValueError(
            f"evaluation.leave_out needs the field {by!r} in each entry of the datalist, {len(without)} of "
            f"{len(items)} have none; add it to their entries"
        )
    counts = Counter(str(item[by]) for item in items)
    if value not in counts:
        plain = {str(item[by]) for item, other in zip(items, shown, strict=True) if other.get(by) == item[by]}
        known = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()) if name in plain)
        if more := len(counts) - len(plain):
            known += f"{' and ' * bool(known)}{more} whose names might be those of somebody"
        hint = suggestion(value, plain, form="did you mean {!r}? ")
        raise ValueError(f"evaluation.leave_out names {by} {value!r}, {hint}known are {known}; run a curve for each")


def _picked(listed: list[Any], marks: list[bool]) -> list[Any]:
    return [item for item, mark in zip(listed, marks, strict=True) if mark]


def _is_item(item: Any) -> bool:
    return isinstance(item, dict)
