"""The forms of the volume contrast: what each variant is made of."""

from typing import Any, NamedTuple


class VolumeContrastForm(NamedTuple):
    """Form of :class:`monai_cl.losses.VolumeContrastLoss` that a variant and its options select."""

    link: str
    target: str
    weighting: str
    negative: str
    zero_overlap: float
    similarity: str
    use_teacher: bool
    regularizer: str
    partners: str
    unpaired: str


_PUBLISHED = VolumeContrastForm(
    link="relu",
    target="overlap",
    weighting="overlap",
    negative="log",
    zero_overlap=0.0,
    similarity="one_way",
    use_teacher=True,
    regularizer="one_sided",
    partners="ring",
    unpaired="raise",
)
VARIANTS = {
    "monai_cl": _PUBLISHED._replace(
        link="signed", target="unit", zero_overlap=1e-6, regularizer="symmetric", partners="random"
    ),
    "cvpr": _PUBLISHED._replace(weighting="count", negative="square", use_teacher=False),
    "10k": _PUBLISHED._replace(negative="square", similarity="two_way"),
    "v2": _PUBLISHED,
}
INTER_WEIGHTS = {"monai_cl": 1.0, "cvpr": 0.0, "10k": 0.0, "v2": 1.0}
_CHOICES = {
    "link": ("signed", "relu", "softmax"),
    "target": ("unit", "overlap"),
    "weighting": ("overlap", "count"),
    "negative": ("log", "square"),
    "similarity": ("one_way", "two_way"),
    "regularizer": ("symmetric", "one_sided"),
    "partners": ("random", "ring"),
    "unpaired": ("raise", "skip"),
}


def volume_contrast_form(variant: str, **options: Any) -> VolumeContrastForm:
    """A variant with those of its options changed that are not ``None``.

    Raises:
        ValueError: If a name is unknown, or an option is given that has no effect beside the others.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {tuple(VARIANTS)}, got {variant!r}")
    given = {name: value for name, value in options.items() if value is not None}
    for name, known in _CHOICES.items():
        if name in given and given[name] not in known:
            raise ValueError(f"{name} must be one of {known}, got {given[name]!r}")
    if not given.get("zero_overlap", 0.0) >= 0:
        raise ValueError(f"zero_overlap must be at least 0, got {given['zero_overlap']!r}")
    idle = [name for name in ("target", "weighting", "negative", "zero_overlap") if name in given]
    if given.get("link") == "softmax" and idle:
        raise ValueError(f"{', '.join(idle)} must be left out with link='softmax', where it has no effect")
    return VARIANTS[variant]._replace(**given)
