"""Arrangement of features, projector and teacher by each variant of the volume contrast."""

from typing import Any, NamedTuple


class Arrangement(NamedTuple):
    """Arrangement around the loss; the fields are options of :class:`monai_cl.methods.VolumeContrast`."""

    teacher: str
    momentum: float
    momentum_schedule: str
    levels: str
    pool_size: int
    hidden: int
    embedding: int
    norm: str
    dropout: float
    dropout_kind: str


_PUBLISHED = Arrangement(
    teacher="network",
    momentum=0.9,
    momentum_schedule="constant",
    levels="all",
    pool_size=1,
    hidden=2048,
    embedding=2048,
    norm="batch",
    dropout=0.0,
    dropout_kind="element",
)
ARRANGEMENTS = {
    "monai_cl": _PUBLISHED._replace(
        momentum=0.99, momentum_schedule="cosine", pool_size=2, hidden=512, embedding=256, dropout=0.2
    ),
    "cvpr": _PUBLISHED._replace(teacher="none", levels="deepest"),
    "10k": _PUBLISHED,
    "v2": _PUBLISHED._replace(teacher="projector", hidden=1024, embedding=1024, dropout=0.2, dropout_kind="row"),
}
_CHOICES = {
    "teacher": ("none", "network", "projector"),
    "momentum_schedule": ("constant", "cosine"),
    "levels": ("all", "deepest"),
    "norm": ("batch", "layer"),
    "dropout_kind": ("element", "row"),
}


def arrange(variant: str, **options: Any) -> Arrangement:
    """The arrangement of a variant with those options changed that are not ``None``.

    Raises:
        ValueError: If a name is unknown or a number is out of range.
    """
    if variant not in ARRANGEMENTS:
        raise ValueError(f"variant must be one of {tuple(ARRANGEMENTS)}, got {variant!r}")
    arrangement = ARRANGEMENTS[variant]._replace(**{k: v for k, v in options.items() if v is not None})
    for name, known in _CHOICES.items():
        if getattr(arrangement, name) not in known:
            raise ValueError(f"{name} must be one of {known}, got {getattr(arrangement, name)!r}")
    if not 0 <= arrangement.momentum <= 1:
        raise ValueError(f"momentum must be between 0 and 1, got {arrangement.momentum!r}")
    if not 0 <= arrangement.dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {arrangement.dropout!r}")
    for name in ("pool_size", "hidden", "embedding"):
        if getattr(arrangement, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(arrangement, name)!r}")
    return arrangement
