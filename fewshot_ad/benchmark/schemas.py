"""JSON Schemas of the files around a benchmark, for editors and for programs that read or write them."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from pydantic import TypeAdapter

from fewshot_ad.benchmark.plan_schema import PlanEntry
from fewshot_ad.benchmark.record import RECORD_SCHEMA, Record

Kind: TypeAlias = Literal["plan", "record", "support-lists", "recipe", "distillation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of one kind of file.

    Args:
        kind: `plan` and the two kinds of recipes are YAML files; `record` is one line of a record file;
            `support-lists` is such a text file as rows of cells, which tabs separate.

    Raises:
        ModuleNotFoundError: Of a recipe, whose schema needs the extra `export`.
    """
    return {"$schema": _DIALECT, "title": f"fewshot-ad {kind}", **_BODIES[kind]()}


def _plan() -> dict[str, Any]:
    return _untitled(PlanEntry.model_json_schema())


def _record() -> dict[str, Any]:
    body = _untitled(TypeAdapter(Record).json_schema())
    # Readers ignore what they do not know, so that a field can be added within a schema.
    body["properties"]["schema"] = {"const": RECORD_SCHEMA}
    return {**body, "description": "One line of a record file, see `fewshot_ad.benchmark.record.Record`."}


def _support_lists() -> dict[str, Any]:
    return {
        "description": "The lines of the file, split at tabs; without empty ones and those that begin with `#`.",
        "type": "array",
        "items": {
            "description": "A category, the number of a draw, and different file names.",
            "type": "array",
            "prefixItems": [{"type": "string", "minLength": 1}, {"type": "string", "pattern": "^[0-9]{1,9}$"}],
            "items": {"type": "string", "minLength": 1},
        },
    }


def _recipe() -> dict[str, Any]:
    from fewshot_ad.training.recipe import TrainingRecipe

    return _recipe_of(TrainingRecipe, "A recipe of `fewshot-ad train`.")


def _distillation() -> dict[str, Any]:
    from fewshot_ad.training.distillation_recipe import DistillationRecipe

    return _recipe_of(DistillationRecipe, "A recipe of `fewshot-ad distill`.")


def _recipe_of(kind: type, description: str) -> dict[str, Any]:
    body = _untitled(TypeAdapter(kind).json_schema())
    return {**body, "additionalProperties": False, "description": description}


_BODIES = {
    "plan": _plan,
    "record": _record,
    "support-lists": _support_lists,
    "recipe": _recipe,
    "distillation": _distillation,
}


def _untitled(value: Any) -> Any:
    """Without the titles that pydantic makes of the fields' names."""
    if isinstance(value, dict):
        names = value.get("properties")
        kept = {k: _untitled(v) for k, v in value.items() if k not in ("title", "properties")}
        return kept if names is None else {**kept, "properties": {k: _untitled(v) for k, v in names.items()}}
    return [_untitled(item) for item in value] if isinstance(value, list) else value
