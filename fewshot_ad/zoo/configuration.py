"""The configuration that a method was published with, and in what a run departs from it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from fewshot_ad.documents.fields import words
from fewshot_ad.documents.naming import shown
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.method import WEIGHTS, Card, cards, option_types, options, running_options

RANDOM = "random"
# In the departure of a run whose pretrained networks hold random weights.
MEANINGLESS = "the figures mean nothing"
# `Original.at_hand` of a baseline whose weights neither ship nor come with a requirement.
NOT_AT_HAND = "not at hand"
# Options that say where and how fast a method runs, or which product it is shown; the result is the same.
IGNORED = ("device", "threads", "engine", "class_name")
# Options that name a file of weights which no package ships: which file it was, is the user's to know.
FILES = ("teacher", "detector", "picture_folder")
# Backbones that run with ImageNet's weights without a file, which come with a requirement of the package.
IMAGENET = ("lite0", "tf_efficientnet_lite0")


def published_options(name: str) -> dict[str, Any]:
    """The hyper-parameters of a baseline as published; its weights stay the default, as no file of them ships.

    Raises:
        ZooError: No baseline has that name.
    """
    defaults = _defaults(name)
    return {**defaults, **cards()[name].original.options}


def differences(name: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """In what a run departs from the published method, in words; empty where it runs as published.

    Weights from a file count as the published ones: which file it was, is the user's to know.

    Args:
        name: Name of a baseline.
        settings: Hyper-parameters that differ from its defaults, as `create` takes them.

    Raises:
        ZooError: No baseline has that name.
    """
    published = {**running_options(name), **published_options(name)}
    card, resolved = cards()[name], {**running_options(name), **_defaults(name), **settings}
    lengths = card.original.lengths
    ignored = {*IGNORED, *FILES, *WEIGHTS, *lengths, *(() if card.trains else ("batch_size", "batch"))}
    in_file = {option for option, file in card.original.in_file.items() if resolved[file] is not None}
    if any(resolved.get(one) not in (None, RANDOM) for one in WEIGHTS):
        ignored |= card.original.in_file.keys()
    found = [
        f"{option} {'of its file' if option in in_file else _text(resolved[option])} (published: {_text(value)})"
        for option, value in published.items()
        if option not in ignored
        and (
            option in in_file
            or _plain(resolved[option]) not in (_plain(value), *map(_plain, card.original.further.get(option, ())))
        )
    ]
    found += [f"{option} {_text(resolved[option])} (published: {text})" for option, text in lengths.items()]
    lacking = [sentence for option, sentence in card.original.unless.items() if resolved[option] is None]
    return (*_of_weights(card, resolved), *found, *lacking, *card.original.departs)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value of YAML or JSON is of the type of an option, as far as its annotation says.

    Args:
        value: The value.
        kind: A type of `option_types`.
    """
    try:
        adapter = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
    except PydanticSchemaGenerationError:
        # A type of a library: the baseline itself says what it cannot take.
        return True
    try:
        # Of JSON, since a list then is as good as a tuple, while nothing else is taken for what it is not.
        adapter.validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError):
        return False
    return True


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Make sure that the types of hyper-parameters are those of a baseline.

    Raises:
        ZooError: One is of another type; those that the baseline does not have are for `create` to refuse.
    """
    kinds = option_types(name)
    for option, value in settings.items():
        if option in kinds and not fits(value, kinds[option]):
            raise ZooError(f"{name}: {option}: expected {words(kinds[option])}, got {shown(value)}.")


def lacks_weights(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a baseline has no weights to run on: they are not at hand, and none are given."""
    option = next((option for option in WEIGHTS if option in options(name)), None)
    return cards()[name].original.at_hand == NOT_AT_HAND and option is not None and settings.get(option) is None


def _of_weights(card: Card, resolved: Mapping[str, Any]) -> list[str]:
    option = next((option for option in WEIGHTS if option in resolved), None)
    original = card.original
    if option is None or not original.pretrained:
        return []
    given = resolved[option]
    # A detector learns from the boxes, from wherever it starts; that it starts from random weights is its default.
    if card.family == "detector":
        given = None if given == RANDOM else given
    elif any(resolved.get(one) == RANDOM for one in (*WEIGHTS, "detector")) or resolved.get("proposals") == "rpn":
        return [f"weights random, so {MEANINGLESS} (published: {original.pretrained})"]
    if "detector" in resolved:
        # What was published is the detector; ImageNet's weights of the features are none of it.
        given = resolved["detector"]
    if given is not None or (original.pretrained == "ImageNet" and resolved.get("backbone") in IMAGENET):
        return []
    return [f"weights {original.at_hand} (published: {original.pretrained})"]


def _defaults(name: str) -> dict[str, Any]:
    return {option: value for option, value in options(name).items() if value is not inspect.Parameter.empty}


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "/".join(_text(one) for one in value)
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
