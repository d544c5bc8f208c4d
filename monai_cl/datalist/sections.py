"""Sections of a datalist: their names, their items, and the choice of a user among them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_cl._words import suggestion
from monai_cl.privacy.hand_made import HIDDEN_SECTION, section_name
from monai_cl.privacy.naming import PlainNames
from monai_cl.privacy.pseudonyms import find_or_make_key


def section_names(content: Mapping[str, Any]) -> list[str]:
    """Names of the sections of a datalist that hold something."""
    return [name for name, value in content.items() if value and is_section(name, value)]


def labels_by_number(labels: Any) -> Any:
    """Names of classes by their numbers, also where a list has numbers by names, as nnU-Net, or names in a row.

    Example:
        >>> labels_by_number({"background": 0, "liver": 1}), labels_by_number(["background", "liver"])
        ({'0': 'background', '1': 'liver'}, {'0': 'background', '1': 'liver'})
    """
    if isinstance(labels, list):
        return {str(number): name for number, name in enumerate(labels)}
    if isinstance(labels, dict) and labels and all(isinstance(value, int) for value in labels.values()):
        return {str(value): name for name, value in labels.items()}
    return labels


def split_sections(sections: str | Sequence[str]) -> list[str]:
    """Names of sections, joined by ``+`` or in a list.

    Example:
        >>> split_sections("training+unlabelled"), split_sections(["test"])
        (['training', 'unlabelled'], ['test'])
    """
    return sections.split("+") if isinstance(sections, str) else list(sections)


def items_of(content: Mapping[str, Any], section: str) -> list[Mapping[str, Any]]:
    """The items of a section; Decathlon lists test images as bare strings."""
    return [{"image": item} if isinstance(item, str) else item for item in content.get(section, [])]


def chosen_sections(content: Mapping[str, Any], sections: str | Sequence[str], source: Path) -> list[str]:
    """The sections that a user asks for, each once and as the content has it.

    Args:
        content: The content of a datalist.
        sections: As in :func:`~monai_cl.datalist.load_datalist`.
        source: The datalist, for messages.

    Raises:
        ValueError: If none is asked for, or one is unknown.
    """
    wanted = split_sections(sections)
    if not wanted:
        raise ValueError(
            f"sections must name at least one section, got {sections!r}; choose from {filled_sections(content)}"
        )
    valid = [name for name, value in content.items() if is_section(name, value)]
    if len(wanted) > 1 and "unlabelled" not in content:
        wanted = [name for name in wanted if name != "unlabelled"]
    wanted = [name if name in valid else _hidden_section(name, valid) for name in wanted]
    for name in wanted:
        if name not in valid and name in content:
            raise ValueError(
                f"section {name!r} of {source} must be a list of objects with an image, {_fault(content[name])}"
            )
        if name not in valid:
            hint = suggestion(name, valid, form="did you mean {!r}? ")
            remedy = how_to_fill([name], content)
            raise ValueError(f"{source} has no section {name!r}; {hint}valid are: {filled_sections(content)}{remedy}")
    return list(dict.fromkeys(wanted))


def _fault(value: Any) -> str:
    """Kind of a value that is no section, in words."""
    kinds = [type(entry).__name__ for entry in value if not isinstance(entry, dict)] if isinstance(value, list) else []
    return f"got a list with a {kinds[0]} in it" if kinds else f"got a {type(value).__name__}"


def _hidden_section(name: str, valid: Sequence[str]) -> str:
    """Pseudonym of the name of a section of a list made by hand, where the list has it."""
    if not any(one.startswith(HIDDEN_SECTION) for one in valid):  # no key is looked for, nor made
        return name
    hidden = section_name(str(name), PlainNames(find_or_make_key))
    return hidden if hidden in valid else name


def is_section(name: str, value: Any) -> bool:
    """Return whether a value of a datalist is a list of items."""
    # Decathlon lists test images as bare strings; a list of strings under another name may be anything.
    kinds = (dict, str) if name == "test" else (dict,)
    return isinstance(value, list) and all(isinstance(entry, kinds) for entry in value)


def how_to_fill(names: Sequence[str], content: Mapping[str, Any]) -> str:
    """Remedy for a validation that holds nothing beside a training that does, as in public data; else nothing.

    Example:
        >>> how_to_fill(["test"], {"training": [{"image": "a.nii.gz"}]})
        ''
    """
    if list(names) != ["validation"] or not content.get("training"):
        return ""
    return (
        "; `monai-cl curate DATALIST --hold-out 0.2` moves a fifth of the training patients to validation and writes "
        "a new list, from which a cache is made anew"
    )


def filled_sections(content: Mapping[str, Any]) -> str:
    """The sections with the number of items of each, for messages."""
    return (
        ", ".join(f"{name} ({len(value)})" for name, value in content.items() if is_section(name, value))
        or "no sections"
    )
