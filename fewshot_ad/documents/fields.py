"""Checks content field by field with pydantic, and says in words what each field should be."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fewshot_ad.documents.naming import shown, unknown
from fewshot_ad.documents.reading import Document, Place
from fewshot_ad.errors import FewshotADError

# More mistakes than these are only counted.
_MAX_PROBLEMS = 10
_KINDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
    dict: "names and values",
    list: "a list",
}


class Entry(BaseModel):
    """Base of what a file may say at one place: no other names, and no value that only resembles the right kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        place: Names and indices that lead to the value.
        message: What was expected there, and what is there.
    """

    place: Place
    message: str


Model = TypeVar("Model", bound=BaseModel)
Checked = TypeVar("Checked")


def check(model: type[Model], document: Document, error: type[FewshotADError]) -> Model:
    """The content of a document as a model.

    Raises:
        FewshotADError: Of the class `error`, with all mistakes: their fields, lines, what was expected and got.
    """
    try:
        return model.model_validate(document.content)
    except ValidationError as reason:
        raise_problems(_problems(model, reason), document, error)


def check_dataclass(kind: type[Checked], document: Document, error: type[FewshotADError]) -> Checked:
    """The content of a document, names and values, as a dataclass; lists become tuples.

    Raises:
        FewshotADError: Of the class `error`, as for `check`, or what the dataclass itself raises.
    """
    content, names = document.content, [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if not isinstance(content, dict):
        raise_problems([Problem((), f"expected names and values, got {shown(content)}")], document, error)
    problems = [Problem((name,), unknown(name, names)) for name in content if name not in names]
    if not problems:
        try:
            # Of JSON, since a list then is as good as a tuple, while nothing else is taken for what it is not.
            return _adapter(typing.cast("Any", kind)).validate_json(json.dumps(content), strict=True)
        except ValidationError as reason:
            problems = _problems(kind, reason)
    raise_problems(problems, document, error)


def raise_problems(problems: Sequence[Problem], document: Document, error: type[FewshotADError]) -> typing.NoReturn:
    """Raise one error that lists mistakes in the order of their lines."""
    ordered = sorted(problems, key=lambda problem: document.line_and_column(problem.place) or (0, 0))
    texts = [f"{_path(p.place)}{p.message} ({document.where(p.place)})." for p in ordered[:_MAX_PROBLEMS]]
    if len(problems) == 1:
        raise error(texts[0])
    listed = " ".join(f"[{number}] {text}" for number, text in enumerate(texts, 1))
    more = f" And {len(problems) - len(texts)} more." if len(problems) > len(texts) else ""
    raise error(f"{document.name}: {len(problems)} mistakes. {listed}{more}")


def words(annotation: Any, limits: Iterable[Any] = ()) -> str:
    """What an annotation allows, in words: `a whole number from 32`, `a list of text, or null`.

    Args:
        annotation: A type of Python.
        limits: Of its value, as pydantic keeps them.
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        return words(inner, metadata)
    if origin is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else f"`{choices[0]}`"
    if origin in (typing.Union, types.UnionType):
        parts = [words(part, limits) for part in get_args(annotation)]
        return ", or ".join(dict.fromkeys(parts))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _KINDS[dict]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _list_words(origin, get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _KINDS[dict]
    return _KINDS.get(annotation, getattr(annotation, "__name__", str(annotation))) + _limit_words(limits)


def _list_words(origin: type, items: tuple[Any, ...]) -> str:
    if origin is tuple and Ellipsis not in items:
        return f"a list of {len(items)}, each {words(items[0])}"
    return f"a list, each {words(items[0])}"


def _limit_words(limits: Iterable[Any]) -> str:
    flat = [one for limit in limits for one in (limit.metadata if isinstance(limit, FieldInfo) else (limit,))]
    texts = {Ge: "from {ge}", Gt: "above {gt}", Le: "to {le}", Lt: "below {lt}"}
    order = list(texts)
    known = sorted((one for one in flat if type(one) in texts), key=lambda one: order.index(type(one)))
    parts = [texts[type(one)].format(**dataclasses.asdict(one)) for one in known]
    return f" {' '.join(parts)}" if parts else ""


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _problems(model: type, reason: ValidationError) -> list[Problem]:
    """The mistakes that pydantic found, one for each field."""
    problems: dict[Place, Problem] = {}
    for one in reason.errors(include_url=False):
        place, annotation, limits = _field(model, one["loc"])
        if one["type"] == "extra_forbidden":
            # Its own name is the last part, and the names beside it are the model's.
            message = unknown(str(one["loc"][-1]), _names(annotation))
            place = tuple(one["loc"])
        elif one["type"] in ("value_error", "assertion_error"):
            message = str(one["ctx"]["error"])
        elif one["type"] == "missing":
            message = f"expected {words(annotation, limits)}, got nothing"
        elif one["type"] == "too_short":
            message = f"expected at least {one['ctx']['min_length']} entry, got {one['ctx']['actual_length']}"
        else:
            message = f"expected {words(annotation, limits)}, got {shown(one['input'])}"
        problems.setdefault(place, Problem(place, message))
    return list(problems.values())


def _field(model: Any, loc: Sequence[str | int]) -> tuple[Place, Any, tuple[Any, ...]]:
    """The innermost field of a model that a place lies in, its annotation and its limits.

    pydantic adds the alternatives of a union to a place; the field's own place ends before them.
    """
    place: list[str | int] = []
    annotation, limits = model, ()
    for part in loc:
        step = next((found for found in _below(annotation, part)), None)
        if step is None:
            break
        annotation, limits = step
        place.append(part)
    return tuple(place), annotation, limits


def _below(annotation: Any, part: str | int) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """What may stand at a name or index of an annotation."""
    origin, items = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _below(items[0], part)
    elif origin in (typing.Union, types.UnionType):
        for item in items:
            yield from _below(item, part)
    elif isinstance(origin, type) and isinstance(part, str) and issubclass(origin, Mapping):
        yield items[1], ()
    elif isinstance(origin, type) and isinstance(part, int) and issubclass(origin, Sequence):
        yield items[0], ()
    elif isinstance(annotation, type):
        yield from _of_model(annotation, part)


def _of_model(model: type, part: str | int) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    if issubclass(model, BaseModel):
        fields: Mapping[str, FieldInfo] = {f.alias or name: f for name, f in model.model_fields.items()}
        if isinstance(part, str) and part in fields:
            yield fields[part].annotation, tuple(fields[part].metadata)
    elif dataclasses.is_dataclass(model) and isinstance(part, str):
        hints = typing.get_type_hints(model, include_extras=True)
        if part in hints:
            yield hints[part], ()


def _names(annotation: Any) -> list[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [field.alias or name for name, field in annotation.model_fields.items()]
    return []


def _path(place: Place) -> str:
    """A place as people write it: `methods.ours.options.image_size: `."""
    text = ""
    for part in place:
        if isinstance(part, str) and part.replace("-", "_").isidentifier():
            text += f".{part}"
        else:
            text += f"[{shown(part)}]"
    return f"{text.removeprefix('.')}: " if text else ""
