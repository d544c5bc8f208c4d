"""Sites or scanners of volumes as numbers, from a field of the datalist."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

DOMAIN = "domain"  # field that an item gains


def with_domains(
    items: Sequence[Mapping[str, Any]], key: str = "source", *, label_key: str | None = None
) -> list[dict[str, Any]]:
    """Items with a field ``domain``, the number of their site in the sorted list of all.

    Args:
        items: Items as from :func:`monai_cl.datalist.load_datalist`.
        key: Field that names the site, or scanner, of each. Of a list made by hand ``source`` with a word in small
            letters is read, and other fields where their values plainly name nobody.
        label_key: Field with a label whose images are to be alike across sites: at least one label must come from two.
            Labels that sit in one site are counted in the log. Left out, anything goes, one site included.

    Raises:
        ValueError: If an item lacks the field, or no label comes from two sites.

    Example:
        >>> [item["domain"] for item in with_domains([{"source": "b"}, {"source": "a"}, {"source": "b"}])]
        [1, 0, 1]
    """
    without = [str(item.get("case", number)) for number, item in enumerate(items) if _name(item, key) == ""]
    if without:
        raise ValueError(
            f"the field {key!r} must name the site of each volume, {len(without)} of {len(items)} have none, such as "
            f"{without[0]}; add it to the entries of the datalist, as `source` with a word in small letters (other "
            'values are left out, since they might name somebody, unless the list has `"hide_names": false`), or name '
            "another field (domain_key)"
        )
    number = {name: place for place, name in enumerate(sorted({_name(item, key) for item in items}))}
    result = [{**item, DOMAIN: number[_name(item, key)]} for item in items]
    if label_key is not None:
        _check_labels(result, key, label_key)
    return result


def _check_labels(items: Sequence[Mapping[str, Any]], key: str, label_key: str) -> None:
    pairs = {(str(item[label_key]), item[DOMAIN]) for item in items}
    sites = Counter(label for label, _ in pairs)
    single = sorted(label for label, count in sites.items() if count == 1)
    counts = Counter(item[DOMAIN] for item in items)
    if len(single) == len(sites):
        raise ValueError(
            f"at least one label must come from two sites, got {len(counts)} by the field {key!r} and labels of one "
            "each; add volumes of another site, or name another field (domain_key)"
        )
    logger.info("sites: %d, of %d to %d volumes", len(counts), min(counts.values()), max(counts.values()))
    if single:
        logger.warning(
            "of the values of %r, %s come from one site alone: their volumes have no positives across sites",
            label_key, ", ".join(single),
        )  # fmt: skip


def _name(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    return "" if value is None else str(value).strip()
