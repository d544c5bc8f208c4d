"""Files of settings as pydantic models, whose mistakes are answered in one line: what is allowed, what came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from monai_cl._files import read_yaml
from monai_cl._words import suggestion

Where = tuple[int | str, ...]
M = TypeVar("M", bound="Keys")


class Keys(BaseModel):
    """Keys of a file or of a section of it; others are refused."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    @classmethod
    def known(cls) -> tuple[str, ...]:
        """Names of the keys, as a file has them."""
        return tuple(cls.model_fields)

    @classmethod
    def sections(cls) -> dict[str, type[Keys]]:
        """The models that stand below keys, by key."""
        result = {name: _models(field.annotation) for name, field in cls.model_fields.items()}
        return {name: model for name, models in result.items() for model in models}


def must(allowed: str) -> WrapValidator:
    """Answer a value of another type with what is allowed, such as ``"be true or false"``."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"must {allowed}, got {value!r}") from None

    return WrapValidator(check)


def read_keys(model: type[M], source: Path, what: str, named: Callable[[Where], str], *, hint: str = "") -> M:
    """Read a YAML file as a model.

    Args:
        model: The model.
        source: The file.
        what: Its kind, for messages.
        named: Words for a place in the file.
        hint: Advice if the file does not exist.

    Raises:
        FileNotFoundError: If none exists.
        ValueError: If it is no YAML, or holds an unknown key or a wrong value; names the closest key and all.
    """
    content = load(source, what, hint=hint)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError("; ".join(dict.fromkeys(_messages(error, model, source, named)))) from None


def load(source: Path, what: str, *, hint: str = "") -> dict[str, Any]:
    """The keys and values of a YAML file."""
    if not source.exists():
        raise FileNotFoundError(f"no such file: {source}{hint}")
    content = read_yaml(source, what)
    if not isinstance(content, dict):
        raise ValueError(f"{source} must hold keys and values, got a {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _messages(error: ValidationError, model: type[Keys], source: Path, named: Callable[[Where], str]) -> Iterator[str]:
    every = error.errors()
    missing = [str(each["loc"][-1]) for each in every if each["type"] == "missing"]
    if missing:
        needed = [name for name, field in model.model_fields.items() if field.is_required()]
        yield f"{source} must have the keys {', '.join(needed)}; missing: {', '.join(missing)}"
    for each in every:
        place = tuple(part for part in each["loc"] if not str(part).startswith("~"))  # a tag of a union
        if each["type"] == "extra_forbidden":
            *above, key = place
            valid = _at(model, above).known()
            close = f"{suggestion(key, valid)} (valid: {', '.join(valid)})"
            yield f"unknown key {key!r} in {named(tuple(above)) or source}{close}"
        elif each["type"] == "value_error":
            message = str(each["ctx"]["error"])
            yield f"{named(place)} {message}" if message.startswith("must ") else message
        elif each["type"] != "missing":
            yield f"{named(place) or source}: {each['msg']}, got {each['input']!r}"


def _at(model: type[Keys], place: Sequence[int | str]) -> type[Keys]:
    """The model that stands at a place of a file."""
    for part in place:
        model = model.sections().get(str(part), model)
    return model


def _models(annotation: Any) -> list[type[Keys]]:
    """The models that a type names at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, Keys):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


__all__ = ["Keys", "Where", "load", "must", "read_keys"]
