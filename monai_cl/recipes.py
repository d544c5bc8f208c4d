"""Recipes: ready-made chains of deterministic preparation in ``transforms/*.yaml``, loaded and checked.

A recipe is a MONAI configuration with a ``purpose``, parameters, and ``preprocessing``, a ``Compose`` over the keys
``image`` and ``label``. A label may be missing, so one recipe serves pretraining, fine-tuning and inference.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from monai_cl._files import read_yaml
from monai_cl._settings import read_flag
from monai_cl._words import suggestion

if TYPE_CHECKING:
    from monai.transforms import Compose
    from torch import Tensor

_SUFFIXES = (".yaml", ".yml", ".json")
_SPACING = ("Spacingd", "SpacingD", "SpacingDict")
_NOT_PARAMETERS = ("purpose", "imports", "preprocessing")
_SEARCH = (
    Path(__file__).parent / "_share" / "transforms",  # in the wheel
    Path(__file__).parent.parent / "transforms",  # in a checkout
)


def names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(file.stem for file in _folder().glob("*.yaml"))


def path(name: str) -> Path:
    """File of a recipe, to read or to copy.

    Args:
        name: Name of a recipe that comes with the package.

    Raises:
        ValueError: If no such recipe exists; the message names the closest and all.
    """
    if name not in names():
        raise ValueError(f"unknown recipe {name!r}{_suggestion(name, names())}; give one of these or a path to a file")
    return _folder() / f"{name}.yaml"


def purpose(name: str | Path) -> str:
    """Purpose of a recipe, in one line.

    Args:
        name: Name of a recipe, or path of a recipe file.

    Raises:
        ValueError: If no such recipe exists, or the file has no purpose.
    """
    return str(_read(name)["purpose"])


def parameters(name: str | Path) -> dict[str, Any]:
    """The parameters of a recipe that :func:`load` lets one override, with their defaults.

    Args:
        name: Name of a recipe, or path of a recipe file.

    Raises:
        ValueError: If no such recipe exists, or the file is not a recipe.
    """
    return {key: value for key, value in _read(name).items() if key not in _NOT_PARAMETERS}


def load(name: str | Path, **overrides: Any) -> Compose:
    """Build the transform of a recipe.

    Args:
        name: Name of a recipe, or path of a recipe file (``.yaml``, ``.yml``, ``.json``).
        **overrides: New values for parameters of the recipe, such as ``spacing=2.0``: numbers, texts, lists or
            ``None``.

    Returns:
        A ``Compose`` from ``{"image": file}`` or ``{"image": file, "label": file}`` to channel-first tensors. Its
        attribute ``recipe`` describes it: ``name``, ``options`` and ``digest``. A ``Spacingd`` of MONAI is built as
        :class:`monai_cl.transforms.KeyedSpacingd`, so that items may have keys such as ``image_path``.

    Raises:
        ValueError: If no such recipe exists or parameter (the message names the closest and all); if a spacing is
            neither ``None``, nor a positive number, nor three numbers that are not negative; or if a window or
            percentiles are no two rising numbers, percentiles within 0 and 100.

    Example:
        >>> from monai_cl import recipes
        >>> prepare = recipes.load("ct_abdomen", spacing=2.0)  # doctest: +SKIP
    """
    from monai.bundle import ConfigParser

    content = _resolved(name, overrides)
    parser = ConfigParser({**content, "preprocessing": _with_keyed_spacing(content["preprocessing"])})
    # The lists of a configuration come back as they are; a Compose is built from `_target_`.
    chain = parser.get_parsed_content("preprocessing")
    options = {key: _plain(key, value) for key, value in overrides.items()}
    chain.recipe = {"name": Path(name).stem, "options": options, "digest": digest(name, **overrides)}
    return chain


def intensities(name: str | Path, **overrides: Any) -> Intensities:
    """Steps of a recipe on the intensities of an image, as a transform of an image alone.

    Steps that act on ``image`` but not on ``label`` change intensities; those that act on both move voxels and are left
    out. So images that were made rather than read can be brought to what fine-tuning with this recipe will see.

    Args:
        name: Name of a recipe, or path of a recipe file.
        **overrides: As for :func:`load`.

    Returns:
        An array transform: image (C, *S) in and out.

    Raises:
        ValueError: As for :func:`load`.

    Example:
        >>> from monai_cl import recipes
        >>> import torch
        >>> image = recipes.intensities("small_mr")(torch.linspace(0, 700, 64).reshape(1, 4, 4, 4))
        >>> float(image.min()), float(image.max())
        (0.0, 1.0)
    """
    return Intensities(load(name, **overrides))


class Intensities:
    """The steps of a recipe that act on the image alone; see :func:`intensities`."""

    def __init__(self, recipe: Compose) -> None:
        self.transforms = [step for step in recipe.transforms if tuple(getattr(step, "keys", ())) == ("image",)]

    def __call__(self, image: Tensor) -> Tensor:
        """Image (C, *S) with the intensities of the recipe."""
        item: dict[str, Any] = {"image": image}
        for step in self.transforms:
            item = step(item)
        result: Tensor = item["image"]
        return result


def digest(name: str | Path, **overrides: Any) -> str:
    """SHA-256 of a recipe with its overrides, to name caches by.

    It covers everything that acts: values and operators, not the purpose, comments or the order of keys.

    Args:
        name: Name of a recipe, or path of a recipe file.
        **overrides: As for :func:`load`.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: As for :func:`load`.
    """
    content = {key: value for key, value in _resolved(name, overrides).items() if key != "purpose"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def parse_options(text: str) -> dict[str, Any]:
    """Overrides of a recipe from text, YAML or a Python dictionary: ``"{spacing: 2.0}"``.

    Raises:
        ValueError: If the text is no dictionary.

    Example:
        >>> parse_options("{'spacing': [1, 1, 3]}")
        {'spacing': [1, 1, 3]}
    """
    try:
        options = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"options must be a dictionary such as '{{spacing: 2.0}}', got {text!r} ({error})") from None
    if not isinstance(options, dict):
        raise ValueError(f"options must be a dictionary such as '{{spacing: 2.0}}', got {text!r}")
    return options


def bright_region(image: Tensor) -> Tensor:
    """Mask of voxels whose mean over 3 voxels along each axis is above that of the image: a head in air, noisy or zero.

    The local mean keeps single voxels of noise out.

    Args:
        image: Channel-first image of shape ``(C, X, Y)`` or ``(C, X, Y, Z)``.

    Returns:
        Boolean mask of the same shape.

    Raises:
        ValueError: If a value is not finite, or all are the same.
    """
    import torch
    from torch.nn import functional

    if wrong := int((~torch.isfinite(image)).sum()):
        raise ValueError(f"values must be finite, {wrong} of {image.numel()} are not; set them to the value of air")
    if image.numel() and image.min() == image.max():
        raise ValueError(
            f"values must differ, all {image.numel()} are {float(image.min()):g}: no picture; leave the file out"
        )
    average = functional.avg_pool3d if image.ndim == 4 else functional.avg_pool2d
    smooth: Tensor = average(image.float(), 3, stride=1, padding=1, count_include_pad=False)
    return smooth > image.float().mean()


def _folder() -> Path:
    for folder in _SEARCH:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the recipes must lie in {_SEARCH[0]} (wheel) or {_SEARCH[1]} (checkout), neither exists; reinstall monai_cl"
    )


def _suggestion(name: str, valid: Iterable[str]) -> str:
    options = sorted(valid)
    return f"{suggestion(name, options)} (valid: {', '.join(options) or 'none'})"


def _read(name: str | Path) -> dict[str, Any]:
    file = Path(name) if isinstance(name, Path) or str(name).endswith(_SUFFIXES) else path(name)
    if not file.is_file():
        raise ValueError(f"a recipe given as a path must be a file, {file} is none; built in are: {', '.join(names())}")
    content = read_yaml(file, "a recipe")
    missing = [key for key in ("purpose", "preprocessing") if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"a recipe needs the keys purpose and preprocessing, {file} lacks {', '.join(missing)}")
    return dict(content)


def _resolved(name: str | Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """The content of a recipe with overrides in place, in plain JSON types."""
    content = _read(name)
    valid = [key for key in content if key not in _NOT_PARAMETERS]
    for key, value in overrides.items():
        if key not in valid:
            raise ValueError(f"recipe {str(name)!r} has no parameter {key!r}{_suggestion(key, valid)}")
        content[key] = read_flag(key, value) if isinstance(content[key], bool) else _plain(key, value)
    if "spacing" in content:
        _check_spacing(content["spacing"])
    for key, low, high in (("window", -math.inf, math.inf), ("percentiles", 0, 100)):
        if key in content:
            _check_range(key, content[key], low, high)
    return content


def _with_keyed_spacing(config: Any) -> Any:
    """The steps with ours in the place of MONAI's ``Spacingd``; here, so that digests and users' recipes stay."""
    if isinstance(config, list):
        return [_with_keyed_spacing(step) for step in config]
    if not isinstance(config, dict):
        return config
    content = {key: _with_keyed_spacing(value) for key, value in config.items()}
    target = content.get("_target_")
    if isinstance(target, str) and target.removeprefix("monai.transforms.") in _SPACING:
        content["_target_"] = "monai_cl.transforms.spacing.KeyedSpacingd"
    return content


def _plain(key: str, value: Any) -> Any:
    if _is_code(value):
        raise ValueError(
            f"parameter {key!r} must be a finite number, a text, a list of these or None, got {value!r}, "
            "which a config would run; give the value itself"
        )
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"parameter {key!r} must be a finite number, a text, a list of these or None, got {value!r}"
        ) from error


def _is_code(value: Any) -> bool:
    """Return whether MONAI's configs would run a value, or look it up: options may come from a stranger's record."""
    if isinstance(value, list | tuple):
        return any(map(_is_code, value))
    if isinstance(value, dict):
        return any(str(key).startswith("_") or _is_code(item) for key, item in value.items())
    return isinstance(value, str) and value.lstrip().startswith(("$", "@", "%"))


def _check_range(key: str, value: Any, low: float, high: float) -> None:
    """Refuse ranges with equal ends, which give no contrast, and with reversed ends, which invert it."""
    pair = value if isinstance(value, list) and len(value) == 2 else []
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in pair)
    if pair and numbers and low <= pair[0] < pair[1] <= high:
        return
    within = "" if low == -math.inf else f" within {low:g} and {high:g}"
    raise ValueError(f"{key} must be two rising numbers{within}, got {value!r}; what they give is 0 and 1")


def _check_spacing(spacing: Any) -> None:
    """MONAI pads a short spacing with 1 mm and reads one number for the first axis alone: refuse what is not meant."""
    values = spacing if isinstance(spacing, list) else [spacing] * 3
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and v >= 0 for v in values)
    if spacing is None or (numbers and len(values) == 3 and spacing != 0):
        return
    raise ValueError(
        "spacing must be a positive number of mm, three numbers (0 keeps that axis) or None to keep the grid, "
        f"got {spacing!r}"
    )
