"""What `fewshot_ad` promises to its users: names that exist, are listed, and can be looked into."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fewshot_ad


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    modules = [fewshot_ad, fewshot_ad.metrics, fewshot_ad.datasets, pytest.importorskip("fewshot_ad.zoo")]
    for module in modules:
        for name in module.__all__:
            thing = getattr(module, name)
            if not callable(thing) or typing.get_origin(thing) is not None:  # a name for a type
                continue
            yield f"{module.__name__}.{name}", thing
            for attribute, value in vars(thing).items() if isinstance(thing, type) else ():
                function = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
                if not attribute.startswith("_") and inspect.isfunction(function):
                    yield f"{module.__name__}.{name}.{attribute}", function


def test_the_types_of_every_public_callable_can_be_had_at_run_time() -> None:
    names = []
    for name, thing in public_callables():
        try:
            typing.get_type_hints(thing)
        except Exception as error:
            pytest.fail(f"{name}: {type(error).__name__}: {error}")
        names.append(name)
    assert "fewshot_ad.Inspector.from_support" in names
    assert "fewshot_ad.Inspector.threshold" in names
    assert len(names) > 60


def test_dir_shows_the_public_names() -> None:
    assert dir(fewshot_ad) == sorted(fewshot_ad.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = fewshot_ad.Nonsense


def test_former_names_go_on_working_and_say_their_new_ones(inspector: fewshot_ad.Inspector) -> None:
    with pytest.warns(DeprecationWarning, match=r"Inspector\.enrollment"):
        assert inspector.enrolment == inspector.enrollment
    result = inspector.inspect(np.zeros((128, 128, 3), np.uint8))
    with pytest.warns(DeprecationWarning, match=r"Inspection\.image"):
        assert result.photograph is result.image
    with pytest.warns(DeprecationWarning, match="ArtifactError"):
        assert fewshot_ad.errors.ArtefactError is fewshot_ad.ArtifactError
    with pytest.raises(AttributeError):
        _ = fewshot_ad.errors.Nonsense
