"""What the commands of training read a recipe from: a file or a shipped one, folders, and changes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from fewshot_ad.errors import TrainingError

RECIPES = Path(__file__).parents[1] / "training" / "recipes"


def without(recipe: Any, names: list[str] | None) -> Any:
    """A recipe with the categories of `--leave-out` beside those that it leaves out itself."""
    return dataclasses.replace(recipe, leave_out=tuple(dict.fromkeys([*recipe.leave_out, *(names or [])])))


def recipe_of_run(kind: Any, name: str | None, folders: list[str] | None, changes: list[str] | None) -> Any:
    """The recipe of a run: from a file if one is named, then the folders, then the changes of `--set`.

    Args:
        kind: Class of the recipe, a dataclass.
        name: File, or name of a shipped recipe; None for the defaults of the class.
        folders: Training data in place of the recipe's.
        changes: `field=value`, the value in YAML.

    Raises:
        TrainingError: There is no such recipe, or a change does not fit it.
    """
    from fewshot_ad.documents.naming import unknown
    from fewshot_ad.documents.yaml_text import parse_yaml
    from fewshot_ad.training.run import FORMER_FIELDS, read_recipe, recipe_from

    fields = dataclasses.asdict(read_recipe(_recipe_file(name), kind)) if name is not None else {}
    if folders:
        fields["folders"] = folders
        fields.pop("licenses", None)
    names = [field.name for field in dataclasses.fields(kind)]
    for change in changes or []:
        field, equals, value = change.partition("=")
        field = FORMER_FIELDS.get(field, field)
        if not equals:
            raise TrainingError(f"--set: expected name=value, as in epochs=5, got {change!r}.")
        if field not in names:
            raise TrainingError(f"--set {change}: {unknown(field, names, 'a field of the recipe')}.")
        fields[field] = parse_yaml(value, f"--set {change}", TrainingError).content
    return recipe_from(fields, kind)


def _recipe_file(name: str) -> Path:
    from fewshot_ad.documents.naming import unknown

    recipes = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    path = recipes.get(name, Path(name))
    if not os.path.isfile(path):
        raise TrainingError(f"--recipe: {unknown(name, recipes, 'a recipe file, or a recipe')}.")
    return path


def files(*names: str | None) -> list[str]:
    """Those of the names that are files; others stand for what ships."""
    return [name for name in names if name is not None and os.path.isfile(name)]


def check_recipe_stays(recipe: str | None, output: Path, restart: bool) -> None:
    """Make sure that a run that starts anew does not overwrite the recipe file that it was given.

    Raises:
        TrainingError: It would.
    """
    if restart and recipe is not None and os.path.isfile(recipe):
        from fewshot_ad.storage import check_output
        from fewshot_ad.training.run import RECIPE

        check_output(output / RECIPE, inputs=[recipe], error=TrainingError)
