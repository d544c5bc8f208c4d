"""Patients of cases, as numbers in place of names, for every table that is resampled by patient."""

from collections.abc import Iterable, Mapping
from typing import Any

from monai_cl.datalist import subject_of


def patients_of(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The patient of each case of a datalist, numbered: a table needs to know who is the same, not who it is.

    Args:
        items: Items with ``"case"``; one without ``"subject"`` is a patient of its own.

    Example:
        >>> items = [{"case": "a_ed", "image": "1", "subject": "Z"}, {"case": "a_es", "image": "2", "subject": "Z"}]
        >>> patients_of([*items, {"case": "b", "image": "3", "subject": "Y"}])
        {'a_ed': 'patient_2', 'a_es': 'patient_2', 'b': 'patient_1'}
    """
    return numbered({str(item["case"]): subject_of(item) for item in items})


def numbered(subjects: Mapping[str, str]) -> dict[str, str]:
    """Cases with their patients by number, in the order of the names of the patients."""
    numbers = {name: number for number, name in enumerate(sorted(set(subjects.values())), start=1)}
    return {case: f"patient_{numbers[name]}" for case, name in subjects.items()}


__all__ = ["numbered", "patients_of"]
