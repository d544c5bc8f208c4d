"""Nested subsets of few labels, drawn patient by patient."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from monai_cl.datalist.items import Item, as_listed, drawn_by, image_key, subject_of


def few_labels(items: Iterable[Mapping[str, Any]], n: int, *, seed: int) -> list[Item]:
    """Draw ``n`` items, patient by patient, so that the draw of ``n`` is the start of the draw of ``n + 1``.

    Patients are put in an order that depends on ``seed`` and their name alone: neither the order of the items nor other
    patients change it. Their items are taken in turn, by image path. Items with a number under ``"order"`` come first,
    the smallest before all, whatever the seed: so a list can state a published choice of patients.

    Args:
        items: Items with ``"subject"``; one without counts as a patient of its own.
        n: Number of items, at least 1.
        seed: Seed of the order of patients.

    Returns:
        ``n`` items.

    Raises:
        ValueError: If ``n`` is not positive or larger than the number of items, or an order is not a number.

    Example:
        >>> items = [{"image": f"{s}_{v}.nii.gz", "subject": s} for s in "abc" for v in (1, 2)]
        >>> few_labels(items, 2, seed=0) == few_labels(items[::-1], 3, seed=0)[:2]
        True
    """
    pool = [dict(item) for item in items]
    if not isinstance(n, Integral) or not 1 <= n <= len(pool):
        patients = len({subject_of(item) for item in pool})
        raise ValueError(
            f"the number of labelled volumes (labels of a bundle, here n) must be between 1 and {len(pool)} "
            f"({len(pool)} items of {patients} subjects), got {n!r}"
        )
    return sorted(pool, key=lambda item: (_place(item), _draw(drawn_by(item), seed), image_key(item)))[:n]


def _place(item: Mapping[str, Any]) -> float:
    """Place of an item that the list itself states; after all others where it states none."""
    order = item.get("order", math.inf)
    if isinstance(order, bool) or not isinstance(order, int | float) or math.isnan(order):
        name = item.get("case") or image_key(item, as_listed)
        raise ValueError(f"order of an item must be a number, got {order!r} for {name}; correct the list")
    return order


def _draw(subject: str, seed: int) -> str:
    """A pseudo-random sort key that no other patient influences."""
    return hashlib.sha256(f"{seed}:{subject}".encode()).hexdigest()
